"""A model in this process: any image-text-to-text model of transformers.

Questions for one token take one forward pass per batch, no generation: prompts are padded on the left, so the answer
position is the last one of every row, and only its logits are computed. Longer answers are generated. Nothing is
downloaded, no remote code is run, no pickle is loaded.

Letters: B questions, V vocabulary.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    ProcessorMixin,
)

from editr1.config.rewards import JUDGE_DEFAULTS
from editr1.data.plain_text import control_tokens, without_tokens
from editr1.errors import UserError, first_line
from editr1.judges.base import Answer, Ask, Position
from editr1.judges.models.tokens import choice_token_ids, score_token_ids
from editr1.model_files import check_hub, is_hub_name, refuse_devices
from editr1.terminal import announce

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Arguments of `from_pretrained`: nothing is downloaded, no foreign code is run."""
PROBE = (64, 64)
"""Size of the pictures that a new processor is tried with."""


class TransformersModel:
    """Answers questions by a local model; see `editr1.judges.base.MLLM`.

    A folder without the whole of such a model is a `UserError`.

    Args:
        path: Folder, or name on the hub, of safetensors weights, processor and chat template.
        batch_size: Questions per forward pass.
        device: Device of the model.
        dtype: Number format of the weights; probabilities are computed from the logits in float32 at least.

    Attributes:
        name: Name of the folder.
    """

    remote = False

    def __init__(
        self,
        path: str | Path,
        *,
        batch_size: int = JUDGE_DEFAULTS.batch_size,
        device: torch.device | str = "cpu",
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
        """One answer per question, in their order; a choice that is not one token is a `UserError`."""
        return self.answer_top(asks, 0)

    def answer_top(self, asks: Sequence[Ask], top: int) -> list[Answer]:
        """As `answer`, but positions hold the `top` likeliest tokens too, also for questions without choices."""
        order = sorted(range(len(asks)), key=lambda i: asks[i].max_tokens)  # answers of one length together; stable
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            answers.update(zip(batch, self._batch([asks[i] for i in batch], top), strict=True))
        return [answers[i] for i in range(len(asks))]

    def token_id(self, text: str) -> int:
        """The one token that `text` is."""
        return score_token_ids(self.processor.tokenizer, [text])[0]

    def token_text(self, token: int) -> str:
        """The text of a token."""
        return str(self.processor.tokenizer.decode([token]))

    @torch.inference_mode()
    def _batch(self, asks: Sequence[Ask], top: int) -> list[Answer]:
        start = time.perf_counter()
        inputs = self._inputs(asks).to(self.model.device, self.model.dtype)
        if max(ask.max_tokens for ask in asks) == 1:
            logits = self.model(**inputs, **self._last_only, use_cache=False).logits[:, -1]  # B V
            tokens = _sampled(logits.clone(), asks, 0).argmax(dim=1, keepdim=True)  # B 1
            steps: Sequence[Tensor] = [logits]
        else:
            tokens, steps = self._generate(inputs, asks)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        rows = [self._row(ask, tokens[i].tolist(), [step[i] for step in steps], top) for i, ask in enumerate(asks)]
        seconds = (time.perf_counter() - start) / len(asks)
        return [
            Answer(text, positions, reason, prompt_tokens=count, completion_tokens=len(positions), seconds=seconds)
            for (text, positions, reason), count in zip(rows, lengths, strict=True)
        ]

    def _generate(self, inputs: Any, asks: Sequence[Ask]) -> tuple[Tensor, Sequence[Tensor]]:
        """New tokens [B, L], and the logits [B, V] of each of the L steps."""
        output = self.model.generate(
            **inputs,
            max_new_tokens=max(ask.max_tokens for ask in asks),
            do_sample=False,  # the sampling is in the noise
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            logits_processor=LogitsProcessorList([_Sample(asks, inputs["input_ids"].shape[1])]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        return output.sequences[:, inputs["input_ids"].shape[1] :], output.logits

    def _row(
        self, ask: Ask, tokens: list[int], steps: Sequence[Tensor], top: int
    ) -> tuple[str, tuple[Position, ...], str | None]:
        """Text and positions of one answer, up to its end; or why it cannot be read."""
        tokenizer = self.processor.tokenizer
        ends = self._ends()
        count = min(next((i for i, token in enumerate(tokens) if token in ends), len(tokens)), ask.max_tokens)
        if ask.max_tokens == 1:  # the probabilities at the first position count, whatever its token
            count = 1
        ids = dict(zip(ask.choices, choice_token_ids(tokenizer, ask), strict=True))
        positions = []
        for token, logits in zip(tokens[:count], steps, strict=False):
            position = self._position(token, logits, ids, top)
            if position is None:
                return "", (), "a logit of a score token is not finite"
            positions.append(position)
        return tokenizer.decode(tokens[:count], skip_special_tokens=True), tuple(positions), None

    def _position(self, token: int, logits: Tensor, ids: dict[str, list[int]], top: int) -> Position | None:
        """Log-probabilities of the choices and of the `top` likeliest tokens; None if one of a choice is not finite."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # V
        total = wide.nan_to_num(nan=-torch.inf, posinf=torch.finfo(wide.dtype).max).logsumexp(dim=0)
        values = wide.new_tensor([], dtype=torch.float64)
        if ids:  # of a choice with several tokens, their sum
            values = torch.stack([wide[some].double().logsumexp(dim=0) for some in ids.values()]) - total.double()
        if not bool(values.isfinite().all()):
            return None
        logprobs = dict(zip(ids, values.tolist(), strict=True))
        if top:
            best = wide.topk(top)
            rows = [*zip(best.indices.tolist(), (best.values - total).tolist(), strict=True)]
            texts = {self.token_text(index): value for index, value in reversed(rows)}  # of equal texts the likelier
            logprobs = {**texts, **logprobs}
        return Position(self.token_text(token), logprobs)

    def _ends(self) -> set[int]:
        """Tokens that end an answer."""
        ids = self.model.generation_config.eos_token_id
        ends = ids if isinstance(ids, list) else [ids]
        return {token for token in [*ends, self.processor.tokenizer.eos_token_id] if token is not None}

    def _inputs(self, asks: Sequence[Ask]) -> Any:
        """The model's arguments for these questions, padded on the left."""
        return processor_inputs(self.processor, asks)


def processor_inputs(processor: Any, asks: Sequence[Ask]) -> Any:
    """The model's arguments for questions; their texts are text, whatever tokens the model has.

    Raises:
        UserError: The chat template or the processor fails; both come with the model.
    """
    tokens = control_tokens(processor.tokenizer)
    asks = [
        replace(ask, system=without_tokens(ask.system, tokens), parts=tuple(_as_text(p, tokens) for p in ask.parts))
        for ask in asks
    ]
    images = [[part.convert("RGB") for part in ask.parts if isinstance(part, Image)] for ask in asks]
    try:
        texts = processor.apply_chat_template([chat(ask) for ask in asks], add_generation_prompt=True, tokenize=False)
        return processor(text=texts, images=images if any(images) else None, padding=True, return_tensors="pt")
    except Exception as error:  # a template is a program of strangers, and raises what it likes
        name = processor.tokenizer.name_or_path
        raise UserError(
            f"judge: the chat template or the processor in {name} fails ({type(error).__name__}: {first_line(error)}): "
            "copy the model's own files there"
        ) from error


def _as_text(part: str | Image, tokens: Collection[str]) -> str | Image:
    return without_tokens(part, tokens) if isinstance(part, str) else part


def chat(ask: Ask) -> list[dict[str, Any]]:
    """The question as chat messages with places for its images, as transformers processors take them."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in ask.parts]
    system = [{"role": "system", "content": [{"type": "text", "text": ask.system}]}] if ask.system else []
    return [*system, {"role": "user", "content": content}]


class _Sample(LogitsProcessor):  # type: ignore[misc]
    """Makes the likeliest token a random sample in the rows with a temperature above 0."""

    def __init__(self, asks: Sequence[Ask], prompt: int) -> None:
        self.asks, self.prompt = asks, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _sampled(scores, self.asks, input_ids.shape[1] - self.prompt)


def _sampled(logits: Tensor, asks: Sequence[Ask], place: int) -> Tensor:
    """Logits [B, V] whose argmax is a sample of softmax(logits / temperature), by the Gumbel trick.

    The noise of a row follows from its own seed and the place in the answer, so no sample depends on the batch.
    """
    for row, ask in enumerate(asks):
        if ask.temperature > 0:
            generator = torch.Generator().manual_seed(ask.seed * 4096 + place)
            uniform = torch.rand(logits.shape[1], generator=generator).clamp(1e-20, 1 - 1e-7)
            noise = -(-uniform.log()).log()
            logits[row] = logits[row] / ask.temperature + noise.to(logits)
    return logits


def origin(path: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained`: as `LOCAL`, but a hub name may be downloaded."""
    return {**LOCAL, "local_files_only": not is_hub_name(str(path))}


def load_processor(path: Path) -> Any:
    """The processor of a folder or a hub name, padding on the left."""
    if is_hub_name(str(path)):
        check_hub(str(path), "config.json", f"judge.path={str(path)!r}")
    elif not path.is_dir():
        raise UserError(f"judge: no folder at {path}: give the folder of a model saved with save_pretrained")
    else:
        refuse_devices(path, f"judge.path={str(path)!r}")
    try:
        processor = AutoProcessor.from_pretrained(str(path), **origin(path))
    except Exception as error:  # the libraries raise whatever they stumble over in a stranger's files
        words = f"judge: no processor in {path} ({first_line(error)}): save the model's processor there"
        raise UserError(words) from error
    if not isinstance(processor, ProcessorMixin):
        raise UserError(f"judge: only a {type(processor).__name__} in {path}: save the model's whole processor there")
    if not processor.chat_template:
        raise UserError(f"judge: the processor in {path} has no chat template: add the model's chat_template.jinja")
    processor.tokenizer.padding_side = "left"
    picture = new_image("RGB", PROBE)
    processor_inputs(processor, [Ask(("text", picture, "text", picture))])
    return processor


def _load_model(path: Path, dtype: torch.dtype) -> Any:
    """The folder's model, from safetensors only, with none of its weights left random."""
    announce(f"Loading the judge {path}", transformers.utils.logging)
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            str(path), dtype=dtype, use_safetensors=True, output_loading_info=True, **origin(path)
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the libraries raise whatever they stumble over in a stranger's files
        raise UserError(
            f"judge: no image-text-to-text model in {path} ({first_line(error)}): copy its config and all its "
            "safetensors files there"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"judge: the weights in {path} lack {missing[0]!r}: copy all safetensors files of the model there"
        )
    return model
