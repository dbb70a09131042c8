"""Each further reward against what is known of its pictures; failures are reasons."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from editr1.data.pictures import png_data_url
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import Answer, Ask, JudgeRequest, Position, Score, Weights, close, complete_scores, weights_of
from editr1.judges.rewards.function import FunctionReward
from editr1.judges.rewards.http import HttpReward
from editr1.judges.rewards.mixed import MixedJudge
from editr1.judges.rewards.ocr import OcrReward, likeness, quoted
from editr1.judges.rewards.preservation import GONE, PreservationReward
from editr1.judges.rewards.ranking import RankingJudge
from tests.judges.fault_server import FaultServer, always
from tests.judges.service import service

BASE = Image.fromarray(np.random.default_rng(0).integers(60, 200, (8, 8, 3), np.uint8)).resize((128, 128))


def request(edit: Image.Image, instruction: str = "edit it", requirement: str = "", source: Any = BASE) -> JudgeRequest:
    return JudgeRequest(EditSample("", source, instruction, requirement), edit)


class Fixed:
    def __init__(self, *scores: Score, remote: bool = False) -> None:
        self.scores, self.remote = list(scores), remote

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        return self.scores


def test_a_part_that_abstains_is_left_out_of_that_edits_mix() -> None:
    judge = MixedJudge({
        "judge": (Fixed(Score(0.8, prompt="p"), Score(0.2), Score(None, "dead"), remote=True), 3.0),
        "ocr": (Fixed(Score(0.0), Score(None, "no quote"), Score(None, "no quote")), 1.0),
    })  # fmt: skip
    one, two, three = judge.score([request(BASE)] * 3)
    assert [one.value, two.value] == pytest.approx([0.6, 0.2]) and three.value is None
    assert three.reason == "judge: dead; ocr: no quote"
    assert (two.parts["ocr"].reason, one.prompt, judge.remote) == ("no quote", "p", True)
    assert weights_of(judge) == Weights({"judge": 3.0, "ocr": 1.0}) and weights_of(Fixed()) is None


def test_an_edit_that_lacks_a_required_reward_is_not_measured() -> None:
    dead, seen = Score(None, "HTTP 503"), Score(0.5)
    parts = {
        "judge": (Fixed(seen, dead, seen), 1.0),
        "ocr": (Fixed(Score(1.0), Score(1.0), Score(None, "no quote")), 1.0),
    }
    judge = MixedJudge(parts, optional={"ocr"})
    scores = complete_scores(judge, [request(BASE)] * 3)
    assert [score.value for score in scores] == [0.75, None, 0.5]
    assert scores[1].reason == "judge: HTTP 503"
    assert [score.value for score in judge.score([request(BASE)] * 3)] == [0.75, 1.0, 0.5]
    assert complete_scores(Fixed(seen, dead), [request(BASE)] * 2) == [seen, dead]


def test_a_part_that_gives_too_few_scores_is_refused_by_its_name() -> None:
    for remote in (False, True):
        judge = MixedJudge({"fine": (Fixed(*[Score(0.5)] * 2), 1.0), "short": (Fixed(Score(1.0), remote=remote), 1.0)})
        with pytest.raises(UserError, match="the reward 'short' gave 1 scores for 2 edits"):
            judge.score([request(BASE)] * 2)


def changed(box: tuple[int, int, int, int], shift: int = 0) -> Image.Image:
    edit = Image.fromarray((np.asarray(BASE).astype(int) + shift).clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(edit).rectangle(box, fill=(255, 0, 255))
    return edit


def test_preservation_looks_outside_the_edit_alone() -> None:
    whole, local, drifted, style = PreservationReward().score([
        request(BASE), request(changed((20, 20, 60, 60))), request(changed((20, 20, 60, 60), shift=4)),
        request(Image.fromarray(255 - np.asarray(BASE))),
    ])  # fmt: skip
    assert whole.value == 1 and local.value == pytest.approx(1.0, abs=0.02)
    assert drifted.value == pytest.approx(1 - 4 / 255 / GONE, abs=0.02)
    assert style.value is None and "no outside" in str(style.reason)


def test_preservation_brings_the_source_to_the_size_of_the_edit() -> None:
    (score,) = PreservationReward().score([request(BASE.resize((64, 64), Image.Resampling.LANCZOS))])
    assert score.value == pytest.approx(1.0)


def test_preservation_looks_at_the_source_alone_whatever_the_item_refers_to() -> None:
    one = request(changed((20, 20, 60, 60), shift=4))
    several = replace(one, sample=replace(one.sample, references=(Image.new("RGB", (4, 4)),)))
    assert PreservationReward().score([several]) == PreservationReward().score([one])


MODULE = """
import math
def good(source, edit, instruction, requirement, task): return edit.width / 1000
def counts(source, edit, instruction, requirement, task, references): return len(references) / 10
def silent(*_): return None
def large(*_): return 1.5
def nan(*_): return math.nan
def text(*_): return "0.5"
def several(*_): return [0.5, 0.5]
def yes(*_): return True
def numpy(*_): return __import__("numpy").float32(0.5)
def raises(*_): raise KeyError("colour")
constant = 3
"""


@pytest.fixture
def own_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rewards.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("own_rewards")
def test_a_function_of_ones_own_scores_or_says_that_it_does_not_apply() -> None:
    requests = [request(BASE)]
    assert FunctionReward("own_rewards:good").score(requests) == [Score(0.128)]
    assert FunctionReward("own_rewards:numpy").score(requests) == [Score(0.5)]
    silent = Score(None, "own_rewards:silent: gave no score", applies=False)
    assert FunctionReward("own_rewards:silent").score(requests) == [silent]


@pytest.mark.usefixtures("own_rewards")
def test_a_function_with_a_parameter_for_references_gets_them() -> None:
    several = replace(request(BASE), sample=replace(request(BASE).sample, references=(BASE, BASE)))
    assert FunctionReward("own_rewards:good").score([several]) == [Score(0.128)]
    assert FunctionReward("own_rewards:counts").score([several, request(BASE)]) == [Score(0.2), Score(0.0)]


@pytest.mark.usefixtures("own_rewards")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("large", "1.5"),
        ("nan", "nan"),
        ("text", "str '0.5'"),
        ("several", r"list '\[0.5, 0.5\]'"),
        ("yes", "bool 'True'"),
    ],
)
def test_what_is_no_number_in_zero_to_one_is_one_line_with_function_and_value(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"^reward function own_rewards:{name}: gave {value}, not a number in"):
        FunctionReward(f"own_rewards:{name}").score([request(BASE)])


@pytest.mark.usefixtures("own_rewards")
def test_an_error_in_a_function_of_ones_own_is_not_caught_mixed_or_not() -> None:
    function = FunctionReward("own_rewards:raises")
    for judge in (function, MixedJudge({"own": (function, 1.0), "judge": (Fixed(Score(0.5), remote=True), 1.0)})):
        with pytest.raises(KeyError, match="colour") as caught:
            judge.score([request(BASE)])
        assert caught.traceback[-1].name == "raises"


@pytest.mark.usefixtures("own_rewards")
def test_a_function_that_cannot_be_loaded_is_refused() -> None:
    for name in ("own_rewards", "own_rewards:none", "nowhere:f", "own_rewards:constant", ":f"):
        with pytest.raises(UserError, match="reward function"):
            FunctionReward(name)


@pytest.mark.parametrize(
    ("replies", "value", "reason"),
    [
        ([(200, b'{"score": 0.25}')], 0.25, None),
        ([(503, b""), (429, b""), (200, b'{"score": 1}')], 1.0, None),
        ([(503, b"")], None, "HTTP 503 after 4 tries"),
        ([(403, b"")], None, "HTTP 403"),
        ([(200, b'{"score": null, "reason": "too dark"}')], None, "too dark"),
        ([(200, b'{"score": null}')], None, "gave no score"),
        ([(200, b'{"score": 7}')], None, "gave 7, not a number in [0, 1]"),
        ([(200, b'{"score": NaN}')], None, "gave nan"),
        ([(200, b"[0.5]")], None, 'no "score"'),
        ([(200, b'{"sco')], None, "not JSON"),
    ],
)
def test_a_service_scores_or_gives_its_reason(
    replies: list[tuple[int, bytes]], value: float | None, reason: str | None
) -> None:
    with service(replies) as (url, bodies):
        (score,) = HttpReward(url, backoff=0.001).score([request(BASE, "make it red", "It is red.")])
    assert score.value == value and (reason is None or reason in str(score.reason))
    assert score.applies != (b"null" in replies[0][1]), "null is no failure"
    assert bodies[0]["instruction"] == "make it red" and bodies[0]["edit"].startswith("data:image/png;base64,")
    assert set(bodies[0]) == {"instruction", "requirement", "task", "source", "edit"}


def test_a_service_gets_the_references_of_a_sample_that_has_some() -> None:
    one = request(BASE)
    several = replace(one, sample=replace(one.sample, references=(BASE, Image.new("RGB", (4, 4), "red"))))
    with service([(200, b'{"score": 0.25}')]) as (url, bodies):
        HttpReward(url).score([several])
    assert bodies[0]["references"] == [png_data_url(image) for image in several.sample.references]


def test_ranking_shows_the_references_before_both_edits() -> None:
    hat, scarf = Image.new("RGB", (4, 4), "green"), Image.new("RGB", (4, 4), "white")
    one, two = Image.new("RGB", (128, 128), "red"), Image.new("RGB", (128, 128), "blue")
    sample = replace(request(one).sample, references=(hat, scarf))
    asked: list[Ask] = []

    class Listener(Partial):
        def answer(self, asks: Sequence[Ask]) -> list[Answer]:
            asked.extend(asks)
            return [Answer(reason="silent") for _ in asks]

    RankingJudge(Listener(0.0)).score([JudgeRequest(sample, one), JudgeRequest(sample, two)])
    assert [ask.parts[1:-1] for ask in asked] == [
        (BASE, "Reference 1:", hat, "Reference 2:", scarf, "Edit 1:", first, "Edit 2:", second)
        for first, second in ((one, two), (two, one))
    ]


def test_a_service_that_is_not_there_is_a_reason_and_a_password_in_its_url_is_refused() -> None:
    (score,) = HttpReward("http://127.0.0.1:9/score", backoff=0.001).score([request(BASE)])
    assert score.value is None and "ConnectError after 4 tries" in str(score.reason)
    with pytest.raises(UserError, match="without user or password") as caught:
        HttpReward("http://me:hunter2@127.0.0.1/score")
    assert "hunter2" not in str(caught.value)


def test_close_frees_those_who_wait_for_a_service() -> None:
    errors: list[BaseException] = []

    def wait(judge: MixedJudge) -> None:
        try:
            judge.score([request(BASE)])
        except CancelledError as error:
            errors.append(error)

    with FaultServer(always("hang"), hang=600.0) as server:
        judge = MixedJudge({"service": (HttpReward(f"{server.url}/chat/completions"), 1.0)})
        thread = threading.Thread(target=wait, args=(judge,))
        thread.start()
        while not server.chats:
            time.sleep(0.005)
        close(judge)
        thread.join(300)
        assert not thread.is_alive() and errors


def test_an_interrupt_while_edits_are_measured_leaves_no_thread_that_waits_for_a_service() -> None:
    class Stopped(Fixed):
        def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
            while not server.chats:
                time.sleep(0.005)
            raise KeyboardInterrupt

    others = set(threading.enumerate())  # threads of judges that earlier tests have left to the garbage collector
    with FaultServer(always("hang"), hang=600.0) as server:
        service = HttpReward(f"{server.url}/chat/completions")
        judge = MixedJudge({"service": (service, 1.0), "own": (Stopped(), 1.0)})
        with pytest.raises(KeyboardInterrupt):
            complete_scores(judge, [request(BASE)])
        started = set(threading.enumerate()) - others
        waiting = [thread for thread in started if thread.name.startswith("mixed-judge")]
        for thread in waiting:
            thread.join(60)
        assert not any(thread.is_alive() for thread in waiting)


class Partial:
    """A model that compares by brightness, and likes the first place."""

    name, remote = "partial", False

    def __init__(self, bias: float, deaf: set[int] | None = None) -> None:
        self.bias, self.deaf = bias, deaf or set()

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        return [self.one(ask) for ask in asks]

    def one(self, ask: Ask) -> Answer:
        first, second = (float(np.asarray(ask.parts[i]).mean()) for i in (3, 5))
        if self.deaf & {round(first), round(second)}:
            return Answer(reason="HTTP 500")
        logit = (first - second) / 20 + self.bias
        return Answer("1", (Position("1", {"1": logit, "2": 0.0}),), prompt_tokens=8, completion_tokens=1)


def test_ranking_finds_the_order_whatever_place_the_model_likes() -> None:
    levels = [40, 200, 90, 140]
    requests = [request(Image.new("RGB", (4, 4), (level,) * 3)) for level in levels]
    fair, biased = (RankingJudge(Partial(bias)).score(requests) for bias in (0.0, 1.5))
    values = [score.value or 0.0 for score in fair]
    assert np.argsort(values).tolist() == np.argsort(levels).tolist()
    expected = [np.mean([1 / (1 + math.exp((b - a) / 20)) for b in levels if b != a]) for a in levels]
    assert values == pytest.approx(expected)
    assert np.argsort([score.value or 0.0 for score in biased]).tolist() == np.argsort(levels).tolist()
    assert sum(score.value or 0.0 for score in biased) == pytest.approx(2.0)


def test_ranking_keeps_groups_apart_and_leaves_failed_comparisons_out() -> None:
    other = Image.new("RGB", (4, 4))
    requests = [request(Image.new("RGB", (4, 4), (level,) * 3)) for level in (10, 50, 90)]
    alone = request(Image.new("RGB", (4, 4), "red"), source=other)
    scores = RankingJudge(Partial(0.0, deaf={90})).score([*requests, alone])
    assert [score.value is None for score in scores] == [False, False, True, True]
    assert scores[2].reason == "HTTP 500" and scores[3].reason == "it is alone in its group"


def written(text: str) -> Image.Image:
    image = Image.new("RGB", (360, 96), "white")
    ImageDraw.Draw(image).text((20, 24), text, fill="black", font=ImageFont.load_default(40))
    return image


def test_quoted_text_must_be_readable() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="rapidocr-onnxruntime is not installed")
    reward = OcrReward()
    instruction = 'Replace "HELLO" with "WELCOME".'
    right, wrong, none, unasked = reward.score([
        request(written("WELCOME"), instruction), request(written("HELLO"), instruction),
        request(Image.new("RGB", (360, 96), "white"), instruction), request(written("WELCOME"), "make it red"),
    ])  # fmt: skip
    assert (right.value, none.value) == (1.0, 0.0)
    assert wrong.value is not None and wrong.value < 0.6
    assert unasked.value is None and "quotes a text" in str(unasked.reason)


def test_quotes_of_many_kinds_are_found_and_apostrophes_are_not() -> None:
    text = """Change "one" to “two”, 「三」 and 'four', don't touch the cat's ear."""
    assert quoted(text) == ["one", "two", "三", "four"]


@given(st.text("abc ", max_size=8), st.text("abc ", max_size=8))
def test_likeness_is_symmetric_and_one_for_equal_text(one: str, two: str) -> None:
    assert likeness(one, two) == likeness(two, one)
    assert 0 <= likeness(one, two) <= 1
    assert (likeness(one, two) == 1) == (one.replace(" ", "") == two.replace(" ", ""))
