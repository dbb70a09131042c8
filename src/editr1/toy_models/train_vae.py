"""The toy's VAEs, 64x64 pixels to 8x8 latents of 16 channels: a small AutoencoderKLQwenImage, a small AutoencoderKL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLQwenImage
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor

from editr1.config.data import Level
from editr1.toy.corrupt import candidate
from editr1.toy.scene import draw
from editr1.toy.world import make_item
from editr1.toy_models.fit import Fit

BATCH = 16
VAE: TypeAlias = Any  # AutoencoderKLQwenImage or AutoencoderKL; diffusers has no types


def init_qwen_vae() -> AutoencoderKLQwenImage:
    """The untrained VAE of the Qwen-Image layout."""
    return AutoencoderKLQwenImage(
        base_dim=12, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, latents_mean=[0.0] * 16, latents_std=[1.0] * 16
    )


def init_flux_vae() -> AutoencoderKL:
    """The untrained VAE of the FLUX.1 layout."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def moments(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the posterior, [B, 16, 8, 8] each, of pictures [B, 3, 64, 64] in [-1, 1]."""
    z = vae.encoder(x) if isinstance(vae, AutoencoderKL) else vae.quant_conv(vae.encoder(x.unsqueeze(2))).squeeze(2)
    mean, logvar = z.chunk(2, dim=1)
    return mean, logvar


def decode(vae: VAE, z: Tensor) -> Tensor:
    """Pictures [B, 3, 64, 64] of latents [B, 16, 8, 8]."""
    if isinstance(vae, AutoencoderKL):
        x: Tensor = vae.decoder(z)
    else:
        x = vae.decoder(vae.post_quant_conv(z.unsqueeze(2))).squeeze(2)
    return x


def normalisation(vae: VAE) -> tuple[Tensor, Tensor]:
    """Mean and std of the latents, as the pipeline reads them from the config; each [16, 1, 1] or a scalar."""
    if isinstance(vae, AutoencoderKL):
        return torch.tensor(vae.config.shift_factor), torch.tensor(1 / vae.config.scaling_factor)
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (vae.config.latents_mean, vae.config.latents_std))
    return mean, std


def use_one_frame_convolutions(vae: VAE) -> None:
    """Training only: a causal 3-D convolution of one frame sees zeros before it: its last 2-D slice gives the same."""

    def forward(self: QwenImageCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        weight = self.weight[:, :, -1]
        return F.conv2d(x[:, :, 0], weight, self.bias, self.stride[1:], self._padding[2]).unsqueeze(2)

    for module in vae.modules():
        if isinstance(module, QwenImageCausalConv3d):
            module.forward = forward.__get__(module)


def pictures(level: Level, seed: int, step: int, batch: int) -> Tensor:
    """Random scenes of the sft split: sources, targets and wrong edits alike; [B, 3, 64, 64] in [-1, 1]."""
    rng = np.random.default_rng([seed, step])
    rows = []
    for _ in range(batch):
        item = make_item(level, "sft", seed, int(rng.integers(1 << 30)))
        rows.append(draw(item.scene) if rng.random() < 0.4 else candidate(rng, item, level).picture)
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2) * 2 - 1


def train_vae(out: Path, build: Callable[[], VAE], *, level: Level, seed: int, steps: int) -> VAE:
    """Train and save the VAE that `build` makes, its latents' mean and std measured and written into its config."""
    torch.manual_seed(seed)
    vae = build()
    use_one_frame_convolutions(vae)
    fit = Fit({"vae": vae}, out / "fit", steps=steps, hidden=lambda _, x: x.ndim >= 4, muon_lr=1e-3, ema=0.995)

    def loss(step: int) -> dict[str, Tensor]:
        x = pictures(level, seed, step, BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            mean, logvar = (part.float() for part in moments(vae, x))
            logvar = (logvar - 5).clamp(-12, 4)  # a posterior that starts narrow
            z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            y = decode(vae, z).float()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        mse, mae = F.mse_loss(y, x), F.l1_loss(y, x)
        return {"loss": mae + 2 * mse + 2e-4 * kl, "mse": mse, "kl": kl}

    fit.run(loss)
    with torch.no_grad():
        means = torch.cat([moments(vae, pictures(level, seed, -k % (1 << 31), 64))[0] for k in range(1, 9)])
    trained = build()
    trained.load_state_dict(vae.state_dict())
    if isinstance(trained, AutoencoderKL):
        trained.register_to_config(shift_factor=float(means.mean()), scaling_factor=float(1 / means.std()))
    else:
        channels = (0, 2, 3)
        trained.register_to_config(latents_mean=means.mean(channels).tolist(), latents_std=means.std(channels).tolist())
    trained.save_pretrained(out / "vae")
    return trained


@torch.no_grad()
def psnr(vae: VAE, level: Level, seed: int, count: int = 128) -> float:
    """Mean PSNR (dB) of encode-decode round trips of heldout sources and targets, as the pipeline does them."""
    values = []
    for index in range(count):
        item = make_item(level, "heldout", seed, index)
        pair = np.stack([draw(item.scene), draw(item.edit.target)])
        x = torch.from_numpy(pair).permute(0, 3, 1, 2).to(vae.dtype) * 2 - 1
        if isinstance(vae, AutoencoderKLQwenImage):
            x = x.unsqueeze(2)  # one frame
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        mse = ((x - y).float() / 2).pow(2).flatten(1).mean(1)
        values += (-10 * mse.log10()).tolist()
    return float(np.mean(values))
