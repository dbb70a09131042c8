"""Score Logit against numpy and an exhaustive search, written numbers, and the token ids against the vocabulary."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from editr1.errors import UserError
from editr1.judges.base import Answer, Ask, Position
from editr1.judges.models.tokens import choice_token_ids, score_token_ids
from editr1.judges.scoring import (
    BOUND_MAX,
    NO_YES,
    digits,
    marked_position,
    score_logit,
    written_number,
)
from tests.judges.tiny_judge import WORDS
from tests.tiny import build_tokenizer

DIGITS = digits((0, 5))
LOGPROB = st.floats(-30, 0)


def test_ids_are_those_of_the_digits_in_the_vocabulary() -> None:
    tokenizer = build_tokenizer(WORDS)
    vocabulary = tokenizer.get_vocab()
    assert score_token_ids(tokenizer, DIGITS) == [vocabulary[digit] for digit in "012345"]
    assert score_token_ids(tokenizer, NO_YES) == [vocabulary["no"], vocabulary["yes"]]


def test_answer_of_several_tokens_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'perfect'.*\['p', 'e', .*not as one token"):
        score_token_ids(build_tokenizer("yes\nno"), ("no", "perfect"))


def test_digit_unknown_to_the_tokenizer_is_refused() -> None:
    tokenizer = build_tokenizer(WORDS)
    model = tokenizer.backend_tokenizer.model
    without = {token: index for token, index in tokenizer.get_vocab().items() if token != "4" and len(token) == 1}
    tokenizer.backend_tokenizer.model = type(model)(vocab=without, merges=[])
    with pytest.raises(UserError, match="'4'"):
        score_token_ids(tokenizer, DIGITS)


def test_answer_that_becomes_the_unknown_token_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "no": 1, "yes": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    assert score_token_ids(tokenizer, NO_YES) == [1, 2]
    with pytest.raises(UserError, match=r"'0' as \['\[UNK\]'\]"):
        score_token_ids(tokenizer, DIGITS)


def test_a_word_counts_in_every_spelling_that_is_one_token() -> None:
    tokenizer = build_tokenizer("yes\nYes yes\nno NO\n")
    vocabulary = tokenizer.get_vocab()
    ids = choice_token_ids(tokenizer, Ask((), NO_YES, any_spelling=True))
    names = (["no", "NO", "ĠNO"], ["yes", "Yes", "Ġyes"])
    assert [set(some) for some in ids] == [{vocabulary[name] for name in some} for some in names]
    assert choice_token_ids(tokenizer, Ask((), NO_YES)) == [[vocabulary["no"]], [vocabulary["yes"]]]
    upper = build_tokenizer("YES\nno\n")  # "yes" itself is no token there
    assert choice_token_ids(upper, Ask((), NO_YES, any_spelling=True))[1] == [upper.get_vocab()["YES"]]
    with pytest.raises(UserError, match="'yes' as"):
        choice_token_ids(build_tokenizer("no\n"), Ask((), NO_YES, any_spelling=True))


@given(st.lists(LOGPROB, min_size=4, max_size=4), st.floats(-25, -3), st.integers(0, 15))
def test_the_true_score_lies_within_the_bound_when_spellings_are_missing(
    logprobs: list[float], floor: float, hidden: int
) -> None:
    shown = [not (hidden >> i & 1 and value <= floor) for i, value in enumerate(logprobs)]
    known, unlisted = dict[str, float](), dict[str, int]()
    for word, places in zip(NO_YES, ((0, 1), (2, 3)), strict=True):  # two spellings each
        weights = [math.exp(logprobs[i]) for i in places if shown[i]]
        known |= {word: math.log(sum(weights))} if weights else {}
        unlisted[word] = 2 - len(weights)
    score = score_logit(Position("yes", known, floor, unlisted), NO_YES)
    no, yes = (np.exp(np.array(some)).sum() for some in (logprobs[:2], logprobs[2:]))
    if score.value is not None:
        assert score.bound <= BOUND_MAX
        assert abs(score.value - yes / (no + yes)) <= score.bound + 1e-9
    elif known:
        assert "did not list" in str(score.reason)
    if all(shown):
        assert score.value == pytest.approx(yes / (no + yes)) and score.bound == 0


def expected(logprobs: list[float]) -> float:
    weights = np.exp(np.array(logprobs) - max(logprobs))
    return float(weights @ np.arange(len(logprobs)) / weights.sum() / (len(logprobs) - 1))


@given(st.lists(LOGPROB, min_size=6, max_size=6))
def test_value_is_the_expected_digit_over_five(logprobs: list[float]) -> None:
    score = score_logit(Position("3", dict(zip(DIGITS, logprobs, strict=True))), DIGITS)
    assert score.value == pytest.approx(expected(logprobs), rel=1e-12)
    assert score.bound == 0 and score.probs is not None
    assert sum(score.probs) == pytest.approx(1)


def test_a_certain_digit_gives_its_fifth() -> None:
    for place, digit in enumerate(DIGITS):
        logprobs = dict.fromkeys(DIGITS, -90.0) | {digit: 0.0}
        assert score_logit(Position(digit, logprobs), DIGITS).value == pytest.approx(place / 5)


def test_two_answers_give_the_probability_of_the_better() -> None:
    score = score_logit(Position("yes", {"no": -1.2, "yes": -0.4, "well": 0.0}), NO_YES)
    assert score.value == pytest.approx(1 / (1 + np.exp(-1.2 + 0.4)), rel=1e-12)


def any_listed(logprobs: list[float | None]) -> bool:
    return any(value is not None for value in logprobs)


@given(st.lists(LOGPROB, min_size=6, max_size=6), st.floats(-25, -3), st.integers(0, 63))
def test_the_true_score_lies_within_the_bound_when_digits_are_missing(
    logprobs: list[float], floor: float, hidden: int
) -> None:
    known = dict(zip(DIGITS, logprobs, strict=True))
    listed = {d: v for i, (d, v) in enumerate(known.items()) if not (hidden >> i & 1 and v <= floor)}
    score = score_logit(Position("3", listed, floor), DIGITS)
    if not listed:
        assert score.value is None and "none of the answers" in str(score.reason)
    elif score.value is None:
        assert "did not list" in str(score.reason)
    else:
        assert score.bound <= BOUND_MAX
        assert abs(score.value - expected(logprobs)) <= score.bound + 1e-12


@given(
    st.lists(st.none() | LOGPROB, min_size=2, max_size=9).filter(any_listed),
    st.floats(-25, 0),
    st.lists(st.integers(0, 6), min_size=9, max_size=9),
)
def test_value_and_bound_are_those_of_all_combinations_of_extremes(
    logprobs: list[float | None], floor: float, spellings: list[int]
) -> None:
    choices = digits((0, len(logprobs) - 1))
    unlisted = dict(zip(choices, spellings, strict=False))
    listed = {choice: value for choice, value in zip(choices, logprobs, strict=True) if value is not None}
    score = score_logit(Position("0", listed, floor, unlisted), choices)
    top = max(listed.values())
    low = [math.exp(listed[choice] - top) if choice in listed else 0.0 for choice in choices]
    more = [unlisted[choice] * math.exp(min(floor - top, 0.0)) for choice in choices]
    ranges = [(one, one + other) for one, other in zip(low, more, strict=True)]
    means = [np.average(range(len(choices)), weights=weights) for weights in itertools.product(*ranges)]
    least, greatest = min(means) / (len(choices) - 1), max(means) / (len(choices) - 1)
    if (greatest - least) / 2 > BOUND_MAX + 1e-12:
        assert score.value is None and f"anywhere in {least:.2f} to {greatest:.2f}" in str(score.reason)
    elif (greatest - least) / 2 < BOUND_MAX - 1e-12:
        assert score.value == pytest.approx((least + greatest) / 2, abs=1e-12)
        assert score.bound == pytest.approx((greatest - least) / 2, abs=1e-12)


def test_a_scale_of_a_hundred_numbers_of_which_most_are_not_listed_is_read_at_once() -> None:
    hundred = digits((0, 100))
    listed = {str(number): math.log(0.049) for number in range(80, 100)}
    score = score_logit(Position("80", listed, floor=-25.0), hundred)  # 2^81 combinations
    assert score.value == pytest.approx(0.895, abs=1e-8) and 0 < score.bound < 1e-8


def test_missing_digits_that_hardly_matter_are_bounded_and_others_are_no_reward() -> None:
    listed = {"4": math.log(0.7), "5": math.log(0.25)}
    small = score_logit(Position("4", listed, floor=math.log(1e-4)), DIGITS)
    assert small.value == pytest.approx((4 * 0.7 + 5 * 0.25) / 0.95 / 5, abs=1e-3)
    assert 0 < small.bound < 1e-3
    large = score_logit(Position("4", listed, floor=math.log(0.05)), DIGITS)
    assert large.value is None
    assert "did not list 0, 1, 2, 3: the score lies anywhere in" in str(large.reason)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_token_that_is_not_finite_is_no_reward(bad: float) -> None:
    score = score_logit(Position("3", dict.fromkeys(DIGITS, -1.0) | {"2": bad}), DIGITS)
    assert (score.value, score.reason) == (None, "a logit of a score token is not finite")


@given(st.integers(0, 50), st.text(alphabet="abc .,:!\n答分", max_size=20), st.text(alphabet="abc .!\n分", max_size=20))
def test_the_one_number_of_an_answer_is_found_in_any_prose(tenths: int, before: str, after: str) -> None:
    number = f"{tenths / 10:g}"
    assert written_number(f"{before} {number} {after}", (0, 5), marked=False).value == pytest.approx(tenths / 50)
    thoughts = f"There were 3 cats, 2 are left. Score: 1? No. {before}\nScore: {number} {after}"
    assert written_number(thoughts, (0, 5), marked=True).value == pytest.approx(tenths / 50)


@pytest.mark.parametrize(
    ("text", "scale", "marked", "reason"),
    [
        ("", (0, 5), False, "holds 0 numbers"),
        ("good", (0, 5), False, "holds 0 numbers"),
        ("4 or 5", (0, 5), False, "holds 2 numbers"),
        ("7", (0, 5), False, "7 is not between 0 and 5"),
        ("-1", (0, 5), False, "-1 is not between 0 and 5"),
        ("0", (1, 5), False, "0 is not between 1 and 5"),
        ("It is a 4.", (0, 5), True, "no line 'Score: N'"),
        ("Score: none", (0, 5), True, "holds 0 numbers"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_reason(
    text: str, scale: tuple[int, int], marked: bool, reason: str
) -> None:
    score = written_number(text, scale, marked)
    assert score.value is None and reason in str(score.reason) and score.text == text


def test_thoughts_are_read_at_the_digit_after_the_last_mark() -> None:
    tokens = ["I", " see", " 3", " cats", ".", " Score", ":", " ", "4", "."]
    positions = tuple(Position(token, {"4": -float(i)}) for i, token in enumerate(tokens))
    assert marked_position(Answer(positions=positions), DIGITS) == positions[8]
    assert marked_position(Answer(positions=positions[:5]), DIGITS) is None
    assert marked_position(Answer(positions=positions[:8]), DIGITS) is None
