"""Each alarm sounds on what it is for, and none on healthy recorded runs.

recorded/ holds rows of runs of the toy world: `editr1 demo` with seed 0, the README's run of AWM, a run of two groups a
step, and `editr1 train toy optim.lr=1.0` with 8 groups a step and with 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editr1.files import read_lines
from editr1.training.alarms import CLIPPED_ROWS, CONSTANT_ROWS, KEPT_ROWS, WINDOW, sounded, sounding

RECORDED = Path(__file__).parent / "recorded"
CLIP = 1.0


def healthy(count: int = 40) -> list[dict[str, Any]]:
    """Rows of a run in which all is well."""
    return [
        {
            "step": step,
            "reward_mean": 0.5 + 0.003 * step + (0.02 if step % 2 else -0.02),
            "reward_std_within": 0.2,
            "reward_std_all": 0.28,
            "groups_kept": 7,
            "dropped": {"agree_and_high": 1},
            "grad_norm": 0.3,
            "drift": dict.fromkeys(
                ("latent_norm", "brightness", "saturation", "sharpness", "source_distance"),
                0.01 if step % 3 else -0.01,
            ),
        }
        for step in range(1, count + 1)
    ]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [alarm.name for alarm in sounding(rows, CLIP)]


def changed(rows: list[dict[str, Any]], last: int, **values: Any) -> list[dict[str, Any]]:
    """The rows, with other values in the last ones."""
    return [*rows[:-last], *({**row, **values} for row in rows[-last:])]


@pytest.mark.parametrize("name", ["demo", "awm", "two_groups"])
def test_no_alarm_sounds_on_a_healthy_recorded_run(name: str) -> None:
    assert sounded(read_lines(RECORDED / f"{name}.jsonl"), CLIP) == []


def test_less_that_is_kept_outside_of_the_masks_is_told_once_it_is_clear() -> None:
    def rows(fall: float, noise: float = 0.3) -> list[dict[str, Any]]:
        return [
            {**row, "outside": {"psnr": 28 + (noise if row["step"] % 2 else -noise) - fall * (row["step"] > 30)}}
            for row in healthy()
        ]

    (alarm,) = sounding(rows(2.5), CLIP)
    assert alarm.name == "more is changed than was asked" and "fallen by 2.5 dB" in alarm.text
    assert "+preserve" in alarm.text
    assert names(rows(0.8)) == names(rows(2.5, noise=4.0)) == names(rows(-3.0)) == []
    unmeasured = [{**row, "outside": {"measured": 0.0}} for row in healthy()]
    assert names(unmeasured) == [], "what is not measured is no zero"


def test_run_ruined_by_its_learning_rate_is_told_after_the_first_ruined_step() -> None:
    rows = read_lines(RECORDED / "lr_1.jsonl")
    assert [alarm.name for alarm in sounding(rows[:1], CLIP)] == []
    (alarm,) = sounding(rows[:2], CLIP)
    assert alarm.name == "reward collapsed" and "from 0.66 to 0.09" in alarm.text and "lower optim.lr" in alarm.text
    assert [(first, last) for first, last, _ in sounded(rows, CLIP)] == [(2, 4)]


def test_ruin_of_a_run_of_two_groups_a_step_is_told_after_some_steps_as_one_may_be_hard_items() -> None:
    ((first, last, alarm),) = sounded(read_lines(RECORDED / "lr_1_two_groups.jsonl"), CLIP)
    assert (first, last, alarm.name) == (4, 5, "reward collapsed")


def test_made_up_healthy_rows_are_silent() -> None:
    assert sounded(healthy(), CLIP) == []


@pytest.mark.parametrize(("reward", "steps", "expected"), [(0.05, 1, True), (0.2, 1, False), (0.2, 3, True)])
def test_collapse_is_a_fall_to_a_quarter_in_one_step_or_to_half_in_three(
    reward: float, steps: int, expected: bool
) -> None:
    assert names(changed(healthy(), steps, reward_mean=reward)) == ["reward collapsed"] * expected


def test_slow_collapse_is_measured_against_the_start() -> None:
    rows = [{**row, "reward_mean": 0.6 * 0.97 ** row["step"]} for row in healthy(60)]
    assert names(rows) == ["reward collapsed"] and names(rows[:10]) == []


def test_hard_items_of_a_step_with_few_groups_are_no_collapse() -> None:
    few = [{**row, "groups_kept": 1, "dropped": {"agree_and_high": 1}} for row in healthy()]
    assert names(changed(few, 1, reward_mean=0.12)) == []
    assert "reward collapsed" in names(changed(healthy(), 1, reward_mean=0.12))


@pytest.mark.parametrize("name", ["latent_norm", "brightness", "saturation", "sharpness", "source_distance"])
def test_drift_without_gain_names_what_has_moved_and_a_gain_silences_it(name: str) -> None:
    flat = [{**row, "reward_mean": 0.5 + (0.02 if row["step"] % 2 else -0.02)} for row in healthy()]
    drift = {**flat[0]["drift"], name: -0.4}
    (alarm,) = sounding(changed(flat, WINDOW, drift=drift), CLIP)
    assert alarm.name == "drift without gain" and f"{name.replace('_', ' ')} -0.40" in alarm.text
    assert names(changed(flat, WINDOW, drift=drift, reward_mean=0.8)) == []
    assert names(changed(flat, 1, drift=drift)) == []


def test_a_watched_score_that_falls_while_the_reward_rises_is_told_and_one_that_falls_with_it_is_not() -> None:
    def watched(rows: list[dict[str, Any]], slope: float) -> list[dict[str, Any]]:
        return [{**row, "watched": {"judge": 0.6 + slope * row["step"] + 0.01 * (row["step"] % 2)}} for row in rows]

    rows = watched(healthy(40), -0.005)
    (alarm,) = sounding(rows, CLIP)
    assert alarm.name == "watched score falls"
    assert "risen by 0.09" in alarm.text and "watched judge has fallen by 0.15" in alarm.text
    assert names(watched(healthy(40), 0.005)) == names(watched(healthy(40), -0.0002)) == []
    assert names(watched(healthy(15), -0.005)) == []  # too few rows to tell
    falling = [{**row, "reward_mean": 1.0 - row["reward_mean"]} for row in healthy(40)]
    assert names(watched(falling, -0.005)) == names(falling) == []


def test_constant_reward_sounds_after_some_rows_without_spread_in_the_groups() -> None:
    none = {"reward_std_within": 0.0, "reward_std_all": 0.1}
    assert names(changed(healthy(), CONSTANT_ROWS, **none)) == ["constant reward"]
    assert names(changed(healthy(), CONSTANT_ROWS - 1, **none)) == []
    assert names(healthy(CONSTANT_ROWS)[:1]) == []


def test_hardly_any_group_kept_names_counts_and_the_commonest_reason() -> None:
    dropped = {"groups_kept": 0, "dropped": {"agree_and_high": 7, "unscored": 1}}
    (alarm,) = sounding(changed(healthy(), KEPT_ROWS, **dropped), CLIP)
    assert alarm.name == "hardly any group kept"
    assert "Of the last 40 groups 0 were trained on; 35 were dropped for agree and high" in alarm.text
    assert "By algorithm.filter=paper their items are solved" in alarm.text
    assert names(changed(healthy(), KEPT_ROWS - 1, **dropped)) == []


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [("no_reward", "mend the judge"), ("high", "raise algorithm.tau_mu"), ("no_spread", "lower algorithm.tau_sigma")],
)
def test_hardly_any_group_kept_has_a_remedy_for_each_reason(reason: str, remedy: str) -> None:
    (alarm,) = sounding(changed(healthy(), KEPT_ROWS, groups_kept=0, dropped={reason: 8}), CLIP)
    assert remedy in alarm.text


def test_gradient_that_is_always_clipped_is_told_with_its_norm_and_the_limit() -> None:
    (alarm,) = sounding(changed(healthy(), CLIPPED_ROWS, grad_norm=30.0), CLIP)
    assert alarm.name == "gradient always clipped" and "norm 30, limit 1)" in alarm.text
    assert names(changed(healthy(), CLIPPED_ROWS - 1, grad_norm=30.0)) == []
    assert [a.name for a in sounding(changed(healthy(), CLIPPED_ROWS, grad_norm=30.0), 40.0)] == []


def test_rows_without_a_reward_are_no_alarm_of_their_own_and_break_none() -> None:
    none = {"reward_mean": None, "reward_std_within": None, "reward_std_all": None, "grad_norm": None}
    assert names(changed(healthy(), 3, **none)) == []
    assert names([{**row, **none} for row in healthy()]) == []


def test_what_sounded_at_each_step_is_what_the_report_lists() -> None:
    rows = changed(healthy(30), 3, reward_mean=0.05) + [{**row, "step": row["step"] + 30} for row in healthy(30)]
    steps = [row["step"] for end, row in enumerate(rows, 1) if sounding(rows[:end], CLIP)]
    assert [(first, last) for first, last, _ in sounded(rows, CLIP)] == [(steps[0], steps[-1])]
    assert steps[0] == 28
