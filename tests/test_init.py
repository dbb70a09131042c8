"""`import editr1`: the names of the Python API, at no cost until they are used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import editr1

SOURCE = Path(editr1.__file__)
HEAVY = ("torch", "numpy", "PIL", "pydantic", "diffusers")


def test_importing_the_package_and_listing_its_names_imports_nothing_heavy() -> None:
    code = f"import editr1, sys, json; dir(editr1); print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_type_checkers_and_python_find_every_name_in_the_same_place() -> None:
    imports = [node for node in ast.walk(ast.parse(SOURCE.read_text())) if isinstance(node, ast.ImportFrom)]
    checked = {alias.name: node.module for node in imports for alias in node.names if node.module != "typing"}
    checked.pop("import_module")
    places = {name: f"editr1.{module}" for module, names in vars(editr1)["_PLACES"].items() for name in names}
    assert checked == places and sorted(places) == sorted(editr1.__all__)
    assert {*editr1.__all__} <= {*dir(editr1)}


@pytest.mark.parametrize("name", editr1.__all__)
def test_every_name_is_there_and_is_the_one_of_its_module(name: str) -> None:
    value = getattr(editr1, name)
    module = sys.modules[next(f"editr1.{m}" for m, names in vars(editr1)["_PLACES"].items() if name in names)]
    assert value is getattr(module, name) and value is getattr(editr1, name)


def test_a_name_that_is_not_there_is_an_attribute_error_and_an_import_error() -> None:
    with pytest.raises(AttributeError, match="module 'editr1' has no attribute 'open_editors'"):
        _ = editr1.open_editors  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="open_editors"):
        from editr1 import open_editors  # type: ignore[attr-defined]  # noqa: F401


def test_the_mark_of_a_typed_package_is_in_it() -> None:
    assert (SOURCE.parent / "py.typed").is_file()
