from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from editr1.data.forms import open_stored
from editr1.data.holdout import hold_out
from editr1.data.pictures import png
from editr1.data.samples import EditSample, JsonlDataset
from editr1.errors import UserError
from tests.formats import FORMS, arrow_table, toy_rows, write_form, write_shard, write_tar

ROWS = toy_rows()


@pytest.fixture(autouse=True)
def cache_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    yield
    assert not datasets.are_progress_bars_disabled(), "the user's own bars stay as they are"


def values(sample: EditSample) -> Any:
    pictures = [np.asarray(image).tolist() for image in (sample.source, *sample.references)]
    return sample.key, sample.instruction, sample.requirement, sample.task, pictures


@pytest.mark.parametrize("form", FORMS[1:])
def test_items_are_the_same_in_every_form(form: str, tmp_path: Path) -> None:
    lines = open_stored(write_form("jsonl", ROWS, tmp_path / "lines"))
    other = open_stored(write_form(form, ROWS, tmp_path / form))
    assert isinstance(lines, JsonlDataset) and len(other) == len(lines) == 12
    assert [values(other[index]) for index in range(12)] == [values(lines[index]) for index in range(12)]
    assert [len(other[index].references) for index in range(3)] == [0, 2, 0]


@pytest.mark.parametrize("form", FORMS[1:])
def test_the_held_out_items_are_the_same_and_share_no_source_picture_with_the_others(form: str, tmp_path: Path) -> None:
    splits = []
    for name in ("jsonl", form):
        data = open_stored(write_form(name, ROWS, tmp_path / name))
        splits.append([list(part.indices) for part in hold_out(data, data.sources, 0.25)])
    assert splits[0] == splits[1]
    training, held = splits[1]
    assert not {index // 2 for index in training} & {index // 2 for index in held}


def test_a_pattern_names_one_split_of_a_folder(tmp_path: Path) -> None:
    folder = write_form("parquet", ROWS, tmp_path / "set")
    parquet.write_table(arrow_table(ROWS[:3]), folder / "test-00000.parquet")
    assert len(open_stored(folder / "train-*.parquet")) == 12
    assert len(open_stored(folder / "test-00000.parquet")) == 3


def test_columns_of_the_released_layout_and_pictures_as_paths_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(ROWS[0]["source"])
    table = pa.table({"prompt": ["go", "on"], "image": ["a.png", "a.png"], "width": [3, 4], "task": [None, "add"]})
    parquet.write_table(table, tmp_path / "x.parquet")
    data = open_stored(tmp_path)
    assert [(s.key, s.instruction, s.task) for s in data] == [("row-0", "go", "edit"), ("row-1", "on", "add")]  # type: ignore[attr-defined]
    assert data.sources == [tmp_path / "a.png"] * 2


def test_pictures_may_be_plain_bytes(tmp_path: Path) -> None:
    rows = ROWS[:3]
    columns = {"source": [row["source"] for row in rows], "references": [row["references"] for row in rows]}
    parquet.write_table(pa.table(columns | {"instruction": ["a", "b", "c"]}), tmp_path / "x.parquet")
    lines = open_stored(write_form("jsonl", rows, tmp_path / "lines"))
    data = open_stored(tmp_path / "x.parquet")
    assert [values(data[index])[4] for index in range(3)] == [values(lines[index])[4] for index in range(3)]


def test_texts_of_a_shard_may_be_files_of_their_own(tmp_path: Path) -> None:
    picture = ROWS[0]["source"]
    files = {"a/1.txt": b"go\n", "a/1.requirement.txt": b"it goes", "a/1.jpg": picture, "a/1.target.png": b"x"}
    more = {
        "a/._2.png": b"of a Mac",
        "./a/2.prompt.txt": b"on",
        "./a/2.image.PNG": picture,
        "readme": b"x",
        "b/1.json": b'{"instruction": "b"}',
    }
    write_tar([*files.items(), *more.items(), ("b/1.png", picture)], tmp_path / "x.tar")
    faults: list[str] = []
    data = open_stored(tmp_path / "x.tar", faults=faults)
    assert [(key, line.instruction, line.requirement) for line, key, _ in data.items] == [
        ("a/1", "go", "it goes"),
        ("a/2", "on", ""),
        ("b/1", "b", ""),
    ]
    assert faults == [f"{tmp_path / 'x.tar'}: readme: source: Field required"]


def test_references_of_a_shard_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    row = {**ROWS[0], "references": [ROWS[index // 2 * 2]["source"] for index in range(11)]}
    write_shard([row], tmp_path / "x.tar")
    _, _, pictures = open_stored(tmp_path).items[0]
    assert [str(picture).rpartition("reference")[2] for picture in pictures[1:]] == [f"{i}.png" for i in range(11)]


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def edit_row(**change: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        parquet.write_table(arrow_table([ROWS[0], {**ROWS[1], **change}]), folder / "train-00000.parquet")

    return damage


def shard(*members: tuple[str, bytes]) -> Callable[[Path], None]:
    return lambda folder: write_tar(members, folder / "00000.tar")


def linked(folder: Path) -> None:
    with tarfile.open(folder / "00000.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(info)


def no_end(folder: Path) -> None:
    file = folder / "00000.tar"
    file.write_bytes(file.read_bytes().rstrip(b"\0"))


def compressed(folder: Path) -> None:
    with tarfile.open(folder / "00000.tar", "w:gz"):
        pass


def drop_column(folder: Path) -> None:
    parquet.write_table(arrow_table(ROWS).drop_columns(["instruction"]), folder / "train-00000.parquet")


def flip_page(folder: Path) -> None:
    content = bytearray((folder / "train-00000.parquet").read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    (folder / "train-00000.parquet").write_bytes(content)


def leave_folder(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"][0]["filename"] = "../other.arrow"
    (folder / "state.json").write_text(json.dumps(state))


def no_list(folder: Path) -> None:
    (folder / "state.json").write_text("{}")


def no_text(folder: Path) -> None:
    file = folder / "data-00000-of-00002.arrow"
    file.write_bytes(
        file.read_bytes().replace(ROWS[0]["instruction"].encode(), b"\xff" * len(ROWS[0]["instruction"]), 1)
    )


def no_stream_end(folder: Path) -> None:
    file = folder / "data-00000-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-8])


PNG = ROWS[0]["source"]
DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a parquet file cut short": ("parquet", cut("train-00001.parquet"), r"cannot read .*train-00001\.parquet: "),
    "a parquet page of zeros": ("parquet", flip_page, r"cannot read .*train-00000\.parquet: "),
    "a missing column": (
        "parquet",
        drop_column,
        r"train-00000\.parquet: there is no column 'instruction' or 'prompt' \(columns: source, references, key, "
        r"requirement, task\); rename one",
    ),
    "an empty instruction": ("parquet", edit_row(instruction=""), r"train-00000\.parquet: row 1: instruction: "),
    "a missing instruction": ("parquet", edit_row(instruction=None), r": row 1: instruction: Field required"),
    "a missing picture": ("parquet", edit_row(source=None), r": row 1: the picture|: row 1: there is no picture"),
    "a key that is there twice": ("parquet", edit_row(key="toy-0"), r": row 1: .*: row 0 has the key 'toy-0' too"),
    "an Arrow file cut short": ("saved", cut("data-00001-of-00002.arrow"), r"cannot read .*00001-of-00002\.arrow: "),
    "an Arrow file without its end": ("saved", no_stream_end, r"cannot read .*data-00000-of-00002\.arrow: it is cut"),
    "an Arrow file outside": ("saved", leave_folder, r"state\.json: the file '\.\./other\.arrow' lies outside"),
    "a list of files that is none": ("saved", no_list, r"state\.json is damaged"),
    "a shard cut short": ("tar", cut("00001.tar"), r"cannot read .*00001\.tar: "),
    "a shard without its end": ("tar", no_end, r"cannot read .*00000\.tar: "),
    "a compressed shard": ("tar", compressed, r"cannot read .*00000\.tar: .*unpack"),
    "a name that leaves the shard": ("tar", shard(("../a.png", PNG)), r"00000\.tar: \.\./a\.png: the name leaves"),
    "an absolute name": ("tar", shard(("/etc/a.png", PNG)), r": the name leaves"),
    "a link in a shard": ("tar", linked, r"00000\.tar: a\.png: it is a link"),
    "texts that are no UTF-8 in a table": ("saved", no_text, r"cannot read .*data-00000-of-00002\.arrow: .*UTF8"),
    "a shard's text that is no JSON": ("tar", shard(("a.png", PNG), ("a.json", b"{")), r"a\.json: not JSON"),
    "a shard's text that is no object": ("tar", shard(("a.png", PNG), ("a.json", b"[]")), r"must be one JSON object"),
    "a shard's text that is no UTF-8": ("tar", shard(("a.png", PNG), ("a.txt", b"\xff")), r"a\.txt: .*UTF-8"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line_that_names_the_file(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    form, damage, words = DAMAGES[name]
    place = write_form(form, ROWS, tmp_path / "data")
    capfd.readouterr()
    damage(place)
    with pytest.raises(UserError, match=words) as error:
        open_stored(place)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_row_with_a_broken_picture_is_named_when_it_is_opened(form: str, tmp_path: Path) -> None:
    rows = [*ROWS[:2], {**ROWS[2], "source": PNG[:-40]}, ROWS[3]]
    data = open_stored(write_form(form, rows, tmp_path / form))
    place = {"tar": r"00001\.tar: toy-2\.png", "saved": r"00001-of-00002\.arrow: row 0: source"}
    with pytest.raises(UserError, match=place.get(form, r"train-00001\.parquet: row 0: source")) as error:
        data[2]
    assert "of item 'toy-2'" in str(error.value) and "\n" not in str(error.value)
    assert data[3].key == "toy-3"


def test_all_wrong_rows_are_told_in_one_pass_and_left_out(tmp_path: Path) -> None:
    place = write_form("parquet", ROWS, tmp_path / "data")
    edit_row(instruction=None)(place)
    cut("train-00001.parquet")(place)
    faults: list[str] = []
    data = open_stored(place, faults=faults)
    assert len(data) == 1 and len(faults) == 2


def test_one_split_of_a_saved_dataset_is_to_be_named(tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset(arrow_table(ROWS))
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(str(tmp_path / "all"))
    with pytest.raises(UserError, match=r"holds several splits; name the folder of one: test, train"):
        open_stored(tmp_path / "all")
    assert len(open_stored(tmp_path / "all" / "test")) == 12


def test_a_folder_of_two_kinds_is_refused(tmp_path: Path) -> None:
    folder = write_form("parquet", ROWS, tmp_path / "data")
    write_shard(ROWS, folder / "x.tar")
    with pytest.raises(UserError, match=r"holds \.parquet and \.tar files"):
        open_stored(folder)


def test_without_the_library_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_form("parquet", ROWS, tmp_path / "data")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs datasets: pip install 'editr1\[datasets\]'"):
        open_stored(folder)
    monkeypatch.undo()


PROGRAM = """
import re, sys
from pathlib import Path
from editr1.data.forms import open_stored
def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
data = open_stored(Path(sys.argv[1]))
data[0]
before = own()
for index in range(1, len(data)):
    data[index]
print(own() - before, len(data))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS[1:])
def test_200_mb_are_read_by_index_in_a_few_mb_of_memory(form: str, tmp_path: Path) -> None:
    generator, picture = np.random.default_rng(0), (512, 512, 3)
    noise = [png(Image.fromarray(generator.integers(0, 256, picture, np.uint8))) for _ in range(256)]
    rows = [{"key": str(i), "source": one, "instruction": "go", "references": []} for i, one in enumerate(noise)]
    place = write_form(form, rows, tmp_path / "data")
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) > 200e6
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, place], env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    growth, count = map(float, done.stdout.split())
    assert count == 256 and growth < 40
