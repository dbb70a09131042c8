"""Products of rewards, and weights by task: what is asked, what is missing, and what each edit is worth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from editr1.config.formula import parse_formula
from editr1.config.loading import load_config
from editr1.data.samples import EditSample
from editr1.judges.base import UNASKED, JudgeRequest, Score, Weights, complete_scores, weights_of
from editr1.judges.mllm import MLLMJudge
from editr1.judges.open import open_config_judge
from editr1.judges.prompts import load_prompt
from editr1.judges.rewards.mixed import MixedJudge
from editr1.preservation.measure import NO_OUTSIDE, WHOLE_TASK
from tests.judges.service import service
from tests.judges.test_mllm import Scripted, sure_of

CME = parse_formula("judge * (0.6 + 0.4 * kept)")
PICTURE = Image.new("RGB", (8, 8), "red")


def request(task: str = "add") -> JudgeRequest:
    return JudgeRequest(EditSample("", PICTURE, "edit it", "", task), PICTURE)


class By:
    """Scores by the request's task; counts what it is asked."""

    def __init__(self, score: Callable[[str], Score], remote: bool = False) -> None:
        self.by_task, self.remote, self.asked = score, remote, list[str]()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        assert requests, "nobody is asked about nothing"
        self.asked += [each.sample.task for each in requests]
        return [self.by_task(each.sample.task) for each in requests]


def always(value: float | None, remote: bool = False) -> By:
    return By(lambda task: Score(None, "deaf") if value is None else Score(value), remote)


@given(st.sampled_from([None, 0.0, 0.3, 1.0]), st.sampled_from([None, 0.0, 0.7, 1.0]), st.booleans())
def test_a_product_is_one_reward_and_is_missing_if_a_factor_is(
    judge: float | None, kept: float | None, remote: bool
) -> None:
    mixed = MixedJudge(
        {"judge": (always(judge, remote), 1.0), "kept": (always(kept), 1.0)}, products={"gated": (CME, 2.0)}
    )
    (score,) = mixed.score([request()])
    assert weights_of(mixed) == Weights({"gated": 2.0})
    assert [*score.parts] == ["judge", "kept", "gated"]
    assert {name: score.parts[name].value for name in ("judge", "kept")} == {"judge": judge, "kept": kept}
    if judge is None or kept is None:
        missing = [name for name, value in (("judge", judge), ("kept", kept)) if value is None]
        reason = "; ".join(f"{name}: deaf" for name in missing)
        assert (score.value, score.reason, score.parts["gated"].reason) == (None, f"gated: {reason}", reason)
    else:
        assert score.value == score.parts["gated"].value == pytest.approx(judge * (0.6 + 0.4 * kept), abs=1e-15)


@pytest.mark.parametrize(
    ("judge", "kept", "value"),
    [
        (Score(0.5), Score(None, "no mask", applies=False), 0.5 * (0.6 + 0.4 * 0.25)),
        (Score(0.5), Score(None, "deaf"), None),
        (Score(None, "deaf"), Score(None, "no mask", applies=False), None),
        (Score(None, "not for it", applies=False), Score(0.5), None),
        (Score(0.5), Score(0.75), 0.5 * (0.6 + 0.4 * 0.75)),
    ],
)
def test_a_number_stands_for_a_factor_that_does_not_apply_and_never_for_one_that_failed(
    judge: Score, kept: Score, value: float | None
) -> None:
    parts = {"judge": (By(lambda task: judge), 1.0), "kept": (By(lambda task: kept), 1.0)}
    mixed = MixedJudge(parts, {"kept"}, products={"gated": (CME, 1.0)}, missing={"gated": {"kept": 0.25}})
    (score,) = mixed.score([request()])
    assert score.value == (None if value is None else pytest.approx(value))
    assert (score.parts["gated"].reason is None) == (value is not None)
    assert score.parts["kept"] == kept, "it is told as it is"
    (strict,) = MixedJudge(parts, {"kept"}, products={"gated": (CME, 1.0)}).score([request()])
    assert (strict.value is None) == (judge.value is None or kept.value is None)


def test_a_product_is_mixed_with_other_rewards_by_its_weight() -> None:
    mixed = MixedJudge(
        {"judge": (always(0.5), 1.0), "kept": (always(0.5), 1.0), "text": (always(1.0), 1.0)},
        products={"gated": (CME, 3.0)},
    )
    (score,) = mixed.score([request()])
    assert score.value == pytest.approx((3 * 0.5 * 0.8 + 1) / 4)


def test_what_has_no_weight_for_a_task_is_not_asked_and_not_missing() -> None:
    judge, kept, style = always(0.5), By(lambda task: Score(0.5)), always(0.9)
    mixed = MixedJudge(
        {"judge": (judge, 1.0), "kept": (kept, 1.0), "looks": (style, 0.0)},
        products={"gated": (CME, 1.0)},
        by_task={"gated": {"style": 0.0}, "looks": {"style": 2.0}},
    )
    add, styled = mixed.score([request(), request("style")])
    assert (add.value, styled.value) == pytest.approx((0.4, 0.9))
    assert (judge.asked, kept.asked, style.asked) == (["add"], ["add"], ["style"])
    assert add.parts["looks"] is UNASKED and styled.parts["gated"] is styled.parts["judge"] is UNASKED
    assert [score.value for score in complete_scores(mixed, [request(), request("style")])] == pytest.approx([0.4, 0.9])
    assert [score.value for score in mixed.score([request("style")])] == pytest.approx([0.9])
    weights = weights_of(mixed)
    assert weights is not None
    assert [weights.of("gated", task) for task in ("add", "style")] == [1.0, 0.0]
    assert [weights.of("looks", task) for task in ("add", "style")] == [0.0, 2.0]


def test_the_criteria_of_a_part_are_told_beside_it_and_count_nothing() -> None:
    criteria = {"execution": Score(0.5), "consistency": Score(None, "deaf")}
    judge = By(lambda task: Score(0.5, parts=criteria) if task == "add" else Score(None, "no", parts=criteria))
    mixed = MixedJudge({"judge": (judge, 1.0), "text": (always(1.0), 1.0)}, optional={"judge"})
    for score, value in zip(mixed.score([request(), request("style")]), (0.75, 1.0), strict=True):
        assert score.value == value and score.parts["judge.execution"].value == 0.5
        assert score.parts["judge.consistency"] is UNASKED
    assert weights_of(mixed) == Weights({"judge": 1.0, "text": 1.0})
    assert [score.value for score in complete_scores(mixed, [request(), request("style")])] == [0.75, 1.0]


def test_the_criteria_of_a_judge_that_is_not_asked_are_not_missing() -> None:
    prompt = load_prompt("full", "paper")
    judge = MLLMJudge(
        Scripted(sure_of("5")), prompt, method="score_logit", formula=parse_formula("execution * overall")
    )
    mixed = MixedJudge({"judge": (judge, 1.0), "text": (always(0.5), 1.0)}, by_task={"judge": {"style": 0.0}})
    add, style = mixed.score([request(), request("style")])
    assert [*add.parts] == [*style.parts] == ["judge", "text", "judge.execution", "judge.overall"]
    assert add.parts["judge.execution"].value == 1.0 and style.parts["judge.execution"] is UNASKED


def test_an_item_whose_task_has_no_reward_has_a_reason() -> None:
    mixed = MixedJudge({"judge": (always(0.5), 1.0)}, by_task={"judge": {"style": 0.0}})
    (score,) = mixed.score([request("style")])
    assert (score.value, score.reason) == (None, "no reward has a weight for its task")


def test_a_missing_factor_is_missing_for_measures_too_unless_it_is_optional() -> None:
    parts = {"judge": (always(0.5), 1.0), "kept": (always(None), 1.0), "text": (always(1.0), 1.0)}
    mixed = MixedJudge(parts, optional={"kept"}, products={"gated": (CME, 1.0)})
    (score,) = complete_scores(mixed, [request()])
    assert (score.value, score.reason) == (None, "gated: kept: deaf")
    both = MixedJudge(parts, optional={"kept", "gated"}, products={"gated": (CME, 1.0)})
    assert complete_scores(both, [request()])[0].value == 1.0


def test_a_run_opens_its_products_and_its_weights_by_task() -> None:
    with service([(200, json.dumps({"score": 0.5}).encode())]) as (url, bodies):
        rewards = (
            "rewards={done: {kind: http, path: '%s'}, kept: {kind: preservation, masks: data}, "
            "gated: {kind: product, formula: done * (0.6 + 0.4 * kept), weight: 2, weight_by_task: {style: 0}}, "
            "plain: {kind: product, formula: done, weight: 0, weight_by_task: {style: 1}}}"
        )
        config = load_config("toy", ["judge=null", rewards % url])
        judge = open_config_judge(config)
        try:
            source, mask = PICTURE.resize((64, 64)), Image.new("L", (64, 64))
            mask.paste(255, (0, 0, 32, 32))
            edit = source.copy()
            edit.paste("blue", (0, 0, 34, 34))
            same, styled = judge.score([
                JudgeRequest(EditSample("", source, "edit it", "", task, mask=mask), edit)
                for task in ("add", "style")
            ])  # fmt: skip
        finally:
            judge.close()  # type: ignore[attr-defined]
    kept = same.parts["kept"].value
    assert kept is not None and 0 < kept < 1 and same.value == pytest.approx(0.5 * (0.6 + 0.4 * kept))
    assert styled.value == 0.5 and styled.parts["kept"] is UNASKED and len(bodies) == 2
    assert config.optional_rewards == {"kept"}


def test_a_gate_of_a_run_counts_items_without_a_mask_as_it_says() -> None:
    gated = "gated: {kind: product, formula: done * (0.6 + 0.4 * kept), missing: {kept: 1}}"
    rewards = "rewards={done: {kind: http, path: '%s'}, kept: {kind: preservation}, " + gated + "}"
    with service([(200, json.dumps({"score": 0.5}).encode())]) as (url, _):
        judge = open_config_judge(load_config("toy", ["judge=null", rewards % url]))
        try:
            white = Image.new("L", PICTURE.size, 255)
            samples = [EditSample("", PICTURE, "edit it", "", "style"), EditSample("", PICTURE, "x", mask=white)]
            scores = judge.score([JudgeRequest(sample, PICTURE.resize((16, 16))) for sample in samples])
        finally:
            judge.close()  # type: ignore[attr-defined]
    assert [score.value for score in scores] == [0.5, 0.5]
    assert [score.parts["kept"].reason for score in scores] == [WHOLE_TASK, NO_OUTSIDE]


def test_parts_of_many_tasks_keep_their_places() -> None:
    numbered = By(lambda task: Score(int(task) / 10))
    odd = {str(number): float(number % 2) for number in range(10)}
    mixed = MixedJudge({"a": (numbered, 1.0), "b": (By(lambda task: Score(1.0), remote=True), 1.0)}, by_task={"b": odd})
    requests = [request(str(number)) for number in range(10)]
    scores = mixed.score([replace(each) for each in requests])
    values = [(number / 10 + 1) / 2 if number % 2 else number / 10 for number in range(10)]
    assert [score.value for score in scores] == pytest.approx(values)
    assert math.fsum(score.parts["b"] is UNASKED for score in scores) == 5
