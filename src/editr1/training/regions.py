"""What the loss outside of masks needs of a group, and the loss of rows with it (`algorithms/regions.py`).

A mask becomes one of tokens: one must stay if neither it nor a neighbour has a part in the mask, as a VAE mixes what is
near. The source's latents are those that the denoiser sees beside the target.

Letters: N tokens, C channels, H W rows and columns of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from editr1.algorithms.base import Rows, Velocities
from editr1.algorithms.regions import outside_loss
from editr1.config.settings import Config
from editr1.config.watching import KeptConfig
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from editr1.preservation.measure import mask_of
from editr1.training.exchange import Find, Portion
from editr1.training.group import Group
from editr1.training.preserving import find_mask


def token_finder(config: Config) -> Find | None:
    """What finds the tokens that must stay; None if nothing is trained on them."""
    settings = config.preservation
    return None if settings is None or settings.weight == 0 else partial(find_tokens, settings)


def find_tokens(settings: KeptConfig, group: Group) -> Tensor | None:
    """The tokens outside of the mask of a group, [N], on the device of its latents.

    Raises:
        UserError: The denoiser does not see the source as tokens like those of the target.
    """
    rollout = group.rollout
    tokens = rollout.latents.shape[1]
    source_latents(rollout.conditioning, tokens, group.sample.key)  # refused before it has to travel
    mask = find_mask(group.sample, rollout.images, settings)
    if isinstance(mask, str):
        return None
    outside = stays(mask, rollout.images[0].size, tokens)
    return torch.from_numpy(outside.flatten()).to(rollout.latents.device) if outside.any() else None


def source_latents(conditioning: Conditioning, tokens: int, key: str) -> Tensor:
    """The latents of the only source of item `key`, [N, C], float32.

    Raises:
        UserError: The denoiser does not see them as tokens like those of the target, `tokens` in number.
    """
    source, shape = conditioning.source, conditioning.shape
    if not (isinstance(source, Tensor) and len(shape) == 2 and source.shape == (1, tokens, shape[1])):
        raise UserError(
            f"preservation.weight: item {key!r}: this editor does not see one source as tokens like those of its edit "
            "(several sources, another size, or another layout); set it to 0, or leave references out"
        )
    return source[0].float()


def stays(mask: Image, size: tuple[int, int], tokens: int) -> NDArray[np.bool_]:
    """Which tokens of an edit of this width and height must stay, [H, W], H W = `tokens`, row by row.

    Raises:
        UserError: The tokens are no squares.
    """
    side = math.sqrt(size[0] * size[1] / tokens)
    grid = round(size[0] / side), round(size[1] / side)
    if grid[0] * grid[1] != tokens or any(side * many != whole for many, whole in zip(grid, size, strict=True)):
        raise UserError(
            f"preservation.weight: {tokens} tokens of {size[0]}x{size[1]} pixels are no squares; set it to 0"
        )
    inside = np.pad(mask_of(mask, grid), 1)
    near = [inside[y : y + grid[1], x : x + grid[0]] for y in range(3) for x in range(3)]
    return ~np.any(near, axis=0)


def loss_of(
    config: Config, portion: Portion, rows: Rows, velocities: Velocities
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss of rows of a portion, with that of what must stay if it has a weight; and its parts by the algorithm."""
    algorithm, kept = config.algorithm, config.preservation
    loss, parts = algorithm.loss(rows, velocities)
    if kept is None or kept.weight == 0:
        return loss, parts
    v = velocities["default"].to(rows.x0.dtype)
    return loss + kept.weight * outside_loss(rows, v, portion.edits, algorithm.adv_clip, kept.margin), parts
