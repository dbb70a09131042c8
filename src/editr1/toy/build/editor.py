"""The toy editor: a small Qwen-Image-Edit-Plus pipeline, trained on edit pairs of which half are wrong.

Denoiser and text encoder are trained together by flow matching (x_t = (1-t) x0 + t eps, v = eps - x0) on the VAE's
latents. First a phase in which most targets are right, then the web-like mixture `corrupt.NOISE`.

Letters: B batch, N = 16 tokens of a 64x64 picture, C = 64 channels of a token, L text tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from editr1.toy.build.corrupt import noisy_target
from editr1.toy.build.fit import Fit
from editr1.toy.build.language import build_processor, build_qwen_vl, build_tokenizer, edit_prompt, equal_pictures
from editr1.toy.build.samples import weighted_index
from editr1.toy.build.vae import one_frame_convolutions
from editr1.toy.scene import draw
from editr1.toy.world import Level, ToyItem, make_item

TEXT_PATCH = 16  # the text encoder sees a scene as 2x2 tokens, one a cell
CLEAN_PHASE = 0.75  # share of the steps in which only CLEAN_WRONG of the targets are wrong
CLEAN_WRONG = 0.15
# Words decide at high noise only, where nothing of the answer can be seen yet; and some tasks hang on more words.
TIME_MEAN, TIME_STD = 1.0, 1.2  # of the logit of t
FIRST = 2048  # pairs that the pool begins with
WEIGHTS = {"add": 3.0, "replace": 3.0, "adjust": 3.0, "compose": 2.0, "style": 2.0}


def build_editor(vae: AutoencoderKLQwenImage) -> QwenImageEditPlusPipeline:
    """An untrained pipeline around a trained VAE."""
    tokenizer = build_tokenizer()
    text_encoder = build_qwen_vl(
        tokenizer,
        width=160,
        layers=2,
        heads=5,
        patch=TEXT_PATCH,
        vision_width=96,
        vision_layers=1,
        theta=10000.0,
        sections=(8, 4, 4),
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=5,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=160,
        axes_dims_rope=(8, 12, 12),
    )
    for block in transformer.transformer_blocks:  # start as identity blocks
        nn.init.zeros_(block.img_mod[1].weight)
        nn.init.zeros_(block.txt_mod[1].weight)
    nn.init.zeros_(transformer.norm_out.linear.weight)
    nn.init.zeros_(transformer.proj_out.weight)
    return QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        processor=build_processor(tokenizer, TEXT_PATCH),
        transformer=transformer,
    )


@dataclass
class Pool:
    """Encoded pairs that training draws from again and again; grows by fresh ones at each step."""

    source: list[Tensor] = field(default_factory=list)  # latents, [N, C] each
    target: list[Tensor] = field(default_factory=list)  # latents, [N, C] each
    pixels: list[Tensor] = field(default_factory=list)  # source picture as uint8, [3, 64, 64] each
    words: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Forget all pairs."""
        self.source, self.target, self.pixels, self.words = [], [], [], []


def pack(latents: Tensor) -> Tensor:
    """[B, 16, 1, 8, 8] -> [B, 16 tokens, 64], 2x2 latents a token, as the pipeline packs them."""
    packed: Tensor = QwenImageEditPlusPipeline._pack_latents(latents, latents.shape[0], 16, 8, 8)
    return packed


class Encoder:
    """Latents of pictures by the frozen VAE, normalised as the pipeline does."""

    def __init__(self, vae: AutoencoderKLQwenImage) -> None:
        self.vae = AutoencoderKLQwenImage.from_config(vae.config)
        self.vae.load_state_dict(vae.state_dict())
        one_frame_convolutions(self.vae)
        self.mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        self.std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> Tensor:
        """[B, 64, 64, 3] in [0, 1] -> [B, N, C]."""
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).unsqueeze(2) * 2 - 1
        z = self.vae.quant_conv(self.vae.encoder(x))[:, :16]
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
    pool.words += [edit_prompt(item.edit.instruction) for item in items]


def encode_words(pipe: QwenImageEditPlusPipeline, words: list[str], pixels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Text embeddings [B, L, C] and their mask [B, L], with gradients, as the pipeline makes them one by one."""
    inputs = pipe.processor(text=words, images=pixels, padding=True, padding_side="right", return_tensors="pt")
    passed = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")  # what the pipeline passes, no more
    hidden = pipe.text_encoder.model(**{name: inputs[name] for name in passed}).last_hidden_state
    drop = pipe.prompt_template_encode_start_idx
    return hidden[:, drop:], inputs["attention_mask"][:, drop:]


def velocity_loss(pipe: QwenImageEditPlusPipeline, pool: Pool, rows: list[int]) -> Tensor:
    """Flow matching on some rows of the pool: |v - (eps - x0)|^2."""
    batch = len(rows)
    x0, source = torch.stack([pool.target[i] for i in rows]), torch.stack([pool.source[i] for i in rows])  # B N C
    t = torch.sigmoid(torch.randn(batch) * TIME_STD + TIME_MEAN)
    eps = torch.randn_like(x0)
    x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        words, mask = encode_words(pipe, [pool.words[i] for i in rows], [pool.pixels[i] for i in rows])
        v = pipe.transformer(
            hidden_states=torch.cat([x_t, source], dim=1),
            timestep=t,
            encoder_hidden_states=words,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, 4, 4), (1, 4, 4)]] * batch,
            return_dict=False,
        )[0][:, : x0.shape[1]]
    return F.mse_loss(v.float(), eps - x0)


def train_editor(
    out: Path,
    vae: AutoencoderKLQwenImage,
    *,
    level: Level,
    seed: int,
    steps: int,
    batch: int = 64,
    fresh: int = 16,
    minutes: float = math.inf,
) -> QwenImageEditPlusPipeline:
    """Train and save the pipeline at `out`/editor; resumed, it goes on with another draw of the pool."""
    torch.manual_seed(seed)
    pipe = build_editor(vae)
    equal_pictures(pipe.text_encoder)
    encoder, pool, noisy_from = Encoder(vae), Pool(), int(CLEAN_PHASE * steps)
    modules = {"transformer": pipe.transformer, "text_encoder": pipe.text_encoder}
    fit = Fit(modules, out / "fit", steps=steps, hidden=lambda name, _: "blocks" in name or "layers" in name, ema=0.998)

    def loss(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_003 + step)
        if step == noisy_from:
            pool.clear()
        items = [
            make_item(level, "sft", seed, weighted_index(rng, WEIGHTS)) for _ in range(fresh if pool.words else FIRST)
        ]
        add_pairs(pool, encoder, items, rng, level, CLEAN_WRONG if step < noisy_from else 0.5)
        size = len(pool.words)
        rows = [*range(size - fresh, size), *rng.integers(0, size, batch - fresh).tolist()]
        return {"loss": velocity_loss(pipe, pool, rows)}

    fit.run(loss, minutes)
    fit.load_average()
    pipe.to(torch.bfloat16).save_pretrained(out / "editor")
    return pipe
