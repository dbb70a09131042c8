"""The image, the workflow and the Makefile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    lint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([lint, "--failure-threshold", "info", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments."""
    lines = re.sub(r"\\\n", " ", "\n".join(x for x in DOCKERFILE.splitlines() if not x.startswith("#"))).splitlines()
    return [(name, rest.strip()) for line in lines if line for name, _, rest in [line.partition(" ")]]


def test_the_image_has_two_stages_and_the_last_one_is_no_root_and_builds_nothing() -> None:
    parts = instructions()
    stages = [at for at, (name, _) in enumerate(parts) if name == "FROM"]
    assert len(stages) == 2 and parts[0] == ("ARG", "BASE=nvidia/cuda:13.0.1-base-ubuntu24.04")
    last = parts[stages[1] :]
    assert ("USER", "10001") in last and last.index(("USER", "10001")) > last.index(("COPY", last_copy(last)))
    assert [arguments for name, arguments in last if name == "COPY"] == ["--from=build /opt/editr1 /opt/editr1"]
    assert not any("pip install" in arguments for _, arguments in last)
    assert not re.search(r"(?i)token|secret|password|_key\b", DOCKERFILE)


def last_copy(parts: list[tuple[str, str]]) -> str:
    return [arguments for name, arguments in parts if name == "COPY"][-1]


def test_what_the_image_copies_is_let_in_and_nothing_else_is() -> None:
    ignored = [x for x in (ROOT / ".dockerignore").read_text().splitlines() if x and not x.startswith("#")]
    copied = {
        path
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from")
        for path in arguments.split()[:-1]
    }
    assert ignored[0] == "*" and {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / path).exists() for path in copied)


def test_the_extras_of_the_image_exist() -> None:
    extras = re.search(r"\.\[([\w,]+)\]", DOCKERFILE)
    project = (ROOT / "pyproject.toml").read_text()
    assert extras and all(re.search(rf"^{name} = \[", project, re.MULTILINE) for name in extras[1].split(","))


def test_the_workflow_runs_what_ci_runs_on_the_pythons_that_are_promised() -> None:
    flow: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert flow.keys() == {"name", True, "permissions", "concurrency", "jobs"}  # YAML reads the key `on` as true
    assert flow["permissions"] == {"contents": "read"} and {*flow[True]} == {"push", "pull_request"}
    keys = {"runs-on", "timeout-minutes", "strategy", "steps"}
    for job in flow["jobs"].values():
        assert job.keys() == keys and job["timeout-minutes"] <= 120
        assert job["steps"][-1] == {"run": "bash .ci/run"}
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"][:-1])
        assert all(step.keys() <= {"uses", "with", "run", "name"} for step in job["steps"])
        assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert 'requires-python = ">=3.10,<3.14"' in (ROOT / "pyproject.toml").read_text()
    assert (ROOT / ".ci" / "run").is_file()


def plan(folder: Path, path: str, *variables: str) -> list[str]:
    """What `make demo` would do."""
    make = shutil.which("make")
    assert make is not None
    own = re.compile("PYTHON|UV|MAKE.*|MFLAGS")  # `make test` runs these tests
    clean = {name: value for name, value in os.environ.items() if not own.fullmatch(name)}
    command = [make, "-n", "-f", str(ROOT / "Makefile"), *variables, "demo"]
    done = subprocess.run(command, cwd=folder, env={**clean, "PATH": path}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    return tmp_path


BASE = "/usr/local/bin:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("path", "variables", "maker", "installer"),
    [
        ("{bin}:" + BASE, (), "{bin}/uv venv .venv", "{bin}/uv pip install --python .venv/bin/python"),
        ("{bin}:" + BASE, ("PYTHON=python3.12",), "python3.12 -m venv .venv", ".venv/bin/python -m pip install"),
        ("{bin}:" + BASE, ("UV=",), "python3 -m venv .venv", ".venv/bin/python -m pip install"),
        (BASE, (), "python3 -m venv .venv", ".venv/bin/python -m pip install"),
    ],
    ids=["uv", "a Python of one's own", "uv left out", "no uv"],
)
def test_make_uses_uv_where_it_is_and_no_python_is_named(
    folder: Path, path: str, variables: tuple[str, ...], maker: str, installer: str
) -> None:
    if shutil.which("uv", path=BASE) and path == BASE:
        pytest.skip("uv is installed for all")
    place = str(folder / "bin")
    lines = plan(folder, path.format(bin=place), *variables)
    assert maker.format(bin=place) in lines[0]
    assert lines[2].startswith(installer.format(bin=place)) and lines[2].endswith("-c constraints.txt -e '.[dev]'")
    assert lines[-1].startswith(".venv/bin/editr1 demo ")


def test_make_dist_builds_and_checks_and_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    assert "-m build" in text and "-m twine check --strict dist/*" in text
    said = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert targets and all(f"  make {name} " in said for name in targets[1].split() if name != "help")
