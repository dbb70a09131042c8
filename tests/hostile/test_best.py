"""A damaged checkpoints/best.json: one line wherever it is read, and no checkpoint is lost for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.config.settings import Config
from editr1.errors import UserError
from editr1.report.watch.following import Followed
from editr1.training import checkpoint
from editr1.training.best import read_best
from tests.hostile.harness import Case, Judged, command

LAST = {"step": 4, "reward": 0.5, "behind": 0.1, "ci95": [0.0, 0.2]}
WHOLE: dict[str, Any] = {"step": 2, "reward": 0.6, "gain": 0.1, "items": 8, "last": LAST}
SETTINGS = {"editor": {"path": "toy"}, "judge": {"path": "toy"}, "data": {"kind": "toy"}}
DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "cut": json.dumps(WHOLE).encode()[:-5],
    "zeros": bytes(200),
    "no UTF-8": b"\xff\xfe{}",
    "a list": b"[1]",
    "null": b"null",
    "nothing in it": b"{}",
    "deep": b"[" * 5000,
    "a key twice": b'{"step": 1, "step": 2}',
    "a digit too many": json.dumps({**WHOLE, "step": 10**400}).encode(),
    **{
        f"{name} {value!r}": json.dumps({**WHOLE, name: value}).encode()
        for name, value in [
            ("step", -1),
            ("step", 2.5),
            ("step", "2"),
            ("step", True),
            ("step", None),
            ("step", "../../elsewhere"),
            ("reward", 1.5),
            ("reward", "high"),
            ("gain", -2),
            ("items", 0),
            ("last", None),
            ("last", {**LAST, "ci95": [0.1]}),
            ("last", {**LAST, "behind": 7}),
            ("last", {**LAST, "step": "x"}),
        ]
    },
    "NaN": json.dumps({**WHOLE, "reward": float("nan")}).encode(),
}


def run_with(content: bytes | None, folder: Path) -> Path:
    """A run of three checkpoints; None makes a folder of the file."""
    out = folder / "out"
    root = out / "checkpoints"
    for step in (1, 2, 3):
        checkpoint.save(root, step, state(), lambda part: (part / "ema").mkdir(parents=True), keep=9)
    tree = Config.model_validate(SETTINGS).model_dump(mode="json")
    (out / "config.yaml").write_text(yaml.safe_dump(tree))
    if content is None:
        (root / "best.json").mkdir()
    else:
        (root / "best.json").write_bytes(content)
    return out


def state() -> dict[str, Any]:
    return {"seconds": 1.0, "start": {}, "place": 0, "banned": [], "config": {}}


def by_name(content: bytes | None, folder: Path) -> None:
    run_with(content, folder)
    checkpoint.trained_weights(folder / "out@best")


def by_command(name: str, content: bytes | None, folder: Path) -> None:
    command(name, run_with(content, folder))


def keeps_all(content: bytes | None, folder: Path) -> None:
    root = run_with(content, folder) / "checkpoints"
    checkpoint.save(root, 4, state(), lambda part: (part / "ema").mkdir(parents=True), keep=1)
    assert [checkpoint.step_of(each) for each in checkpoint.complete(root)] == [1, 2, 3, 4]


def is_watched(content: bytes | None, folder: Path) -> None:
    followed = Followed(run_with(content, folder))
    assert "best.json" in followed.fault and "\n" not in followed.fault and followed.best is None


def spares_the_best(folder: Path) -> None:
    root = run_with(json.dumps(WHOLE).encode(), folder) / "checkpoints"
    checkpoint.save(root, 4, state(), lambda part: (part / "ema").mkdir(parents=True), keep=1)
    assert [checkpoint.step_of(each) for each in checkpoint.complete(root)] == [2, 4]
    assert checkpoint.trained_weights(folder / "out@best") == root / "step_000002" / "ema"


def names_a_missing_one(folder: Path) -> None:
    run_with(json.dumps({**WHOLE, "step": 7}).encode(), folder)
    checkpoint.trained_weights(folder / "out@best")


def names_nothing(folder: Path) -> None:
    (run_with(b"", folder) / "checkpoints" / "best.json").unlink()
    checkpoint.trained_weights(folder / "out@best")


def is_no_run(folder: Path) -> None:
    checkpoint.trained_weights(folder / "none@best")


def of_another_version(folder: Path) -> None:
    best = read_best(run_with(json.dumps({**WHOLE, "more": 1}).encode(), folder) / "checkpoints")
    assert best is not None and best.step == 2


def cases() -> list[Case]:
    found = [
        Case("the best one is spared", spares_the_best, expects="clean"),
        Case("further keys", of_another_version, expects="clean"),
        Case("a missing checkpoint", names_a_missing_one),
        Case("no best checkpoint", names_nothing),
        Case("no run", is_no_run),
    ]
    reads: dict[str, tuple[Callable[..., object], str]] = {
        "by name": (by_name, "one line"),
        "report": (partial(by_command, "report"), "one line"),
        "doctor": (partial(by_command, "doctor"), "one line"),
        "watch": (is_watched, "clean"),
        "keep": (keeps_all, "clean"),
    }
    for damage, content in {**DAMAGES, "a folder": None}.items():
        for way, (act, expects) in reads.items():
            if way in ("by name", "keep") or damage in ("cut", "NaN", "a folder", "step '2'"):
                found.append(Case(f"{damage}, {way}", partial(act, content), expects=expects))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_damaged_name_of_the_best_checkpoint(case: Case, judged: Judged) -> None:
    if case.expects == "one line":
        case = replace(case, act=partial(mentions, case.act))
    judged(case)


def mentions(act: Callable[[Path], object], folder: Path) -> None:
    """The one line names the file, or says that there is none."""
    try:
        act(folder)
    except UserError as error:
        assert any(word in str(error) for word in ("best", "step_000007")), str(error)
        raise
