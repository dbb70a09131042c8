"""What training on masks needs of a group, and the loss of rows with the one outside (`algorithms/regions.py`).

A mask becomes one of tokens, which divides advantages by region (`algorithms/by_region.py`). A token must stay if
neither it nor a neighbour has a part in the mask, as a VAE mixes what is near. The source's latents are those that the
denoiser sees beside the target.

Letters: N tokens, C channels, H W rows and columns of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from editr1.algorithms.base import Rows, Velocities
from editr1.algorithms.regions import outside_loss
from editr1.config.settings import Config
from editr1.config.watching import KeptConfig
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from editr1.preservation.masks import find_mask
from editr1.preservation.measure import mask_of
from editr1.preservation.registration import Places
from editr1.training.exchange import Find, Portion
from editr1.training.group import Group


def token_finder(config: Config) -> Find | None:
    """What finds the tokens in masks and outside of them; None if nothing is trained on masks."""
    settings = config.preservation
    return partial(find_tokens, settings) if settings is not None and settings.trains else None


def find_tokens(settings: KeptConfig, group: Group) -> Tensor | None:
    """Which tokens of a group its mask has a part in, and which must stay, [2, N], on the device of its latents.

    Raises:
        UserError: Edits are no tokens; or, with a loss outside, the denoiser does not see the source as such tokens.
    """
    rollout, key = group.rollout, group.sample.key
    tokens = rollout.latents.shape[1]
    if settings.weight:
        source_latents(rollout.conditioning, tokens, key)  # refused before it has to travel
    if len(rollout.conditioning.shape) != 2:
        raise UserError(
            f'preservation.advantages="region": item {key!r}: the edits of this editor are no tokens but of the shape '
            f'{[*rollout.conditioning.shape]}; set it to "edit"'
        )
    mask = find_mask(group.sample, rollout.images, settings.masks, settings.whole_tasks)
    if isinstance(mask, str):
        return None
    found = np.stack(divide(mask, rollout.images[0].size, tokens)).reshape(2, tokens)
    return torch.from_numpy(found).to(rollout.latents.device)


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


def divide(mask: Image, size: tuple[int, int], tokens: int) -> tuple[Places, Places]:
    """Which tokens of an edit of this width and height a mask has a part in, and which must stay, [H, W] each.

    They are row by row, H W = `tokens`.

    Raises:
        UserError: The tokens are no squares.
    """
    side = math.sqrt(size[0] * size[1] / tokens)
    grid = round(size[0] / side), round(size[1] / side)
    if grid[0] * grid[1] != tokens or any(side * many != whole for many, whole in zip(grid, size, strict=True)):
        raise UserError(
            f"preservation: {tokens} tokens of {size[0]}x{size[1]} pixels are no squares; leave weight and advantages "
            "out of it"
        )
    masked = mask_of(mask, grid)
    padded = np.pad(masked, 1)
    near = [padded[y : y + grid[1], x : x + grid[0]] for y in range(3) for x in range(3)]
    return masked, ~np.any(near, axis=0)


def loss_of(
    config: Config, portion: Portion, rows: Rows, velocities: Velocities
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss of rows of a portion, with that of what must stay if it has a weight; and its parts by the algorithm."""
    algorithm, kept = config.algorithm, config.preservation
    loss, parts = algorithm.loss(rows, velocities)
    if kept is None or kept.weight == 0:
        return loss, parts
    v, source = velocities["default"].to(rows.x0.dtype), portion.conditioning.source[0].float()
    return loss + kept.weight * outside_loss(rows, v, portion.edits, source, algorithm.adv_clip, kept.margin), parts
