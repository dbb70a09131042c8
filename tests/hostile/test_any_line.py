"""Any bytes and any JSON in a file of items or of preferences are read, or one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.data.samples import FILES, JsonlDataset
from editr1.errors import UserError
from editr1.evaluation.agreement.layouts import read_pairs

PICTURE = "a.png"
RIGHT: dict[str, dict[str, Any]] = {
    "data.jsonl": {"source": PICTURE, "instruction": "go", "requirement": "gone", "task": "add", "key": "k"},
    "train_metadata.jsonl": {"image": PICTURE, "prompt": "go", "requirement": "gone"},
    "ours": {"source": PICTURE, "instruction": "go", "edit_a": PICTURE, "edit_b": PICTURE, "preference": "a"},
    "editscore": {
        "instruction": "go",
        "input_image": PICTURE,
        "output_images": [PICTURE, PICTURE],
        "task_type": "add",
        "dimension": "overall",
    },
    "tiger": {
        "id": "1_2",
        "instruction": "go",
        "dataset": "d",
        "ranking": "A>B",
        "source_image": PICTURE,
        "candidate_1": PICTURE,
        "candidate_2": PICTURE,
    },
    "genai": {
        "instruct_prompt": "go",
        "source_image": PICTURE,
        "left_output_image": PICTURE,
        "right_output_image": PICTURE,
        "vote_type": "leftvote",
    },
    "compass": {
        "dimension": "d",
        "source_image": PICTURE,
        "prompt": "go",
        "winner": PICTURE,
        "loser": PICTURE,
        "label": "preference",
    },
}
NAMES = sorted({name for line in RIGHT.values() for name in line})
WORDS = (PICTURE, "../a.png", "/etc/passwd", "~/a.png", ".", "", "a\0.png", "x" * 300, "\ud800", "A=B", "tie")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=3),
    max_leaves=6,
)
many = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
each = pytest.mark.parametrize("kind", RIGHT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / PICTURE)
    return tmp_path


def read(kind: str, folder: Path) -> int:
    """Read all that is in a file, pictures too; the number of items."""
    if kind in FILES:
        items = JsonlDataset(folder)
        return sum(items[index].source.size == (8, 8) for index in range(len(items)))
    pairs = read_pairs(folder / "pairs.jsonl")
    return sum(pair.sample().source.size == pair.edit_a().size == pair.edit_b().size for pair in pairs)


def check(kind: str, content: bytes, folder: Path) -> None:
    file = folder / (kind if kind in FILES else "pairs.jsonl")
    file.write_bytes(content)
    try:
        assert read(kind, folder) > 0
    except UserError as error:
        words = str(error)
        assert words.isprintable() and file.stem in words, words


@each
def test_what_is_not_changed_is_read(folder: Path, kind: str) -> None:
    (folder / (kind if kind in FILES else "pairs.jsonl")).write_text(json.dumps(RIGHT[kind]))
    assert read(kind, folder) == 1


@each
@many
@given(st.data())
def test_any_change_of_a_line_is_read_or_one_line(folder: Path, kind: str, data: st.DataObject) -> None:
    lines = []
    for _ in range(data.draw(st.integers(1, 3))):
        line = dict(RIGHT[kind])
        for name in data.draw(st.lists(st.sampled_from(sorted(line)), max_size=2)):
            line[name] = data.draw(VALUES)
        if data.draw(st.booleans()):
            line.pop(data.draw(st.sampled_from(sorted(line))))
        lines.append(json.dumps(line | data.draw(st.dictionaries(st.text(max_size=3), VALUES, max_size=1))))
    check(kind, "\n".join(lines).encode("utf-8", "surrogatepass"), folder)


@each
@many
@given(st.data())
def test_any_damage_of_a_file_is_read_or_one_line(folder: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray("\n".join(2 * [json.dumps(RIGHT[kind])]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check(kind, bytes(content), folder)


@each
@many
@given(st.data())
def test_any_bytes_and_any_json_are_read_or_one_line(folder: Path, kind: str, data: st.DataObject) -> None:
    trees = VALUES.map(lambda tree: json.dumps(tree).encode())
    check(kind, data.draw(st.binary() | trees | st.text().map(lambda text: text.encode("utf-8", "replace"))), folder)
