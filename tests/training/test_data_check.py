"""Every line and every picture of a dataset is looked at before it is needed, and a picture once only."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL import Image as Images

from editr1.data import pictures
from editr1.data.samples import JsonlDataset
from editr1.errors import UserError
from editr1.training.data_check import Headers, PictureCheck, describe, describe_sizes, headers_of


def write_lines(folder: Path, *lines: dict[str, Any] | str) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "data.jsonl").write_text("\n".join(texts))


def item(source: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "instruction": "make it red", **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(4):
        Image.effect_noise((40 + 10 * i, 30), 60).convert("RGB").save(tmp_path / f"{i}.jpg")
    return tmp_path


def test_all_wrong_lines_are_told_in_one_pass_and_the_right_ones_stay(folder: Path) -> None:
    lines: list[dict[str, Any] | str] = [
        item("0.jpg"),
        item("none.jpg"),
        "{",
        item("1.jpg", instrution="x"),
        item("../a.jpg"),
        item("2.jpg"),
    ]
    write_lines(folder, *lines)
    faults: list[str] = []
    dataset = JsonlDataset(folder, faults=faults)
    assert [line.source for line in dataset.lines] == ["0.jpg", "2.jpg"]
    assert [fault.partition("data.jsonl:")[2][:1] for fault in faults] == ["2", "3", "4", "5"]
    assert all("\n" not in fault for fault in faults)
    with pytest.raises(UserError, match=r"data\.jsonl:2: there is no picture 'none.jpg'"):
        JsonlDataset(folder)


def test_pictures_behind_links_and_absolute_paths_need_a_root_that_holds_them(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    store = tmp_path_factory.mktemp("store")
    Image.new("RGB", (8, 8), "red").save(store / "far.png")
    (folder / "linked").symlink_to(store)
    write_lines(folder, item("linked/far.png"), item(str(store / "far.png")), item("0.jpg"))
    with pytest.raises(UserError, match=r"lies outside .*, or set data.root"):
        JsonlDataset(folder)
    dataset = JsonlDataset(folder, root=store.parent)
    assert [dataset[i].source.size for i in range(3)] == [(8, 8), (8, 8), (40, 30)]
    with pytest.raises(UserError, match=r"deeper: there is no such folder"):
        JsonlDataset(folder, root=store / "deeper")
    (store / "deeper").mkdir()
    with pytest.raises(UserError, match="lies outside"):
        JsonlDataset(folder, root=store / "deeper")


def cut_jpeg(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def text(path: Path) -> None:
    path.write_text("no picture")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_jpeg, text, empty])
def test_a_damaged_picture_is_told_with_its_item(folder: Path, damage: Any) -> None:
    damage(folder / "1.jpg")
    check = PictureCheck({folder / f"{i}.jpg": f"item-{i}" for i in range(4)}, Headers(folder / "cache.json"))
    assert check.run(lambda: False, lambda fault: None)
    (fault,) = check.faults
    assert "1.jpg of item 'item-1'" in fault and fault.endswith("replace it or drop the line")
    assert check.seen == 4 and check.sizes == Counter({(40, 30): 1, (60, 30): 1, (70, 30): 1})


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_whole_picture_with_bytes_behind_its_end_is_none_of_the_damaged(tmp_path: Path, kind: str) -> None:
    Image.effect_noise((50, 20), 60).convert("RGB").save(tmp_path / "a", kind)
    with (tmp_path / "a").open("ab") as file:
        file.write(b"maker's notes of a phone")
    assert pictures.picture_size(tmp_path / "a", "no") == (50, 20)


def test_headers_are_read_once_until_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_image = Images.open
    monkeypatch.setattr(Images, "open", lambda path, formats: opened.append(path.name) or open_image(path))
    files: dict[pictures.Picture, str] = {folder / f"{i}.jpg": str(i) for i in range(4)}

    def look() -> list[str]:
        opened.clear()
        PictureCheck(files, headers_of(folder)).run(lambda: False, lambda fault: None)
        return sorted(opened)

    assert look() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert look() == []
    os.utime(folder / "2.jpg", ns=(1, 1))
    Image.new("RGB", (9, 9)).save(folder / "3.jpg")
    assert look() == ["2.jpg", "3.jpg"]
    headers_of(folder).file.write_text("damaged")
    assert len(look()) == 4


def test_a_check_that_is_stopped_has_seen_a_sample_and_goes_on_with_the_rest(folder: Path) -> None:
    files: dict[pictures.Picture, str] = {folder / f"{i}.jpg": str(i) for i in range(4)}
    check = PictureCheck(files, Headers(folder / "cache.json"))
    seen: list[str | None] = []
    assert not check.run(lambda: len(seen) == 2, seen.append)
    assert check.seen == 2 and check.run(lambda: False, seen.append)
    assert seen == [None] * 4 and sum(check.sizes.values()) == 4


def test_counts_are_those_of_the_lines(folder: Path) -> None:
    lines = [item(f"{i}.jpg", task=task) for i, task in enumerate(("add", "add", "remove"))]
    write_lines(folder, *lines, {**lines[0], "requirement": "It is red."})
    dataset = JsonlDataset(folder)
    assert describe(dataset) == "4 items; add 3, remove 1; 3 without requirement; 1 repeated"
    check = PictureCheck(dataset.pictures, Headers(folder / "cache.json"))
    check.run(lambda: False, lambda fault: None)
    assert describe_sizes(check.sizes) == "3 pictures of 40x30 to 60x30; 3 tiny or narrow"
    assert set(dataset.pictures.values()) == {"line-1", "line-2", "line-3"}
