"""Gains at equal steps, images and time, and their intervals, are those of an independent computation."""

from __future__ import annotations

import warnings
from xml.etree import ElementTree

import numpy as np
import pytest

from editr1.ablation.figures import Curve, compare, curve_of, gain_at, interval, summarise
from editr1.ablation.grid import Grid
from editr1.ablation.page import charts, markdown, unjudged
from editr1.ablation.runs import Measured
from editr1.errors import UserError

GRID = Grid(title="A", base="toy", variants={"usual": (), "fast": ("algorithm.kl=0",)}, steps=80, measured=(20, 40))


def curve(slope: float, per_step: int = 10) -> Curve:
    """Two edits, of which the second gains twice as much a step."""
    steps = [0, 20, 40, 80]
    gains = np.array([[slope * step, 2 * slope * step] for step in steps])
    return Curve(
        steps,
        [per_step * step for step in steps],
        dict.fromkeys(("oracle", "judge"), np.full(gains.shape[1], 0.5)),
        {"oracle": gains, "judge": gains / 2},
    )


def test_a_gain_is_over_the_start_and_an_edit_without_a_reward_has_none() -> None:
    start = Measured(0, 0, [0.5, None, 0.25], [0.1, 0.2, 0.3])
    rows = [Measured(4, 8, [0.75, 0.5, None], [0.3, 0.2, 0.1]), Measured(2, 4, [0.5, 0.5, 0.5], [0.2, 0.2, 0.2])]
    found = curve_of(start, rows)
    assert (found.steps, found.images) == ([0, 2, 4], [0, 4, 8])
    np.testing.assert_allclose(found.gains["oracle"][2], [0.2, 0.0, -0.2], atol=1e-12)
    np.testing.assert_array_equal(found.gains["judge"][2], [0.25, np.nan, np.nan])
    own = curve_of(Measured(0, 0, [0.5], []), [Measured(1, 2, [0.75], [])])
    assert own.gains.keys() == {"judge"}


def test_what_an_earlier_version_did_not_measure_has_no_gain_and_is_not_compared() -> None:
    old, start = Measured(10, 100, [0.5], [0.4]), Measured(0, 0, [0.4], [0.3], [0.2], [0.9])
    new = Measured(10, 100, [0.5], [0.4], [0.5], [0.8])
    assert {*curve_of(start, [old]).gains} == {"oracle", "judge"}
    curves = {"usual": {0: curve_of(start, [old])}, "other": {0: curve_of(start, [new])}}
    assert {name: float(gain[-1, 0]) for name, gain in curves["other"][0].gains.items()} == pytest.approx(
        {"oracle": 0.1, "done": 0.3, "preserved": -0.1, "judge": 0.1}
    )
    grid = Grid.model_validate({"title": "T", "base": "toy", "steps": 10, "variants": {"usual": [], "other": []}})
    assert {*summarise(grid, curves, {})["other"]["steps"][10]} == {"oracle", "judge"}


def test_a_gain_between_two_measurements_is_interpolated_and_one_beyond_them_is_not_known() -> None:
    one = Curve([0, 10, 20], [0, 1, 2], {}, {"oracle": np.array([[0, 0], [0.1, 0.3], [0.2, 0.3]])})
    for step, values in ((10, [0.1, 0.3]), (12.5, [0.125, 0.3]), (2, [0.02, 0.06]), (20, [0.2, 0.3])):
        found = gain_at(one, "oracle", step)
        assert found is not None
        np.testing.assert_allclose(found, np.array(values))
    assert gain_at(one, "oracle", 20.1) is None


def test_the_interval_is_that_of_resampling_seeds_and_items_one_by_one() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.3, (3, 40)) + np.array([[-0.05], [0.0], [0.05]])
    rng = np.random.default_rng(1)
    means = [values[rng.integers(0, 3, 3)][:, rng.integers(0, 40, 40)].mean() for _ in range(10_000)]
    np.testing.assert_allclose(interval(values), np.quantile(means, [0.025, 0.975]), atol=0.005)


def test_a_difference_is_paired_and_leaves_out_edits_that_one_side_has_no_reward_of() -> None:
    start = {"judge": np.array([0.2, 0.3, 0.4])}
    first = {0: Curve([0, 1], [0, 1], start, {"judge": np.array([[0, 0, 0], [0.1, 0.2, np.nan]])})}
    own = {0: Curve([0, 1], [0, 1], start, {"judge": np.array([[0, 0, 0], [0.3, np.nan, 0.9]])})}
    found = compare(own, first, "judge", {0: (1, 1)})
    assert found is not None
    assert (found["edits"], found["seeds"], found["before"]) == (1, 1, 0.2), "of the edits that are compared"
    assert found["gain"] == pytest.approx(0.3) and found["more"] == pytest.approx(0.2)
    assert found["more_ci95"] == pytest.approx([0.2, 0.2])


def test_equal_time_gives_a_fast_variant_more_steps_and_equal_images_a_thrifty_one() -> None:
    grid = GRID.model_copy(update={"seconds": (360.0,)})
    curves = {"usual": {0: curve(0.001), 1: curve(0.001)}, "fast": {0: curve(0.001, per_step=5), 1: curve(0.001, 5)}}
    seconds = {"usual": {"seconds": 10.0, "ratio": 1.0}, "fast": {"seconds": 5.0, "ratio": 0.5}}
    found = summarise(grid, curves, seconds)
    assert found["usual"]["seconds"][360.0]["oracle"]["gain"] == pytest.approx(0.036 * 1.5)
    assert found["fast"]["seconds"][360.0]["oracle"]["gain"] == pytest.approx(0.072 * 1.5)
    assert found["fast"]["seconds"][360.0]["oracle"]["more"] == pytest.approx(0.036 * 1.5)
    assert found["fast"]["steps"][40]["oracle"]["more"] == pytest.approx(0)
    (images,) = found["fast"]["images"]
    assert images == 400  # what both have made at the end of the one that makes fewer
    assert found["fast"]["images"][400]["oracle"]["more"] == pytest.approx(0.04 * 1.5)
    assert found["fast"]["images"][400]["judge"]["more"] == pytest.approx(0.02 * 1.5)
    page = markdown(grid, found)
    assert "| fast | 2 | +0.108 [+0.072, +0.144] | +0.054 [+0.036, +0.072] |" in page
    too_far = {**seconds, "fast": {"seconds": 4.0, "ratio": 0.4}}  # 90 of 80 steps
    assert summarise(grid, curves, too_far)["fast"]["seconds"][360.0]["oracle"] is None


def test_at_equal_time_the_first_variant_is_as_good_as_itself_whatever_its_timing_says() -> None:
    grid = GRID.model_copy(update={"seconds": (360.0,)})
    seconds = {"usual": {"seconds": 10.0, "ratio": 1.02}}
    (entry,) = summarise(grid, {"usual": {0: curve(0.001)}}, seconds)["usual"]["seconds"].values()
    assert entry["oracle"]["gain"] == pytest.approx(0.036 * 1.5)
    assert (entry["oracle"]["more"], entry["oracle"]["more_ci95"]) == (0, [0, 0])


def test_a_judge_that_scores_no_edit_has_no_curve_and_no_figures_and_the_reason_is_told() -> None:
    usual = curve_of(Measured(0, 0, [0.5, 0.5], [0.1, 0.2]), [Measured(80, 800, [0.75, 0.5], [0.3, 0.2])])
    ranked = curve_of(Measured(0, 0, [None, None], [0.1, 0.2]), [Measured(80, 800, [None, None], [0.3, 0.4])])
    grid = GRID.model_copy(update={"variants": {"usual": (), "ranking": ()}, "measured": ()})
    curves = {"usual": {0: usual}, "ranking": {0: ranked}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise(grid, curves, {})
        (drawn,) = charts(curves["ranking"], curves["usual"])
    assert {*found["ranking"]["steps"][80]} == {"oracle"} and {*found["usual"]["steps"][80]} == {"oracle", "judge"}
    names = [words.text for words in ElementTree.fromstring(drawn).iter("text")]
    assert "oracle" in names and "judge" not in names and "nan" not in drawn
    said = unjudged(grid, curves)
    assert "by the judge of ranking: " in said and "needs edits: 2 or more" in said
    assert unjudged(grid, {"usual": {0: usual}}) == ""
    assert "nor a comparison of the others" in unjudged(grid.model_copy(update={"variants": {"ranking": ()}}), curves)


def test_a_step_at_which_the_judge_scored_no_edit_is_left_out_of_its_curve() -> None:
    start = Measured(0, 0, [0.5], [])
    own = {0: curve_of(start, [Measured(20, 200, [None], []), Measured(40, 400, [0.75], [])])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (drawn,) = charts(own, own)
    paths = [path.get("d") for path in ElementTree.fromstring(drawn).iter("path")]
    assert len(paths) == 4 and all(path and path.count(" ") == 3 and "nan" not in path for path in paths)  # two points


def test_what_the_later_steps_change_is_the_difference_of_the_gains_with_an_interval_of_its_own() -> None:
    rng = np.random.default_rng(0)
    curves = {"usual": {seed: curve_of(*noisy_run(rng)) for seed in (0, 1, 2)}}
    found = summarise(GRID, curves, {})["usual"]
    assert {*found["rest"]} == {20, 40}, "of the last step nothing is left"
    for measure in ("oracle", "judge"):
        gains = {step: found["steps"][step][measure]["gain"] for step in (40, 80)}
        entry = found["rest"][40][measure]
        assert entry["change"] == pytest.approx(gains[80] - gains[40])
        pairs = np.stack([own.gains[measure][3] - own.gains[measure][2] for own in curves["usual"].values()])
        draws = [pairs[rng.integers(0, 3, 3)][:, rng.integers(0, 60, 60)].mean() for _ in range(4_000)]
        np.testing.assert_allclose(entry["ci95"], np.quantile(draws, [0.025, 0.975]), atol=0.01)


def noisy_run(rng: np.random.Generator) -> tuple[Measured, list[Measured]]:
    """The start and the measurements of a run of 60 edits."""
    rows = [Measured(step, step, rng.random(60).tolist(), rng.random(60).tolist()) for step in (0, 20, 40, 80)]
    return rows[0], rows[1:]


def test_runs_that_are_not_at_the_last_step_yet_have_no_later_change_and_alarms_are_those_of_their_last_row() -> None:
    start, early = Measured(0, 0, [0.5], [0.1]), Measured(20, 9, [0.5], [0.2], alarms={})
    curves = {"usual": {0: curve_of(start, [Measured(40, 9, [0.5], [0.2], alarms={"drift": 22}), early])}}
    found = summarise(GRID, curves, {})["usual"]
    assert found["rest"] == {} and found["alarms"] == {0: {"drift": 22}}


def test_without_a_run_of_the_first_variant_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(UserError, match="no run of 'usual' is measured"):
        summarise(GRID, {"fast": {0: curve(0.001)}}, {})
