"""`eval imgedit|gedit --masks`, `eval toy` and `eval compare`: what is kept outside of masks, beside the scores."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.data.masks import digest_of
from editr1.data.pictures import read_picture
from editr1.errors import UserError
from editr1.evaluation.benchmarks.base import Item, Line
from editr1.evaluation.benchmarks.compare import compare, write_comparison
from editr1.evaluation.benchmarks.gedit import GEdit
from editr1.evaluation.benchmarks.imgedit import ImgEdit
from editr1.evaluation.benchmarks.outside import check_masks, find_masks, outside_line, with_outside
from editr1.evaluation.benchmarks.results import ItemRow, Result, read_result, write_result
from editr1.preservation.features import model_name
from editr1.preservation.measure import outside_of
from editr1.report.comparison import change_tables, compare_tables, write_comparison_report
from editr1.report.tables import grids, terminal_tables
from editr1.toy.world import ToyDataset
from tests.evaluation.benchmarks.folders import gedit_folder, imgedit_folder


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["eval", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def opened(path: Path) -> Image.Image:
    return read_picture(path, "a picture")


@pytest.mark.long
def test_edits_with_a_mask_are_measured_and_the_others_count_in_no_mean(tmp_path: Path) -> None:
    data, masks, out = imgedit_folder(tmp_path / "data", 3), tmp_path / "masks", tmp_path / "out"
    masks.mkdir()
    world = ToyDataset("heldout", 3)
    for index in (0, 2):
        mask = world[index].mask
        assert mask is not None
        mask.save(masks / f"{1000 + index}.png")
    words = ["imgedit", "--data", data, "--editor", "toy", "--judge", "toy", "--steps", "2", "--out"]
    run(*words, tmp_path / "plain")
    said = run(*words, out, "--masks", masks)
    result = read_result(out)
    assert result.metrics == ("score", "psnr", "ssim")
    rows = {row.key: row for row in result.items}
    for index in (0, 2):
        mask = world[index].mask
        assert mask is not None
        row = rows[str(1000 + index)]
        expected = outside_of(world[index].source, opened(out / row.edit), mask).measures
        assert {name: row.scores[name] for name in expected} == expected
        assert (row.scores["ceiling_psnr"] or 0) > 15 and row.mask == digest_of(mask)
    assert rows["1001"].scores["psnr"] is rows["1001"].mask is None
    overall = result.tables["all"][-1].means
    assert overall["psnr"] == pytest.approx(
        ((rows["1000"].scores["psnr"] or 0) + (rows["1002"].scores["psnr"] or 0)) / 2
    )
    assert "2 of 3 items are measured; the round trip of the VAE" in said
    assert "2 of 3 items are measured" in (out / "index.html").read_text()
    run(*words, out, "--masks", masks)  # again, from the edits that are there
    again = read_result(out)
    assert (again.tables, again.made_with) == (result.tables, result.made_with)
    assert result.made_with["masks"].startswith("2 masks, ") and "features" not in result.made_with
    both = compare([tmp_path / "plain", out])
    assert both.first.metrics == ("score",) and set(both.changes["out"]["all"]) == {"score"}
    assert "Not all results have psnr, ssim, so that is left out." in both.notes
    assert not any("masks differs" in note for note in both.notes)
    assert set(compare([out, tmp_path / "plain"]).changes["plain"]["all"]) == {"score"}


@pytest.mark.long
def test_toy_items_are_measured_by_their_true_masks_beside_the_oracle(tmp_path: Path, dino: Path) -> None:
    words = ["toy", "--out", tmp_path, "--items", "9", "--edits", "1", "--steps", "2"]
    run(*words)
    bare = read_result(tmp_path)
    said = run(*words, "--features", dino)  # of the edits that are there
    result, world = read_result(tmp_path), ToyDataset("heldout", 9)
    assert result.metrics == ("oracle", "judge", "done", "preserved", "psnr", "ssim", "features", "structure")
    assert ", features " in said, "the ceiling is told"
    assert [row.scores | bare_row.scores for row, bare_row in zip(result.items, bare.items, strict=True)] == [
        row.scores for row in result.items
    ]
    assert bare.made_with["masks"] == result.made_with["masks"] == f"9 masks, {result.made_with['masks'][-8:]}"
    assert result.made_with["features"] == model_name(str(dino)) and "features" not in bare.made_with
    for index, row in enumerate(result.items):
        mask = world[index].mask
        assert mask is not None
        if row.task == "style":
            assert row.scores["psnr"] is None, "nothing is outside of it"
            assert 0 <= (row.scores["structure"] or -1) <= 1 and (row.scores["ceiling_structure"] or 0) > 0.8
        else:
            expected = outside_of(world[index].source, opened(tmp_path / row.edit), mask).measures["psnr"]
            assert row.scores["psnr"] == pytest.approx(expected) and row.scores["structure"] is None
            assert -1 <= (row.scores["features"] or -2) <= 1
    assert outside_line(result) is not None


def result_of(scores: dict[str, tuple[str, float]]) -> Result:
    items = tuple(ItemRow(key, task, ("all",), "go", "", "", {"score": value}) for key, (task, value) in scores.items())
    lines = tuple(Line(task, 1, 0, {"score": 1.0}, None) for task in ("a", "b", "overall"))
    return Result("imgedit", ("score",), 5.0, "types", {}, {"all": lines}, items)


def test_the_overall_is_the_mean_of_the_types_where_that_of_the_benchmark_is() -> None:
    plain = result_of({"1": ("a", 3.0), "2": ("a", 4.0), "3": ("b", 2.0), "4": ("b", 2.0)})
    measures = {key: {"psnr": value, "ssim": 0.5} for key, value in (("1", 20.0), ("2", 30.0), ("3", 40.0))}
    result = with_outside(plain, measures, {})
    assert [line.means["psnr"] for line in result.tables["all"]] == [25.0, 40.0, 32.5]
    by_items = with_outside(replace(plain, overall="items"), measures, {})
    assert by_items.tables["all"][-1].means["psnr"] == 30.0
    assert with_outside(plain, {"1": {}}, {}) == plain and outside_line(plain) is None
    (_, _, lines), *more = grids({"mine": result})
    assert [line[1] for line in lines] == ["score", "psnr", "ssim"] and not more, "one table, as without masks"


def test_the_ceiling_stands_below_its_measure_in_each_table_and_is_the_mean_that_the_overall_is(
    tmp_path: Path,
) -> None:
    plain = result_of({"1": ("a", 3.0), "2": ("a", 4.0), "3": ("b", 2.0)})
    ceilings = (("1", 30.0), ("2", 40.0), ("3", 50.0))
    measures = {key: {"psnr": 20.0, "ssim": 0.5, "ceiling_psnr": value} for key, value in ceilings}
    result = with_outside(plain, measures, {})
    (_, _, lines), *_ = grids({"mine": result})
    assert [line[1] for line in lines] == ["score", "psnr", "psnr, ceiling", "ssim"]
    assert lines[2] == ["mine", "psnr, ceiling", "35.00", "50.00", "42.50"]
    assert "the ceiling, has psnr 42.50." in (outside_line(result) or "")
    by_items = with_outside(replace(plain, overall="items"), measures, {})
    assert "the ceiling, has psnr 40.00." in (outside_line(by_items) or "")
    (table,) = terminal_tables(by_items)
    assert [[*column.cells][-1] for column in table.columns] == ["the VAE's ceiling", "", "", "", "40.00", ""]
    for name in ("one", "two"):
        write_result(result, tmp_path / name)
    _overall, *_ = compare_tables(compare([tmp_path / "one", tmp_path / "two"]))
    names, psnr = ([*map(str, column.cells)] for column in (_overall.columns[0], _overall.columns[2]))
    at = names.index("one: the VAE's ceiling")
    assert names[at - 1] == "one" and psnr[at - 1 : at + 1] == ["20.00", "42.50"]


def test_changes_of_what_is_kept_have_an_interval_of_the_items_that_both_have(tmp_path: Path) -> None:
    plain = result_of({"1": ("a", 3.0), "2": ("a", 4.0), "3": ("b", 2.0)})
    for name, more in (("before", 0.0), ("after", 1.5)):
        measures = {key: {"psnr": 30 + more, "ssim": 0.9} for key in (("1", "2") if more else ("1", "2", "3"))}
        write_result(with_outside(plain, measures, {}), tmp_path / name)
    change = compare([tmp_path / "before", tmp_path / "after"]).changes["after"]["all"]["psnr"]
    assert (change["a"].delta, change["a"].items) == (1.5, 2) and "b" not in change


def test_changes_of_what_is_kept_have_the_ceiling_of_their_items_beside_them(tmp_path: Path) -> None:
    plain = result_of({"1": ("a", 3.0), "2": ("a", 4.0), "3": ("b", 2.0), "4": ("b", 2.0)})
    ceilings = {"1": 30.0, "2": 40.0, "3": 50.0, "4": 99.0}
    for name, lost, keys in (("one", 0.0, "1234"), ("same", 0.0, "123"), ("vae", 2.0, "123")):
        measures = {key: {"psnr": 20.0, "ssim": 0.5, "ceiling_psnr": ceilings[key] - lost} for key in keys}
        write_result(with_outside(plain, measures, {}), tmp_path / name)
    found = compare([tmp_path / name for name in ("one", "same", "vae")])
    psnr = found.changes["vae"]["all"]["psnr"]
    assert {line: change.ceiling for line, change in psnr.items()} == {
        "a": (35.0, 33.0),
        "b": (50.0, 48.0),  # of 3 alone, which both have
        "overall": (42.5, 40.5),
    }
    assert found.changes["vae"]["all"]["ssim"]["overall"].ceiling is None
    assert found.changes["vae"]["all"]["score"]["overall"].ceiling is None
    write_comparison(found, tmp_path)
    told = json.loads((tmp_path / "compare.json").read_text())["changes"]["same"]["all"]
    assert told["psnr"]["overall"]["ceiling"] == [42.5, 42.5]
    tables = {table["title"]: table for table in change_tables(found, "vae")}
    assert [table["ceiling"] for table in tables.values()] == [False, True, False]
    page = write_comparison_report(found, tmp_path).read_text()
    assert page.count('<th class="num">Ceiling</th>') == 2, "one of each result"
    assert '<td class="num">42.50</td></tr>' in page and '<td class="num">42.50 / 40.50</td></tr>' in page


def test_results_of_other_masks_or_vision_models_are_said_to_be_not_comparable(tmp_path: Path) -> None:
    plain = result_of({"1": ("a", 3.0), "2": ("b", 2.0)})
    every: dict[str, dict[str, str]] = {
        "one": {"masks": "2 masks, 11111111", "features": "dinov2, 11111111"},
        "same": {"masks": "2 masks, 11111111", "features": "dinov2, 11111111"},
        "other": {"masks": "2 masks, 22222222", "features": "clip, 22222222"},
        "old": {},  # of a version that recorded neither
    }
    for name, record in every.items():
        measures = {key: {"psnr": 30.0, "ssim": 0.9, "features": 0.9} for key in ("1", "2")}
        write_result(replace(with_outside(plain, measures, {}), made_with=record), tmp_path / name)
    masks = "What is kept outside of masks (psnr, ssim, features, structure) is not comparable, masks differs"
    features = "What is kept outside of masks (features) is not comparable, features differs"

    def notes(*names: str) -> list[str]:
        told = compare([tmp_path / name for name in names]).notes
        return [note for note in told if note.startswith("What is kept")]

    assert notes("one", "same") == []
    assert notes("one", "other") == [
        f"{masks} (one: 2 masks, 11111111, other: 2 masks, 22222222).",
        f"{features} (one: dinov2, 11111111, other: clip, 22222222).",
    ]
    assert notes("old", "one")[0] == f"{masks} (old: unknown, one: 2 masks, 11111111)."
    write_result(plain, tmp_path / "bare")
    assert notes("bare", "other") == []


def test_masks_are_compared_by_the_items_that_results_share(tmp_path: Path) -> None:
    for name, masks in {"all": "abc", "two": "ab", "other": "axc", "apart": "  c", "old": "ab"}.items():
        records = {str(i): {"mask": digest} for i, digest in enumerate(masks) if digest != " "}
        plain = result_of(dict.fromkeys(records, ("a", 3.0)))
        result = with_outside(plain, {key: {"psnr": 30.0, "ssim": 0.9} for key in records}, records)
        if name == "old":  # of a version that recorded the masks of all items alone
            result = replace(result, items=tuple(replace(row, mask=None) for row in result.items))
        write_result(result, tmp_path / name)

    def notes(*names: str) -> list[str]:
        told = compare([tmp_path / name for name in names]).notes
        return [note.partition("not comparable, ")[2] for note in told if note.startswith("What is kept")]

    assert notes("all", "two") == notes("two", "all") == notes("all", "two", "apart") == []
    assert notes("two", "other") == ["masks differs for 1 of 2 shared items, such as 1."]
    assert notes("apart", "all", "other") == []
    assert notes("all", "apart", "other") == ["masks differs for 1 of 3 shared items, such as 1."]
    assert notes("old", "two") == []
    assert notes("old", "all")[0].startswith("masks differs (old: 2 masks, ")


def test_features_without_masks_and_a_folder_without_a_model_are_one_line_before_any_edit(tmp_path: Path) -> None:
    words = ["imgedit", "--data", imgedit_folder(tmp_path / "data", 1), "--editor", "toy", "--judge", "toy", "--out"]
    words += [tmp_path / "out", "--features", tmp_path]
    result = CliRunner().invoke(app, ["eval", *map(str, words)])
    assert result.exit_code == 2
    assert "--features measures outside of masks: give --masks FOLDER too" in result.output
    Image.new("L", (64, 64), 255).save(tmp_path / "1000.png")
    result = CliRunner().invoke(app, ["eval", *map(str, words), "--masks", str(tmp_path)])
    assert result.exit_code == 2 and "give the folder of a model saved with save_pretrained" in result.output
    assert not (tmp_path / "out" / "answers.jsonl").exists()


def test_a_folder_without_a_mask_of_any_item_is_one_line(tmp_path: Path) -> None:
    benchmark = ImgEdit(imgedit_folder(tmp_path / "data", 2))
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match=r"--masks .* holds no mask of an item; the first one is 1000\.png there$"):
        find_masks(benchmark.items, tmp_path / "masks")
    (tmp_path / "masks/1001.jpg").write_bytes(b"")
    assert find_masks(benchmark.items, tmp_path / "masks") == {"1001": tmp_path / "masks/1001.jpg"}


def test_masks_that_cannot_be_used_end_the_command_before_any_edit_with_a_line_each(tmp_path: Path) -> None:
    data, masks, out = imgedit_folder(tmp_path / "data", 4), tmp_path / "masks", tmp_path / "out"
    masks.mkdir()
    (masks / "1000.png").write_bytes(b"no picture")
    Image.new("L", (64, 48), 255).save(masks / "1001.png")
    Image.new("L", (64, 64), 1).save(masks / "1002.png")
    Image.new("L", (128, 128), 255).save(masks / "1003.png")
    words = ["imgedit", "--data", data, "--editor", "toy", "--judge", "toy", "--out", out, "--masks", masks]
    result = CliRunner().invoke(app, ["eval", *map(str, words)])
    assert result.exit_code == 2
    first, second, third = (line for line in result.output.splitlines() if "mask /" in line)
    assert "1000.png: cannot read a picture" in first and first.endswith("replace it or leave it out")
    assert second.endswith("1001.png: it has 64x48 pixels, its source 64x64; make it in the source's shape")
    assert "1002.png: it is black all over; make white what the edit may change" in third
    assert not list(out.glob("*.png")) and not (out / "answers.jsonl").exists()
    (masks / "1003.webp").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 1003\.png and 1003\.webp; leave one of them$"):
        find_masks(ImgEdit(data).items, masks)


def item_of(*sizes: tuple[int, int]) -> Item:
    """An item whose source the judge sees in the first size, and the editor gets in the last."""
    source, original = (partial(Image.new, "RGB", size) for size in (sizes[0], sizes[-1]))
    return Item("k", "add", "go", source, "k.png", "s.png", original=original)


@pytest.mark.parametrize(
    ("mask", "sizes", "fits"),
    [
        ((1500, 1000), [(1500, 1000)], True),
        ((375, 250), [(1500, 1000)], True),
        ((512, 341), [(1500, 1000)], True),  # 341.33 rounded
        ((512, 320), [(1500, 1000)], False),
        ((1000, 1500), [(1500, 1000)], False),
        ((512, 512), [(1500, 1000)], False),
        ((1248, 848), [(1248, 848), (1500, 1000)], True),
        ((750, 500), [(1248, 848), (1500, 1000)], True),
    ],
)
def test_a_mask_has_the_shape_of_its_source_as_the_editor_or_the_judge_sees_it_at_any_size(
    mask: tuple[int, int], sizes: list[tuple[int, int]], fits: bool, tmp_path: Path
) -> None:
    Image.new("L", mask, 255).save(tmp_path / "k.png")
    with nullcontext() if fits else pytest.raises(UserError, match="make it in the source's shape"):
        check_masks([item_of(*sizes)], {"k": tmp_path / "k.png"})


def test_an_item_whose_source_cannot_be_read_is_no_fault_of_its_mask(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "k.png")
    broken = partial(read_picture, tmp_path / "none.png", "broken")
    check_masks([replace(item_of((8, 8)), source=broken, original=None)], {"k": tmp_path / "k.png"})


def test_the_masks_of_gedit_are_in_the_folders_of_its_keys(tmp_path: Path) -> None:
    benchmark = GEdit(gedit_folder(tmp_path / "data", 2))
    task = benchmark.items[0].task
    file = tmp_path / "masks" / task / "cn" / "k0.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    assert find_masks(benchmark.items, tmp_path / "masks") == {f"{task}/cn/k0": file}
