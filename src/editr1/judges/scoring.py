"""Score Logit (arXiv 2510.16888, section 3.2): the expected score over the judge's answer tokens, not a sampled one.

Letters: B requests, V vocabulary, S score tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from editr1.errors import UserError

DIGITS = "012345"
NO_YES = ("no", "yes")


def score_token_ids(tokenizer: PreTrainedTokenizerBase, digits: Sequence[str] = DIGITS) -> list[int]:
    """The one token that stands for each answer.

    Args:
        tokenizer: the judge's.
        digits: the answers, worst first; words too, as `NO_YES`.

    Returns:
        One id an answer, in their order.

    Raises:
        UserError: if an answer is not exactly one token, or is unknown to the tokenizer.
    """
    ids = [tokenizer.encode(answer, add_special_tokens=False) for answer in digits]
    for answer, tokens in zip(digits, ids, strict=True):
        if len(tokens) != 1 or tokenizer.decode(tokens).strip() != answer:
            raise UserError(
                f"the judge's tokenizer ({tokenizer.name_or_path or 'unnamed'}) writes the answer {answer!r} as "
                f"{tokenizer.convert_ids_to_tokens(tokens)}, not as one token: choose a judge whose tokenizer does"
            )
    return [tokens[0] for tokens in ids]


def score_logit(logits: Tensor, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Expected score over the S answers, divided by the best: softmax over their logits . (0, .., S-1) / (S-1).

    For the two answers no, yes this is P(yes). Computed in float32 at least.

    Args:
        logits: [B, V] at the first answer position.
        ids: S token ids, worst answer first.

    Returns:
        value [B] in [0, 1] and probs [B, S]; a row is NaN where one of its S logits is NaN or infinite.
    """
    chosen = logits[:, list(ids)]  # B S
    chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
    finite = chosen.isfinite().all(dim=1, keepdim=True)  # B 1
    probs = chosen.softmax(dim=1).where(finite, torch.nan)
    scores = torch.linspace(0, 1, len(ids), dtype=probs.dtype, device=probs.device)
    return probs @ scores, probs
