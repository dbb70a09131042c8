"""A model in this process: any image-text-to-text model of transformers.

A question for one token is one forward pass a batch, no generation: prompts are padded on the left, so the answer
position is the last one of every row, and only its logits are computed. Longer answers are generated. Nothing is
downloaded, no remote code is run, no pickle is loaded.

Letters: B questions, V vocabulary.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    ProcessorMixin,
)

from editr1.config.settings import JUDGE_DEFAULTS
from editr1.errors import UserError, first_line
from editr1.judges.base import Answer, Ask, Position
from editr1.judges.scoring import score_token_ids


class TransformersModel:
    """Answers questions by a local model; see `editr1.judges.base.MLLM`.

    A folder that does not hold such a model whole is a `UserError`.

    Args:
        path: local folder with safetensors weights, processor and chat template.
        batch_size: questions a forward pass.
        device: where the model runs.
        dtype: of the weights; probabilities are computed from its logits in float32 at least.

    Attributes:
        name: the folder's.
    """

    remote = False

    def __init__(
        self,
        path: str | Path,
        *,
        batch_size: int = JUDGE_DEFAULTS.batch_size,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.batch_size = batch_size
        self.processor = load_processor(self.path)
        self.model = _load_model(self.path, dtype).to(device).eval()
        keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if keeps else {}

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a question, in their order.

        Raises:
            UserError: a choice is not one token of this model.
        """
        return self.answer_top(asks, 0)

    def answer_top(self, asks: Sequence[Ask], top: int) -> list[Answer]:
        """As `answer`; positions list the `top` likeliest tokens too, for questions without choices as well."""
        order = sorted(range(len(asks)), key=lambda i: asks[i].max_tokens)  # alike with alike; stable
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            answers.update(zip(batch, self._batch([asks[i] for i in batch], top), strict=True))
        return [answers[i] for i in range(len(asks))]

    def token_id(self, text: str) -> int:
        """The one token that `text` is.

        Raises:
            UserError: it is none, or several.
        """
        return score_token_ids(self.processor.tokenizer, [text])[0]

    def token_text(self, token: int) -> str:
        """What a token looks like."""
        return str(self.processor.tokenizer.decode([token]))

    @torch.inference_mode()
    def _batch(self, asks: Sequence[Ask], top: int) -> list[Answer]:
        begun = time.perf_counter()
        inputs = self._inputs(asks).to(self.model.device, self.model.dtype)
        if max(ask.max_tokens for ask in asks) == 1:
            logits = self.model(**inputs, **self._last_only, use_cache=False).logits[:, -1]  # B V
            tokens = _drawn(logits.clone(), asks, 0).argmax(dim=1, keepdim=True)  # B 1
            steps: Sequence[Tensor] = [logits]
        else:
            tokens, steps = self._generate(inputs, asks)
        read = inputs["attention_mask"].sum(dim=1).tolist()
        rows = [self._row(ask, tokens[i].tolist(), [step[i] for step in steps], top) for i, ask in enumerate(asks)]
        seconds = (time.perf_counter() - begun) / len(asks)
        return [
            Answer(text, positions, reason, prompt_tokens=count, completion_tokens=len(positions), seconds=seconds)
            for (text, positions, reason), count in zip(rows, read, strict=True)
        ]

    def _generate(self, inputs: Any, asks: Sequence[Ask]) -> tuple[Tensor, Sequence[Tensor]]:
        """New tokens [B, L], and the logits [B, V] of each of the L steps."""
        made = self.model.generate(
            **inputs,
            max_new_tokens=max(ask.max_tokens for ask in asks),
            do_sample=False,  # the draw is in the noise
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            logits_processor=LogitsProcessorList([_Draw(asks, inputs["input_ids"].shape[1])]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        return made.sequences[:, inputs["input_ids"].shape[1] :], made.logits

    def _row(
        self, ask: Ask, tokens: list[int], steps: Sequence[Tensor], top: int
    ) -> tuple[str, tuple[Position, ...], str | None]:
        """Text and positions of one answer, up to its end; or why it cannot be read."""
        tokenizer = self.processor.tokenizer
        ends = self._ends()
        count = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        count = min(count, ask.max_tokens)
        if ask.max_tokens == 1:  # the probabilities at the first position count, whatever stands there
            count = 1
        ids = score_token_ids(tokenizer, ask.choices)
        positions = []
        for token, logits in zip(tokens[:count], steps, strict=False):
            position = self._position(token, logits, dict(zip(ask.choices, ids, strict=True)), top)
            if position is None:
                return "", (), "a logit of a score token is not finite"
            positions.append(position)
        return tokenizer.decode(tokens[:count], skip_special_tokens=True), tuple(positions), None

    def _position(self, token: int, logits: Tensor, ids: dict[str, int], top: int) -> Position | None:
        """Log-probabilities of the choices and of the `top` likeliest tokens; None where one is not finite."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # V
        total = wide.nan_to_num(nan=-torch.inf, posinf=torch.finfo(wide.dtype).max).logsumexp(dim=0)
        found = wide[list(ids.values())].double() - total.double()
        if not bool(found.isfinite().all()):
            return None
        logprobs = dict(zip(ids, found.tolist(), strict=True))
        if top:
            best = wide.topk(top)
            listed = [*zip(best.indices.tolist(), (best.values - total).tolist(), strict=True)]
            texts = {self.token_text(index): value for index, value in reversed(listed)}  # of equal texts the likelier
            logprobs = {**texts, **logprobs}
        return Position(self.token_text(token), logprobs)

    def _ends(self) -> set[int]:
        """Tokens that end an answer."""
        known = self.model.generation_config.eos_token_id
        listed = known if isinstance(known, list) else [known]
        return {token for token in [*listed, self.processor.tokenizer.eos_token_id] if token is not None}

    def _inputs(self, asks: Sequence[Ask]) -> Any:
        """The model's arguments for these questions, padded on the left."""
        texts = self.processor.apply_chat_template(
            [chat(ask) for ask in asks], add_generation_prompt=True, tokenize=False
        )
        images = [[part.convert("RGB") for part in ask.parts if isinstance(part, Image)] for ask in asks]
        return self.processor(text=texts, images=images if any(images) else None, padding=True, return_tensors="pt")


def chat(ask: Ask) -> list[dict[str, Any]]:
    """The question as chat messages with places for its images, as transformers processors take them."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in ask.parts]
    return [{"role": "user", "content": content}]


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Makes the likeliest token a draw, for the rows whose temperature is above 0."""

    def __init__(self, asks: Sequence[Ask], prompt: int) -> None:
        self.asks, self.prompt = asks, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _drawn(scores, self.asks, input_ids.shape[1] - self.prompt)


def _drawn(logits: Tensor, asks: Sequence[Ask], place: int) -> Tensor:
    """Logits [B, V] whose argmax is a draw from softmax(logits / temperature), by the Gumbel trick.

    The noise of a row follows from its own seed and the place in the answer, so no draw depends on the batch.
    """
    for row, ask in enumerate(asks):
        if ask.temperature > 0:
            generator = torch.Generator().manual_seed(ask.seed * 4096 + place)
            uniform = torch.rand(logits.shape[1], generator=generator).clamp(1e-20, 1 - 1e-7)
            noise = -(-uniform.log()).log()
            logits[row] = logits[row] / ask.temperature + noise.to(logits)
    return logits


def load_processor(path: Path) -> Any:
    """The folder's processor, padding on the left."""
    if not path.is_dir():
        raise UserError(f"judge: no folder at {path}: give the folder of a model saved with save_pretrained")
    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"judge: no processor in {path} ({first_line(error)}): save the model's processor there"
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
            f"judge: no image-text-to-text model in {path} ({first_line(error)}): copy its config and all its "
            "safetensors files there"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"judge: the weights in {path} lack {missing[0]!r}: copy all safetensors files of the model there"
        )
    return model
