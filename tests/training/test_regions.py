from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1.config.settings import Config
from editr1.config.watching import KeptConfig
from editr1.editors.editor import Editor
from editr1.editors.open import open_named_editor
from editr1.errors import UserError
from editr1.toy.world import ToyDataset
from editr1.training.checkpoint import changed_settings, fixed_settings
from editr1.training.group import Group
from editr1.training.regions import divide, find_tokens, source_latents
from tests.training.runs import rows_of, settings
from tests.training.scenarios import SCENARIOS, assert_goes_on_exactly, trainer_of

SAMPLE = ToyDataset("heldout", 1)[0]
KEPT = KeptConfig(masks="data", weight=1.0)


def rollout_of(name: str, sample: Any = SAMPLE) -> Any:
    editor = open_named_editor(name, None, device=torch.device("cpu"))
    return editor.rollout(sample, 2, steps=2, seed=0)


@pytest.mark.parametrize("name", ["toy:qwen-image-edit", "toy:flux-kontext"])
def test_the_sources_latents_are_those_that_the_vae_gives_in_the_order_of_the_edits(name: str) -> None:
    editor: Editor = open_named_editor(name, None, device=torch.device("cpu"))
    blank = replace(SAMPLE, source=SAMPLE.source.copy())
    blank.source.paste((255, 0, 0), (0, 0, 16, 16))  # the upper left corner alone differs
    one, other = (editor.rollout(sample, 2, steps=2, seed=0) for sample in (SAMPLE, blank))
    n = one.latents.shape[1]
    a, b = (source_latents(each.conditioning, n, "k") for each in (one, other))
    assert a.shape == one.latents.shape[1:] and a.dtype == torch.float32
    side = round(n**0.5)
    moved = (a - b).abs().mean(-1).reshape(side, side)
    quarter = side // 4
    assert moved[:quarter, :quarter].mean() > 5 * moved[side // 2 :, side // 2 :].mean(), "row by row, from the top"
    # at the end of a rollout an edit is in the same space: its scale is that of the source
    assert 0.3 < float(a.std() / one.latents.std()) < 3


def test_tokens_stay_that_are_no_neighbours_of_the_mask() -> None:
    mask = Image.new("L", (64, 32))
    mask.paste(255, (17, 9, 18, 10))  # in the token of row 2, column 4
    masked, outside = divide(mask, (64, 32), 16 * 8)
    expected = np.ones((8, 16), bool)
    expected[1:4, 3:6] = False
    assert (outside == expected).all()
    assert np.argwhere(masked).tolist() == [[2, 4]]
    masked, outside = divide(Image.new("L", (64, 32), 255), (64, 32), 128)
    assert masked.all() and not outside.any()
    with pytest.raises(UserError, match=r"^preservation: 100 tokens of 64x32 pixels are no squares; leave weight"):
        divide(mask, (64, 32), 100)


def test_a_token_is_inside_if_the_mask_has_one_of_its_pixels() -> None:
    mask = Image.new("L", (1024, 1024))
    mask.putpixel((700, 300), 255)
    masked, outside = divide(mask, (1024, 1024), 16 * 16)
    assert np.argwhere(masked).tolist() == [[300 // 64, 700 // 64]] and (~outside).sum() == 9


def test_the_tokens_of_a_group_are_divided_if_it_has_a_mask() -> None:
    made = rollout_of("toy:qwen-image-edit")
    n = made.latents.shape[1]
    found = find_tokens(KEPT, Group(0, SAMPLE, made))
    assert SAMPLE.mask is not None and found is not None
    assert found.tolist() == [each.flatten().tolist() for each in divide(SAMPLE.mask, (64, 64), n)]
    assert find_tokens(KEPT, Group(0, replace(SAMPLE, mask=None), made)) is None
    white = find_tokens(KEPT, Group(0, replace(SAMPLE, mask=Image.new("L", (64, 64), 255)), made))
    assert white is not None and white[0].all() and not white[1].any()


def test_several_sources_are_refused_in_one_line() -> None:
    made = rollout_of("toy:qwen-image-edit", replace(SAMPLE, references=(SAMPLE.source,)))
    with pytest.raises(UserError, match=r"^preservation\.weight: item 'toy/.*leave references out$"):
        find_tokens(KEPT, Group(0, SAMPLE, made))


def test_what_is_only_measured_may_change_when_a_run_goes_on_and_what_is_trained_on_may_not() -> None:
    plain, measured = settings(), settings(preservation__masks="data")
    held = settings(preservation={"masks": "data", "weight": 0.5})

    def tree(config: Config) -> dict[str, Any]:
        return config.model_dump(mode="json")

    assert changed_settings(tree(plain), measured) == changed_settings(tree(measured), plain) == ""
    assert "preservation.weight: None there, 0.5 here" in changed_settings(tree(plain), held)
    assert "preservation.masks: data there, group here" in changed_settings(
        tree(held), settings(preservation={"masks": "group", "weight": 0.5})
    )
    assert fixed_settings(measured) == fixed_settings(plain) != fixed_settings(held)
    with pytest.raises(ValueError, match=r"preservation\.margin=1 is of the loss: set preservation\.weight"):
        settings(preservation__margin=1.0)


JUDGED: dict[str, Any] = {"judge": {"path": "toy"}, "rewards": {"kept": {"kind": "preservation", "masks": "data"}}}
BY_REGION: dict[str, Any] = {"preservation": {"masks": "data", "advantages": "region"}}
NO_OUTSIDE = "needs a reward of kind preservation, beside those of a formula; add one to rewards, or set"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rewards": {}}, NO_OUTSIDE),
        ({"rewards": {**JUDGED["rewards"], "gated": {"kind": "product", "formula": "judge * kept"}}}, NO_OUTSIDE),
        (
            {"rewards": {"kept": {"kind": "preservation"}}},
            'rewards.kept.masks="either" and preservation.masks="data" are not the same regions; set both alike, '
            "or set",
        ),
        (
            {
                "rewards": {"kept": {"kind": "preservation", "whole_tasks": ["style"]}},
                "preservation": {"masks": "either", "advantages": "region"},
            },
            "rewards.kept.whole_tasks differs from preservation.whole_tasks; set both alike, or set",
        ),
        ({"algorithm": {"name": "awm"}}, "algorithm 'awm' takes one advantage per edit; use \"nft\", or set"),
        ({"algorithm": {"name": "crd"}}, "algorithm 'crd' takes one advantage per edit; use \"nft\", or set"),
        (
            {"algorithm": {"informative": 0.5, "rescaled": True, "timesteps_per_image": 1}},
            "algorithm.rescaled scales the one advantage of an edit; leave it at false, or set",
        ),
    ],
)
def test_advantages_by_region_are_refused_in_one_line_where_they_make_no_sense(
    changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(told) + ' preservation.advantages to "edit"') as error:
        settings(**{**JUDGED, **BY_REGION, **changes})
    assert str(error.value).count('preservation.advantages="region"') == 1


def test_whole_tasks_in_another_order_are_the_same() -> None:
    tasks = {"masks": "group", "whole_tasks": ["style", "season"]}
    kept = {"kind": "preservation", "masks": "group", "whole_tasks": ["season", "style"]}
    preservation = {"advantages": "region", **tasks}
    assert settings(**{**JUDGED, "rewards": {"kept": kept}}, preservation=preservation).outside_rewards == {"kept"}


def test_rewards_of_kind_preservation_count_outside_alone_and_the_setting_is_of_the_run() -> None:
    plain, divided = settings(**JUDGED), settings(**JUDGED, **BY_REGION)
    assert divided.outside_rewards == {"kept"} and not plain.outside_rewards
    tree = plain.model_dump(mode="json")
    assert "preservation.advantages: None there, region here" in changed_settings(tree, divided)
    assert fixed_settings(divided) != fixed_settings(plain)


def test_an_editor_whose_source_is_no_tokens_may_have_advantages_by_region_and_no_loss_outside() -> None:
    made = rollout_of("toy:qwen-image-edit", replace(SAMPLE, references=(SAMPLE.source,)))
    found = find_tokens(KeptConfig(masks="data", advantages="region"), Group(0, SAMPLE, made))
    assert found is not None and found[0].any() and not found[0].all()


def test_an_editor_whose_edits_are_no_tokens_is_refused_in_one_line() -> None:
    made = rollout_of("toy:qwen-image-edit")
    pictures = replace(made, conditioning=replace(made.conditioning, shape=(16, 8, 8)))  # 16 channels, not 4x4 tokens
    told = r'^preservation\.advantages="region": item .* of the shape \[16, 8, 8\]; set it to "edit"$'
    with pytest.raises(UserError, match=told):
        find_tokens(KeptConfig(masks="data", advantages="region"), Group(0, SAMPLE, pictures))


@pytest.mark.long
def test_a_run_that_keeps_the_outside_goes_on_exactly_and_is_another_than_without(
    tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "outside kept"
    assert_goes_on_exactly(name, tmp_path, tiny_editor_path)
    monkeypatch.setitem(SCENARIOS, "plain", {**SCENARIOS[name], "preservation": {"masks": "data"}})
    trainer_of("plain", tmp_path / "plain", tiny_editor_path).train(until=1)
    rows, plain = rows_of(tmp_path / "whole"), rows_of(tmp_path / "plain")
    assert rows[0]["reward_mean"] == plain[0]["reward_mean"], "the same edits"
    assert rows[0]["loss"] > plain[0]["loss"] + 0.1 and rows[0]["loss_pos"] == plain[0]["loss_pos"]


@pytest.mark.long
def test_a_run_by_region_goes_on_exactly_and_is_another_than_without(
    tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "by region"
    assert_goes_on_exactly(name, tmp_path, tiny_editor_path)
    own = SCENARIOS[name]["preservation"]
    monkeypatch.setitem(SCENARIOS, "plain", {**SCENARIOS[name], "preservation": {**own, "advantages": "edit"}})
    trainer_of("plain", tmp_path / "plain", tiny_editor_path).train(until=1)
    rows, plain = rows_of(tmp_path / "whole"), rows_of(tmp_path / "plain")[0]
    assert rows[0]["reward_mean"] == plain["reward_mean"] and rows[0]["groups_kept"] == plain["groups_kept"]
    assert rows[0]["loss_pos"] != plain["loss_pos"] and rows[0]["kl"] == plain["kl"]
    assert sum(sum(row["parts_unscored"].values()) for row in rows) > 0, "some rewards are missing"
