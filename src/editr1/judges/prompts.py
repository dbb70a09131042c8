"""The words the judge sees. Own wording; the idea (task, requirement, one digit 0-5) is the paper's (arXiv 2510.16888).

The message is text, source image, edited image, text: the instruction stands before the images so that a causal judge
knows what to look for when it reads them.
"""

from __future__ import annotations

from typing import Any, Literal

PROMPT_VERSION = "1"

Method = Literal["score", "yes_no", "describe"]

_OPENING = "Judge an image edit. Instruction: {instruction} Requirement: {requirement} Source:"
_QUESTION: dict[str, str] = {
    "score": "Is the edit done and the rest kept? Answer with one digit, 0 (failed) to 5 (perfect).",
    "yes_no": "Is the edit done and the rest kept? Answer yes or no.",
    "describe": "Describe both images, then answer with one digit, 0 (failed) to 5 (perfect).",
}


def messages(instruction: str, requirement: str, method: Method = "score") -> list[dict[str, Any]]:
    """Chat messages with two image places (source, then edit), as transformers processors take them."""
    content = [
        {"type": "text", "text": _OPENING.format(instruction=instruction, requirement=requirement or "None.")},
        {"type": "image"},
        {"type": "text", "text": "Edit:"},
        {"type": "image"},
        {"type": "text", "text": _QUESTION[method]},
    ]
    return [{"role": "user", "content": content}]
