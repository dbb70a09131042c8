"""The page of `editr1 watch`: a run that goes on, several runs, strangers' words and strangers' requests."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.data.pictures import png
from editr1.report.watch.following import Followed
from editr1.report.watch.server import make_app
from editr1.training.grid import Strip, places, sample_grid
from tests.report.browser import needs_chromium
from tests.report.devtools import chromium, opened
from tests.report.synthetic import write_metrics
from tests.serving import serving

REWARDS = [0.25, float("nan"), 1.0, 0.5]
SCRIPT = "add: <script>document.title = 'broken'</script>"
ODD = "<img src=x onerror=alert(1)>"


def write_run(folder: Path, steps: int, step: int = 10) -> Path:
    """A run with samples: edits of one red each, which is a hundred times its reward."""
    write_metrics(folder, steps)
    write_samples(folder, step)
    return folder


def write_samples(folder: Path, step: int) -> None:
    pictures = [Image.new("RGB", (32, 32), (red, 0, 0)) for red in (10, 25, 0, 100, 50)]
    strips = [Strip(SCRIPT, pictures, REWARDS), Strip("add: a dog", pictures, REWARDS, "agree_and_high")]
    (folder / "samples").mkdir(exist_ok=True)
    (folder / f"samples/step_{step:06d}.png").write_bytes(png(sample_grid(strips)))
    (folder / f"samples/step_{step:06d}.json").write_text(json.dumps({"step": step, **places(strips)}))


def lines_of(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


@contextmanager
def served(*folders: Path) -> Iterator[str]:
    with serving(make_app([Followed(folder) for folder in folders])) as url:
        yield url


def state(url: str, version: str = "") -> dict[str, Any]:
    content: dict[str, Any] = httpx.get(f"{url}/state", params={"version": version}, timeout=60).json()
    return content


def test_rows_that_are_new_are_told_and_one_that_is_half_written_waits(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 12)
    *before, last = lines_of(run)
    (run / "metrics.jsonl").write_text("".join(before))
    with served(run) as url:
        first = state(url)
        assert "step 11 of 40" in first["html"] and first["ages"][0] >= 0
        assert "html" not in state(url, first["version"])
        with (run / "metrics.jsonl").open("a") as file:
            file.write(last[:100])
        assert "html" not in state(url, first["version"])
        with (run / "metrics.jsonl").open("a") as file:
            file.write(last[100:])
        second = state(url, first["version"])
        assert "step 12 of 40" in second["html"] and second["version"] != first["version"]


def test_only_the_page_itself_may_ask_and_only_for_pictures_of_the_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 3)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (run / "samples/step_000099.png").symlink_to(tmp_path / "secret.png")
    with served(run) as url:
        assert httpx.get(f"{url}/state", headers={"Host": "evil.example"}).status_code == 400
        assert httpx.get(f"{url}/state", headers={"Origin": "http://evil.example"}).status_code == 403
        assert httpx.get(f"{url}/samples/0/10").headers["content-type"] == "image/png"
        for other in ("0/99", "0/11", "1/10", "-1/10", "0/..%2f..%2fsecret", "0/10.png", f"0/{10**30}"):
            assert httpx.get(f"{url}/samples/{other}").status_code in (404, 422), other
        policy = httpx.get(url).headers["content-security-policy"]
        assert policy.startswith("default-src 'self'") and "frame-ancestors 'none'" in policy


def test_the_page_refers_to_nothing_outside_and_words_of_strangers_are_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / ODD, 3)
    with served(run) as url:
        page = httpx.get(url).text
    assert "<script>document" not in page and "<img" not in page and "http" not in page.replace("http-equiv", "")
    assert "&lt;script&gt;document.title" in page and "&lt;img src=x onerror=alert(1)&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["none"], "holds no run"),
        (["run"] * 7, "a chart shows 6 at most"),
        (["run", "--host", "1.2.3.4"], "cannot listen"),
    ],
)
def test_what_cannot_be_watched_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", 2)
    result = CliRunner().invoke(app, ["watch", *arguments])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and fault in result.stderr


@needs_chromium
@pytest.mark.long
def test_a_browser_shows_a_new_row_without_a_reload_and_two_runs_over_each_other(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one", 20), write_run(tmp_path / ODD, 12)
    *before, last = lines_of(one)
    (one / "metrics.jsonl").write_text("".join(before))

    async def look(port: int, url: str) -> None:
        async with opened(port, url) as page:
            await page.until("document.querySelectorAll('.tile').length === 2")
            assert await page.value("[...document.querySelectorAll('.step')].map(e => e.textContent).join()") == (
                "step 19 of 40,step 12 of 40"
            )
            assert await page.value("document.querySelectorAll('#legend span').length") == 2
            curves = "[...document.querySelector('.figures svg').querySelectorAll('.line:not(.faint)')]"
            assert await page.value(f"{curves}.map(e => e.classList[1]).join()") == "a,b"
            await page.value("window.same = true")
            with (one / "metrics.jsonl").open("a") as file:
                file.write(last)
            write_samples(one, 20)
            await page.until("document.querySelector('.step').textContent === 'step 20 of 40'")
            await page.until("document.querySelector('.latest h2').textContent.includes('step 20')")
            assert await page.value("window.same")
            assert await page.value("document.title") == f"watch: one, {ODD}"
            rewards = (
                "[...document.querySelector('.group').querySelectorAll('figcaption')].map(e => e.textContent).join()"
            )
            assert await page.value(rewards) == "source,1.00,0.50,0.25,no reward"
            assert await page.value("document.querySelector('.dropped').textContent") == "dropped: agree and high"
            await assert_shown(page)
            for width, scheme in ((1200, "light"), (1200, "dark"), (420, "light")):
                await page.shows(width, scheme)
                await page.until("document.documentElement.scrollWidth <= window.innerWidth")
                await page.shoot(tmp_path / f"{scheme}-{width}.png")

    async def assert_shown(page: Any) -> None:
        """The best edit is the one of red 100."""
        await page.shows(1200, "light")
        best = "document.querySelectorAll('.group .cell')[1].getBoundingClientRect()"
        code = f"(r => [r.x + 16, r.y + 16 + scrollY])({best})"
        x, y = await page.value(code)
        await page.until("document.querySelector('#status').textContent.includes('ago')")
        for _ in range(100):  # the picture is fetched
            await page.shoot(tmp_path / "page.png")
            red = Image.open(io.BytesIO((tmp_path / "page.png").read_bytes())).convert("RGB").getpixel((x, y))
            if red == (100, 0, 0):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(red)

    with served(one, two) as url, chromium(tmp_path / "profile", url) as port:
        asyncio.run(look(port, url))
