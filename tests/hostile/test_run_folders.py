"""Folders of runs that disks, copies and strangers damaged, and data that changed between stop and continue."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch.utils.tensorboard  # noqa: F401  # slow, so here
import yaml
from PIL import Image

from editr1.cli import check, measured  # noqa: F401
from editr1.config.loading import load_config
from editr1.errors import UserError
from editr1.export.export import find_source
from editr1.files import read_lines
from editr1.report.run import write_report
from editr1.training.checkpoint import newest, trained_weights
from editr1.training.log import RunLog
from editr1.training.preflight import Findings, check_run
from editr1.training.seal import read_state
from tests.hostile.harness import Case, Judged, command
from tests.tiny import build_once

NEWEST, BEFORE = "step_000003", "step_000002"
ITEMS = 6
MEMORY = 2**33
Damage = Callable[[Path], object]


def build_run(folder: Path) -> None:
    """Three steps of the toy editor on a folder of six pictures, with a checkpoint of each; paths are relative."""
    (folder / "data").mkdir(parents=True)
    for i in range(ITEMS):
        Image.new("RGB", (64, 64), (40 * i, 10, 90)).save(folder / "data" / f"{i}.bmp")
    lines = [{"source": f"{i}.bmp", "instruction": "make it red", "key": f"k{i}"} for i in range(ITEMS)]
    write_lines(folder, lines)
    config = {
        "editor": {"path": "toy", "device": "cpu"},
        "judge": {"path": "toy"},
        "data": {"path": "data"},
        "rollout": {"groups_per_step": 1, "group_size": 2, "steps": 2},
        "algorithm": {"filter": "off"},
        "adapter": {"rank": 2},
        "steps": 3,
        "save_every": 1,
        "out": "out",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    train = [sys.executable, "-m", "editr1", "train", "run.yaml"]
    subprocess.run(train, cwd=folder, env=environment, check=True, capture_output=True, timeout=300)


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "data" / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / "data" / "data.jsonl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_once(tmp_path_factory, "hostile_run", build_run)


def tried(case: Case, run: Path) -> Case:
    """The case on a copy of the run in its own folder."""

    def act(folder: Path) -> None:
        shutil.copytree(run, folder, dirs_exist_ok=True)
        case.act(folder)

    return replace(case, act=act, memory=MEMORY)


def told(act: Callable[[], object]) -> list[str]:
    """The lines on the error stream; each can be read."""
    with redirect_stderr(io.StringIO()) as stream:
        act()
    lines = stream.getvalue().splitlines()
    assert all(line.isprintable() and len(line) < 1000 for line in lines)
    return lines


# Checkpoints: files


def flip(file: str, place: int = -100) -> Damage:
    def damage(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[place] ^= 1
        (folder / file).write_bytes(content)

    return damage


def cut(folder: Path) -> None:
    file = folder / WEIGHTS[0]
    file.write_bytes(file.read_bytes()[:-1])


def zeroed(folder: Path) -> None:
    (folder / "training.safetensors").write_bytes(bytes((folder / "training.safetensors").stat().st_size))


def folder_for_file(folder: Path) -> None:
    (folder / WEIGHTS[0]).unlink()
    (folder / WEIGHTS[0]).mkdir()


def dangling(folder: Path) -> None:
    (folder / WEIGHTS[0]).unlink()
    (folder / WEIGHTS[0]).symlink_to("nowhere")


WEIGHTS = [f"{name}/pytorch_lora_weights.safetensors" for name in ("policy", "old", "ema")]
FILES = {
    **{f"a bit of {name}": flip(name) for name in (*WEIGHTS, "training.safetensors")},
    "a bit of a header": flip(WEIGHTS[0], 20),
    "the length of a header": flip(WEIGHTS[0], 6),
    "a byte is cut": cut,
    "zeros": zeroed,
    "an empty file": lambda folder: (folder / WEIGHTS[1]).write_bytes(b""),
    "a longer file": lambda folder: (folder / WEIGHTS[1]).open("ab").write(b"x"),
    "no file": lambda folder: (folder / WEIGHTS[2]).unlink(),
    "no folder": lambda folder: shutil.rmtree(folder / "policy"),
    "a folder instead of a file": folder_for_file,
    "a link to nowhere": dangling,
    "one more file of weights": lambda folder: shutil.copy(folder / WEIGHTS[0], folder / "training-2.safetensors"),
    "weights of the step before": lambda folder: shutil.copy(
        folder.with_name(BEFORE) / WEIGHTS[0], folder / WEIGHTS[0]
    ),
    "an empty checkpoint": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "a file instead of a checkpoint": lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
}


# Checkpoints: state.json


def write_state(content: bytes | str) -> Damage:
    return lambda folder: (folder / "state.json").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


def replaced(before: str, after: str) -> Damage:
    """Other text in a file that stays JSON."""

    def damage(folder: Path) -> None:
        text = (folder / "state.json").read_text()
        assert before in text
        (folder / "state.json").write_text(text.replace(before, after, 1))

    return damage


def unsealed(folder: Path) -> dict[str, Any]:
    """The state as versions without hashes wrote it."""
    state = json.loads((folder / "state.json").read_text())
    return {**{key: value for key, value in state.items() if key not in ("sha256", "seal")}, "format": 1}


def older(**changes: Any) -> Damage:
    """A state without hashes and with other entries; None takes one out."""

    def damage(folder: Path) -> None:
        state = {**unsealed(folder), **changes}
        (folder / "state.json").write_text(json.dumps({k: v for k, v in state.items() if v is not None}))

    return damage


STATES = {
    "no JSON": write_state("{"),
    "an empty state": write_state(""),
    "a list": write_state("[1, 2]"),
    "a number": write_state("3"),
    "null": write_state("null"),
    "zero bytes": write_state(bytes(500)),
    "no text": write_state(bytes(range(256))),
    "deep nesting": write_state(100_000 * "["),
    "deep nesting of objects": write_state(10_000 * '{"a":'),
    "5,000 digits": write_state('{"step": ' + 5000 * "9" + "}"),
    "half of the state": lambda folder: os.truncate(folder / "state.json", 300),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "a folder as state": lambda folder: ((folder / "state.json").unlink(), (folder / "state.json").mkdir()),
    "the state of the step before": lambda folder: shutil.copy(folder.with_name(BEFORE) / "state.json", folder),
    "another place": replaced('"place": 3', '"place": 2'),
    "another ban": replaced('"banned": []', '"banned": [1]'),
    "another setting": replaced('"group_size": 2', '"group_size": 3'),
    "a key twice": replaced('"place": 3', '"place": 3, "place": 3'),
    "NaN": replaced('"seconds": ', '"seconds": NaN, "s": '),
    "a later format": replaced('"format": 2', '"format": 3'),
    "a format in words": replaced('"format": 2', '"format": "2"'),
    "the earlier format": replaced('"format": 2', '"format": 1'),
    "step in words": older(step="3"),
    "a true step": older(step=True),
    "step below 0": older(step=-3),
    "another step": older(step=4),
    "files as a list": older(files=["a"]),
    "sizes in words": older(files={"training.safetensors": "12"}),
    "sizes below 0": older(files={"training.safetensors": -12}),
    "a path that leaves": older(files={"../step_000002/state.json": 1}),
    "an absolute path": older(files={"/etc/passwd": 1}),
    "a path with NUL": older(files={"a\0b": 1}),
    "a path of half characters": older(files={"\ud800": 1}),
    "a path that is too long": older(files={"x" * 5000: 1}),
    "no files": older(files=None),
    "no settings": older(config=None),
    "settings as a list": older(config=[1]),
    "no seconds": older(seconds=None),
    "seconds below 0": older(seconds=-1),
    "infinite seconds": older(seconds=float("inf")),
    "a start of words": older(start={"brightness": "high"}),
    "bans as an object": older(banned={"a": 1}),
    "bans of words": older(banned=["k1"]),
    "a place below 0": older(place=-1),
    "an infinite place": older(place=10**100),
}


def goes_on_from_the_one_before(damage: Damage, folder: Path) -> None:
    root = folder / "out" / "checkpoints"
    damage(root / NEWEST)
    found: list[Path | None] = []
    (line,) = told(lambda: found.append(newest(root)))
    assert found == [root / BEFORE] and NEWEST in line and "damaged_step_000003, and step_000002 is used" in line
    assert (root / "damaged_step_000003").exists() and not (root / NEWEST).exists()
    assert told(lambda: found.append(newest(root))) == [] and found[1] == found[0]


@pytest.mark.parametrize(("name", "damage"), [*FILES.items(), *STATES.items()], ids=[*FILES, *STATES])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    name: str, damage: Damage, run: Path, judged: Judged
) -> None:
    judged(tried(Case(name, partial(goes_on_from_the_one_before, damage), expects="clean"), run))


def all_checkpoints(damage: Damage, folder: Path) -> None:
    for checkpoint in (folder / "out" / "checkpoints").glob("step_*"):
        damage(checkpoint)


def lost(damage: Damage, *words: str) -> Callable[[Path], None]:
    """A command on a run whose checkpoints are all damaged."""

    def act(folder: Path) -> None:
        all_checkpoints(damage, folder)
        before = sorted(folder.rglob("*"))
        try:
            command(*words)
        except UserError as error:
            assert "none of the checkpoints in" in str(error) and "remove them all to begin anew" in str(error)
            assert [path for path in sorted(folder.rglob("*")) if path.name != ".lock"] == [
                path for path in before if path.name != ".lock"
            ]
            raise

    return act


EDIT = ("edit", "data/1.bmp", "make it red", "--editor", "toy:qwen-image-edit", "--lora", "out", "--steps", "2")
EVAL = ("eval", "toy", "--editor", "toy:qwen-image-edit", "--lora", "out", "--out", "eval")
REFUSED = (
    Case("train without any state", lost(STATES["no state"], "train", "run.yaml")),
    Case("check without any state", lost(STATES["no state"], "check", "run.yaml")),
    Case("train with zeros", lost(zeroed, "train", "run.yaml")),
    Case("export without any state", lost(STATES["no state"], "export", "out", "--to", "to")),
    Case("export with flipped bits", lost(flip(WEIGHTS[2]), "export", "out", "--to", "to")),
    Case("edit with flipped bits", lost(flip(WEIGHTS[2]), *EDIT)),
    Case("eval with flipped bits", lost(flip(WEIGHTS[2]), *EVAL)),
    Case("eval without weights", lost(FILES["no file"], *EVAL)),
)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_no_run_begins_anew_over_damaged_checkpoints_and_no_damaged_weights_are_used(
    case: Case, run: Path, judged: Judged
) -> None:
    judged(tried(case, run))


def of_a_step(folder: Path) -> None:
    flip(WEIGHTS[2])(folder / "out" / "checkpoints" / NEWEST)
    command("export", "out", "--to", "to", "--step", "3")


def copied(folder: Path) -> None:
    flip(WEIGHTS[2])(shutil.copytree(folder / "out" / "checkpoints" / NEWEST, folder / "best"))
    trained_weights(folder / "best")


def without_state(folder: Path) -> None:
    (folder / "out" / "checkpoints" / NEWEST / "state.json").unlink()
    trained_weights(folder / "out" / "checkpoints" / NEWEST)


def named(place: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        flip(WEIGHTS[2])(folder / "out" / "checkpoints" / NEWEST)
        trained_weights(folder / "out" / "checkpoints" / NEWEST / place)

    return act


@pytest.mark.parametrize(
    "case",
    [
        Case("--step", of_a_step),
        Case("the checkpoint", named("")),
        Case("its weights", named("ema")),
        Case("its file", named(WEIGHTS[2])),
        Case("a copy with another name", copied),
        Case("a checkpoint without a state", without_state),
    ],
    ids=str,
)
def test_damaged_weights_that_are_named_are_refused(case: Case, run: Path, judged: Judged) -> None:
    judged(tried(case, run))


def reads_the_one_before(folder: Path) -> None:
    flip(WEIGHTS[2])(folder / "out" / "checkpoints" / NEWEST)
    found: list[Path] = []
    (line,) = told(lambda: found.append(trained_weights(folder / "out")))
    assert "step_000002 is used" in line and found[0].parent.name == BEFORE
    assert told(lambda: found.append(find_source(folder / "out", ema=False).weights)) == []
    assert found[1].parent.name == NEWEST  # its policy is whole


def older_format(folder: Path) -> None:
    all_checkpoints(older(), folder)
    assert told(lambda: newest(folder / "out" / "checkpoints")) == []
    command("train", "run.yaml", "steps=4")
    assert read_state(folder / "out" / "checkpoints" / "step_000004")["format"] == 2


def weights_of_others(folder: Path) -> None:
    other = folder / "step_000100"
    other.mkdir()
    shutil.copy(folder / "out" / "checkpoints" / NEWEST / WEIGHTS[2], other)
    assert trained_weights(other) == other


def copied_beside(folder: Path) -> None:
    root = folder / "out" / "checkpoints"
    for name in ("step_000003_mine", "step_9", "best"):
        shutil.copytree(root / NEWEST, root / name)
    flip(WEIGHTS[0])(root / "step_000003_mine")
    assert told(lambda: newest(root)) == [] and len([*root.iterdir()]) == 6


def trains_on(folder: Path) -> None:
    flip("training.safetensors")(folder / "out" / "checkpoints" / NEWEST)
    whole = read_lines(folder / "out" / "metrics.jsonl")
    lines = told(lambda: command("train", "run.yaml"))
    assert lines == []  # `command` keeps them
    times = ("seconds", "images_per_s", "judge_latency")
    rows = read_lines(folder / "out" / "metrics.jsonl")
    assert [{k: v for k, v in row.items() if k not in times} for row in rows] == [
        {k: v for k, v in row.items() if k not in times} for row in whole
    ]
    weights = "training.safetensors"
    root = folder / "out" / "checkpoints"
    assert (root / NEWEST / WEIGHTS[0]).read_bytes() == (root / "damaged_step_000003" / WEIGHTS[0]).read_bytes()
    assert (root / NEWEST / weights).read_bytes() != (root / "damaged_step_000003" / weights).read_bytes()


CLEAN = (
    Case("the average alone is damaged", reads_the_one_before, expects="clean"),
    Case("checkpoints of an earlier version", older_format, expects="clean"),
    Case("a LoRA of others in a folder with such a name", weights_of_others, expects="clean"),
    Case("folders of the user beside them", copied_beside, expects="clean"),
    Case("a run goes on from the one before and ends the same", trains_on, expects="clean"),
)


@pytest.mark.parametrize("case", CLEAN, ids=str)
def test_what_is_whole_is_used(case: Case, run: Path, judged: Judged) -> None:
    judged(tried(case, run))


# metrics.jsonl


def line_of(row: dict[str, Any], **changes: Any) -> bytes:
    changed = {**row, **changes}
    return json.dumps({key: value for key, value in changed.items() if value != "absent"}).encode()


def broken(number: int, change: Callable[[bytes, dict[str, Any]], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    def damage(lines: list[bytes]) -> list[bytes]:
        row = json.loads(lines[number])
        return [*lines[:number], change(lines[number], row), *lines[number + 1 :]]

    return damage


ROWS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a cut line": broken(1, lambda line, row: line[:40]),
    "a cut last line": broken(2, lambda line, row: line[:-1]),
    "garbage": broken(0, lambda line, row: b"what?"),
    "bytes that are no text": broken(0, lambda line, row: bytes(range(128, 256))),
    "NUL": broken(1, lambda line, row: bytes(300)),
    "a list": broken(1, lambda line, row: b"[" + line + b"]"),
    "a word": broken(1, lambda line, row: b'"step"'),
    "null": broken(2, lambda line, row: b"null"),
    "deep nesting": broken(2, lambda line, row: 100_000 * b"["),
    "5,000 digits": broken(2, lambda line, row: b'{"step": ' + 5000 * b"9" + b"}"),
    "a key twice": broken(1, lambda line, row: line[:-1] + b', "step": 1}'),
    "two rows in a line": broken(1, lambda line, row: line + line),
    "no step": broken(1, lambda line, row: line_of(row, step="absent")),
    "step in words": broken(1, lambda line, row: line_of(row, step="2")),
    "step 0": broken(1, lambda line, row: line_of(row, step=0)),
    "a reward in words": broken(1, lambda line, row: line_of(row, reward_mean="high")),
    "dropped as a list": broken(1, lambda line, row: line_of(row, dropped=[])),
    "no groups": broken(1, lambda line, row: line_of(row, groups_kept="absent")),
    "drift of nothing": broken(1, lambda line, row: line_of(row, drift={})),
    "seconds in words": broken(1, lambda line, row: line_of(row, seconds={"rollout": "long"})),
    "a loss as an object": broken(1, lambda line, row: line_of(row, loss={"a": {"b": 1}})),
    "a step twice": lambda lines: [*lines[:2], *lines[1:]],
    "a step twice, the second time otherwise": lambda lines: [
        lines[0],
        line_of(json.loads(lines[1]), loss=9),
        *lines[1:],
    ],
}


def rows_kept_aside(damage: Callable[[list[bytes]], list[bytes]], folder: Path) -> None:
    file, aside = folder / "out" / "metrics.jsonl", folder / "out" / "metrics.jsonl.damaged"
    before = file.read_bytes().splitlines()
    after = damage(before)
    file.write_bytes(b"\n".join(after) + b"\n")
    report = told(lambda: write_report(folder / "out"))
    assert len(report) == 1 and "metrics.jsonl:" in report[0] and "left out" in report[0]
    assert file.read_bytes().splitlines() == after  # a report changes nothing
    log: list[RunLog] = []
    lines = told(lambda: log.append(RunLog(folder / "out", 3)))
    assert "damaged line is kept in metrics.jsonl.damaged" in lines[0]
    assert ["lacks the rows of 1 of 3 steps" in line for line in lines[1:]] == [True] * (3 - len(log[0].rows))
    assert aside.read_bytes().splitlines() == [line for line in after if line not in before] or len(after) > 3
    rows = [json.loads(line) for line in before if line in file.read_bytes().splitlines()]
    assert log[0].rows == rows == read_lines(file)
    assert len(aside.read_bytes().splitlines()) + len(rows) == len(after)
    assert told(lambda: log.append(RunLog(folder / "out", 3)))[: len(rows) - 3] == []  # said once


def other_layout(text: Callable[[bytes], bytes], folder: Path) -> None:
    file = folder / "out" / "metrics.jsonl"
    rows = read_lines(file)
    file.write_bytes(text(file.read_bytes()))
    log: list[RunLog] = []
    assert told(lambda: log.append(RunLog(folder / "out", 3))) == [] and log[0].rows == rows == read_lines(file)


def a_folder_of_rows(folder: Path) -> None:
    (folder / "out" / "metrics.jsonl").unlink()
    (folder / "out" / "metrics.jsonl").mkdir()
    write_report(folder / "out")


def without_rows(folder: Path) -> None:
    (folder / "out" / "metrics.jsonl").unlink()
    (line,) = told(lambda: RunLog(folder / "out", 3))
    assert "lacks the rows of 3 of 3 steps" in line
    write_report(folder / "out")


def trains_with_damaged_rows(folder: Path) -> None:
    file = folder / "out" / "metrics.jsonl"
    file.write_bytes(b"\n".join(ROWS["a cut line"](file.read_bytes().splitlines())) + b"\n")
    command("train", "run.yaml", "steps=4")
    assert [row["step"] for row in read_lines(file)] == [1, 3, 4]
    assert "report.html" in command("report", "out")


LAYOUTS = (
    Case("CRLF", partial(other_layout, lambda text: text.replace(b"\n", b"\r\n")), expects="clean"),
    Case("a BOM", partial(other_layout, lambda text: b"\xef\xbb\xbf" + text), expects="clean"),
    Case("empty lines", partial(other_layout, lambda text: text.replace(b"\n", b"\n\n")), expects="clean"),
    Case("no newline at the end", partial(other_layout, bytes.strip), expects="clean"),
    Case("backward", partial(other_layout, lambda text: b"\n".join(reversed(text.splitlines()))), expects="clean"),
    Case("a folder", a_folder_of_rows),
    Case("no rows", without_rows, expects="clean"),
    Case("training goes on", trains_with_damaged_rows, expects="clean"),
)


@pytest.mark.parametrize(("name", "damage"), ROWS.items(), ids=list(ROWS))
def test_damaged_rows_are_told_and_kept_aside(
    name: str, damage: Callable[[list[bytes]], list[bytes]], run: Path, judged: Judged
) -> None:
    judged(tried(Case(name, partial(rows_kept_aside, damage), expects="clean"), run))


@pytest.mark.parametrize("case", LAYOUTS, ids=str)
def test_rows_in_another_layout_are_read(case: Case, run: Path, judged: Judged) -> None:
    judged(tried(case, run))


# Data


def data_faults(folder: Path, *overrides: str) -> list[str]:
    """What a check of all lines and pictures says about the data."""
    findings = Findings()
    check_run(load_config("run.yaml", overrides), findings)
    pictures = findings.pictures["data"]
    assert pictures.run(lambda: False, lambda fault: None)
    faults = findings.faults + pictures.faults
    assert all(line.isprintable() and len(line) < 1000 for line in faults)
    return faults


def changed(change: Damage, *words: str) -> Callable[[Path], None]:
    """Data that changed: refused with words, and accepted with the override that they name."""

    def act(folder: Path) -> None:
        change(folder)
        faults = data_faults(folder)
        assert faults and all(word in faults[0] for word in (*words, "data.changed=true"))
        assert data_faults(folder, "data.changed=true") == []
        raise UserError(faults[0])

    return act


def lines(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Damage:
    return lambda folder: write_lines(folder, change(lines_of(folder)))


def edited(number: int, **changes: Any) -> Damage:
    return lines(lambda items: [{**item, **(changes if i == number else {})} for i, item in enumerate(items)])


def repainted(folder: Path) -> None:
    """Another picture of the same size, with the same size and time of its file."""
    file = folder / "data" / "2.bmp"
    stat = file.stat()
    Image.new("RGB", (64, 64), "green").save(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def exchanged(folder: Path) -> None:
    one, other = folder / "data" / "2.bmp", folder / "data" / "3.bmp"
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)


def checked_before(folder: Path) -> None:
    """The cache of pictures knows the picture as it was."""
    assert data_faults(folder) == []
    repainted(folder)


def record(content: str) -> Damage:
    return lambda folder: (folder / "out" / "data.json").write_text(content)


NEW = {"source": "1.bmp", "instruction": "make it blue", "key": "new"}
CHANGED = (
    Case("a line more", changed(lines(lambda items: [*items, NEW]), "1 added, first 'new'")),
    Case("a line less", changed(lines(lambda items: items[:-1]), "1 removed, first 'k5'")),
    Case("a line that is another item", changed(edited(3, key="other"), "1 added", "1 removed, first 'k3'")),
    Case("another order", changed(lines(lambda items: items[::-1]), "moved")),
    Case("two lines exchanged", changed(lines(lambda items: [items[1], items[0], *items[2:]]), "2 moved, first 'k1'")),
    Case("another instruction", changed(edited(1, instruction="make it blue"), "1 with other words, first 'k1'")),
    Case("another requirement", changed(edited(1, requirement="It is blue."), "with other words")),
    Case("another task", changed(edited(1, task="recolour"), "with other words")),
    Case("a reference", changed(edited(1, references=["2.bmp"]), "with other words")),
    Case("a line of another picture", changed(edited(1, source="2.bmp"), "2.bmp of item 'k1'")),
    Case("a repainted picture", changed(repainted, "2.bmp of item 'k2' is another one")),
    Case("a repainted picture that was checked", changed(checked_before, "2.bmp of item 'k2' is another one")),
    Case("exchanged pictures", changed(exchanged, "is another one")),
    Case("a record that is no JSON", changed(record("["), "data.json cannot be read")),
    Case("a record of something else", changed(record('{"a": 1}'), "data.json cannot be read")),
    Case("a record of numbers", changed(record("[[1, 2, 3]]"), "data.json cannot be read")),
    Case("a record that nests", changed(record(100_000 * "["), "data.json cannot be read")),
    Case("an empty record", changed(record(""), "data.json cannot be read")),
    Case("a record of nothing", changed(record("[]"), "6 added")),
)


@pytest.mark.parametrize("case", CHANGED, ids=str)
def test_data_that_changed_is_told_and_refused(case: Case, run: Path, judged: Judged) -> None:
    judged(tried(case, run))


def unchanged(change: Damage, *overrides: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        change(folder)
        assert data_faults(folder, *overrides) == []

    return act


def touched(folder: Path) -> None:
    for file in (folder / "data").iterdir():
        os.utime(file)


def renamed(folder: Path) -> None:
    (folder / "data" / "2.bmp").rename(folder / "data" / "two.bmp")
    edited(2, source="two.bmp")(folder)


def moved_pictures(folder: Path) -> None:
    (folder / "far").mkdir()
    for file in (folder / "data").glob("*.bmp"):
        file.rename(folder / "far" / file.name)
    write_lines(folder, [{**item, "source": str(folder / "far" / item["source"])} for item in lines_of(folder)])


def no_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder / "out" / "checkpoints")
    repainted(folder)


def goes_on_with_other_data(folder: Path) -> None:
    repainted(folder)
    try:
        command("train", "run.yaml", "steps=4")
    except UserError as error:
        assert "2.bmp" in str(error)
    else:
        raise AssertionError("it is not refused")
    command("train", "run.yaml", "steps=4", "data.changed=true")
    command("train", "run.yaml", "steps=5")  # what was there then counts now


def bans_by_place(folder: Path) -> None:
    load_config("run.yaml", ["data.changed=true", "data.ban_solved=true"])


def without_record(folder: Path) -> None:
    (folder / "out" / "data.json").unlink()
    findings = Findings()
    check_run(load_config("run.yaml", []), findings)
    assert not findings.faults and "what changed before now is not noticed" in findings.warnings[0]


UNCHANGED = (
    Case("other times", unchanged(touched), expects="clean"),
    Case(
        "another layout of the lines",
        unchanged(lines(lambda items: [dict(reversed(i.items())) for i in items])),
        expects="clean",
    ),
    Case("a picture with another name", unchanged(renamed), expects="clean"),
    Case("pictures in another folder", unchanged(moved_pictures, "data.root=far"), expects="clean"),
    Case("no checkpoint yet", unchanged(no_checkpoint), expects="clean"),
    Case("no record, as in older runs", without_record, expects="clean"),
    Case("training with other data", goes_on_with_other_data, expects="clean"),
    Case("other data where items are banned by place", bans_by_place),
)


@pytest.mark.parametrize("case", UNCHANGED, ids=str)
def test_data_that_says_the_same_is_accepted(case: Case, run: Path, judged: Judged) -> None:
    judged(tried(case, run))
