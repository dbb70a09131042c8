"""Items with stored edits in every form, and the votes of the arena as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editr1.data.edited import PairLine, PreferenceLine, VotesDataset
from editr1.data.forms import kind_of, open_stored
from editr1.data.holdout import hold_out
from editr1.data.pictures import png
from editr1.data.samples import ItemLine
from editr1.errors import UserError
from editr1.evaluation.agreement.pairs import Preference
from editr1.evaluation.arena.votes import Votes, read_duels, runs_id
from editr1.evaluation.heldout.rows import EditRow, RowStore
from editr1.files import read_lines
from tests.formats import FORMS, edited_rows, write_form
from tests.training.stored import Edited, write_preferences


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [PreferenceLine, PairLine])
def test_stored_edits_are_the_same_in_every_form(form: str, kind: type[ItemLine], tmp_path: Path) -> None:
    rows = edited_rows(kind)
    data = open_stored(write_form(form, rows, tmp_path / form), kind=kind)
    assert len(data) == 12
    for index, row in enumerate(rows):
        assert [png(edit) for edit in data.edits(index)] == [row[name] for name in kind.stored]
        assert png(data[index].source) == row["source"] and len(data[index].references) == len(row["references"])
    assert len(data.pictures) == len({value for _, _, pictures in data.items for value in pictures})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [ItemLine, PreferenceLine, PairLine])
def test_the_kind_of_items_shows_in_every_form(form: str, kind: type[ItemLine], tmp_path: Path) -> None:
    assert kind_of(write_form(form, edited_rows(kind), tmp_path / form)) is kind


@pytest.mark.parametrize("form", FORMS)
def test_edits_of_both_kinds_are_refused_where_no_config_says_which(form: str, tmp_path: Path) -> None:
    pairs = edited_rows(PairLine)
    rows = [row | {"target": pair["target"]} for row, pair in zip(edited_rows(PreferenceLine), pairs, strict=True)]
    place = write_form(form, rows, tmp_path / form)
    with pytest.raises(UserError, match=r"chosen or rejected edits, of preferences, and targets, of pairs; leave one"):
        kind_of(place)


def test_the_kind_shows_though_the_first_lines_are_wrong(tmp_path: Path) -> None:
    folder = write_preferences(tmp_path)
    lines = (folder / "data.jsonl").read_text()
    (folder / "data.jsonl").write_text('{\n{"source": "0-source.png"}\n' + lines)
    assert kind_of(folder) is PreferenceLine
    (folder / "data.jsonl").write_text(lines.replace('"rejected"', '"worse"'))
    assert kind_of(folder) is PreferenceLine


def test_what_cannot_be_read_has_no_kind_of_its_own(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.tar"):
        (tmp_path / name).write_bytes(b"no such file")
        assert kind_of(tmp_path / name) is ItemLine
    assert kind_of(tmp_path / "nowhere") is ItemLine


def test_an_item_without_one_of_its_edits_is_told_with_its_line(tmp_path: Path) -> None:
    folder = write_preferences(tmp_path)
    (folder / "3-rejected.png").unlink()
    with pytest.raises(UserError, match=r"data\.jsonl:4: there is no picture '3-rejected\.png'"):
        open_stored(folder, kind=PreferenceLine)
    with pytest.raises(UserError, match=r"data\.jsonl:1: target: Field required"):
        open_stored(folder, kind=PairLine)


def evaluation(folder: Path, shift: int) -> Path:
    """An evaluation of five items with two edits each."""
    store, data = RowStore(folder, {"shift": shift}), Edited(2)
    for number in range(5):
        key, item = f"item-{number}", data[number]
        store.save_image(key, "source", item.source)
        for index in range(2):
            edit = data.edits((number + shift) % 5)[index]
            name = store.save_image(key, index, edit)
            store.add([EditRow(key, "add", index, item.instruction, None, None, {}, name)])
    return folder


def test_what_the_arena_writes_is_read_as_it_is_without_ties(tmp_path: Path) -> None:
    runs = evaluation(tmp_path / "a", 0), evaluation(tmp_path / "b", 2)
    votes = Votes(tmp_path / "arena" / "votes.jsonl", runs_id(*runs))
    preferences: tuple[Preference, ...] = ("a", "b", "tie", "b", "a")
    for duel, preference in zip(read_duels(*runs), preferences, strict=False):
        votes.add(duel, preference)
    lines = [line for line in read_lines(votes.path) if line["preference"] != "tie"]
    for path in (tmp_path / "arena", votes.path):
        data = open_stored(path, kind=PreferenceLine)
        assert isinstance(data, VotesDataset) and len(data) == 4
        for index, line in enumerate(lines):
            better, worse = ("edit_a", "edit_b") if line["preference"] == "a" else ("edit_b", "edit_a")
            for edit, name in zip(data.edits(index), (better, worse), strict=True):
                assert np.array_equal(np.array(edit), np.array(Image.open(tmp_path / "arena" / line[name])))
            assert (data[index].key, data[index].task) == (line["key"], "add")


def test_votes_on_one_picture_are_held_out_together_though_each_has_its_own_file(tmp_path: Path) -> None:
    runs = evaluation(tmp_path / "a", 0), evaluation(tmp_path / "b", 2)
    votes = Votes(tmp_path / "arena" / "votes.jsonl", runs_id(*runs))
    for duel in read_duels(*runs):
        votes.add(duel, "a")
    data = open_stored(tmp_path / "arena", kind=PreferenceLine)
    training, held = hold_out(data, data.sources, 2)
    items = [{data[index].key.rpartition("/")[0] for index in map(int, part.indices)} for part in (training, held)]
    assert len(data) == 10 and (len(items[0]), len(items[1])) == (4, 1) and not items[0] & items[1]
    assert png(training.edits(0)[1]) == png(data.edits(int(training.indices[0]))[1])


def test_votes_that_are_all_ties_are_refused(tmp_path: Path) -> None:
    runs = evaluation(tmp_path / "a", 0), evaluation(tmp_path / "b", 2)
    votes = Votes(tmp_path / "votes.jsonl", runs_id(*runs))
    votes.add(read_duels(*runs)[0], "tie")
    with pytest.raises(UserError, match="holds no"):
        open_stored(votes.path, kind=PreferenceLine)
