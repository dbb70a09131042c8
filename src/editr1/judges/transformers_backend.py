"""A judge in this process: any image-text-to-text model of transformers, read at its first answer position.

One forward pass a batch, no generation: prompts are padded on the left, so the answer position is the last one of
every row, and only its logits are computed. Nothing is downloaded, no remote code is run, no pickle is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin

from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score
from editr1.judges.prompts import PROMPT_VERSION, Method, messages
from editr1.judges.scoring import DIGITS, NO_YES, score_logit, score_token_ids

LogitMethod = Literal["score_logit", "yes_no"]

_METHODS: dict[LogitMethod, tuple[Method, Sequence[str]]] = {
    "score_logit": ("score", DIGITS),
    "yes_no": ("yes_no", NO_YES),
}
"""The prompt of each method, and its answers, worst first."""


class TransformersJudge:
    """Scores edits by the logits of the answer tokens; see `editr1.judges.base.Judge`.

    A folder that does not hold such a model whole, or an answer that is not one token, is a `UserError`.

    Args:
        path: local folder with safetensors weights, processor and chat template.
        method: "score_logit" expects the score over "0".."5"; "yes_no" takes P(yes) against no.
        batch_size: requests a forward pass.
        device: where the model runs.
        dtype: of the weights; scores are computed from its logits in float32 at least.

    Attributes:
        judge_id: the folder's name and the method.
        prompt_version: of the words that the judge is asked with.
    """

    prompt_version = PROMPT_VERSION

    def __init__(
        self,
        path: str | Path,
        *,
        method: LogitMethod = "score_logit",
        batch_size: int = 16,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.path = Path(path)
        self.judge_id = f"{self.path.resolve().name}:{method}"
        self.prompt, answers = _METHODS[method]
        self.batch_size = batch_size
        self.processor = _load_processor(self.path)
        self.score_ids = score_token_ids(self.processor.tokenizer, answers)
        self.model = _load_model(self.path, dtype).to(device).eval()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score a request, in their order; a request whose logits are not finite gets a reason, not a number."""
        scores: list[Score] = []
        for start in range(0, len(requests), self.batch_size):
            scores += self._score_batch(requests[start : start + self.batch_size])
        return scores

    @torch.inference_mode()
    def _score_batch(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        inputs = self._inputs(requests).to(self.model.device, self.model.dtype)
        logits = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]  # B V
        values, probs = score_logit(logits, self.score_ids)
        return [_to_score(*row) for row in zip(values.tolist(), probs.tolist(), strict=True)]

    def _inputs(self, requests: Sequence[JudgeRequest]) -> Any:
        """The model's arguments for these requests, padded on the left."""
        chats = [messages(request.instruction, request.requirement, self.prompt) for request in requests]
        texts = self.processor.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        images = [[request.source.convert("RGB"), request.edit.convert("RGB")] for request in requests]
        return self.processor(text=texts, images=images, padding=True, return_tensors="pt")


def _to_score(value: float, probs: list[float]) -> Score:
    """NaN is no reward."""
    if math.isnan(value):
        return Score(None, "a logit of a score token is not finite")
    return Score(value, probs=tuple(probs))


def _load_processor(path: Path) -> Any:
    """The folder's processor, padding on the left."""
    if not path.is_dir():
        raise UserError(f"judge: no folder at {path}: give the folder of a model saved with save_pretrained")
    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"judge: no processor in {path} ({_first_line(error)}): save the model's processor there"
        ) from error
    if not isinstance(processor, ProcessorMixin):
        raise UserError(f"judge: only a {type(processor).__name__} in {path}: save the model's whole processor there")
    if not processor.chat_template:
        raise UserError(f"judge: the processor in {path} has no chat template: add the model's chat_template.jinja")
    processor.tokenizer.padding_side = "left"
    return processor


def _load_model(path: Path, dtype: torch.dtype) -> Any:
    """The folder's model, from safetensors only, with none of its weights left random."""
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"judge: no image-text-to-text model in {path} ({_first_line(error)}): copy its config and all its "
            "safetensors files there"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"judge: the weights in {path} lack {missing[0]!r}: copy all safetensors files of the model there"
        )
    return model


def _first_line(error: Exception) -> str:
    """The first line of what a library says, for a message of one line."""
    return str(error).strip().partition("\n")[0]
