"""Likeness of features outside of masks: the cosine of a vision model's embeddings of a source and of its edit.

PSNR and SSIM count each pixel that differs. The embeddings of DINO and the like tell whether what is seen is the same,
so a small shift of the light costs them little and another face costs them much. The inside of the edit is replaced by
the source's, as for SSIM. No weights are shipped: the model is one that the user has, saved with save_pretrained.

Letters: H W height and width, D embedding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from editr1.errors import UserError, first_line, read_json
from editr1.model_files import weight_files
from editr1.preservation.registration import Floats

Likeness = Callable[[Floats, Floats], float]
"""How alike two pictures [H, W, 3] in [0, 1] are, in [-1, 1]."""


@cache
def open_likeness(folder: str, device: torch.device) -> Likeness:
    """The likeness by a vision model whose output is pooled, such as DINOv2; it is loaded once per process.

    Raises:
        UserError: There is no such model in the folder.
    """
    from transformers import AutoImageProcessor, AutoModel  # seconds, for those who ask for it

    if not Path(folder).is_dir():
        raise UserError(f"features: no folder at {folder}: give a vision model saved with its processor, as DINOv2")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor: Any = AutoImageProcessor.from_pretrained(folder, **local)
        model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, **local)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the library raises whatever it stumbles over in a stranger's files
        raise UserError(f"features: no vision model in {folder} ({first_line(error)})") from error
    model = getattr(model, "vision_model", model).to(device).eval()  # that of CLIP and SigLIP

    @torch.inference_mode()
    def likeness(one: Floats, other: Floats) -> float:
        pictures = [Image.fromarray((each * 255).round().astype(np.uint8)) for each in (one, other)]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(device)
        embeddings: Tensor | None = getattr(model(pixels), "pooler_output", None)  # 2 D
        if embeddings is None:
            raise UserError(f"features: the {type(model).__name__} in {folder} pools nothing; use DINOv2 or CLIP")
        return float(cosine_similarity(embeddings[0].flatten().double(), embeddings[1].flatten().double(), dim=0))

    return likeness


@cache
def model_name(folder: str) -> str:
    """What tells a vision model from others, wherever its folder is: its kind, and a checksum of its files.

    Raises:
        UserError: The folder holds no whole model.
    """
    files = [*sorted(Path(folder).glob("*config.json")), *weight_files(Path(folder))]
    value = 0
    for file in files:
        with file.open("rb") as content:
            while piece := content.read(2**20):
                value = zlib.crc32(piece, value)
    return f"{read_json(Path(folder) / 'config.json').get('model_type', 'model')}, {value:08x}"
