"""A run on parquet is the run on the same items as lines: steps, held-out items, resuming, the record of its data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from editr1.cli.main import app
from editr1.training.step_row import StepRow
from tests.cli.test_torchrun import SIZES
from tests.formats import arrow_table, toy_rows, write_form
from tests.training.runs import rows_of

ROWS = toy_rows(8)


def train(place: Path, out: Path, *overrides: str) -> list[StepRow]:
    words = ("data.kind=jsonl", f"data.path={place}", "evaluation={split: 2, edits: 1, steps: 2}", f"out={out}")
    small = ("rollout.groups_per_step=2", "rollout.group_size=3", "save_every=1")
    app(["train", "toy", *SIZES, *small, *words, *overrides], standalone_mode=False)
    return rows_of(out)


@pytest.mark.long
@pytest.mark.parametrize(
    "form", ["parquet", *(pytest.param(form, marks=pytest.mark.slow) for form in ("saved", "tar"))]
)
def test_a_resumed_run_has_the_metrics_and_weights_of_a_run_on_lines_bit_for_bit(form: str, tmp_path: Path) -> None:
    place, out, other = write_form(form, ROWS, tmp_path / form), tmp_path / "of-lines", tmp_path / "other"
    expected = train(write_form("jsonl", ROWS, tmp_path / "lines"), out, "steps=2")
    train(place, other, "steps=1")
    assert train(place, other, "steps=2") == expected
    weights = sorted(out.glob("checkpoints/step_000002/**/*.safetensors"))
    assert len(weights) > 2
    for file in weights:
        assert (other / file.relative_to(out)).read_bytes() == file.read_bytes()
    record, known = (json.loads((folder / "data.json").read_text()) for folder in (other, out))
    assert [entry[::2] for entry in record] == [entry[::2] for entry in known], "keys and hashes of pictures"


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_rows_or_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = write_form("parquet", ROWS, tmp_path / "data"), tmp_path / "out"
    train(place, out, "steps=1")
    for change, words in (
        ({"instruction": "Do nothing."}, "is not what it was when the run began (1 with other words, first 'toy-0')"),
        ({"source": ROWS[6]["source"]}, "row 0: source of item 'toy-0' is another one than when the run began"),
    ):
        parquet.write_table(arrow_table([{**ROWS[0], **change}, *ROWS[1:4]]), place / "train-00000.parquet")
        capsys.readouterr()
        assert len(train(place, out, "steps=2")) == 1, "nothing was trained"
        assert words in capsys.readouterr().err
