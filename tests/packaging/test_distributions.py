"""What the wheel and the source distribution hold, and what they say of themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

import editr1
from tests.packaging.conftest import ROOT

PACKAGE = ROOT / "src" / "editr1"
EXTRAS = {"datasets", "dev", "docs", "toy", "figures", "serve", "tensorboard", "wandb", "trackio", "ocr", "int8", "nf4"}
SERVERS = {"fastapi", "starlette", "uvicorn", "h11"}
PLACES = re.compile(rb"/(?:work|tmp|root|home|opt|mnt|Users)/[\w.]+")
"""Folders of the machines of people; web pages and examples in words have none of them."""


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    """The files of the wheel."""
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel[name].decode())


def own_files() -> set[str]:
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(PACKAGE.parent).as_posix() for path in files}


@pytest.mark.long
def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: dict[str, bytes]) -> None:
    assert {name for name in wheel if ".dist-info/" not in name} == own_files()
    for name in ("py.typed", "toy/art/LICENSE", "presets/toy.yaml", "report/templates/run.html.j2"):
        assert wheel[f"editr1/{name}"] == (PACKAGE / name).read_bytes()
    for model in ("qwen-image-edit/transformer/diffusion_pytorch_model", "judge/model"):
        assert len(wheel[f"editr1/toy/weights/{model}.safetensors"]) > 1_000_000


def test_no_file_of_the_wheel_names_a_folder_of_the_machine_that_made_it(wheel: dict[str, bytes]) -> None:
    text = {name: content for name, content in wheel.items() if not name.endswith((".safetensors", "tokenizer.json"))}
    assert {name: found for name, content in text.items() if (found := PLACES.findall(content))} == {}


def test_licences_are_beside_the_metadata(wheel: dict[str, bytes], metadata: Message) -> None:
    licences = {name.partition("/licenses/")[2]: content for name, content in wheel.items() if "/licenses/" in name}
    assert licences == {name: (ROOT / name).read_bytes() for name in ("LICENSE", "src/editr1/toy/art/LICENSE")}
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_version_comes_from_one_place(metadata: Message) -> None:
    said = subprocess.run([sys.executable, "-m", "editr1", "--version"], capture_output=True, text=True, check=True)
    assert metadata["Version"] == editr1.__version__ == version("editr1")
    assert said.stdout == f"editr1 {editr1.__version__}\n"
    assert editr1.__version__ not in (ROOT / "pyproject.toml").read_text().partition("dependencies")[0]


def test_the_source_distribution_holds_what_make_and_the_tests_need(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ("Makefile", "pyproject.toml", "constraints.txt", "Dockerfile", ".ci/run", "README.md", "LICENSE")
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert {*needed, *tests, *(f"src/{name}" for name in own_files())} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "dist/", ".git/"))]


def test_twine_finds_nothing_wrong(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("PASSED") == 2


def requirements(metadata: Message, extra: str | None) -> set[str]:
    """The names of the packages that an extra adds; those that are always there for None."""
    found = set()
    for line in metadata.get_all("Requires-Dist", []):
        name = re.match(r"[\w-]+", line)
        of = re.search(r"extra == '([\w-]+)'", line.replace('"', "'"))
        if name and (of and of[1]) == extra:
            found.add(name[0].lower().replace("_", "-"))
    return found


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """The packages that a file imports, and whether it does so when it is imported itself."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    first = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from ((name.split(".")[0], id(node) in first) for name in names)


def test_what_only_servers_and_charts_need_is_an_extra(metadata: Message) -> None:
    assert {*metadata.get_all("Provides-Extra", [])} == EXTRAS
    assert requirements(metadata, "serve") == {"fastapi", "uvicorn"}
    assert requirements(metadata, "figures") == {"matplotlib"}
    assert requirements(metadata, "tensorboard") == {"tensorboard"}
    assert not requirements(metadata, None) & {"fastapi", "uvicorn", "matplotlib", "tensorboard", "resvg-py"}


def test_all_that_is_imported_at_once_is_required_and_servers_alone_need_theirs(metadata: Message) -> None:
    distributions, needed = packages_distributions(), requirements(metadata, None)
    # these come with others: huggingface_hub with diffusers, markupsafe with jinja2, httpx2 with huggingface_hub
    needed |= {"huggingface-hub", "markupsafe", "pydantic-core", "httpx2"}
    servers = ["listening.py", "judges/models/server.py", "judges/models/questions.py"]
    servers += ["evaluation/arena/server.py", "report/watch/server.py"]
    for file in sorted(PACKAGE.rglob("*.py")):
        names = {name for name, at_once in imports(file) if at_once} - sys.stdlib_module_names - {"editr1"}
        names -= SERVERS if file.relative_to(PACKAGE).as_posix() in servers else set()
        lacking = [
            name for name in names if not {each.lower().replace("_", "-") for each in distributions[name]} & needed
        ]
        assert lacking == [], file
