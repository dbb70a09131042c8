"""The arena: what is asked, what is kept, who may vote; and a real browser with a real click and key."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from PIL import Image

from editr1.errors import UserError
from editr1.evaluation.agreement.pairs import read_jsonl
from editr1.evaluation.arena.server import arena, make_app
from editr1.evaluation.arena.votes import Votes, read_duels, runs_id
from editr1.evaluation.heldout.rows import EditRow, RowStore
from tests.serving import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ITEMS = 5
COUNT = "document.getElementById('count').textContent === '{} of 5'"


def evaluation(folder: Path, red: int) -> Path:
    """An evaluation whose edits are all of one red; the source is black."""
    store = RowStore(folder, {"red": red})
    for number in range(ITEMS):
        key = f"item-{number}"
        store.save_image(key, "source", Image.new("RGB", (64, 64)))
        name = store.save_image(key, 0, Image.new("RGB", (64, 64), (red, number, 0)))
        store.add([EditRow(key, "add", 0, f"Add <b>thing</b> {number}.", None, None, {}, name)])
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return evaluation(tmp_path / "a", 100), evaluation(tmp_path / "run_b/evaluation/after", 200).parents[1]


@contextmanager
def served(runs: tuple[Path, Path], out: Path) -> Iterator[str]:
    with serving(make_app(read_duels(*runs), Votes(out, runs_id(*runs)))) as url:
        yield url


def post(url: str, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, headers={"Origin": url, **headers})


def red_of(url: str, index: int, which: str) -> int:
    reply = httpx.get(f"{url}/image/{index}/{which}")
    return Image.open(io.BytesIO(reply.content)).getpixel((0, 0))[0]  # type: ignore[index]


def test_votes_are_what_judge_agree_reads_whatever_side_an_edit_stood_on(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    out, better = tmp_path / "votes.jsonl", Counter[str]()
    with served(runs, out) as url:
        for number in range(ITEMS):
            state = httpx.get(f"{url}/state").json()
            index = state["pair"]["index"]
            sides = {side: red_of(url, index, side) for side in ("left", "right")}
            assert sorted(sides.values()) == [100, 200] and red_of(url, index, "source") == 0
            better[next(side for side in sides if sides[side] == 200)] += 1
            choice = "tie" if number == 0 else next(side for side in sides if sides[side] == 200)
            assert post(url, "/vote", {"index": index, "choice": choice}).json()["done"] == number + 1
        assert httpx.get(f"{url}/state").json()["counts"] == {"tie": 1, "b": ITEMS - 1}
    assert len(better) == 2, "with this seed both sides come up"
    pairs = read_jsonl(out)
    assert Counter(pair.preference for pair in pairs) == {"b": ITEMS - 1, "tie": 1}
    assert {pair.edit_a().getpixel((0, 0))[0] for pair in pairs} == {100}  # type: ignore[index]
    assert {pair.edit_b().getpixel((0, 0))[0] for pair in pairs} == {200}  # type: ignore[index]
    assert {pair.instruction for pair in pairs} == {f"Add <b>thing</b> {number}." for number in range(ITEMS)}


def test_voting_goes_on_where_it_was_stopped_and_a_vote_can_be_taken_back(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "votes.jsonl"
    with served(runs, out) as url:
        first = httpx.get(f"{url}/state").json()["pair"]
        second = post(url, "/vote", {"index": first["index"], "choice": "left"}).json()["pair"]
        assert post(url, "/vote", {"index": first["index"], "choice": "left"}).status_code == 409
    with served(runs, out) as url:
        assert httpx.get(f"{url}/state").json()["pair"] == second
        undone = post(url, "/undo", {}).json()
        assert undone["pair"] == first and undone["done"] == 0 and out.read_text(encoding="utf-8") == ""


def test_a_full_disk_is_told_and_the_vote_not_counted(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "votes" / "votes.jsonl"
    (tmp_path / "votes").write_text("a file stands where the folder should be")
    with served(runs, out) as url:
        index = httpx.get(f"{url}/state").json()["pair"]["index"]
        refused = post(url, "/vote", {"index": index, "choice": "left"})
        assert refused.status_code == 507 and "not counted: cannot write" in refused.json()["error"]
        assert httpx.get(f"{url}/state").json()["done"] == 0
        (tmp_path / "votes").unlink()
        assert post(url, "/vote", {"index": index, "choice": "left"}).json()["done"] == 1


def test_only_the_page_itself_may_vote(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with served(runs, tmp_path / "votes.jsonl") as url:
        index = httpx.get(f"{url}/state").json()["pair"]["index"]
        vote = {"index": index, "choice": "left"}
        assert httpx.get(f"{url}/state", headers={"Host": "evil.example"}).status_code == 400
        assert post(url, "/vote", vote, Origin="http://evil.example").status_code == 403
        assert httpx.post(f"{url}/vote", json=vote).status_code == 403
        assert post(url, "/undo", {}, Origin="null").status_code == 403
        assert httpx.get(f"{url}/image/99/left").status_code == 404
        assert httpx.get(f"{url}/image/0/..%2f..%2fvotes.jsonl").status_code in (404, 422)
        assert httpx.get(f"{url}/state").json()["done"] == 0


def test_what_eval_toy_measured_is_compared_too(runs: tuple[Path, Path], tmp_path: Path) -> None:
    evaluation(tmp_path / "result/edits", 150)
    (duel, *_) = read_duels(runs[0], tmp_path / "result")
    assert duel.b.parent == tmp_path / "result/edits"


def test_wrong_folders_and_foreign_votes_are_one_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no evaluation"):
        arena(tmp_path / "none", runs[1], tmp_path / "v.jsonl")
    other = RowStore(tmp_path / "other", {})
    other.add([EditRow("else", "add", 0, "", None, None, {}, "x.png")])
    with pytest.raises(UserError, match="no item in common"):
        arena(runs[0], tmp_path / "other", tmp_path / "v.jsonl")
    out = tmp_path / "votes.jsonl"
    votes = Votes(out, runs_id(*runs))
    votes.add(read_duels(*runs)[0], "a")
    with pytest.raises(UserError, match="votes on other runs"):
        arena(runs[1], runs[0], out)
    out.write_text("{}\n")
    with pytest.raises(UserError, match="no file of votes"):
        arena(*runs, out)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: chromium)")
def test_a_click_and_a_key_vote_in_a_real_browser(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "votes.jsonl"
    with served(runs, out) as url, chromium(tmp_path / "profile", url) as port:
        asyncio.run(asyncio.wait_for(_vote_by_hand(port, url, tmp_path / "page.png"), timeout=300))
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    duels = {duel.key: duel for duel in read_duels(*runs)}
    wanted = ["b" if duels[lines[0]["key"]].swapped else "a", "a" if duels[lines[1]["key"]].swapped else "b"]
    assert [line["preference"] for line in lines] == wanted  # a click on the left one, then the key 2


async def _vote_by_hand(port: int, url: str, shot: Path) -> None:
    pages = httpx.get(f"http://127.0.0.1:{port}/json").json()
    address = next(page["webSocketDebuggerUrl"] for page in pages if page["url"].startswith(url))
    async with websockets.connect(address, max_size=None) as socket:
        number = 0

        async def call(method: str, **params: Any) -> Any:
            nonlocal number
            number += 1
            await socket.send(json.dumps({"id": number, "method": method, "params": params}))
            while True:
                reply = json.loads(await socket.recv())
                if reply.get("id") == number:
                    return reply["result"]

        async def value(code: str) -> Any:
            return (await call("Runtime.evaluate", expression=code, returnByValue=True))["result"].get("value")

        async def until(code: str) -> None:
            for _ in range(200):
                if await value(code):
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(code)

        await until(
            "document.getElementById('count').textContent === '0 of 5' && document.getElementById('left').complete"
        )
        assert "<b>" in await value("document.getElementById('instruction').textContent")  # shown as text, not as HTML
        shot.write_bytes(base64.b64decode((await call("Page.captureScreenshot"))["data"]))
        rectangle = "document.querySelector('[data-choice=left]').getBoundingClientRect()"
        box = await value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({rectangle})")
        for kind in ("mousePressed", "mouseReleased"):
            await call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        await until(COUNT.format(1))
        for key, count in (("2", 2), ("0", 3), ("u", 2)):
            await call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
            await call("Input.dispatchKeyEvent", type="keyUp", key=key)
            await until(COUNT.format(count))


@contextmanager
def chromium(profile: Path, url: str) -> Iterator[int]:
    """Headless Chromium on a page; gives the port of its DevTools."""
    assert CHROMIUM
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [CHROMIUM, *flags, f"--user-data-dir={profile}", "--window-size=1100,800", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = profile / "DevToolsActivePort"
        for _ in range(600):
            if told.exists() and told.read_text():
                break
            time.sleep(0.05)
        yield int(told.read_text().split()[0])
    finally:
        process.kill()
        process.wait(60)
