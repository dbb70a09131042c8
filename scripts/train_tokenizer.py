"""Train the toy's tokenizer. Only for a new language: every toy model must be trained again afterwards.

Usage: python scripts/train_tokenizer.py src/editr1/toy_models/tokenizer
"""

from __future__ import annotations

import json
import sys

from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from editr1.data.samples import EditSample
from editr1.judges.base import JudgeRequest
from editr1.judges.prompts import Question, load_prompt
from editr1.toy.scene import BACKGROUNDS, COLOURS, SIDES, artwork
from editr1.toy.world import make_item
from editr1.toy_models.language import CHAT_TEMPLATE, SPECIAL, editor_template


def corpus(count: int = 6000) -> list[str]:
    """Text with every word of the toy's language: the templates, instructions, requirements, descriptions."""
    texts = [editor_template(), "Picture 1: user assistant yes no", "0 1 2 3 4 5 0 1 2 3 4 5"]
    prompt, blank = load_prompt("brief", "prefix"), Image.new("RGB", (64, 64))
    request = JudgeRequest(EditSample("", blank, "None.", "None."), blank)
    questions: tuple[Question, ...] = ("score", "yes_no", "think")
    for question in questions:
        parts = prompt.parts(request, question)
        texts += [part for part in parts if isinstance(part, str)]
    words = [*artwork(), *COLOURS, *BACKGROUNDS, *SIDES, "Source: Edit: Score: empty flipped turned, ; ."]
    texts += [" ".join(["", *words]), "yes\nno\n" * 2]
    for index in range(count):
        edit = make_item("full", "sft", 0, index).edit
        texts += [f"{edit.instruction} {edit.requirement}", edit.requirement]
    for token in SPECIAL:
        texts = [text.replace(token, "\n") for text in texts]
    return texts


def train_tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE, trained until each word is one token, with Qwen's pre-tokenizer and special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=8192, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(corpus(), trainer)
    trained = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=trained["vocab"], merges=merges, additional_special_tokens=list(SPECIAL))
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


if __name__ == "__main__":
    train_tokenizer().save_pretrained(sys.argv[1])
