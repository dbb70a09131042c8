import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from editr1.data.samples import GroupSampler, JsonlDataset
from editr1.errors import UserError


def write_dataset(folder: Path, *lines: object) -> Path:
    folder.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "data.jsonl").write_text(text, encoding="utf-8")
    return folder


def red_picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 10, 30)).convert(mode).save(path)


def test_items_come_out_as_written(tmp_path: Path) -> None:
    red_picture(tmp_path / "set" / "pictures" / "a.png")
    full = {"source": "pictures/a.png", "instruction": "Füge hinzu", "requirement": "r", "task": "add", "key": "k1"}
    dataset = JsonlDataset(write_dataset(tmp_path / "set", full, "", {"source": "pictures/a.png", "instruction": "go"}))
    assert len(dataset) == 2
    first, second = dataset[0], dataset[1]
    assert (first.key, first.instruction, first.requirement, first.task) == ("k1", "Füge hinzu", "r", "add")
    assert (second.key, second.requirement, second.task) == ("line-3", "", "edit")
    assert first.source.getpixel((0, 0)) == (200, 10, 30)


def test_the_released_layout_is_read_as_it_is(tmp_path: Path) -> None:
    red_picture(tmp_path / "images" / "a.png")
    line = {"prompt": "Make it blue.", "image": "images/a.png", "requirement": "It is blue.", "id": 3}
    file = tmp_path / "train_metadata.jsonl"
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    item = JsonlDataset(tmp_path)[0]
    assert (item.instruction, item.requirement, item.source.size) == ("Make it blue.", "It is blue.", (6, 4))
    file.write_text(json.dumps({"prompt": "Make it blue."}), encoding="utf-8")
    with pytest.raises(UserError, match=r"train_metadata\.jsonl:1: image: .*keys: .*image, prompt"):
        JsonlDataset(tmp_path)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_every_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    red_picture(tmp_path / "a.png", mode)
    image = JsonlDataset(write_dataset(tmp_path, {"source": "a.png", "instruction": "go"}))[0].source
    assert (image.mode, image.size) == ("RGB", (6, 4))


def test_pictures_stand_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    assert JsonlDataset(write_dataset(tmp_path, {"source": "a.jpg", "instruction": "go"}))[0].source.size == (4, 8)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{not json", "not JSON"),
        ("[1]", "the line"),
        ({"source": "a.png"}, "instruction"),
        ({"source": "a.png", "instruction": ""}, "instruction"),
        ({"source": "a.png", "instruction": 3}, "instruction"),
        ({"source": "a.png", "instruction": "go", "taks": "add"}, "taks"),
        ({"source": "b.png", "instruction": "go"}, "no picture 'b.png'"),
        ({"source": "../a.png", "instruction": "go"}, "outside"),
        ({"source": "/etc/hostname", "instruction": "go"}, "outside"),
        ({"source": "link.png", "instruction": "go"}, "outside"),
        ({"source": "a.png", "instruction": "go", "references": ["../a.png"]}, "outside"),
        ({"source": "a.png", "instruction": "go", "references": "a.png"}, "references"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_number(tmp_path: Path, line: object, problem: str) -> None:
    folder = tmp_path / "set"
    red_picture(folder / "a.png")
    red_picture(tmp_path / "a.png")
    (folder / "link.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(UserError) as caught:
        JsonlDataset(write_dataset(folder, {"source": "a.png", "instruction": "fine"}, line))
    assert f"{folder / 'data.jsonl'}:2: " in str(caught.value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.jsonl"):
        JsonlDataset(tmp_path)
    with pytest.raises(UserError, match="holds no item"):
        JsonlDataset(write_dataset(tmp_path, "", ""))


def test_repeated_keys_are_refused(tmp_path: Path) -> None:
    red_picture(tmp_path / "a.png")
    line = {"source": "a.png", "instruction": "go", "key": "same"}
    with pytest.raises(UserError, match=r"data\.jsonl:2: line 1 has the key 'same' too"):
        JsonlDataset(write_dataset(tmp_path, line, line))
    faults: list[str] = []
    JsonlDataset(write_dataset(tmp_path, *[line] * 50), faults=faults)
    assert len(faults) == 1, "one line, however many lines share the key"


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n broken", b""])
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    dataset = JsonlDataset(write_dataset(tmp_path, {"source": "bad.png", "instruction": "go", "key": "k"}))
    with pytest.raises(UserError, match=r"bad\.png of item 'k'"):
        dataset[0]


def test_a_picture_that_was_cut_short_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    dataset = JsonlDataset(write_dataset(tmp_path, {"source": "cut.png", "instruction": "go"}))
    with pytest.raises(UserError, match=r"cut\.png"):
        dataset[0]


@given(size=st.integers(1, 30), per_step=st.integers(1, 40), seed=st.integers(0, 2**40))
def test_every_epoch_visits_every_item_once(size: int, per_step: int, seed: int) -> None:
    sampler = GroupSampler(size, per_step, seed)
    steps = -(-3 * size // per_step)
    visited = [index for step in range(steps) for index in sampler.draw(step * per_step)[0]]
    assert all(len(sampler.draw(step * per_step)[0]) == per_step for step in range(steps))
    for epoch in range(3):
        assert Counter(visited[epoch * size : (epoch + 1) * size]) == Counter(range(size))


def test_epochs_and_seeds_differ_and_steps_need_no_history() -> None:
    sampler = GroupSampler(50, 50, seed=3)
    late, after = sampler.draw(7 * 50)
    assert sampler.draw(0)[0] != sampler.draw(50)[0] != late
    assert after == 8 * 50
    assert GroupSampler(50, 50, seed=3).draw(7 * 50) == (late, after)
    assert GroupSampler(50, 50, seed=4).draw(7 * 50)[0] != late


@given(st.data(), st.integers(2, 20), st.integers(1, 30), st.integers(0, 2**40))
def test_banned_items_are_passed_over_and_the_others_keep_their_order(
    data: st.DataObject, size: int, per_step: int, seed: int
) -> None:
    banned = data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1))
    sampler = GroupSampler(size, per_step, seed)
    everything, _ = GroupSampler(size, 90 * size, seed).draw(0)
    place, drawn = 0, list[int]()
    for _ in range(3):
        items, place = sampler.draw(place, banned)
        assert len(items) == per_step
        drawn += items
    assert drawn == [item for item in everything[:place] if item not in banned]


def test_when_every_item_is_banned_the_message_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"all 3 items are solved.*harder items"):
        GroupSampler(3, 2, seed=0).draw(0, {0, 1, 2})


def test_references_are_opened_in_their_order(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, {"source": "a.png", "instruction": "go", "references": ["b.png", "a.png"]})
    for name, colour in {"a.png": (1, 2, 3), "b.png": (4, 5, 6)}.items():
        Image.new("RGB", (4, 4), colour).save(folder / name)
    sample = JsonlDataset(folder)[0]
    assert [picture.getpixel((0, 0)) for picture in sample.references] == [(4, 5, 6), (1, 2, 3)]
