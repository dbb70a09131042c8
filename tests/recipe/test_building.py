"""Data of 40 toy scenes, written by somebody who knows them, by the toy judge, and by servers that fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1.data.samples import JsonlDataset
from editr1.errors import UserError
from editr1.recipe.asking import open_writer
from editr1.recipe.boxes import RED
from editr1.recipe.building import BoxSource, build
from editr1.recipe.words import TASKS
from editr1.recipe.writing import Recipe
from editr1.toy.scene import box, to_array
from editr1.toy.tasks import article
from tests.recipe.scenes import make_scenes
from tests.recipe.scripted import Known, ScriptedServer, objects_of
from tests.recipe.toy_language import is_about, understand

SECONDS = 300  # until something hangs


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock, which names a process."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Known]]:
    folder = tmp_path_factory.mktemp("scenes") / "pictures"
    return folder, make_scenes(folder, 40)


@pytest.fixture(scope="module")
def built(
    scenes: tuple[Path, dict[str, Known]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The data of all 40 scenes, made without a stop."""
    out = tmp_path_factory.mktemp("built") / "data"
    with ScriptedServer([*scenes[1].values()]) as server:
        return out, build(scenes[0], out, open_writer(server.model), Recipe())


def test_forty_scenes_give_items_of_all_ten_types_that_the_dataset_reads(built: tuple[Path, dict[str, Any]]) -> None:
    out, counts = built
    items = JsonlDataset(out)
    assert counts["items"] == len(items) >= 100
    assert counts["tasks"].keys() == set(TASKS) and min(counts["tasks"].values()) >= 3
    assert counts["tasks"] == Counter(line.task for line in items.lines)
    samples = [items[index] for index in range(len(items))]
    assert all(sample.requirement for sample in samples)
    assert all(len(sample.references) == (sample.task == "reference") for sample in samples)
    assert json.loads((out / "counts.json").read_text()) == counts
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.height > 10 * 192


def test_the_toy_world_understands_what_is_written(
    scenes: tuple[Path, dict[str, Known]], built: tuple[Path, dict[str, Any]]
) -> None:
    kinds: dict[str, set[str]] = {}
    for line in lines_of(built[0]):
        name, _, task = line["key"].rpartition(":")
        known, instruction = scenes[1][name], line["instruction"]
        if task == "text":
            old, new = re.findall(r'"(\w+)"', instruction)
            assert old == known.sign != new and f'"{new}"' in line["requirement"]
            continue
        plain = instruction.replace(" in the red box", "")
        if task == "reference":
            plain = re.sub(r" with the (\w[\w ]*) of picture 2\.", lambda m: f" with {article(m[1])}.", plain)
        edits = understand(plain)
        assert edits, instruction
        assert is_about(known.scene, edits[:1]), instruction
        kinds.setdefault(task, set()).update(what for what, _ in edits)
    assert kinds["remove"] == {"remove"} and kinds["extract"] == {"extract"} and kinds["background"] == {"background"}
    assert kinds["redbox"] == {"recolour"} and kinds["reference"] == kinds["replace"] == {"replace"}
    assert kinds["adjust"] <= {"recolour", "small", "large"} and kinds["action"] <= {"move", "flip", "turn"}


def test_a_red_box_is_drawn_where_the_object_is_and_nothing_else_changes(
    scenes: tuple[Path, dict[str, Known]], built: tuple[Path, dict[str, Any]]
) -> None:
    boxed = [line for line in lines_of(built[0]) if line["task"] == "redbox"]
    for line in boxed:
        known = scenes[1][line["key"].rpartition(":")[0]]
        label = re.search(r"the (.*) in the red box", line["instruction"])
        assert label
        thing = next(thing for thing in known.scene.things if thing.name == label[1])
        source = to_array(Image.open(built[0] / line["source"]))
        red = np.abs(source - np.array(RED) / 255).max(-1) < 1 / 255
        rows, columns = box(thing)
        for corner in ((rows.start, columns.start), (rows.stop - 1, columns.stop - 1)):
            assert red[corner]
        outside = np.ones(red.shape, bool)
        outside[rows, columns] = False
        assert (source[outside] == to_array(known.picture)[outside]).all()
    assert boxed


def test_a_reference_is_an_object_of_another_picture(
    scenes: tuple[Path, dict[str, Known]], built: tuple[Path, dict[str, Any]]
) -> None:
    for line in (line for line in lines_of(built[0]) if line["task"] == "reference"):
        label = re.search(r"with the (.*) of picture 2", line["instruction"])
        (name,) = line["references"]
        crop = to_array(Image.open(built[0] / name))
        homes = [
            other
            for other, known in scenes[1].items()
            if label and label[1] in [thing.name for thing in known.scene.things] and _holds(known, crop)
        ]
        assert homes and homes != [line["key"].rpartition(":")[0]]


def _holds(known: Known, crop: np.ndarray) -> bool:
    """Whether a crop is somewhere in a picture."""
    picture = to_array(known.picture)
    height, width, _ = crop.shape
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width, 3))
    return bool((windows == crop).all((-3, -2, -1)).any())


def test_the_draws_of_a_picture_depend_on_seed_and_picture_alone(
    scenes: tuple[Path, dict[str, Known]], built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Of ten pictures of the forty, all items but references to pictures that are not there are the same."""
    few = tmp_path / "few"
    few.mkdir()
    for name in [*scenes[1]][5:15]:
        (few / name).write_bytes((scenes[0] / name).read_bytes())
    with ScriptedServer([*scenes[1].values()]) as server:
        build(few, tmp_path / "out", open_writer(server.model), Recipe())
        build(few, tmp_path / "other", open_writer(server.model), Recipe(seed=1))
    whole = {line["key"]: line for line in lines_of(built[0]) if line["task"] != "reference"}
    part = {line["key"]: line for line in lines_of(tmp_path / "out") if line["task"] != "reference"}
    names = {key.rpartition(":")[0] for key in part}
    assert part == {key: line for key, line in whole.items() if key.rpartition(":")[0] in names}
    assert {line["key"] for line in lines_of(tmp_path / "other")} != {
        line["key"] for line in lines_of(tmp_path / "out")
    }


@pytest.mark.long
def test_a_build_that_is_killed_goes_on_to_the_same_bytes(
    scenes: tuple[Path, dict[str, Known]], built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "data"
    with ScriptedServer([*scenes[1].values()]) as server:
        command = [sys.executable, "-m", "editr1", "data", "build", str(scenes[0])]
        command += ["--out", str(out), "--model", server.model]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            ends = time.monotonic() + SECONDS
            while server.chats < 60 and process.poll() is None and time.monotonic() < ends:
                time.sleep(0.01)
            server.gate.clear()  # no answer comes any more: it is killed in the middle, whatever the machine does
            assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.kill()
            process.communicate(timeout=SECONDS)
        done = len((out / "answers.jsonl").read_text().splitlines()) - 1
        assert 0 < done < 40 and not (out / "data.jsonl").exists()
        server.gate.set()
        before = server.chats
        again = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        assert again.returncode == 0, again.stderr
        assert contents(out) == contents(built[0])
        assert f"{built[1]['items']:6d} items" in again.stdout.splitlines()
        asked = server.chats - before
        build(scenes[0], out, open_writer(server.model), Recipe())
        assert server.chats - before == asked, "a third time nothing is left to ask"


def some_of(scenes: tuple[Path, dict[str, Known]], count: int, tmp_path: Path) -> tuple[Path, dict[str, Known]]:
    """The first of the scenes, in a folder of their own."""
    known = dict([*scenes[1].items()][:count])
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in known:
        (folder / name).write_bytes((scenes[0] / name).read_bytes())
    return folder, known


def test_boxes_of_a_file_are_used_and_sizes_out_of_range_are_counted(
    scenes: tuple[Path, dict[str, Known]], tmp_path: Path
) -> None:
    folder, known = some_of(scenes, 6, tmp_path)
    entries = {
        name: [{"label": one["label"], "box": [end * 64 / 1000 for end in one["box"]]} for one in objects_of(value)]
        + [{"label": "speck", "box": [0, 0, 3, 3]}, {"label": "all", "box": [-5, 0, 99, 64]}]
        for name, value in known.items()
    }
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    with ScriptedServer([*known.values()]) as server:
        source = BoxSource(tmp_path / "boxes.json")
        counts = build(folder, tmp_path / "out", open_writer(server.model), Recipe(tasks=("remove",)), source)
        assert server.chats == 2 * 6, "one question for the item, one for its sense, none for boxes"
    assert counts["boxes_dropped"] == {"too large": 6, "too small": 6}
    assert counts["boxes"] == sum(len(value.scene.things) for value in known.values())
    assert counts["tasks"] == {"remove": 6}


def test_answers_that_are_not_as_asked_for_make_no_item_and_are_counted_by_reason(
    scenes: tuple[Path, dict[str, Known]], tmp_path: Path
) -> None:
    folder, known = some_of(scenes, 8, tmp_path)
    bad = {
        "not JSON": "Sure! Remove the car.",
        "other keys or types than asked for": '{"instruction": "Remove it.", "requirement": "Gone.", "x": 1}',
        "instruction has control characters": '{"instruction": "Remove\\u0007 it.", "requirement": "Gone."}',
        "requirement is too short or too long": json.dumps({"instruction": "Remove it.", "requirement": 500 * "a"}),
        "no such edit is possible": '{"instruction": null}',
        "makes no sense": "",
    }

    def spoil(text: str, place: int) -> str:
        if not text.startswith('{"instruction'):
            return text
        words = [*bad.values()][len(spoilt) % len(bad)]
        spoilt.append(words)
        return words or '{"instruction": "Dance with the moon.", "requirement": "It dances."}'

    class Sensible(ScriptedServer):
        def answer(self, parts: Any) -> str:
            return "no" if "Dance" in str(parts[-1]) else super().answer(parts)

    spoilt: list[str] = []
    with Sensible([*known.values()], spoil) as server:
        recipe = Recipe(per_picture=1, tasks=("remove", "adjust", "extract"))
        counts = build(folder, tmp_path / "out", open_writer(server.model), recipe)
    assert counts["items"] == 0 and (tmp_path / "out" / "data.jsonl").read_text() == ""
    told: Counter[str] = Counter()
    for reasons in counts["rejected"].values():
        told.update(reasons)
    assert told == Counter(dict.fromkeys(bad, 4)) and len(spoilt) == 24


def test_a_picture_without_an_answer_makes_no_item_and_is_tried_again(
    scenes: tuple[Path, dict[str, Known]],
    built: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with ScriptedServer([*scenes[1].values()], refuses=lambda place: 100 <= place < 102) as server:
        with pytest.raises(UserError, match=r"of 40 pictures have no answer .*: run the same command again"):
            build(scenes[0], out, open_writer(server.model), Recipe())
        told = re.findall(r"editr1: (scene-\d\d\.png): no answer: HTTP 500", capsys.readouterr().err)
        assert 1 <= len(told) <= 2
        missing = {line["key"].rpartition(":")[0] for line in lines_of(out)}
        assert missing == scenes[1].keys() - set(told)
        build(scenes[0], out, open_writer(server.model), Recipe())
    assert contents(out) == contents(built[0])


def test_a_dead_server_ends_the_build_after_some_pictures(
    scenes: tuple[Path, dict[str, Known]], tmp_path: Path
) -> None:
    with ScriptedServer([*scenes[1].values()], refuses=lambda place: True) as server:
        with pytest.raises(UserError, match="8 pictures in a row have no answer"):
            build(scenes[0], tmp_path / "out", open_writer(server.model), Recipe())
        assert server.chats < 40


def test_damaged_pictures_are_told_and_counted_and_changed_ones_are_asked_about_again(
    scenes: tuple[Path, dict[str, Known]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    names = [*scenes[1]][:3]
    for name in names[:2]:
        (folder / name).write_bytes((scenes[0] / name).read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture, and not taken for one")
    with ScriptedServer([*scenes[1].values()]) as server:
        counts = build(folder, out, open_writer(server.model), Recipe(per_picture=1))
        assert (counts["pictures"], counts["answered"], counts["unreadable"]) == (3, 2, 1)
        assert "broken.jpg: cannot read a picture" in capsys.readouterr().err
        asked = server.chats
        (folder / names[0]).write_bytes((scenes[0] / names[2]).read_bytes())
        build(folder, out, open_writer(server.model), Recipe(per_picture=1))
        assert 0 < server.chats - asked < asked
        asked = server.chats
        (out / lines_of(out)[-1]["source"]).unlink()
        build(folder, out, open_writer(server.model), Recipe(per_picture=1))
        assert server.chats > asked and (out / lines_of(out)[-1]["source"]).exists()
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()[1:]]
    assert [thing["label"] for thing in rows[0]["boxes"]] == [t.name for t in scenes[1][names[2]].scene.things]


def test_other_settings_and_other_folders_are_refused(
    scenes: tuple[Path, dict[str, Known]], built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with ScriptedServer([*scenes[1].values()]) as server:
        model = open_writer(server.model)
        with pytest.raises(UserError, match="holds answers about pictures with seed 0, now it is 1"):
            build(scenes[0], built[0], model, Recipe(seed=1))
        with pytest.raises(UserError, match="inside the other"):
            build(scenes[0], scenes[0] / "data", model, Recipe())
        (tmp_path / "data.jsonl").write_text("{}")
        with pytest.raises(UserError, match="something else in it"):
            build(scenes[0], tmp_path, model, Recipe())
        assert server.chats == 0 and (tmp_path / "data.jsonl").read_text() == "{}"
