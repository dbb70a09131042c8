"""Every way to save work, in a run with mixed rewards of which some are missing, that is stopped and goes on exactly.

On two ranks: `scenarios.py`. With held-out items of the run's own data: `tests/cli/test_measured.py`.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from editr1.editors.memory import compile_blocks
from editr1.editors.open import open_editor
from editr1.files import read_lines
from editr1.judges.base import Judge, JudgeRequest, Score
from editr1.judges.rewards.mixed import MixedJudge
from editr1.training.trainer import Trainer
from tests.training.runs import ONLINE, Colours, assert_same_run, redness, settings
from tests.training.scenarios import PAPER, THRIFTY, Judged, flat_or_red, gated

SCOUTS = {"rollout__scouts": 6, "rollout__scout_steps": 2}
SOLVED = {**PAPER, "data__ban_solved": True}
OTHERS = {**PAPER, "rollout__most_groups": 5}
HALF = {"editor__dtype": "bfloat16", "adapter__autocast": True}
SAVINGS: dict[str, dict[str, Any]] = {
    "kl_share": {"algorithm__kl_share": 0.4},
    "informative": {"algorithm__informative": 0.6},
    "informative, rescaled": {"algorithm__informative": 0.6, "algorithm__rescaled": True},
    "stratified": {"algorithm__stratified": True},
    "other items": OTHERS,
    "scouts": SCOUTS,
    "solved items": SOLVED,
    "autocast": HALF,
    "all": {**HALF, **THRIFTY, **OTHERS, **SCOUTS, **SOLVED},
    "all, of a whole step": {**THRIFTY, **OTHERS, **SCOUTS, **SOLVED, "algorithm__std": "global"},
}
QUICK = ("autocast", "solved items", "all", "all, of a whole step")
THRIFT = ("algorithm__kl_share", "algorithm__informative", "algorithm__rescaled")
REFUSED = {"dgpo": THRIFT, "dpo": THRIFT, "rft": THRIFT[2:], "grpo": tuple(SCOUTS)}
"""Settings that an algorithm does not go with."""


def refused_in(saving: str, algorithm: str) -> set[str]:
    """The settings of a saving that an algorithm refuses."""
    return SAVINGS[saving].keys() & {*REFUSED.get(algorithm, ())}


def crossed() -> list[Any]:
    """Every saving with every algorithm that it goes with; of all at once, those that do."""
    pairs = [
        (saving, algorithm)
        for saving, algorithm in product(SAVINGS, ONLINE)
        if saving.startswith("all") or not refused_in(saving, algorithm)
    ]
    quick = {(saving, "nft") for saving in QUICK}
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow) for pair in pairs]


def some_missing(item: int, request: JudgeRequest) -> Score:
    """No reward for one edit in four, whichever; none at all for item 0; item 3 is solved."""
    deaf = round(redness(request) * 1e4) % 4 == 0 and item != 3
    return Score(None, "no answer") if deaf else flat_or_red(item, request)


def others_missing(item: int, request: JudgeRequest) -> Score:
    """No reward for two items; item 3 is solved."""
    return Score(None, "no answer") if item in (1, 4) else flat_or_red(item, request)


def rewards(compares: bool = False) -> Judge:
    """Two rewards, one of which is missing for two items; `compares` makes the other one a ranking of the edits."""
    first = Judged(some_missing, compares=compares)
    return MixedJudge({"red": (first, 1.0), "other": (Judged(others_missing), 0.5)})


def trainer_of(editor: Path, out: Path, judge: Judge, compiled: bool = False, **changes: Any) -> Trainer:
    sizes = {"rollout__group_size": 4, "rollout__groups_per_step": 2, "failures__steps": 99, "save_every": 1}
    config = settings(**{**sizes, **changes})
    form = getattr(torch, config.editor.dtype)
    opened = open_editor(editor, pixels=1024, dtype=form, guidance=config.editor.guidance)
    if compiled:
        compile_blocks(opened.denoiser)
    return Trainer(config, opened, judge, Colours(), out)


def assert_goes_on_exactly(editor: Path, folder: Path, judges: Any = rewards, **changes: Any) -> list[dict[str, Any]]:
    """Rows of a run of four steps, which is the same if it stops after the second."""
    trainer_of(editor, folder / "whole", judges(), steps=4, **changes).train()
    for step in (2, 4):
        trainer_of(editor, folder / "parts", judges(), steps=step, **changes).train()
    assert_same_run(folder / "whole", folder / "parts")
    return read_lines(folder / "whole" / "metrics.jsonl")


@pytest.mark.parametrize(("saving", "algorithm"), crossed())
def test_a_run_that_saves_work_goes_on_exactly_with_mixed_and_missing_rewards(
    tiny_editor_path: Path, tmp_path: Path, saving: str, algorithm: str
) -> None:
    changes = {key: value for key, value in SAVINGS[saving].items() if key not in refused_in(saving, algorithm)}
    rows = assert_goes_on_exactly(tiny_editor_path, tmp_path, algorithm__name=algorithm, **changes)
    assert sum(row["unscored"] for row in rows) > 0 < sum(row["parts_unscored"]["other"] for row in rows)
    assert any(row["update_norm"] > 0 for row in rows)
    if SOLVED.items() <= SAVINGS[saving].items():
        assert rows[-1]["banned"] == 1


@pytest.mark.parametrize(("algorithm", "setting"), [(name, each) for name in REFUSED for each in REFUSED[name]])
def test_a_saving_that_an_algorithm_does_not_go_with_is_refused_in_words(algorithm: str, setting: str) -> None:
    changes = SCOUTS if setting in SCOUTS else {setting: THRIFTY[setting]}
    words = {
        **dict.fromkeys(THRIFT, f"{setting.replace('__', '.')}=.* makes no sense with algorithm '{algorithm}': "),
        **dict.fromkeys(
            SCOUTS, f"rollout.scouts=6 needs edits that follow .*, but algorithm '{algorithm}' draws noise"
        ),
    }
    with pytest.raises(ValidationError, match=words[setting]):
        settings(algorithm__name=algorithm, **changes)


def test_a_judge_that_compares_edits_ranks_scouts_and_then_those_that_are_made_again(
    tiny_editor_path: Path, tmp_path: Path
) -> None:
    rows = assert_goes_on_exactly(tiny_editor_path, tmp_path, partial(rewards, compares=True), **SCOUTS)
    assert all(row["scout_reward"] is not None and row["scout_order"] is not None for row in rows)


@pytest.mark.parametrize("name", ONLINE)
def test_every_algorithm_trains_all_weights_by_mixed_and_missing_rewards_and_goes_on_exactly(
    tiny_editor_path: Path, tmp_path: Path, name: str
) -> None:
    rows = assert_goes_on_exactly(tiny_editor_path, tmp_path, algorithm__name=name, adapter__mode="full")
    assert sum(row["unscored"] for row in rows) > 0 < sum(row["parts_unscored"]["other"] for row in rows)
    assert any(row["update_norm"] > 0 for row in rows)


@pytest.mark.parametrize(
    "name",
    [name if name == "nft" else pytest.param(name, marks=pytest.mark.slow) for name in ONLINE if name != "grpo"],
)
def test_every_algorithm_but_that_of_trajectories_trains_with_guidance_and_goes_on_exactly(
    tiny_editor_path: Path, tmp_path: Path, name: str
) -> None:
    rows = assert_goes_on_exactly(tiny_editor_path, tmp_path, algorithm__name=name, editor__guidance=4.0)
    assert any(row["update_norm"] > 0 for row in rows)


@pytest.mark.parametrize("algorithm", ["awm", pytest.param("nft", marks=pytest.mark.slow)])
@pytest.mark.parametrize("std", ["group", pytest.param("global", marks=pytest.mark.slow)])
def test_a_run_by_a_product_and_weights_by_task_goes_on_exactly(
    tiny_editor_path: Path, tmp_path: Path, algorithm: str, std: str
) -> None:
    changes = {"algorithm__name": algorithm, "algorithm__std": std, "rollout__groups_per_step": 3}
    rows = assert_goes_on_exactly(tiny_editor_path, tmp_path, gated, **changes)
    assert all(set(row["reward_parts"]) == {"red", "kept", "plain", "gated"} for row in rows)
    missing = [row["parts_unscored"] for row in rows]
    assert sum(each["gated"] for each in missing) == sum(each["kept"] for each in missing) > 0
    assert all(each["red"] == 0 for each in missing) and any(row["update_norm"] > 0 for row in rows)


@pytest.mark.slow
def test_a_run_with_compiled_blocks_goes_on_exactly_with_all_that_saves_work(
    tiny_editor_path: Path, tmp_path: Path
) -> None:
    torch.compiler.reset()
    assert_goes_on_exactly(tiny_editor_path, tmp_path, compiled=True, **SAVINGS["all"])
