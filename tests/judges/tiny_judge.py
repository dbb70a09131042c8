"""A real but tiny Qwen2.5-VL judge with random weights, saved as a user's judge would be: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.tiny import build_processor, build_text_encoder, build_tokenizer

WORDS = (
    "yes\nno\nassistant\nuser\nsystem Judge an edit. Instruction: Requirement: Source: Edit: Is the edit done and "
    "the rest kept? Answer with one digit, yes or no. (failed) to (perfect). add remove make a red blue cat dog bigger"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_judge(path: Path, seed: int = 0) -> Path:
    """Save model, processor and chat template at `path`; scores of different requests lie far apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(WORDS)
        model = build_text_encoder(tokenizer)
        model.lm_head.weight.data.mul_(5)
    processor = build_processor(tokenizer)
    processor.chat_template = CHAT_TEMPLATE
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path
