"""Each diagnosis speaks on a run that is made for it, with the right figure, and none on a healthy one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editr1.config.loading import load_config
from editr1.files import read_lines
from editr1.report.doctor.case import Case, Finding, case_of
from editr1.report.doctor.diagnoses import (
    diagnose,
    drifting_with_gain,
    equal_policies,
    flat_held_out,
    hacked_held_out,
    hacked_rewards,
    lost_updates,
    missing_rewards,
    one_task,
    silent_modules,
    slow_judge,
    tied,
    unseen_change,
)
from editr1.report.run_folder import read_run
from editr1.training.alarms import CONSTANT_ROWS, DRIFTS, KEPT_ROWS
from tests.report.synthetic import write_demo

RECORDED = Path(__file__).parents[2] / "training" / "recorded"
Rule = Callable[[Case], Finding | None]


def config(*overrides: str) -> dict[str, Any]:
    """The settings of the toy preset: 8 groups of 12 edits."""
    tree: dict[str, Any] = load_config("toy", overrides).model_dump(mode="json")
    return tree


CONFIG = config()


def healthy(count: int = 40) -> list[dict[str, Any]]:
    """Rows of a run in which all is well: the reward rises, and so does what is watched."""
    return [
        {
            "step": step,
            "reward_mean": 0.5 + 0.005 * step + (0.02 if step % 2 else -0.02),
            "reward_std_within": 0.2,
            "reward_std_all": 0.28,
            "reward_by_task": {"add": 0.5, "move": 0.5, "remove": 0.5},
            "reward_parts": {"judge": 0.5 + 0.005 * step, "keep": 0.7 + (0.01 if step % 2 else -0.01)},
            "watched": {"oracle": 0.4 + 0.004 * step},
            "unscored": 0,
            "ties": 0.04,
            "groups_kept": 7,
            "kept_by_task": {"add": 3, "move": 2, "remove": 2},
            "dropped": {"agree_and_high": 1},
            "grad_norm": 0.3,
            "update_norm": 0.9,
            "lora_norm": 20.0,
            "kl": 0.001 * step,
            "drift": dict.fromkeys(DRIFTS, 0.01 if step % 3 else -0.01),
            "seconds": {"rollout": 4.0, "judge": 1.0, "train": 2.0, "rest": 0.1},
        }
        for step in range(1, count + 1)
    ]


def results(judge: tuple[float, float, float], oracle: tuple[float, float, float] | None = None) -> dict[str, Any]:
    """results.json of 20 items; change and interval of each measure."""

    def figures(change: tuple[float, float, float]) -> dict[str, Any]:
        return {"before": 0.5, "after": 0.5 + change[0], "delta": change[0], "ci95": [*change[1:]]}

    return {"items": 20, "judge": figures(judge), **({"oracle": figures(oracle)} if oracle else {})}


def changed(rows: list[dict[str, Any]], last: int, **values: Any) -> list[dict[str, Any]]:
    """The rows, with other values in the last ones."""
    return [*rows[:-last], *({**row, **values} for row in rows[-last:])]


def text(rule: Rule, case: Case, wrong: bool = True) -> str:
    finding = rule(case)
    assert finding is not None and finding.wrong is wrong
    return finding.text


def test_a_healthy_run_is_healthy() -> None:
    good = results((0.1, 0.05, 0.15), (0.1, 0.02, 0.2))
    check = {
        "replay_error": 0.0,
        "trained": 5,
        "layers": 9,
        "steps": 5,
        "modules": 5,
        "silent": [],
        "dead_ends": ["b.4.add"],
    }
    assert diagnose(Case(healthy(), CONFIG, good, check)) == []


@pytest.mark.parametrize("name", ["demo", "awm", "two_groups"])
def test_recorded_healthy_runs_are_healthy(name: str) -> None:
    rows = [
        {"unscored": 0, "reward_by_task": {}, "seconds": {"rollout": 1.0}, **row}
        for row in read_lines(RECORDED / f"{name}.jsonl")
    ]
    assert diagnose(Case(rows, CONFIG)) == []


def test_the_folder_of_a_demo_is_healthy(tmp_path: Path) -> None:
    write_demo(tmp_path / "demo")
    findings = diagnose(case_of(read_run(tmp_path / "demo")))
    assert [finding for finding in findings if finding.wrong] == []


def test_a_run_without_a_step_has_nothing_to_say() -> None:
    assert diagnose(Case([], CONFIG)) == []


def test_alarms_are_repeated_and_those_that_have_fallen_silent_are_notes() -> None:
    flat = {"reward_std_within": 0.0, "reward_std_all": 0.1}
    (finding,) = diagnose(Case(changed(healthy(), CONSTANT_ROWS, **flat), CONFIG))
    assert finding.name == "constant reward" and finding.wrong and finding.text.startswith("(step 40) All edits")
    rows = [*changed(healthy(30), CONSTANT_ROWS + 1, **flat), *healthy()[30:]]
    (finding,) = diagnose(Case(rows, CONFIG))
    assert not finding.wrong and finding.text.startswith("(steps 29 to 30) All edits")


def test_what_is_so_in_all_steps_of_a_short_run_is_told_before_it_is_an_alarm() -> None:
    none = {"groups_kept": 0, "kept_by_task": {}, "dropped": {"agree_and_high": 8}}
    finding = diagnose(Case(changed(healthy(KEPT_ROWS - 1), KEPT_ROWS - 1, **none), CONFIG))[0]
    assert finding.name == "hardly any group kept" and finding.wrong
    assert "Of the last 32 groups 0 were trained on; 32 were dropped for agree and high" in finding.text
    assert "algorithm.filter=paper" in finding.text
    finding = diagnose(Case(changed(healthy(2), 2, reward_std_within=0.0), CONFIG))[0]
    assert finding.name == "constant reward" and "in the last 2 steps" in finding.text


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("no answer from h:8 after 8 tries: timeout of 60 s", "raise judge.timeout"),
        ("HTTP 429 from h:8 after 8 tries: slow down", "lower judge.in_flight"),
        ("the server did not list 3: the score lies anywhere in 0.1 to 0.9", "log-probabilities of named tokens"),
        ("it rains", "mend it by what it says"),
    ],
)
def test_missing_rewards_are_counted_by_reason_with_the_setting_for_the_commonest(reason: str, cure: str) -> None:
    failing = changed(healthy(10), 2, unscored=12, reasons=[f"9 x {reason}", "2 x other"])
    words = text(missing_rewards, Case(failing, CONFIG))
    assert f"24 of 960 edits (2.5%) got no reward: 18 x {reason}; 4 x other; 2 x other reasons." in words
    assert cure in words
    assert missing_rewards(Case(changed(healthy(10), 1, unscored=9, reasons=["9 x it rains"]), CONFIG)) is None


def test_a_mixed_reward_that_is_missing_is_named_unless_it_is_optional() -> None:
    rows = changed(healthy(10), 1, parts_unscored={"keep": 96}, parts_reasons={"keep": ["96 x no outside"]})
    required = config("rewards={keep: {kind: preservation, optional: false}}")
    assert "96 of 960 edits (10.0%) got no keep: 96 x no outside" in text(missing_rewards, Case(rows, required))
    others = changed(
        healthy(10), 1, parts_unscored={"keep": 96}, parts_reasons={"keep": ["96 x does not apply: no outside"]}
    )
    assert missing_rewards(Case(others, required)) is None
    assert missing_rewards(Case(rows, config("rewards={keep: {kind: preservation}}"))) is None


def test_ties_are_told_with_their_share_and_the_method() -> None:
    words = text(tied, Case(changed(healthy(), 10, ties=0.62), config("judge.method=score_sampling")))
    assert words.startswith("In 62% of the pairs") and "(score_sampling)" in words
    assert tied(Case(changed(healthy(), 5, ties=0.62), CONFIG)) is None
    older = [{key: value for key, value in row.items() if key != "ties"} for row in healthy()]
    assert tied(Case(older, CONFIG)) is None
    constant = changed(healthy(), 10, ties=1.0, reward_std_within=0.0)
    assert tied(Case(constant, CONFIG)) is None  # that is another finding


def test_one_task_that_gives_nearly_all_groups_is_a_note() -> None:
    rows = changed(healthy(), 40, kept_by_task={"add": 6, "move": 1})
    assert "180 of the 210 groups" in text(one_task, Case(rows, CONFIG), wrong=False)
    assert "task 'add', of 3 tasks" in text(one_task, Case(rows, CONFIG), wrong=False)
    assert one_task(Case(rows[:2], CONFIG)) is None  # too few groups
    alone = changed(rows, 40, reward_by_task={"add": 0.5})
    assert one_task(Case(alone, CONFIG)) is None


@pytest.mark.parametrize(
    ("key", "name", "words"), [("watched", "oracle", "watched oracle"), ("reward_parts", "keep", "reward keep")]
)
def test_a_fall_beside_a_rising_reward_is_hacking(key: str, name: str, words: str) -> None:
    rows = [{**row, key: {name: 0.7 - 0.005 * row["step"]}} for row in healthy()]
    told = text(hacked_rewards, Case(rows, CONFIG))
    assert f"{words} −0.15" in told and "has risen (+0.15)" in told and "algorithm.kl" in told
    flat = [{**row, "reward_mean": 0.5 + (0.02 if row["step"] % 2 else -0.02)} for row in rows]
    assert hacked_rewards(Case(flat, CONFIG)) is None
    assert hacked_rewards(Case(rows[:19], CONFIG)) is None


@pytest.mark.parametrize("name", [*DRIFTS])
def test_a_large_drift_beside_a_gain_is_a_note(name: str) -> None:
    drift = {**healthy()[0]["drift"], name: 0.5}
    words = text(drifting_with_gain, Case(changed(healthy(), 10, drift=drift), CONFIG), wrong=False)
    assert f"{name.replace('_', ' ')} +0.5" in words or f"{name.replace('_', ' ')} +0.49" in words
    small = {**drift, name: 1.5 * DRIFTS[name]}
    assert drifting_with_gain(Case(changed(healthy(), 10, drift=small), CONFIG)) is None


def test_updates_below_the_spacing_of_the_numbers_are_lost() -> None:
    tiny = changed(healthy(), 40, update_norm=2e-8)
    words = text(lost_updates, Case(tiny, config("optim.lr=1e-12")))
    assert "by 1.0e-09 of their norm" in words and "rounding to float32" in words and "(now 1e-12)" in words
    assert lost_updates(Case(healthy(), CONFIG)) is None
    nothing = changed(healthy(), 40, update_norm=0.0, grad_norm=0.0)  # as if all groups were dropped
    assert lost_updates(Case(nothing, CONFIG)) is None


def test_full_training_in_bfloat16_needs_larger_updates_than_in_float32() -> None:
    rows = [{**row, "weight_norm": 400.0, "update_norm": 0.2, "lora_norm": None} for row in healthy()]
    half = config("adapter.mode=full", "editor.dtype=bfloat16")
    words = text(lost_updates, Case(rows, half))
    assert "by 5.0e-04 of their norm" in words and "spacing 7.8e-03" in words and "editor.dtype=float32" in words
    assert lost_updates(Case(rows, config("adapter.mode=full", "editor.dtype=float32"))) is None
    lora = [{**row, "lora_norm": 400.0} for row in rows]
    assert lost_updates(Case(lora, config("editor.dtype=bfloat16"))) is None  # a LoRA is float32


def test_a_velocity_that_has_hardly_moved_is_told_after_enough_updates() -> None:
    rows = [{**row, "kl": 1e-6} for row in healthy()]
    assert "After 40 updates the velocity differs from the untrained editor's by 1.0e-03" in text(
        unseen_change, Case(rows, CONFIG)
    )
    assert unseen_change(Case(rows[:19], CONFIG)) is None
    assert unseen_change(Case(healthy(), CONFIG)) is None
    assert unseen_change(Case(rows, config("algorithm.kl=0"))) is None  # then it is not measured


def algorithm(*settings: str) -> dict[str, Any]:
    """The settings of a run by another algorithm, with its own defaults."""
    name, *more = settings
    return config(f"algorithm={{name: {name}, {', '.join(more)}}}")


@pytest.mark.parametrize(
    "settings", [("awm",), ("rft",), ("dgpo",), ("dpo",), ("dpo", "kl: 0.1"), ("crd", "adaptive_kl: false")]
)
def test_the_part_kl_is_read_as_a_distance_of_velocities_where_it_is_one(settings: tuple[str, ...]) -> None:
    case = Case([{**row, "kl": 1e-6} for row in healthy()], algorithm(*settings))
    words = text(unseen_change, case)
    assert "differs from the untrained editor's by 1.0e-03" in words
    assert ("lower algorithm.kl" in words) == (settings != ("dpo",))  # which has no weight to lower


@pytest.mark.parametrize("settings", [("grpo",), ("crd",), ("awm", "kl: 0"), ("rft", "kl: 0")])
def test_the_part_kl_is_not_read_as_a_distance_of_velocities_where_it_is_another_number(
    settings: tuple[str, ...],
) -> None:
    """A KL divergence scaled by the noise of a step; a distance that counts by reward; none."""
    assert unseen_change(Case([{**row, "kl": 1e-6} for row in healthy()], algorithm(*settings))) is None


def test_the_part_kl_of_a_loss_of_ones_own_is_not_read() -> None:
    own = {**CONFIG, "algorithm": {**CONFIG["algorithm"], "name": "mine:Loss"}}
    assert unseen_change(Case([{**row, "kl": 1e-6} for row in healthy()], own)) is None


def test_modules_without_a_gradient_are_named() -> None:
    check = {"steps": 5, "modules": 5, "silent": ["blocks.0.q", "blocks.0.k"], "dead_ends": []}
    assert "2 (blocks.0.k, blocks.0.q) of the 5 trained modules" in text(silent_modules, Case([], CONFIG, None, check))
    assert silent_modules(Case([], CONFIG)) is None


def test_held_out_items_that_do_not_rise_are_told_with_the_interval() -> None:
    flat = results((0.01, -0.02, 0.04))
    words = text(flat_held_out, Case(healthy(), CONFIG, flat))
    assert "After 40 steps the held-out score of the judge changed by +0.01 [−0.02, +0.04]: no sure gain" in words
    text(flat_held_out, Case(healthy(6), CONFIG, flat), wrong=False)  # too early to be wrong
    assert flat_held_out(Case(healthy(), CONFIG, {**flat, "items": 4})) is None
    assert flat_held_out(Case(healthy(), CONFIG, results((0.1, 0.05, 0.15)))) is None
    worse = diagnose(Case(healthy(), CONFIG, results((-0.1, -0.2, -0.05))))
    assert [finding.name for finding in worse] == ["held-out items are worse"]


def test_a_judge_that_rises_while_the_oracle_falls_is_exploited() -> None:
    case = Case(healthy(), CONFIG, results((0.1, 0.05, 0.15), (-0.1, -0.2, -0.05)))
    assert "rose (+0.10) and the oracle's fell (−0.10)" in text(hacked_held_out, case)
    assert hacked_held_out(Case(healthy(), CONFIG, results((0.1, 0.05, 0.15), (0.1, 0.02, 0.2)))) is None


def test_equal_policies_are_normal_at_first_and_in_runs_on_policy() -> None:
    words = text(equal_policies, Case(healthy(2), CONFIG), wrong=False)
    assert "In steps 1 and 2" in words and "normal" in words and "algorithm.old_rate=0.01" in words
    assert equal_policies(Case(healthy(), CONFIG)) is None
    assert equal_policies(Case(healthy(2), config("algorithm.name=rft"))) is None  # its loss has no sampling policy
    words = text(equal_policies, Case(healthy(), config("algorithm.old_rate=0")), wrong=False)
    assert "In all steps" in words


def test_a_judge_that_takes_longer_than_the_edits_is_a_note_with_what_to_set() -> None:
    rows = changed(healthy(), 10, seconds={"rollout": 4.0, "judge": 9.0, "train": 2.0, "rest": 1.0})
    words = text(slow_judge, Case(rows, CONFIG), wrong=False)
    assert "waits 9.0 s for the judge and makes its edits in 4.0 s, of 16.0 s in all" in words
    assert "judge.batch_size" in words
    remote = {**CONFIG, "judge": {**CONFIG["judge"], "endpoints": ["http://h:8/v1"]}}
    assert "judge.in_flight" in text(slow_judge, Case(rows, remote), wrong=False)
    training = changed(healthy(), 10, seconds={"rollout": 4.0, "judge": 5.0, "train": 30.0, "rest": 1.0})
    assert slow_judge(Case(training, CONFIG)) is None


def test_what_is_wrong_comes_before_what_is_good_to_know() -> None:
    rows = changed(healthy(6), 6, reward_std_within=0.0)
    assert [finding.wrong for finding in diagnose(Case(rows, CONFIG))] == [True, False]
    assert json.dumps([finding._asdict() for finding in diagnose(Case(rows, CONFIG))])
