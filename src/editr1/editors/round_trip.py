"""A picture after the round trip through an editor's VAE: what is lost of it without any edit.

The pipeline's scaling of latents cancels out, so the VAE alone is asked. Its mean is taken, not a sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image as Images
from PIL.Image import Image, Resampling

VIDEO = 5
"""Dimensions of a convolution's weight in a VAE of videos, which takes a picture as one frame."""


@torch.no_grad()
def round_trip(pipe: Any, picture: Image, size: tuple[int, int]) -> Image | None:
    """The picture, encoded and decoded at this width and height; None for a pipeline without a VAE of pictures."""
    vae = pipe.components.get("vae")
    if not (hasattr(vae, "encode") and hasattr(vae, "decode")):
        return None
    weight = next(each for each in vae.parameters() if each.ndim > 1)
    pixels = torch.from_numpy(np.array(picture.convert("RGB").resize(size, Resampling.LANCZOS)))  # H W 3
    x = (pixels.permute(2, 0, 1)[None].float() / 127.5 - 1).to(pipe._execution_device, weight.dtype)  # 1 3 H W
    is_video = weight.ndim == VIDEO
    encoded = vae.encode(x[:, :, None] if is_video else x)
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
    decoded = vae.decode(latents).sample.float()
    decoded = (decoded[:, :, 0] if is_video else decoded)[0].permute(1, 2, 0)  # H W 3
    return Images.fromarray(((decoded.cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
