"""`editr1 data check` and `data preview` on folders of strangers: faults by line, and printable words alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import editr1.report.data_preview  # noqa: F401
from editr1.cli.main import app
from tests.hostile.harness import Case, command

MB = 2**20
ODD = "\x1b[2J\u202e\u2028\r\n<script>\ud800"
ITEM = {"source": "a.png", "instruction": "Make it red."}


def write(folder: Path, *lines: object) -> None:
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "data.jsonl").write_bytes(b"\n".join(texts))


def faulty(line: object, kind: str, folder: Path) -> None:
    """A wrong line has its fault, the right ones around it have none, and the page shows these."""
    write(folder, {**ITEM, "key": "first"}, line, {**ITEM, "instruction": "Make it blue."})
    result = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert result.exit_code == 1, result
    faults = [text for text in result.stdout.splitlines() if text.startswith("line ")]
    assert faults and all(text.startswith(f"line 2: {kind}: ") and len(text) < 1000 for text in faults), result.stdout
    assert all(text.isprintable() for text in result.stdout.split("\n")), result.stdout
    as_json = CliRunner().invoke(app, ["data", "check", str(folder), "--json"])
    assert len(json.loads(as_json.stdout)["faults"]) == len(faults)
    page = Path(command("data", "preview", folder, "--out", folder / "page.html").strip())
    assert "<script" not in page.read_text(encoding="utf-8")


def shown(line: dict[str, object], folder: Path) -> None:
    """An odd line without a fault."""
    write(folder, line)
    command("data", "check", folder)
    page = Path(command("data", "preview", folder, "--out", folder / "page.html").strip())
    assert "<script" not in page.read_text(encoding="utf-8")


def endless(folder: Path) -> None:
    """One line of 300 MB."""
    write(folder)
    os.truncate(folder / "data.jsonl", 300 * MB)
    result = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert result.exit_code == 1
    assert result.stdout.startswith("line 1: json: it has more than 1,048,576 characters")


def instead(make: Callable[[Path], object], name: str, folder: Path) -> None:
    make(folder / "data.jsonl")
    command("data", name, folder)


def line(text: str = "", **more: object) -> dict[str, object]:
    return {**ITEM, "instruction": f"Make it green. {text}", **more}


INSTEAD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "nothing": lambda path: None,
    "an empty file": Path.touch,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}
"""What is there in place of a data.jsonl."""
CASES = tuple(
    Case(name, partial(faulty, content, kind), "clean")
    for name, (content, kind) in {
        "an odd key of a line": ({**line(), ODD[:-1]: 1}, "form"),
        "an odd name of a picture": (line(source=ODD[:-1]), "missing"),
        "a name with half of a character": (line(source=ODD), "json"),
        "a very long name": (line(source=5000 * "a" + ".png"), "missing"),
        "a device": (line(source="/dev/zero"), "outside"),
        "the file of the data as a picture": (line(source="data.jsonl"), "broken"),
        "100,000 lists": (b"[" * 100_000, "json"),
        "100,000 numbers": (b"[" + b"1," * 100_000 + b"1]", "form"),
        "300 keys": ({f"key {number}": 1 for number in range(300)} | line(), "form"),
        "a key that is taken": (line(key="first"), "repeated key"),
    }.items()
)
CASES += tuple(
    Case(name, partial(shown, content), "clean")
    for name, content in {
        "markup": line("</p><script>alert(1)</script>", task="<script>", key="<script>", requirement="<script>"),
        "the other direction": line("\u202eabc", task="\u202e"),
        "a task of 100,000 letters": line(task=100_000 * "t"),
        "10,000 references": line(references=10_000 * ["a.png"]),
    }.items()
)
CASES += (Case("a line without end", endless, "clean", memory=150 * MB),)
CASES += tuple(
    Case(f"{name}: {kind}", partial(instead, make, name))
    for name in ("check", "preview")
    for kind, make in INSTEAD.items()
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_folder_breaks_the_commands(case: Case, judged: Callable[[Case], None]) -> None:
    judged(case)
