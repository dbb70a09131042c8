"""The VAE's short way for one frame: what it gives is what diffusers' own code gives."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLQwenImage, AutoencoderKLWan
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from editr1.editors.one_frame import CAUSAL, skip_absent_frames
from editr1.editors.open import load_pipeline

KINDS = (AutoencoderKLQwenImage, AutoencoderKLWan)


def make(kind: type) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [True]}
    return kind(**sizes).eval()


def results(vae: Any, frames: int) -> tuple[Tensor, Tensor]:
    """Encoding and decoding of the same noise."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(2, 3, frames, 16, 16, generator=generator)
    latents = torch.randn(2, 4, (frames + 1) // 2, 8, 8, generator=generator)
    with torch.no_grad():
        return vae.encode(pictures).latent_dist.mean, vae.decode(latents).sample


def work(vae: nn.Module) -> int:
    """Operations of encoding and decoding one frame."""
    with FlopCounterMode(display=False) as counter:
        results(vae, 1)
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 3])
def test_encodings_and_pictures_are_those_of_diffusers_own_code(kind: type, frames: int) -> None:
    stock = make(kind)
    quick = deepcopy(stock)
    skip_absent_frames(quick)
    for ours, theirs in zip(results(quick, frames), results(stock, frames), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_costs_less_than_half_of_it(kind: type) -> None:
    stock = make(kind)
    quick = deepcopy(stock)
    skip_absent_frames(quick)
    assert work(quick) < work(stock) / 2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", CAUSAL)
def test_a_convolution_by_sides_of_its_own_gives_the_same_and_so_does_one_with_frames_before_it(
    kind: type, stride: int
) -> None:
    torch.manual_seed(0)
    stock = kind(3, 5, (3, 3, 5), stride=(1, stride, stride), padding=(1, 1, 2)).double()
    quick = nn.Sequential(deepcopy(stock))
    skip_absent_frames(quick)
    x, before = torch.randn(2, 2, 3, 1, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(quick[0](x), stock(x), rtol=1e-12, atol=1e-12)
    assert torch.equal(quick[0](x, before), stock(x, before))


def test_a_vae_of_pictures_and_none_at_all_stay_as_they_are() -> None:
    skip_absent_frames(None)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    before = {name: module.forward for name, module in vae.named_modules()}
    skip_absent_frames(vae)
    assert {name: module.forward for name, module in vae.named_modules()} == before


@pytest.mark.parametrize("offload", [False, True])
def test_loaded_editors_take_it_offloaded_ones_too(tiny_editor_path: Path, offload: bool) -> None:
    vae = load_pipeline(tiny_editor_path, torch.float32, "cpu", offload=offload).vae
    latents = torch.randn(1, vae.config.z_dim, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    stock = AutoencoderKLQwenImage.from_pretrained(tiny_editor_path, subfolder="vae").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as quick:
        decoded = vae.decode(latents).sample
    with torch.no_grad(), FlopCounterMode(display=False) as slow:
        torch.testing.assert_close(decoded, stock.decode(latents).sample, rtol=1e-6, atol=1e-6)
    assert quick.get_total_flops() < slow.get_total_flops() / 2
