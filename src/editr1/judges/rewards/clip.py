"""CLIP or SigLIP as a reward: is the edit still like its source, and does it move toward the text?

Letters: B edits, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModel, AutoProcessor

from editr1.config.rewards import ClipKind
from editr1.errors import UserError, first_line
from editr1.judges.base import JudgeRequest, Score
from editr1.judges.models.local import LOCAL

BATCH = 32


class ClipReward:
    """Cosines of embeddings, brought from [-1, 1] to [0, 1].

    "clip_image" is cos(edit, source), which an untouched source wins: it must be mixed. "clip_direction" is how much
    nearer the edit is to the text than its source: cos(edit, text) - cos(source, text). The text is the requirement, or
    the instruction if there is no requirement. Values outside [0, 1] are clipped.

    Args:
        path: Local folder of a CLIP or SigLIP model with its processor, safetensors.
        kind: The measure.
        device: Device of the model.
        dtype: Number format of the weights.
    """

    remote = False

    def __init__(
        self,
        path: str | Path,
        *,
        kind: ClipKind,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.kind = kind
        if not Path(path).is_dir():
            raise UserError(f"reward {kind}: no folder at {path}: give a CLIP or SigLIP model saved on disk")
        try:
            self.processor: Any = AutoProcessor.from_pretrained(path, **LOCAL)
            model: Any = AutoModel.from_pretrained(path, dtype=dtype, use_safetensors=True, **LOCAL)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the libraries raise whatever they stumble over in a stranger's files
            raise UserError(f"reward {kind}: no CLIP or SigLIP model in {path} ({first_line(error)})") from error
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise UserError(f"reward {kind}: the model in {path} is a {type(model).__name__}, not CLIP or SigLIP")
        self.model = model.to(device).eval()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request."""
        scores: list[Score] = []
        for start in range(0, len(requests), BATCH):
            values = self._values(requests[start : start + BATCH])
            scores += [
                Score(value) if value == value else Score(None, "the embedding is not finite")  # NaN
                for value in values.clamp(0, 1).tolist()
            ]
        return scores

    @torch.inference_mode()
    def _values(self, requests: Sequence[JudgeRequest]) -> Tensor:
        """Values [B], NaN if an embedding is not finite."""
        edits = self._images([request.edit for request in requests])  # B D
        sources = self._images([request.sample.source for request in requests])  # B D
        if self.kind == "clip_image":
            return (1 + (edits * sources).sum(dim=1)) / 2
        texts = self._texts([request.sample.requirement or request.sample.instruction for request in requests])  # B D
        return (1 + ((edits - sources) * texts).sum(dim=1)) / 2

    def _images(self, images: Sequence[Image]) -> Tensor:
        pixels = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        return _unit(self.model.get_image_features(pixels["pixel_values"].to(self.model.device, self.model.dtype)))

    def _texts(self, texts: Sequence[str]) -> Tensor:
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.processor(
            text=list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return _unit(self.model.get_text_features(**tokens.to(self.model.device)))


def _unit(features: Any) -> Tensor:
    """Unit vectors [B, D] in float32."""
    tensor: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(tensor.float(), dim=-1)
