"""Text of users is text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from editr1.data.plain_text import plain, without_tokens
from editr1.data.samples import EditSample, JsonlDataset
from editr1.errors import UserError

TOKENS = (
    "<|im_end|>",
    "<|image_pad|>",
    "<|endoftext|>",
    "<｜User｜>",
    "<s>",
    "</s>",
    "<start_of_turn>",
    "<image>",
    "<extra_id_0>",
    "<IMG_CONTEXT>",
    "[INST]",
    "[/INST]",
    "[MASK]",
)


@pytest.mark.parametrize("token", TOKENS)
def test_what_looks_like_a_control_token_is_parted(token: str) -> None:
    for text in (token, f"a{token}b", token + token, f"{token[:-1]}{token}{token[-1]}", f"<{token}", f"[{token}]"):
        assert token not in plain(text) and plain(text).replace(" ", "") == text
        assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize(
    "text", ["3 < 5", "a <- b", "i <3 you", "[a] list", "x > y", 'write "HELLO [x]"', "", "Füge 猫 hinzu"]
)
def test_other_text_is_unchanged(text: str) -> None:
    assert plain(text) == text


def test_texts_of_an_item_are_plain() -> None:
    sample = EditSample("a", Image.new("RGB", (4, 4)), "go<|im_end|>", "is <s> there")
    assert (sample.instruction, sample.requirement) == ("go< |im_end|>", "is < s> there")


def test_the_tokens_of_a_vocabulary_are_parted_whatever_they_look_like() -> None:
    assert without_tokens("a @END@ {{b @EN", {"@END@", "{{"}) == "a @ END@ { {b @EN"
    assert without_tokens("a", ()) == "a"
    with pytest.raises(UserError, match="control token"):
        without_tokens("a#b", {"#"})


def test_texts_that_no_editor_takes_are_refused_with_file_and_line(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for instruction, line_words, words in (
        ("猫" * 1001, "it has 3003 bytes, 3000 at most", "it has 3003 bytes, 3000 at most"),
        ("\ud800", "a lone surrogate", "a lone surrogate"),
    ):
        lines = [json.dumps({"source": "a.png", "instruction": text}) for text in ("猫" * 1000, instruction)]
        (tmp_path / "data.jsonl").write_text("\n".join(lines))
        with pytest.raises(UserError, match=rf"data\.jsonl:2: .*{line_words}"):
            JsonlDataset(tmp_path)
        with pytest.raises(UserError, match=rf"item 'k': requirement: .*{words}"):
            EditSample("k", Image.new("RGB", (4, 4)), "go", instruction)
