"""A grid is read as it is meant, and what is wrong with it is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editr1.ablation.grid import config_of, read_grid
from editr1.algorithms.ema import EMA
from editr1.errors import UserError
from editr1.training.checkpoint import fixed_settings

GRIDS = Path(__file__).parents[2] / "benchmarks" / "grids"
GOOD = "{title: A, base: toy, variants: {usual: [], other: [algorithm.kl=0]}, steps: 4}"


def grid_file(folder: Path, text: str = GOOD) -> Path:
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_grid_has_settings_that_hold(path: Path, tmp_path: Path) -> None:
    grid = read_grid(path)
    configs = [config_of(grid, variant, 0, tmp_path) for variant in grid.variants]
    assert len({config.model_dump_json() for config in configs}) == len(configs)
    pinned = {json.dumps(fixed_settings(config)) for config in configs}
    assert len(pinned) == len(configs)  # else the runs of one variant could be taken for those of another


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_averages_of_different_settings_differ_within_the_steps_of_a_shipped_grid(path: Path, tmp_path: Path) -> None:
    grid = read_grid(path)
    configs = [config_of(grid, variant, 0, tmp_path) for variant in grid.variants]
    settings = {(config.ema, config.ema_warmup) for config in configs}
    averages = [EMA([], *each) for each in settings]
    decays = {tuple(average.decay_after(step) for step in range(grid.steps)) for average in averages}
    assert len(decays) == len(settings)


@pytest.mark.parametrize("variant", ["nft_published", "grpo_published", "grpo_window_published"])
def test_published_algorithms_have_their_own_constants_and_not_those_tuned_for_the_toy(
    tmp_path: Path, variant: str
) -> None:
    algorithm = config_of(read_grid(GRIDS / "algorithm.yaml"), variant, 0, tmp_path).algorithm
    told = {"std": "group", "adv_clip": 2.0, "timesteps_per_image": 2}
    told |= {"name": algorithm.name} | ({"window": 2} if "window" in variant else {})
    assert algorithm.model_dump() == type(algorithm).model_validate(told).model_dump()


def test_a_variant_is_the_base_with_its_settings_and_a_seed_and_folder_of_its_own(tmp_path: Path) -> None:
    grid = read_grid(grid_file(tmp_path))
    config = config_of(grid, "other", 2, tmp_path / "run")
    assert (config.algorithm.kl, config.seed, config.out, config.steps) == (0, 2, tmp_path / "run", 4)
    assert (grid.first, grid.points) == ("usual", [4])


def test_a_base_beside_the_grid_is_found_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{editor: {path: 'toy:qwen-image-edit'}, judge: {path: 'toy:judge'}}")
    grid = read_grid(grid_file(tmp_path, GOOD.replace("base: toy", "base: mine.yaml")))
    assert grid.base == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{title: A, base: toy, variants: {usual: []}}", "steps"),
        ("{title: A, base: toy, variants: {}, steps: 4}", "variants"),
        ("{title: A, base: toy, variants: {untrained: []}, steps: 4}", "'untrained' is no name"),
        ("{title: A, base: toy, variants: {../x: []}, steps: 4}", "is no name"),
        ("{title: A, base: toy, variants: {a: [seed=3]}, steps: 4}", "seed is set by the grid itself"),
        ("{title: A, base: toy, variants: {a: []}, steps: 4, measured: [2, 4]}", "rising numbers below steps=4"),
        ("{title: A, base: toy, variants: {a: []}, steps: 4, measured: [3, 2]}", "rising numbers below steps=4"),
        ("{title: A, base: toy, variant: {a: []}, steps: 4}", "variant"),
        ("[1, 2]", "grid.yaml"),
        ("{", "grid.yaml"),
    ],
)
def test_a_wrong_grid_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as fault:
        read_grid(grid_file(tmp_path, text))
    assert words in str(fault.value) and "grid.yaml" in str(fault.value) and "\n" not in str(fault.value)


def test_a_wrong_setting_names_its_variant(tmp_path: Path) -> None:
    grid = read_grid(grid_file(tmp_path, GOOD.replace("algorithm.kl=0", "algorithm.kll=0")))
    with pytest.raises(UserError, match=r"variant other: .*algorithm\.kl"):
        config_of(grid, "other", 0, tmp_path)


def test_own_data_without_anything_held_out_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("steps: 4", "steps: 4, overrides: [data.kind=jsonl, data.path=there]")
    with pytest.raises(UserError, match="nothing is held out"):
        config_of(read_grid(grid_file(tmp_path, text)), "usual", 0, tmp_path)


def test_no_grid_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the grid"):
        read_grid(tmp_path / "none.yaml")
