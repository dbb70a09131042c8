"""The rules of imports: the package keeps them, and the script finds what breaks them."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAYERS: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "import_layers.py"))
PACKAGE = ROOT / "src" / "editr1"
circles, files, floors, forbidden, rooms = (LAYERS[n] for n in ("circles", "files", "floors", "forbidden", "rooms"))
ALLOWED: dict[str, set[str]] = LAYERS["ALLOWED"]


def build_package(folder: Path, **sources: str) -> Path:
    """A package whose files, named `room__file`, hold `sources`."""
    package = folder / "editr1"
    for name, source in sources.items():
        file = package / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return package


def test_no_room_and_no_file_imports_itself_by_a_detour() -> None:
    assert circles(rooms()) == []
    assert circles(files()) == []


def test_every_arrow_is_allowed_and_there_are_at_most_10_floors() -> None:
    assert forbidden(rooms()) == []
    assert max(floors(rooms()).values()) < 10


def test_every_room_has_a_rule() -> None:
    assert rooms().keys() <= ALLOWED.keys()


def test_the_rules_themselves_lead_down_and_keep_editors_and_judges_apart() -> None:
    assert circles(ALLOWED) == []
    assert "judges" not in ALLOWED["editors"] and "editors" not in ALLOWED["judges"]
    assert ALLOWED["algorithms"] == set()
    assert [room for room, below in ALLOWED.items() if "cli" in below] == ["__main__"]


def test_few_files_lie_directly_in_the_package() -> None:
    assert len([*PACKAGE.glob("*.py")]) <= 8


def test_imports_are_absolute() -> None:
    for file in PACKAGE.rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        assert all(node.level == 0 for node in nodes), file


def test_imports_for_type_checkers_alone_serve_the_start_of_the_command_and_nothing_else() -> None:
    files_with_block = {file for file in PACKAGE.rglob("*.py") if "TYPE_CHECKING" in file.read_text()}
    quick = {PACKAGE / "__init__.py", PACKAGE / "errors.py", PACKAGE / "evaluation/benchmarks/registry.py"}
    assert files_with_block - quick <= set((PACKAGE / "cli").iterdir())


def test_an_arrow_upward_is_found(tmp_path: Path) -> None:
    package = build_package(tmp_path, data__samples="from editr1.training.log import read\n", training__log="")
    assert forbidden(rooms(package)) == ["data -> training"]


def test_an_import_hidden_in_a_function_is_found(tmp_path: Path) -> None:
    source = "def open():\n    from editr1.judges import base\n    return base\n"
    package = build_package(tmp_path, editors__open=source, judges__base="")
    assert forbidden(rooms(package)) == ["editors -> judges"]


def test_an_import_for_type_checkers_counts_as_an_arrow(tmp_path: Path) -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from editr1.cli.main import app\n"
    package = build_package(tmp_path, report__page=source, cli__main="")
    assert forbidden(rooms(package)) == ["report -> cli"]


def test_a_circle_of_rooms_is_found_and_has_no_floors(tmp_path: Path) -> None:
    package = build_package(
        tmp_path, data__samples="import editr1.toy.world\n", toy__world="import editr1.data.samples\n"
    )
    assert circles(rooms(package)) == [["data", "toy"]]
    with pytest.raises(ValueError, match="data -> toy"):
        floors(rooms(package))


def test_a_circle_of_files_within_a_room_is_found(tmp_path: Path) -> None:
    package = build_package(
        tmp_path,
        editors__family="from editr1.editors import probe\n",
        editors__probe="from editr1.editors.open import open_editor\n",
        editors__open="from editr1.editors.family import Family\n",
    )
    assert circles(rooms(package)) == []
    assert circles(files(package)) == [["editors.family", "editors.open", "editors.probe"]]


def test_a_room_without_a_rule_may_import_nothing(tmp_path: Path) -> None:
    package = build_package(tmp_path, attic__box="from editr1.data import samples\n", data__samples="")
    assert forbidden(rooms(package)) == ["attic -> data"]


def test_floors_count_the_longest_chain_below(tmp_path: Path) -> None:
    package = build_package(
        tmp_path,
        errors="",
        data__seeds="import editr1.errors\n",
        toy__world="from editr1 import errors\nfrom editr1.data import seeds\n",
    )
    assert floors(rooms(package)) == {"errors": 0, "data": 1, "toy": 2}
