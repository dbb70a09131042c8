"""Answers as tokens of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from editr1.errors import UserError
from editr1.judges.base import Ask


def score_token_ids(tokenizer: PreTrainedTokenizerBase, choices: Sequence[str]) -> list[int]:
    """The one token of each answer; an answer that is not exactly one known token is a `UserError`."""
    ids = [tokenizer.encode(answer, add_special_tokens=False) for answer in choices]
    for answer, tokens in zip(choices, ids, strict=True):
        if not _is_token(tokenizer, answer, tokens):
            raise UserError(
                f"the judge's tokenizer ({tokenizer.name_or_path or 'unnamed'}) writes the answer {answer!r} as "
                f"{tokenizer.convert_ids_to_tokens(tokens)}, not as one token: choose a scale or a judge where it is"
            )
    return [tokens[0] for tokens in ids]


def choice_token_ids(tokenizer: PreTrainedTokenizerBase, ask: Ask) -> list[list[int]]:
    """The tokens of each choice: one for each of its spellings that is one token; a `UserError` if there is none."""
    ids = []
    for choice in ask.choices:
        forms = {form: tokenizer.encode(form, add_special_tokens=False) for form in ask.spellings(choice)}
        known = [tokens[0] for form, tokens in forms.items() if _is_token(tokenizer, form, tokens)]
        ids.append(list(dict.fromkeys(known)) or score_token_ids(tokenizer, [choice]))
    return ids


def _is_token(tokenizer: PreTrainedTokenizerBase, text: str, tokens: Sequence[int]) -> bool:
    """Whether `tokens` are one token that says `text`; some tokenizers hide the space before it."""
    return len(tokens) == 1 and tokenizer.decode(tokens).strip() == text.strip()
