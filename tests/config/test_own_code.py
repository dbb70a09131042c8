"""Own code that a config names: found, kept by name, and one line where it is not what it should be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from editr1.algorithms.base import find_algorithms
from editr1.algorithms.nft import NFT
from editr1.config.loading import dump_config, load_config
from editr1.config.own_code import load_own
from editr1.errors import UserError

MODULE = """
from typing import ClassVar
from pydantic import Field
from editr1 import Algorithm
from editr1.algorithms.nft import NFT

class Plain(Algorithm):
    title: ClassVar = "Plain"
    parts: ClassVar = {}
    pace: float = Field(default=1.0, gt=0)
    def asks(self, step): return ()
    def loss(self, rows, velocities): return velocities["default"].mean(), {}

class Variant(NFT):
    name: str
    form: str = "velocity"

class Nameless(NFT): pass

class Bare(Algorithm):
    title: ClassVar = "Bare"

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has a module `own_maths`."""
    (tmp_path / "own_maths.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def f(:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_maths", raising=False)


def test_an_algorithm_of_the_current_folder_is_checked_and_a_dumped_config_finds_it_again(tmp_path: Path) -> None:
    config = load_config("toy", ["algorithm.name=own_maths:Plain", "algorithm.pace=2"])
    assert (config.algorithm.name, type(config.algorithm).__name__) == ("own_maths:Plain", "Plain")
    assert config.algorithm.kl == load_config("toy").algorithm.kl == 1.0  # settings that all share
    (tmp_path / "again.yaml").write_text(dump_config(config))
    again = load_config(tmp_path / "again.yaml")
    assert again == config and again.model_dump()["algorithm"]["pace"] == 2
    with pytest.raises(UserError, match=r"algorithm\.pace: Input should be greater than 0"):
        load_config("toy", ["algorithm.name=own_maths:Plain", "algorithm.pace=-1"])
    with pytest.raises(UserError, match=r"unknown key algorithm\.beta"):
        load_config("toy", ["algorithm.name=own_maths:Plain", "algorithm.beta=1"])


def test_a_variant_of_a_shipped_algorithm_does_not_take_its_place() -> None:
    config = load_config("toy", ["algorithm.name=own_maths:Variant"])
    assert isinstance(config.algorithm, NFT) and config.algorithm.form == "velocity"
    assert find_algorithms()["nft"] is NFT and {*find_algorithms()} == {
        "nft",
        "awm",
        "crd",
        "dgpo",
        "dpo",
        "rft",
        "sft",
        "grpo",
    }
    assert type(load_config("toy").algorithm) is NFT


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_maths:number", "is no subclass of editr1.Algorithm"),
        ("own_maths:Bare", "the class lacks loss, parts; add them"),
        ("own_maths:Nameless", "write `name: str` into it"),
        ("own_maths:none", "cannot be loaded: it raises AttributeError"),
        ("nowhere:A", "cannot be loaded: it raises ModuleNotFoundError"),
        ("broken:f", "cannot be loaded: it raises SyntaxError"),
        (":A", "write it as pkg.module:name"),
        ("..:A", "write it as pkg.module:name"),
        ("a b:c", "write it as pkg.module:name"),
        ("own_maths:A:b", "write it as pkg.module:name"),
        ("os:system", "is no subclass of editr1.Algorithm"),
    ],
)
def test_an_algorithm_that_is_none_is_one_line(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_config("toy", [f"algorithm={{name: '{name}'}}"])
    assert str(caught.value).startswith(f"algorithm.name {name!r}") and "\n" not in str(caught.value)


def test_an_unknown_algorithm_says_that_it_may_be_ones_own() -> None:
    with pytest.raises(UserError, match=r"no algorithm is called 'ppo'; .*, your own as pkg\.module:Class"):
        load_config("toy", ["algorithm.name=ppo"])


def test_an_error_of_the_users_own_module_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text("x = 1\n{}['colour']")
    with pytest.raises(UserError, match=r"it raises KeyError: 'colour' \(raising.py:2\); mend it$"):
        load_own("raising:f", "x")
