"""The contact sheet: what the dataset holds, nothing from outside, no text that acts as markup, readable everywhere."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image as Images
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.data.masks import outlined
from editr1.errors import UserError
from editr1.report.data_preview import choose_lines, write_preview
from tests.data.checking.planted import export_toy, picture, plant, write_lines
from tests.report.browser import browse, needs_chromium
from tests.training.stored import write_preferences

EVIL = "<script>document.title = 'owned'</script></p></article><img src=x onerror=\"document.title='owned'\">"


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """The page of a dataset whose names and texts are markup, and whose pictures are odd."""
    folder = export_toy(tmp_path / "<b onclick=x>data", 1)
    for name, size in {"<img src=x onerror=alert(1)>.png": (64, 64), "wide \u202e.png": (1600, 300)}.items():
        picture(folder / name, *size)
    lines = [
        {"source": "<img src=x onerror=alert(1)>.png", "instruction": EVIL, "requirement": EVIL, "task": EVIL},
        {"source": "wide \u202e.png", "instruction": 900 * "x", "key": 500 * "k", "references": 9 * ["0.png"]},
        {"source": f"{EVIL}.png", "instruction": "It has no picture."},
        {"source": "../outside.png", "instruction": "\u202eIt is outside."},
        b'{"<script>": 1}',
    ]
    write_lines(folder, lines)
    return write_preview(folder, tmp_path / "out" / "page.html", limit=60)


def test_every_item_of_a_small_dataset_is_a_card_with_its_texts_and_picture(tmp_path: Path) -> None:
    folder = export_toy(tmp_path / "my data", 18)
    result = CliRunner().invoke(app, ["data", "preview", str(folder), "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 0 and result.output.strip() == str(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    lines = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["instruction"] not in page.text or line["key"] not in page.text] == []
    assert sum(tag == "article" for tag, _ in page.tags) == 18
    assert sum(tag == "img" for tag, _ in page.tags) == 18
    assert "18 items." in page.text and "64 × 64" in page.text


def test_stored_edits_are_shown_beside_their_source_by_their_names(tmp_path: Path) -> None:
    folder = write_preferences(tmp_path / "votes")
    (folder / "3-rejected.png").unlink()
    sheet = write_preview(folder, tmp_path / "page.html", limit=60).read_text(encoding="utf-8")
    rows = re.findall(r'<div class="beside">(.*?)</div>', sheet)
    names = [re.findall("<figcaption>(.*?)</figcaption>", row) for row in rows]
    whole = ["32 × 32", "chosen", "rejected"]
    assert names == [whole, whole, whole, whole[:2], whole] and sheet.count("there is no picture") == 1
    urls = re.findall('src="data:image/png;base64,(.*?)"', rows[4])
    shown = [Images.open(io.BytesIO(base64.b64decode(url))).convert("RGB").getpixel((0, 0)) for url in urls[1:]]
    assert shown == [(200, 60, 30), (30, 60, 200)]


def pictures_of(page: Path) -> list[tuple[Images.Image, str]]:
    """The sources of the page with the words below them."""
    found = re.findall(r'<img src="data:image/\w+;base64,(.*?)".*?<figcaption>(.*?)</figcaption>', page.read_text())
    return [(Images.open(io.BytesIO(base64.b64decode(url))).convert("RGB"), words) for url, words in found]


def test_the_mask_of_an_item_is_outlined_on_its_source(tmp_path: Path) -> None:
    source, mask = Images.new("RGB", (256, 128), "red"), Images.new("L", (256, 128))
    source.save(tmp_path / "wide.png")
    mask.paste(255, (0, 32, 128, 96))
    mask.save(tmp_path / "mask.png")
    boxes = {"unit": "share", "boxes": [[0, 0.25, 0.5, 0.75]]}
    outside = {"unit": "pixels", "boxes": [[256, 0, 300, 9]]}
    masks = ["mask.png", boxes, None, "none.png", outside]
    write_lines(tmp_path, [{"source": "wide.png", "instruction": "Go.", "mask": given} for given in masks])
    page = write_preview(tmp_path, tmp_path / "page.html", limit=60)
    shown = [(picture.tobytes(), words) for picture, words in pictures_of(page)]
    with_mask = outlined(source, mask).tobytes(), "256 × 128, mask outlined"
    bare = source.tobytes(), "256 × 128"
    assert shown == [with_mask, with_mask, bare, bare, bare]
    text = Page(page).text
    assert "none.png" in text and "is outside of a picture of 256x128 pixels" in text, "why they have none"


def test_the_page_refers_to_nothing_outside_and_texts_stay_texts(hostile: Path) -> None:
    page = Page(hostile)
    assert "script" not in {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert str(attributes.get(name) or "data:").startswith("data:")
    assert page.text.count(EVIL) == 3 + 1  # instruction, requirement and task in the card, and in the table
    assert "url(" not in hostile.read_text() and "@import" not in hostile.read_text()


def test_what_cannot_be_shown_is_told_on_its_card_and_wrong_lines_are_counted(hostile: Path) -> None:
    text = Page(hostile).text
    assert "there is no picture" in text and "lies outside" in text
    assert "9 references" in text
    assert re.search(r"3 faults in lines that are not counted here \(form 3\)", text)


def test_a_choice_of_many_items_is_random_and_always_the_same(tmp_path: Path) -> None:
    folder = export_toy(tmp_path / "data", 1)
    write_lines(folder, [{"source": "0.png", "instruction": f"Make {number} red."} for number in range(1, 1001)])
    chosen, counts, _ = choose_lines(folder, 100)
    numbers = [number for number, _ in chosen]
    assert counts.items == 1000 and len({*numbers}) == 100 and numbers == sorted(numbers)
    assert [number for number, line in chosen if line.instruction != f"Make {number} red."] == []
    assert 400 < sum(numbers) / 100 < 600  # the mean of a fair choice is 500.5, its deviation 27
    assert choose_lines(folder, 100)[0] == chosen
    page = Page(write_preview(folder, tmp_path / "page.html", limit=100))
    assert "1000 items, 1000 without requirement; a random choice of 100 is shown." in " ".join(page.text.split())


def test_planted_faults_do_not_stop_the_page_but_nothing_to_show_does(tmp_path: Path) -> None:
    plant(tmp_path / "data")
    page = Page(write_preview(tmp_path / "data", tmp_path / "page.html", limit=60))
    assert sum(tag == "article" for tag, _ in page.tags) == 40 + 13
    (tmp_path / "data.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no item that can be read; see editr1 data check"):
        write_preview(tmp_path, tmp_path / "page.html", limit=60)


@needs_chromium
@pytest.mark.parametrize(("theme", "page_colour"), [((), (251, 251, 250)), (("--force-dark-mode",), (21, 23, 27))])
def test_the_browser_runs_nothing_of_the_texts_and_follows_the_theme(
    hostile: Path, tmp_path: Path, theme: tuple[str, ...], page_colour: tuple[int, int, int]
) -> None:
    shot = tmp_path / "shot.png"
    dom, log = browse(hostile, tmp_path / "profile", "--dump-dom", f"--screenshot={shot}", *theme)
    assert "CONSOLE" not in log and "<title>editr1: &lt;b onclick=x&gt;data</title>" in dom
    with Images.open(shot) as image:
        assert image.convert("RGB").getpixel((3, 3)) == page_colour


@needs_chromium
def test_the_page_is_no_wider_than_a_phone_whatever_the_texts(hostile: Path, tmp_path: Path) -> None:
    frame = tmp_path / "phone.html"
    page = html.escape(hostile.read_text(encoding="utf-8"), quote=True)
    script = "document.body.dataset.width = this.contentDocument.documentElement.scrollWidth"
    frame.write_text(f'<body><iframe width="420" height="800" onload="{script}" srcdoc="{page}"></iframe></body>')
    dom, _ = browse(frame, tmp_path / "profile", "--dump-dom")
    found = re.search(r'data-width="(\d+)"', dom)
    assert found and int(found[1]) <= 420
