"""Score Logit against numpy, and the token ids against the tokenizer's vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from editr1.errors import UserError
from editr1.judges.scoring import NO_YES, score_logit, score_token_ids
from tests.judges.tiny_judge import WORDS
from tests.tiny import build_tokenizer

IDS = [7, 3, 11, 0, 5, 9]


def test_ids_are_those_of_the_digits_in_the_vocabulary() -> None:
    tokenizer = build_tokenizer(WORDS)
    vocabulary = tokenizer.get_vocab()
    assert score_token_ids(tokenizer) == [vocabulary[digit] for digit in "012345"]
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
        score_token_ids(tokenizer)


def test_answer_that_becomes_the_unknown_token_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "no": 1, "yes": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    assert score_token_ids(tokenizer, NO_YES) == [1, 2]
    with pytest.raises(UserError, match=r"'0' as \['\[UNK\]'\]"):
        score_token_ids(tokenizer)


def test_value_is_the_expected_digit_over_five() -> None:
    logits = torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    value, probs = score_logit(logits, IDS)
    weights = np.exp(logits.numpy()[:, IDS])
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, expected, rtol=1e-12)
    np.testing.assert_allclose(value, expected @ np.arange(6) / 5, rtol=1e-12)


def test_a_certain_digit_gives_its_fifth() -> None:
    logits = torch.full((6, 16), -50.0)
    logits[torch.arange(6), torch.tensor(IDS)] = 50.0
    torch.testing.assert_close(score_logit(logits, IDS)[0], torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]))


def test_two_answers_give_the_probability_of_the_better() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    value, _ = score_logit(logits, [1, 2])
    assert value.item() == pytest.approx(1 / (1 + np.exp(-1.2 - 2.0)), rel=1e-12)


def test_other_tokens_and_a_common_shift_change_nothing() -> None:
    logits = torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = logits + 300.0
    moved[:, 1] = torch.inf
    torch.testing.assert_close(score_logit(moved, IDS), score_logit(logits, IDS))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_with_a_bad_score_logit_is_nan_and_no_other(bad: float) -> None:
    logits = torch.zeros(3, 16)
    logits[1, IDS[2]] = bad
    value, probs = score_logit(logits, IDS)
    assert value.isnan().tolist() == [False, True, False]
    assert probs[1].isnan().all()
    assert value[[0, 2]].tolist() == pytest.approx([0.5, 0.5])


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits = torch.randn(4, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    value, probs = score_logit(logits, IDS)
    assert value.dtype == probs.dtype == torch.float32
    torch.testing.assert_close(value, score_logit(logits.float(), IDS)[0], rtol=0, atol=0)
