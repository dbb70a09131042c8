"""A video VAE that sees one frame: without the products with frames that are not there.

The causal convolutions of such a VAE (of Qwen-Image-Edit, of Wan) look back in time, and put zeros where there is no
earlier frame. Of a picture, all but the last of a kernel's frames meet zeros, which is two thirds of their work for a
kernel of three. A convolution of that last one in two dimensions gives the same, without the padded copy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn
from torch.nn.functional import conv2d

CAUSAL = (QwenImageCausalConv3d, WanCausalConv3d)


def skip_absent_frames(vae: Any) -> None:
    """Let the VAE leave out products with frames before the first; one without such convolutions stays as it is."""
    for module in vae.modules() if isinstance(vae, nn.Module) else ():
        if isinstance(module, CAUSAL):
            module.forward = partial(_convolve, module, module.forward)


def _convolve(conv: nn.Conv3d, whole: Callable[..., Tensor], x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """What `whole` returns, the forward of `conv`, for x [B, C, T, H, W] and the frames before it."""
    if x.shape[2] > 1 or cache_x is not None:
        return whole(x, cache_x)
    width, _, height = conv._padding[:3]  # type: ignore[index]  # of both sides each
    kernel, sides = conv.weight[:, :, -1], conv.stride[1:]
    return conv2d(x[:, :, 0], kernel, conv.bias, sides, (height, width), conv.dilation[1:], conv.groups)[:, :, None]
