"""The toy editors: small pipelines of the kinds in `LAYOUTS`, trained on edit pairs of which half are wrong.

Denoiser and text encoders are trained together by flow matching (x_t = (1-t) x0 + t eps, v = eps - x0) on the VAE's
latents. First a phase in which most targets are right, then the web-like mixture `corrupt.NOISE`.

Letters: B batch, N = 16 tokens of a 64x64 picture, C = 64 channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, FluxKontextPipeline
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from editr1.config.data import Level
from editr1.toy.corrupt import noisy_target
from editr1.toy.scene import draw
from editr1.toy.world import ToyItem, make_item
from editr1.toy_models import flux_layout, qwen_layout
from editr1.toy_models.fit import Fit
from editr1.toy_models.language import use_equal_pictures
from editr1.toy_models.samples import weighted_index
from editr1.toy_models.train_vae import (
    VAE,
    init_flux_vae,
    init_qwen_vae,
    moments,
    normalisation,
    use_one_frame_convolutions,
)

CLEAN_PHASE = 0.75  # share of the steps in which only CLEAN_WRONG of the targets are wrong
CLEAN_WRONG = 0.15
# Words decide at high noise only, while the answer cannot be seen yet; and some tasks depend on more words.
TIME_MEAN, TIME_STD = 1.0, 1.2  # of the logit of t
FIRST, FRESH = 2048, 16  # pairs in the pool at the start, and more of them per step
WEIGHTS = {"add": 3.0, "replace": 3.0, "adjust": 3.0, "compose": 2.0, "style": 2.0}


@dataclass(frozen=True)
class Layout:
    """One kind of editor.

    Attributes:
        init_vae: Makes its untrained VAE.
        init_pipeline: Makes its untrained pipeline around a VAE.
        trained: Names of the components that are trained together.
        velocity: (pipe, x_t, t, source, instructions, source pictures) -> v, as the pipeline computes it.
        quicken: Makes the training quicker without changing what is computed.
    """

    init_vae: Callable[[], VAE]
    init_pipeline: Callable[[Any], Any]
    trained: tuple[str, ...]
    velocity: Callable[[Any, Tensor, Tensor, Tensor, list[str], list[Tensor]], Tensor]
    quicken: Callable[[Any], None] = lambda pipe: None


LAYOUTS = {
    "qwen-image-edit": Layout(
        init_qwen_vae,
        qwen_layout.init_pipeline,
        qwen_layout.TRAINED,
        qwen_layout.velocity,
        quicken=lambda pipe: use_equal_pictures(pipe.text_encoder),
    ),
    "flux-kontext": Layout(init_flux_vae, flux_layout.init_pipeline, flux_layout.TRAINED, flux_layout.velocity),
}


@dataclass
class Pool:
    """Encoded pairs that training draws from again and again; grows at each step."""

    source: list[Tensor] = field(default_factory=list)  # latents, [N, C] each
    target: list[Tensor] = field(default_factory=list)  # latents, [N, C] each
    pixels: list[Tensor] = field(default_factory=list)  # source picture as uint8, [3, 64, 64] each
    words: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Forget all pairs."""
        self.source, self.target, self.pixels, self.words = [], [], [], []


def pack(latents: Tensor) -> Tensor:
    """[B, 16, 8, 8] -> [B, 16 tokens, 64], 2x2 latents a token, as both pipelines pack them."""
    packed: Tensor = FluxKontextPipeline._pack_latents(latents, latents.shape[0], 16, 8, 8)
    return packed


class Encoder:
    """Latents of pictures by the frozen VAE, normalised as the pipeline does."""

    def __init__(self, vae: VAE) -> None:
        self.vae = type(vae).from_config(vae.config)
        self.vae.load_state_dict(vae.state_dict())
        use_one_frame_convolutions(self.vae)
        self.mean, self.std = normalisation(vae)

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> Tensor:
        """[B, 64, 64, 3] in [0, 1] -> [B, N, C]."""
        z, _ = moments(self.vae, torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1)
        return pack((z - self.mean) / self.std)


def noisy_pair(rng: np.random.Generator, item: ToyItem, level: Level, wrong: float) -> np.ndarray:
    """(source, target) pictures; the target is wrong with probability `wrong` (kinds in the proportions of NOISE)."""
    scene = item.edit.target
    if rng.random() < 2 * wrong:  # NOISE itself leaves half of them right
        scene = noisy_target(rng, item, level)[1]
    return np.stack([draw(item.scene), draw(scene)])


def add_pairs(
    pool: Pool, encoder: Encoder, items: list[ToyItem], rng: np.random.Generator, level: Level, wrong: float
) -> None:
    """Encode fresh pairs into the pool."""
    pairs = np.stack([noisy_pair(rng, item, level, wrong) for item in items])  # [B, 2, 64, 64, 3]
    latents = encoder(pairs.reshape(-1, *pairs.shape[2:])).unflatten(0, (-1, 2))  # [B, 2, N, C]
    pool.source += list(latents[:, 0])
    pool.target += list(latents[:, 1])
    pool.pixels += list((torch.from_numpy(pairs[:, 0]).permute(0, 3, 1, 2) * 255 + 0.5).to(torch.uint8))
    pool.words += [item.edit.instruction for item in items]


def velocity_loss(layout: Layout, pipe: DiffusionPipeline, pool: Pool, rows: list[int]) -> Tensor:
    """Flow matching on some rows of the pool: |v - (eps - x0)|^2."""
    x0, source = torch.stack([pool.target[i] for i in rows]), torch.stack([pool.source[i] for i in rows])  # B N C
    t = torch.sigmoid(torch.randn(len(rows)) * TIME_STD + TIME_MEAN)
    eps = torch.randn_like(x0)
    x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        v = layout.velocity(pipe, x_t, t, source, [pool.words[i] for i in rows], [pool.pixels[i] for i in rows])
    return F.mse_loss(v.float(), eps - x0)


def hidden_layer(name: str, value: Tensor) -> bool:
    """A weight inside the blocks of a transformer."""
    return any(part in name for part in ("block.", "blocks.", "layers.")) and "relative_attention" not in name


def train_editor(
    out: Path, layout: Layout, vae: VAE, *, level: Level, seed: int, steps: int, batch: int
) -> DiffusionPipeline:
    """Train and save the pipeline at `out`/editor; resumed, it goes on with another draw of the pool."""
    torch.manual_seed(seed)
    pipe = layout.init_pipeline(vae)
    layout.quicken(pipe)
    encoder, pool, noisy_from = Encoder(vae), Pool(), int(CLEAN_PHASE * steps)
    modules = {name: getattr(pipe, name) for name in layout.trained}
    fit = Fit(modules, out / "fit", steps=steps, hidden=hidden_layer)

    def loss(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_003 + step)
        if step == noisy_from:
            pool.clear()
        count = FRESH if pool.words else FIRST
        items = [make_item(level, "sft", seed, weighted_index(rng, WEIGHTS)) for _ in range(count)]
        add_pairs(pool, encoder, items, rng, level, CLEAN_WRONG if step < noisy_from else 0.5)
        size = len(pool.words)
        rows = [*range(size - FRESH, size), *rng.integers(0, size, batch - FRESH).tolist()]
        return {"loss": velocity_loss(layout, pipe, pool, rows)}

    fit.run(loss)
    pipe.to(torch.bfloat16).save_pretrained(out / "editor")
    return pipe
