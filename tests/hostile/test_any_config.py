"""Any text, any tree and any change of a shipped preset is settings or one line, soon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import editr1
from editr1.config.loading import dump_config, known_keys, load_config
from editr1.config.presets import presets
from editr1.config.settings import Config
from editr1.errors import UserError

SECONDS = 20.0
"""Longest time of one config; the machine may be busy."""
ODD = (
    "", " ", "~", "~/", "~nobody/x", "/", ".", "..", "-1", "1e400", "nan", "toy", "toy:", "toy:none", "a/b", "\n", "\0",
    "🐈", "\u2028", "cuda:0", "None", "[", "{}", "http://[", "openai:", "%s", "{0}", "x" * 5000, "no.such:name", "0x10",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 10**9, 10**30, -(10**30), 2**63, 0.0, -0.0, 0.5, 1e-320, 1e308, float("inf"), float("nan"))
SCALARS = st.sampled_from([*ODD, *NUMBERS, None, True, False]) | st.text(max_size=20) | st.integers() | st.floats()
KEYS = st.sampled_from(sorted({part for key in known_keys() for part in key.split(".")})) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.dates() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
FILES = Path(editr1.__file__).parent / "presets"
TREES = {name: yaml.safe_load((FILES / f"{name}.yaml").read_text(encoding="utf-8")) for name in presets()}
many = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value of a tree is."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in inner for place in ((*above, key), *places(value, (*above, key)))]


def change(draw: Any, tree: Any) -> None:
    """Replace, remove, rename or add a value."""
    *above, last = draw(st.sampled_from(places(tree)))
    for key in above:
        tree = tree[key]
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "add"]))
    if how == "replace":
        tree[last] = draw(VALUES)
    elif how == "remove":
        del tree[last]
    elif isinstance(tree, dict):
        tree[draw(KEYS)] = tree.pop(last) if how == "rename" else draw(VALUES)


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config | None:
    """The settings, if they are right; they are equal to what is read from their dump."""
    started = time.monotonic()
    try:
        config = load_config(path, overrides)
    except UserError as error:
        assert len(str(error)) > 0 and str(error).isprintable(), error
        config = None
    assert time.monotonic() - started < SECONDS
    if config is not None:
        path.with_suffix(".again").write_text(dump_config(config), encoding="utf-8")
        assert load_config(path.with_suffix(".again")) == config
    return config


@many
@given(st.data())
def test_any_change_of_a_preset_is_settings_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    tree = yaml.safe_load(yaml.safe_dump(TREES[data.draw(st.sampled_from(sorted(TREES)))]))
    for _ in range(data.draw(st.integers(1, 3))):
        if places(tree):
            change(data.draw, tree)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8", errors="surrogatepass")
    load(tmp_path / "a.yaml")


@many
@given(VALUES)
def test_any_tree_is_settings_or_one_line(tmp_path: Path, tree: object) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8", errors="surrogatepass")
    load(tmp_path / "a.yaml")


@many
@given(
    st.text() | st.text("[]{}:,-&*!#|>%@?\"'ab \n\t0.", max_size=200) | st.binary().map(lambda b: b.decode("latin1"))
)
def test_any_text_is_settings_or_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    load(tmp_path / "a.yaml")


@many
@given(st.data())
def test_any_override_is_settings_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(TREES["toy"]))
    keys = st.sampled_from(sorted({*known_keys()})) | st.text(max_size=10)
    texts = st.tuples(keys, SCALARS | VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True)))
    overrides = data.draw(st.lists(texts.map(lambda pair: f"{pair[0]}={pair[1]}") | st.text(), max_size=4))
    load(tmp_path / "a.yaml", tuple(overrides))


@many
@given(st.data())
def test_no_key_is_taken_twice(tmp_path: Path, data: st.DataObject) -> None:
    lines = yaml.safe_dump(TREES[data.draw(st.sampled_from(sorted(TREES)))]).splitlines()
    number = data.draw(st.sampled_from([i for i, line in enumerate(lines) if ":" in line and "- " not in line]))
    (tmp_path / "a.yaml").write_text("\n".join([*lines[:number], lines[number], *lines[number:]]), encoding="utf-8")
    with pytest.raises(UserError, match="is there twice"):
        load_config(tmp_path / "a.yaml")
