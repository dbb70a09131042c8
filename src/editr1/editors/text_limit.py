"""How many tokens of a prompt an editor's text encoder sees. Pipelines cut longer ones; here they are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers

from editr1.config.settings import EditorConfig
from editr1.data.plain_text import plain
from editr1.editors.families import FAMILIES
from editr1.editors.family import Family
from editr1.editors.index import place_of, read_index
from editr1.errors import UserError, first_line
from editr1.toy.assets import locate


def faults_of(
    prompts: Mapping[str, str], family: Family, tokenizer: Any, text_tokens: int | None = None
) -> dict[str, str]:
    """Why each prompt that is too long cannot be taken, by its key in `prompts`.

    Args:
        prompts: Prompts of the pipeline.
        family: The pipeline's record.
        tokenizer: Its component `family.tokenizer`; None if it has none, and then nothing is known to be too long.
        text_tokens: The setting `editor.text_tokens`.
    """
    if family.text_limit is None or tokenizer is None or not prompts:
        return {}
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    limit = text_tokens or min(family.text_limit, tokenizer.model_max_length)
    remedy = "shorten it" + ", or raise editor.text_tokens" * (limit < family.text_limit and bool(family.text_tokens))
    counts = dict(zip(prompts, _count([*prompts.values()], family, tokenizer), strict=True))
    return {
        key: f"it has {count} tokens with its template, {family.name} takes {limit}; {remedy}"
        for key, count in counts.items()
        if count > limit
    }


def find_long(settings: EditorConfig, instructions: Mapping[str, str]) -> dict[str, str]:
    """As `faults_of`, of instructions for an editor that is not loaded; none if its limit is not known.

    Raises:
        UserError: There is no such editor, or its tokenizer cannot be loaded.
    """
    find = long_texts(settings) if instructions else None
    return find(instructions) if find else {}


def long_texts(settings: EditorConfig) -> Callable[[Mapping[str, str]], dict[str, str]] | None:
    """What finds the instructions that are too long for an editor; None if its limit is not known.

    Raises:
        UserError: There is no such editor, or its tokenizer cannot be loaded.
    """
    path = locate(settings.path)
    index = read_index(path)
    family = FAMILIES.get(str(index.get("_class_name")))
    if family is None or family.text_limit is None:
        return None
    prompt_of, tokenizer = family.prompt_of, _load(path, family.tokenizer, index)

    def find(instructions: Mapping[str, str]) -> dict[str, str]:
        prompts = {key: prompt_of(plain(text), 1) for key, text in instructions.items()}
        return faults_of(prompts, family, tokenizer, settings.text_tokens)

    return find


def _count(prompts: Sequence[str], family: Family, tokenizer: Any) -> list[int]:
    """Number of tokens of each prompt."""
    texts = [family.tokenized(prompt) if family.tokenized else (prompt,) for prompt in prompts]
    ids = iter(tokenizer([piece for pieces in texts for piece in pieces], verbose=False)["input_ids"])
    return [sum(len(next(ids)) for _ in pieces) for pieces in texts]


def _load(path: str | Path, name: str, index: Mapping[str, Any]) -> Any:
    """A pipeline's tokenizer or processor; None if it has none."""
    kind = getattr(transformers, str((index.get(name) or [None, None])[1]), None)
    if kind is None:
        return None
    try:
        return kind.from_pretrained(path, subfolder=name)
    except Exception as error:  # the library raises whatever it stumbles over in a stranger's files
        raise UserError(f"{place_of(path)}: cannot load the {name}: {first_line(error)}") from error
