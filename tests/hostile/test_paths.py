"""Folders and files that cannot be written or read, in every option that names one, and "~" in all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import editr1.training.model_check  # noqa: F401  # what commands import, before the forks
from editr1.config.loading import load_config
from editr1.config.rewards import EditScoreConfig
from editr1.errors import UserError
from editr1.judges.open import parse_judge
from tests.hostile.harness import Case, Judged, command

NOWHERE: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: folder / "file",
    "below a file": lambda folder: folder / "file" / "x",
    "300 letters": lambda folder: folder / ("x" * 300),
    "5,000 letters": lambda folder: folder / "/".join(["x" * 99] * 50),
    "a disk that takes nothing": lambda folder: "/proc/editr1",
    "a loop of links": lambda folder: folder / "loop",
    "a link to nothing below a file": lambda folder: folder / "link",
}
"""Places where nothing can be written."""
MISSING = {**NOWHERE, "nothing": lambda folder: folder / "nothing", "a folder": lambda folder: folder}
WRITING: dict[str, tuple[object, ...]] = {
    "check": ("check", "toy", "out=PLACE"),
    "check, the cache": ("check", "toy", "memory.cache=PLACE"),
    "train": ("train", "toy", "steps=1", "out=PLACE"),
    "train, the cache": ("train", "toy", "steps=1", "out=run", "memory.cache=PLACE"),
    "demo": ("demo", "--out", "PLACE"),
    "eval toy": ("eval", "toy", "--items", 1, "--out", "PLACE"),
    "eval data": ("eval", "data", "data", "--editor", "toy", "--judge", "toy", "--out", "PLACE"),
    "eval compare": ("eval", "compare", "result", "result", "--out", "PLACE"),
    "judge agree": ("judge", "agree", "votes.jsonl", "--out", "PLACE"),
}
READING: dict[str, tuple[object, ...]] = {
    "train": ("train", "PLACE"),
    "check": ("check", "PLACE"),
    "report": ("report", "PLACE"),
    "eval compare": ("eval", "compare", "PLACE", "data"),
    "eval data": ("eval", "data", "PLACE", "--editor", "toy", "--judge", "toy", "--out", "out"),
    "eval imgedit": ("eval", "imgedit", "--data", "PLACE", "--editor", "toy", "--judge", "toy", "--out", "out"),
    "eval gedit": ("eval", "gedit", "--data", "PLACE", "--editor", "toy", "--judge", "toy", "--out", "out"),
    "--lora": ("eval", "toy", "--lora", "PLACE", "--out", "out"),
    "--editor": ("eval", "toy", "--editor", "PLACE", "--items", 1, "--out", "out"),
    "--judge": ("judge", "score", "a.png", "a.png", "go", "--judge", "PLACE"),
    "--judge with words": ("judge", "score", "a.png", "a.png", "go", "--judge", "toy?template=PLACE"),
    "judge score": ("judge", "score", "PLACE", "a.png", "go"),
    "judge agree": ("judge", "agree", "PLACE"),
    "judge arena": ("judge", "arena", "PLACE", "PLACE"),
    "judge serve": ("judge", "serve", "--model", "PLACE"),
    "export": ("export", "PLACE", "--to", "out"),
    "edit": ("edit", "PLACE", "go", "--editor", "toy"),
    "editor probe": ("editor", "probe", "PLACE"),
    "data.path": ("check", "toy", "data.kind=jsonl", "data.path=PLACE", "out=out"),
    "evaluation.data": ("check", "toy", "evaluation.data=PLACE", "out=out"),
    "adapter.init": ("check", "toy", "adapter.init=PLACE", "out=out"),
    "editor.path": ("check", "toy", "editor.path=PLACE", "out=out"),
    "judge.path": ("check", "toy", "judge.path=PLACE", "judge.template=full", "judge.order=paper", "out=out"),
}
RESULT = json.dumps(
    {"benchmark": "data", "metrics": ["judge"], "best": 1, "overall": "items", "made_with": {}}
    | {"tables": {"all": [{"name": "overall", "items": 1, "dropped": 0, "means": {"judge": 0.5}, "careful": None}]}}
    | {
        "items": [
            {"key": "k", "task": "add", "subsets": ["all"], "instruction": "go", "source": "", "edit": ""}
            | {"scores": {"judge": 0.5}}
        ]
    }
)
ROOT = ("check", "toy", "data.kind=jsonl", "data.path=data", "data.root=PLACE", "out=out")

WITH_EQUALS = {
    "eval compare --out": ("eval", "compare", "result", "other", "--out=PLACE"),
    "toy sample --out": ("toy", "sample", "--out=PLACE"),
    "edit --out": ("edit", "a.png", "go", "--editor=toy", "--steps=2", "--out=PLACE.png"),
    "out": ("train", "toy", "steps=1", "rollout.group_size=2", "rollout.groups_per_step=1", "out=PLACE"),
}
"""Commands that write there, if "~" is followed."""


def furnish(folder: Path) -> None:
    """What the commands need besides the place that is tried."""
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "link").symlink_to(folder / "file" / "x")
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    (folder / "data").mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "data" / "a.png")
    (folder / "data" / "data.jsonl").write_text('{"source": "a.png", "instruction": "go"}\n')
    vote = {"source": "a.png", "instruction": "go", "edit_a": "a.png", "edit_b": "a.png", "preference": "a"}
    (folder / "votes.jsonl").write_text(json.dumps(vote) + "\n")


def tried(arguments: tuple[object, ...], place: Callable[[Path], object], folder: Path) -> None:
    furnish(folder)
    command(*(str(one).replace("PLACE", str(place(folder))) for one in arguments))


def named_at_home(arguments: tuple[object, ...], folder: Path) -> None:
    """What is read is looked for in the home folder."""
    furnish(folder)
    os.environ["HOME"] = str(folder / "home")
    try:
        command(*(str(one).replace("PLACE", "~/nothing") for one in arguments))
    except UserError as error:
        assert str(folder / "home" / "nothing") in str(error) and "~" not in str(error), error
        raise


def written_at_home(arguments: tuple[object, ...], folder: Path) -> None:
    furnish(folder)
    for name in ("result", "other"):
        (folder / name).mkdir()
        (folder / name / "results.json").write_text(RESULT)
    os.environ["HOME"] = str(folder / "home")
    command(*(str(one).replace("PLACE", "~/new") for one in arguments))
    assert [path.stem for path in (folder / "home").iterdir()] == ["new"]
    assert not (folder / "~").exists()


def kept_as_text(folder: Path) -> None:
    """An instruction is no path, however it begins and however long it is."""
    furnish(folder)
    for words in ("~/x", "~", "long " * 100):
        assert words in command("judge", "score", "a.png", "a.png", words)


def in_settings(folder: Path) -> None:
    os.environ["HOME"] = "/home/me"
    config = load_config("toy", ["out=~/run", "data.root=~/pictures", "judge.template=~/words.yaml"])
    assert (str(config.out), str(config.data.root)) == ("/home/me/run", "/home/me/pictures")
    assert config.judge is not None and config.judge.template == "/home/me/words.yaml"
    assert (
        EditScoreConfig(path="~/base", lora="~/lora").model_dump()
        == EditScoreConfig(path="/home/me/base", lora="/home/me/lora").model_dump()
    )
    assert parse_judge("~/judge?method=yes_no").path == "/home/me/judge"


CASES = (
    *(Case(f"~ in {name}", partial(named_at_home, a)) for name, a in READING.items()),
    *(Case(f"~ in {name}", partial(written_at_home, a), "clean") for name, a in WITH_EQUALS.items()),
    Case("~ in instructions", kept_as_text, "clean"),
    Case("~ in settings", in_settings, "clean"),
    *(Case(f"{c} to {p}", partial(tried, a, at)) for c, a in WRITING.items() for p, at in NOWHERE.items()),
    *(Case(f"{c} of {p}", partial(tried, a, at)) for c, a in READING.items() for p, at in MISSING.items()),
    *(Case(f"data.root of {p}", partial(tried, ROOT, at)) for p, at in MISSING.items() if p != "a folder"),
    *(
        Case(f"toy sample to {place}", partial(tried, ("toy", "sample", "--out", "PLACE"), NOWHERE[place]))
        for place in ("below a file", "300 letters", "5,000 letters", "a disk that takes nothing")
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_place_that_does_not_do_is_one_line(case: Case, judged: Judged) -> None:
    judged(case)
