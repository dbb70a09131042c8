from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1.cli.main import app
from editr1.data.convert import convert
from editr1.data.edited import PairLine, PreferenceLine
from editr1.data.forms import open_stored
from editr1.data.pictures import png
from editr1.data.samples import EditSample, ItemLine, JsonlDataset
from editr1.errors import UserError
from tests.formats import FORMS, edited_rows, toy_rows, write_form, write_tar
from tests.training.stored import write_preferences

ROWS = toy_rows(6)


def values(sample: EditSample) -> Any:
    pictures = [np.asarray(image).tolist() for image in (sample.source, *sample.references)]
    return sample.key, sample.instruction, sample.requirement, sample.task, pictures


@pytest.mark.parametrize("form", FORMS)
def test_a_converted_dataset_has_the_same_items_and_its_pictures_the_same_bytes(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, out = write_form(form, ROWS, tmp_path / form), tmp_path / "out"
    capsys.readouterr()
    app(["data", "convert", str(place), "--out", str(out)], standalone_mode=False)
    assert capsys.readouterr().out == f"6 items with 3 pictures in {out}\n"
    before, after = open_stored(place), JsonlDataset(out)
    assert [values(after[index]) for index in range(6)] == [values(before[index]) for index in range(6)]
    assert {path.read_bytes() for path in out.glob("pictures/*/*.png")} == {row["source"] for row in ROWS}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [PreferenceLine, PairLine])
def test_stored_edits_stay_with_their_items(form: str, kind: type[ItemLine], tmp_path: Path) -> None:
    rows, out = edited_rows(kind), tmp_path / "out"
    rows[2]["mask"] = rows[3]["mask"] = rows[2]["source"]
    place = write_form(form, [{"mask": None, **row} for row in rows], tmp_path / form)
    app(["data", "convert", str(place), "--out", str(out)], standalone_mode=False)
    before, after = open_stored(place, kind=kind), JsonlDataset(out, kind=kind)
    assert [values(after[index]) for index in range(12)] == [values(before[index]) for index in range(12)]
    assert [[png(edit) for edit in after.edits(index)] for index in range(12)] == [
        [row[name] for name in kind.stored] for row in rows
    ]
    assert [after[index].mask is None for index in range(12)] == [index not in (2, 3) for index in range(12)]


def test_items_that_were_made_from_one_picture_are_still_held_out_together(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, shade in {"a": 10, "b": 20, "a1": 30, "a2": 40, "gone1": 50, "gone2": 60}.items():
        (folder / f"{name}.png").write_bytes(png(Image.new("RGB", (32, 32), (shade, 0, 0))))
    origins = {"a": None, "a1": "a.png", "a2": "./a.png", "b": None, "gone1": "gone.png", "gone2": "gone.png"}
    lines = [
        {"source": f"{name}.png", "instruction": "Edit it."} | ({"origin": origin} if origin else {})
        for name, origin in origins.items()
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    app(["data", "convert", str(folder), "--out", str(out)], standalone_mode=False)
    for place in (folder, out):
        first, second, third, other, gone, too = JsonlDataset(place).sources
        assert first == second == third != other != gone == too
    assert len([*out.glob("pictures/*/*")]) == 6


def test_votes_of_the_arena_become_preferences_without_ties(tmp_path: Path) -> None:
    folder = write_preferences(tmp_path / "arena", 3)
    (folder / "data.jsonl").unlink()
    names = [{name: f"{index}-{name}.png" for name in ("source", "chosen", "rejected")} for index in range(3)]
    votes = [
        {"source": each["source"], "edit_a": each["chosen"], "edit_b": each["rejected"], "preference": preference}
        | {"instruction": "Make it red.", "key": preference, "run_a": "left"}
        for each, preference in zip(names, ("a", "b", "tie"), strict=True)
    ]
    (folder / "votes.jsonl").write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    app(["data", "convert", str(folder), "--out", str(tmp_path / "out")], standalone_mode=False)
    data = JsonlDataset(tmp_path / "out", kind=PreferenceLine)
    assert [line.key for line in data.lines] == ["a", "b"]
    for index, order in enumerate((("chosen", "rejected"), ("rejected", "chosen"))):
        assert [png(edit) for edit in data.edits(index)] == [
            (folder / names[index][name]).read_bytes() for name in order
        ]


def test_the_released_layout_is_converted(tmp_path: Path) -> None:
    (tmp_path / "old/images").mkdir(parents=True)
    Image.new("RGB", (8, 6), "red").save(tmp_path / "old/images/a.jpg")
    line = {"prompt": "Mach es blau.", "image": "images/a.jpg", "requirement": "It is blue.", "id": 3}
    (tmp_path / "old/train_metadata.jsonl").write_text(json.dumps(line) + "\n")
    app(["data", "convert", str(tmp_path / "old"), "--out", str(tmp_path / "new")], standalone_mode=False)
    [line] = [json.loads(text) for text in (tmp_path / "new/data.jsonl").read_text().splitlines()]
    source = line.pop("source")
    assert line == {"instruction": "Mach es blau.", "requirement": "It is blue.", "task": "edit", "key": "line-1"}
    assert source.endswith(".jpg")
    assert (tmp_path / "new" / source).read_bytes() == (tmp_path / "old/images/a.jpg").read_bytes()


def test_pictures_that_cannot_be_read_are_all_told_and_nothing_stays(tmp_path: Path) -> None:
    rows = [{**row, "source": row["source"][:-40]} if index in (1, 4) else row for index, row in enumerate(ROWS)]
    place = write_form("parquet", rows, tmp_path / "in")
    faults: list[str] = []
    convert(open_stored(place), tmp_path / "out", faults, lambda: None)
    assert [fault.split(": ")[1:3] for fault in faults] == [
        ["row 1", "source of item 'toy-1'"],
        ["row 1", "source of item 'toy-4'"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_folder_that_is_not_empty_is_refused_and_kept(tmp_path: Path) -> None:
    place, out = write_form("tar", ROWS, tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(UserError, match="out is there already; choose an empty folder"):
        convert(open_stored(place), out, [], lambda: None)
    assert [path.name for path in out.iterdir()] == ["mine"]
    (out / "mine").unlink()
    assert convert(open_stored(place), out, [], lambda: None) == 3


def test_a_conversion_that_was_killed_begins_again(tmp_path: Path) -> None:
    place = write_form("tar", ROWS, tmp_path / "in")
    (tmp_path / ".out.part/pictures/00").mkdir(parents=True)
    (tmp_path / ".out.part/pictures/00/half.png").write_bytes(b"x")
    assert convert(open_stored(place), tmp_path / "out", [], lambda: None) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_names_in_a_shard_name_no_file_of_the_folder(tmp_path: Path) -> None:
    texts = json.dumps({"instruction": "go", "key": "../../evil"}).encode()
    write_tar([("a.json", texts), ("a.png", ROWS[0]["source"])], tmp_path / "x.tar")
    assert convert(open_stored(tmp_path / "x.tar"), tmp_path / "deep/out", [], lambda: None) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "x.tar"]
    assert JsonlDataset(tmp_path / "deep/out")[0].key == "../../evil"
