"""Remote judges are asked while the next group is made; rewards that are mixed; the failure watch."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import pytest
import torch
from PIL import Image

from editr1.algorithms.nft import NFT
from editr1.config.formula import parse_formula
from editr1.data.samples import EditSample
from editr1.editors.editor import Rollout
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from editr1.judges.base import Judge, JudgeRequest, Score, SingleJudge, Weights, close, complete_scores
from editr1.judges.mllm import MLLMJudge
from editr1.judges.prompts import load_prompt
from editr1.judges.rewards.function import FunctionReward
from editr1.judges.rewards.http import HttpReward
from editr1.judges.rewards.mixed import MixedJudge
from editr1.judges.rewards.ranking import RankingJudge
from editr1.training.group import Group
from editr1.training.rewarding import FailureWatch, Rewarding, assign_advantages, assign_rewards, requests_of
from editr1.training.step_row import measure, reward_statistics
from tests.judges.client import remote_model
from tests.judges.fault_server import BODY_FAULTS, WIRE_FAULTS, FaultServer, always, times
from tests.judges.service import service


def group(number: int, edits: int = 2) -> Group:
    images = [Image.new("RGB", (4, 4), (10 * number + i, 0, 0)) for i in range(edits)]
    sample = EditSample(f"item-{number}", images[0], "edit", requirement="done", task="add")
    nothing: Conditioning = None  # type: ignore[assignment]  # judging looks at pictures alone
    return Group(number, sample, Rollout(nothing, torch.zeros(edits, 1, 1), images, torch.ones(1), []))


def finish(rewarding: Rewarding) -> None:
    while rewarding.next():
        pass


def first_byte(image: Image.Image) -> int:
    return image.tobytes()[0]


class Waiting:
    """A judge that answers a group only when the next one has been started."""

    remote = True

    def __init__(self) -> None:
        self.started = [threading.Event() for _ in range(3)]
        self.requests: list[JudgeRequest] = []

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        number = first_byte(requests[0].edit) // 10
        self.requests += requests
        if number < 2:
            assert self.started[number + 1].wait(600), "the next group was not started meanwhile"
        return [Score(first_byte(request.edit) / 100) for request in requests]


def test_a_remote_judge_works_while_the_next_group_is_made() -> None:
    judge, groups = Waiting(), [group(i) for i in range(3)]
    with Rewarding(judge, 3) as rewarding:
        for number, made in enumerate(groups):
            judge.started[number].set()
            rewarding.start(made)
        finish(rewarding)
    for number, made in enumerate(groups):
        assert made.rewards is not None
        assert made.rewards.tolist() == pytest.approx([number / 10, number / 10 + 0.01])
    assert {(r.sample.instruction, r.sample.requirement, r.sample.task) for r in judge.requests} == {
        ("edit", "done", "add")
    }


def test_what_a_remote_judge_raises_reaches_the_training() -> None:
    class Broken:
        remote = True

        def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
            raise UserError("the endpoint wants a key")

    with pytest.raises(UserError, match="wants a key"), Rewarding(Broken(), 1) as rewarding:
        rewarding.start(group(0))
        finish(rewarding)


def test_parts_and_reasons_are_laid_into_the_group() -> None:
    made = group(0, 3)
    both = {"judge": Score(0.5), "ocr": Score(None, "nothing is quoted")}
    assign_rewards(
        made, [Score(0.5, parts=both, prompt="p/1"), Score(None, "dead"), Score(1.0, parts={"judge": Score(1.0)})]
    )
    assert made.rewards is not None and made.rewards.tolist() == pytest.approx([0.5, math.nan, 1.0], nan_ok=True)
    assert made.reasons == [None, "dead", None] and made.prompts == ["p/1"]
    assert made.parts["judge"].tolist() == pytest.approx([0.5, math.nan, 1.0], nan_ok=True)
    assert made.parts["ocr"].isnan().all()
    assert made.parts_reasons == {
        "judge": [None, "not asked", None],
        "ocr": ["nothing is quoted", "not asked", "not asked"],
    }


def test_an_easy_reward_does_not_drown_a_hard_one() -> None:
    made = group(0, 4)
    hard, easy = [0.50, 0.51, 0.50, 0.51], [0.0, 1.0, 1.0, 0.0]
    scores = [Score((h + e) / 2, parts={"judge": Score(h), "easy": Score(e)}) for h, e in zip(hard, easy, strict=True)]
    assign_rewards(made, scores)
    assign_advantages([made], NFT(filter="off", std="group"), Weights({"judge": 1.0, "easy": 1.0}))
    assert made.advantages is not None
    assert made.advantages.tolist() == pytest.approx([-math.sqrt(2), math.sqrt(2), 0, 0], abs=1e-4)


def test_a_part_that_no_edit_has_changes_nothing() -> None:
    made, alone = group(0, 3), group(0, 3)
    values = [0.1, 0.4, 0.9]
    assign_rewards(alone, [Score(v) for v in values])
    assign_rewards(made, [Score(v, parts={"judge": Score(v), "ocr": Score(None, "nothing is quoted")}) for v in values])
    settings = NFT(filter="off", std="group")
    assign_advantages([alone], settings)
    assign_advantages([made], settings, Weights({"judge": 1.0, "ocr": 5.0}))
    assert made.advantages is not None and alone.advantages is not None
    assert made.advantages.tolist() == pytest.approx(alone.advantages.tolist(), abs=1e-6)


def test_regions_have_the_advantages_of_their_rewards_where_they_are_asked_for() -> None:
    whole, divided = group(0, 4), group(0, 4)
    hard, kept = [0.1, 0.1, 0.3, 0.3], [0.9, 0.8, 0.9, 0.8]
    scores = [Score((h + k) / 2, parts={"judge": Score(h), "kept": Score(k)}) for h, k in zip(hard, kept, strict=True)]
    algorithm, weights = NFT(filter="off", std="group"), Weights({"judge": 1.0, "kept": 0.5})
    for made, outside in ((whole, frozenset[str]()), (divided, frozenset({"kept"}))):
        assign_rewards(made, scores)
        assign_advantages([made], algorithm, weights, outside)
    assert whole.regions is None and divided.regions is not None
    assert divided.regions.flatten().tolist() == pytest.approx([-1, -1, 1, 1, 1, -1, 1, -1], abs=1e-5)
    assert divided.advantages is not None and whole.advantages is not None
    assert divided.advantages.tolist() == whole.advantages.tolist()


def test_the_watch_counts_failing_steps_in_a_row_and_names_the_commonest_reason() -> None:
    def judged(*reasons: str | None) -> Group:
        made = group(0, len(reasons))
        assign_rewards(made, [Score(0.5) if reason is None else Score(None, reason) for reason in reasons])
        return made

    bad, good = judged("slow", "dead", "dead", None), judged(None, None, "slow", "slow")
    watch = FailureWatch(share=0.5, steps=2)
    watch.check([measure(bad)])
    watch.check([measure(good)])
    watch.check([measure(bad)])
    with pytest.raises(UserError, match=r"for 3 of the last step's 4 edits, .* more than 50% .* last 2 steps: dead"):
        watch.check([measure(bad)])


def constant(*_: object) -> float:
    return 0.5


@pytest.mark.parametrize("fault", [*WIRE_FAULTS, *BODY_FAULTS, "http_503", "http_401", "http_429"])
def test_whatever_fails_a_judge_stops_the_run_though_another_reward_goes_on(fault: str) -> None:
    with FaultServer(always(fault), hang=0.2) as server:
        model = remote_model(server.url, model="m", tries=1, backoff=0.001, timeout=0.1)
        judge = MLLMJudge(model, load_prompt("brief", "prefix"), method="score_logit")
        mixed = MixedJudge({"judge": (judge, 1.0), "own": (FunctionReward(f"{__name__}:constant"), 1.0)})
        made = group(0)
        with Rewarding(mixed, 1) as rewarding:
            rewarding.start(made)
            finish(rewarding)
        mixed.close()
    assert made.rewards is not None and made.rewards.tolist() == [0.5, 0.5] and made.reasons == [None, None]
    measured = [measure(made)]
    assert reward_statistics(measured)["parts_unscored"] == {"judge": 2, "own": 0}
    reason = made.parts_reasons["judge"][0]
    assert reason and reason in reward_statistics(measured)["parts_reasons"]["judge"][0]
    with pytest.raises(UserError, match=r"the reward 'judge' is missing for 2 of the last step's 2 edits") as caught:
        FailureWatch(share=0.5, steps=1).check(measured)
    assert reason in str(caught.value)


class Deaf(SingleJudge):
    """A judge in this process whose logits are not finite."""

    def score_one(self, request: JudgeRequest) -> Score:
        return Score(None, "a logit of a score token is not finite")


REPLIES = {
    "503": (503, b""),
    "seven": (200, b'{"score": 7}'),
    "nan": (200, b'{"score": NaN}'),
    "text": (200, b"fine"),
}


@pytest.mark.parametrize("part", ["local", "ranking", *REPLIES])
def test_whatever_kind_of_part_fails_is_seen_and_stops_the_run(part: str) -> None:
    with service([REPLIES.get(part, (404, b""))]) as (url, _), FaultServer(always("http_403")) as dead:
        others: dict[str, Callable[[], Judge]] = {
            "local": Deaf,
            "ranking": lambda: RankingJudge(remote_model(dead.url, model="m", tries=1, backoff=0.001)),
        }
        failing = others.get(part, lambda: HttpReward(url, tries=2, backoff=0.001))()
        mixed = MixedJudge({"failing": (failing, 1.0), "own": (FunctionReward(f"{__name__}:constant"), 1.0)})
        made = group(0)
        with Rewarding(mixed, 1) as rewarding:
            rewarding.start(made)
            finish(rewarding)
        close(mixed)
    row = reward_statistics([measure(made)])
    assert (row["unscored"], row["parts_unscored"]) == (0, {"failing": 2, "own": 0})
    assert row["reward_mean"] == 0.5 and set(row["parts_reasons"]) == {"failing"}
    with pytest.raises(UserError, match=r"the reward 'failing' is missing for 2 of the last step's 2 edits"):
        FailureWatch(share=0.5, steps=1).check([measure(made)])


def dark(source: Image.Image, edit: Image.Image, instruction: str, requirement: str, task: str) -> float | None:
    return None if task == "add" else 0.0


def test_a_function_that_returns_none_and_a_service_that_answers_null_do_not_apply_and_stop_no_run() -> None:
    made = group(0)
    with service([(200, b'{"score": null, "reason": "too dark"}')]) as (url, _):
        parts: dict[str, tuple[Judge, float]] = {
            "own": (FunctionReward(f"{__name__}:dark"), 1.0),
            "ours": (HttpReward(url), 1.0),
            "judge": (FunctionReward(f"{__name__}:constant"), 1.0),
        }
        gate = {"gated": (parse_formula("judge * own"), 1.0)}
        mixed = MixedJudge(parts, products=gate, missing={"gated": {"own": 0.8}})
        with Rewarding(mixed, 1) as rewarding:
            rewarding.start(made)
            finish(rewarding)
        (measured, _) = complete_scores(mixed, requests_of(made))
        close(mixed)
    assert measured.value == pytest.approx(0.4), "an evaluation measures it"
    row = reward_statistics([measure(made)])
    assert row["reward_mean"] == pytest.approx(0.4), "of the product alone: none counts as 0"
    assert (row["unscored"], row["parts_unscored"]) == (0, {"gated": 0, "judge": 0, "ours": 2, "own": 2})
    assert row["parts_reasons"]["own"] == [f"2 x does not apply: {__name__}:dark: gave no score"]
    assert row["parts_reasons"]["ours"][0].startswith("2 x does not apply: 127.0.0.1:")
    FailureWatch(share=0.0, steps=1).check([measure(made)])


def test_a_reward_that_is_optional_may_be_missing_in_every_step() -> None:
    made = group(0)
    both = {"judge": Score(0.5), "ocr": Score(None, "nothing is quoted")}
    assign_rewards(made, [Score(0.5, parts=both)] * 2)
    watch = FailureWatch(share=0.5, steps=2, optional={"ocr"})
    for _ in range(5):
        watch.check([measure(made)])
    strict = FailureWatch(share=0.5, steps=2)
    strict.check([measure(made)])
    with pytest.raises(UserError, match=r"'ocr' is missing .* last 2 steps: nothing .* set rewards\.ocr\.optional"):
        strict.check([measure(made)])


def test_an_interrupt_does_not_wait_for_a_judge_that_hangs() -> None:
    with FaultServer(always("hang"), hang=3600.0) as server:
        model = remote_model(server.url, model="m", timeout=3600)
        judge = MLLMJudge(model, load_prompt("full", "paper"), method="score_logit")
        with pytest.raises(KeyboardInterrupt), Rewarding(judge, 2) as rewarding:
            rewarding.start(group(1))
            while not server.chats:
                time.sleep(0.01)
            raise KeyboardInterrupt
        waiting = [thread for thread in threading.enumerate() if thread.name.startswith("judge_")]
        for thread in waiting:
            thread.join(600)
        assert not any(thread.is_alive() for thread in waiting)


def test_after_an_interrupt_judge_and_service_can_be_asked_again() -> None:
    with FaultServer(times("hang", 1), hang=600.0) as server:
        model = remote_model(server.url, model="m", timeout=600)
        judge = MLLMJudge(model, load_prompt("full", "paper"), method="score_logit")
        service = HttpReward("http://127.0.0.1:9/score", backoff=0.001)  # where nobody listens
        mixed = MixedJudge({"judge": (judge, 1.0), "service": (service, 1.0)})
        with pytest.raises(KeyboardInterrupt), Rewarding(mixed, 2) as rewarding:
            rewarding.start(group(1))
            while not server.chats:
                time.sleep(0.01)
            raise KeyboardInterrupt
        made = group(1)
        with Rewarding(mixed, 2) as rewarding:
            rewarding.start(made)
            finish(rewarding)
        assert not made.parts["judge"].isnan().any()
        assert made.parts_reasons["service"] == ["127.0.0.1:9: ConnectError after 4 tries"] * 2
        close(mixed)
