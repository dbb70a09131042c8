"""A whole benchmark at a judge server: memory does not grow with its size, time left is shown, answers are kept."""

from __future__ import annotations

import gc
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from editr1.errors import UserError
from editr1.evaluation.benchmarks.asking import AnswerStore, written
from editr1.evaluation.benchmarks.base import Item
from editr1.evaluation.benchmarks.imgedit import TYPES, ImgEdit
from editr1.evaluation.benchmarks.run import ask_all, score_all
from editr1.judges.base import Answer, Ask
from tests.evaluation.benchmarks.folders import plain_imgedit_folder
from tests.judges.client import remote_model
from tests.judges.fault_server import FaultServer, Reply

SIZE = 737
WIDTH = 8


class Alive:
    """Counts the pictures that were opened and are not yet forgotten."""

    def __init__(self) -> None:
        self.now = self.most = self.opened = 0
        self.lock = threading.Lock()

    def open(self, item: Item) -> Image.Image:
        image = item.source()
        image.load()
        alive = self

        class Counted(Image.Image):
            def __del__(self) -> None:
                with alive.lock:
                    alive.now -= 1

        image.__class__ = Counted
        with self.lock:
            self.now, self.opened = self.now + 1, self.opened + 1
            self.most = max(self.most, self.now)
        return image


class Writer(FaultServer):
    def complete(self, body: Reply) -> Reply:
        reply = super().complete(body)
        reply["choices"][0]["message"]["content"] = "Fine.\nA bit: 4\nOf it: 3\nAll: 2"
        return reply


@pytest.fixture
def big(tmp_path: Path) -> tuple[ImgEdit, Path]:
    """737 items of one picture, all of them edited."""
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    entries = {str(n): {"id": "a.png", "prompt": f"Edit {n}.", "edit_type": TYPES[n % 9]} for n in range(SIZE)}
    (folder / "basic_edit.json").write_text(json.dumps(entries))
    bench = ImgEdit(folder)
    out.mkdir()
    for item in bench.items:
        (out / item.edit_file).write_bytes((folder / "a.png").read_bytes())
    return bench, out


def test_737_items_at_a_server_hold_a_bounded_number_of_pictures_and_show_the_time_left(
    big: tuple[ImgEdit, Path],
) -> None:
    bench, out = big
    alive = Alive()
    bench.items = [replace(item, source=partial(alive.open, item)) for item in bench.items]
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Writer() as server:
        model = remote_model(server.url, in_flight=WIDTH)
        store = AnswerStore(out, {"judge": "test"})
        ask_all(bench, written(model, bench), store, out, console, width=WIDTH, chunk=1)
        model.close()
        assert server.chats == SIZE and server.most <= WIDTH
    gc.collect()
    assert alive.opened >= SIZE and alive.most <= 2 * WIDTH + 2
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "judged" in shown and "737/737" in shown and "0:00:0" in shown
    results = score_all(bench, store.records, {})
    assert [result.scores["score"] for result in results] == [3.0] * SIZE
    *_, overall = bench.finish(results, out)["all"]
    assert overall.means["score"] == 3.0 and overall.items == SIZE and overall.dropped == 0


class Scripted:
    """A model that gives prepared answers in turn; `remote` as told."""

    name = "scripted"

    def __init__(self, *texts: str | None, remote: bool = True) -> None:
        self.texts, self.remote, self.asked = list(texts), remote, 0

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        self.asked += len(asks)
        found = [self.texts.pop(0) for _ in asks]
        return [Answer(text) if text is not None else Answer(reason="dead") for text in found]


GOOD = "A bit: 4\nOf it: 3\nAll: 2"


@pytest.mark.parametrize(
    ("answers", "remote", "text", "unread", "reason"),
    [
        ((GOOD,), True, GOOD, (), None),
        (("what?", GOOD), True, GOOD, ("what?",), None),
        (("a?", "b?", "c?"), True, "c?", ("a?", "b?"), None),
        (("a?", None, None), True, "a?", (), None),
        (("a?", None, GOOD), True, GOOD, ("a?",), None),
        ((None,), True, None, (), "dead"),
        (("a?",), False, "a?", (), None),
    ],
)
def test_what_cannot_be_read_is_asked_again_of_a_server_and_every_answer_is_kept(
    tmp_path: Path, answers: Any, remote: bool, text: str | None, unread: Any, reason: str | None
) -> None:
    bench = ImgEdit(plain_imgedit_folder(tmp_path), limit=1)
    out = tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (64, 64)).save(out / bench.items[0].edit_file)
    store = AnswerStore(out, {"judge": "x"})
    model = Scripted(*answers, remote=remote)
    ask_all(bench, written(model, bench), store, out, Console(file=io.StringIO()), width=1, chunk=1)
    (record,) = AnswerStore(out, {"judge": "x"}).records.values() if text else store.records.values()
    assert (record.text, record.unread, record.reason) == (text, unread, reason)
    assert model.asked == len(answers)
    (result,) = score_all(bench, store.records, {})
    assert result.scores["score"] == (3.0 if text == GOOD else None)
    assert dict(result.reasons) == ({"judge": "dead"} if reason else {})


def test_answers_cut_off_by_a_crash_are_asked_anew_and_those_of_another_judge_refused(tmp_path: Path) -> None:
    bench = ImgEdit(plain_imgedit_folder(tmp_path), limit=2)
    out = tmp_path / "out"
    out.mkdir()
    for item in bench.items:
        Image.new("RGB", (64, 64)).save(out / item.edit_file)
    store = AnswerStore(out, {"judge": "x"})
    ask_all(bench, written(Scripted(GOOD, GOOD), bench), store, out, Console(file=io.StringIO()), width=1, chunk=1)
    whole = store.path.read_text()
    store.path.write_text(whole[:-9])
    again = AnswerStore(out, {"judge": "x"})
    assert len(again.records) == 1
    model = Scripted(GOOD)
    ask_all(bench, written(model, bench), again, out, Console(file=io.StringIO()), width=1, chunk=1)
    assert model.asked == 1 and store.path.read_text() == whole
    with pytest.raises(UserError, match="holds answers with judge 'x', now it is 'y'"):
        AnswerStore(out, {"judge": "y"})
    for judge in ("mistaken", "y"):
        AnswerStore(tmp_path, {"judge": judge})


def test_an_item_without_an_edit_is_counted_with_its_reason(tmp_path: Path) -> None:
    bench = ImgEdit(plain_imgedit_folder(tmp_path), limit=1)
    (result,) = score_all(bench, {}, {bench.items[0].key: "the source is too long"})
    assert result.scores["score"] is None and dict(result.reasons) == {"judge": "the source is too long"}
