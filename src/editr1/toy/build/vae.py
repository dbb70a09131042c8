"""The toy's VAE: a small AutoencoderKLQwenImage, 64x64 pixels to 8x8 latents of 16 channels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor

from editr1.toy.build.corrupt import candidate
from editr1.toy.build.fit import Fit
from editr1.toy.scene import draw
from editr1.toy.world import Level, make_item


def build_vae() -> AutoencoderKLQwenImage:
    """An untrained VAE with 8x compression and 16 latent channels."""
    return AutoencoderKLQwenImage(
        base_dim=12, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, latents_mean=[0.0] * 16, latents_std=[1.0] * 16
    )


def one_frame_convolutions(vae: AutoencoderKLQwenImage) -> None:
    """Training only: a causal 3-D convolution of one frame sees zeros before it: its last 2-D slice gives the same."""

    def forward(self: QwenImageCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        weight = self.weight[:, :, -1]
        return F.conv2d(x[:, :, 0], weight, self.bias, self.stride[1:], self._padding[2]).unsqueeze(2)

    for module in vae.modules():
        if isinstance(module, QwenImageCausalConv3d):
            module.forward = forward.__get__(module)


def pictures(level: Level, seed: int, step: int, batch: int) -> Tensor:
    """Random scenes of the sft split: sources, targets and wrong edits alike; [B, 3, 1, 64, 64] in [-1, 1]."""
    rng = np.random.default_rng([seed, step])
    rows = []
    for _ in range(batch):
        item = make_item(level, "sft", seed, int(rng.integers(1 << 30)))
        rows.append(draw(item.scene) if rng.random() < 0.4 else candidate(rng, item, level).picture)
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).unsqueeze(2) * 2 - 1


def train_vae(
    out: Path, *, level: Level, seed: int, steps: int, batch: int = 16, minutes: float = math.inf
) -> AutoencoderKLQwenImage:
    """Train and save the VAE, its latents' mean and std measured and written into its config."""
    torch.manual_seed(seed)
    vae = build_vae()
    one_frame_convolutions(vae)
    fit = Fit(
        {"vae": vae},
        out / "fit",
        steps=steps,
        hidden=lambda name, value: value.ndim >= 4,
        muon_lr=1e-3,
        lr=1e-3,
        ema=0.995,
    )

    def loss(step: int) -> dict[str, Tensor]:
        x = pictures(level, seed, step, batch)
        with torch.autocast("cpu", torch.bfloat16):
            mean, logvar = vae.quant_conv(vae.encoder(x)).float().chunk(2, dim=1)
            logvar = (logvar - 5).clamp(-12, 4)  # a posterior that starts narrow
            z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            y = vae.decoder(vae.post_quant_conv(z)).float()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        mse, mae = F.mse_loss(y, x), F.l1_loss(y, x)
        return {"loss": mae + 2 * mse + 2e-4 * kl, "mse": mse, "kl": kl}

    fit.run(loss, minutes)
    fit.load_average()
    with torch.no_grad():
        means = torch.cat(
            [
                vae.quant_conv(vae.encoder(pictures(level, seed, -step % (1 << 31), 64))).chunk(2, dim=1)[0]
                for step in range(1, 9)
            ]
        )
    trained = build_vae()
    trained.load_state_dict(vae.state_dict())
    trained.register_to_config(
        latents_mean=means.mean((0, 2, 3, 4)).tolist(), latents_std=means.std((0, 2, 3, 4)).tolist()
    )
    trained.save_pretrained(out / "vae")
    return trained


@torch.no_grad()
def psnr(vae: AutoencoderKLQwenImage, level: Level, seed: int, count: int = 128) -> float:
    """Mean PSNR (dB) of encode-decode round trips of heldout sources and targets, as the pipeline does them."""
    values = []
    for index in range(count):
        item = make_item(level, "heldout", seed, index)
        pair = np.stack([draw(item.scene), draw(item.edit.target)])
        x = torch.from_numpy(pair).permute(0, 3, 1, 2).unsqueeze(2).to(vae.dtype) * 2 - 1
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        mse = ((x - y).float() / 2).pow(2).mean((1, 2, 3, 4))
        values += (-10 * mse.log10()).tolist()
    return float(np.mean(values))
