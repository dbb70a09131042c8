"""A picture of the edits of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image as Images
from PIL import ImageDraw
from PIL.Image import Image

from editr1.training.group import Group


def sample_grid(groups: Sequence[Group], cell: int = 112, rows: int = 6) -> Image:
    """A picture of the first groups, one per row: source, then its edits with their rewards; the instruction above."""
    groups = groups[:rows]
    columns = 1 + max(len(group.rollout.images) for group in groups)
    height = cell + 28  # room for the instruction above and the reward below
    grid = Images.new("RGB", (columns * cell, len(groups) * height), "white")
    draw = ImageDraw.Draw(grid)
    for row, group in enumerate(groups):
        top = row * height
        state = f" (dropped: {group.dropped})" if group.dropped else ""
        draw.text((2, top + 1), _ascii(f"{group.sample.task}: {group.sample.instruction}{state}"), fill="black")
        rewards = group.rewards.tolist() if group.rewards is not None else []
        captions = ["source"] + ["no reward" if math.isnan(reward) else f"{reward:.2f}" for reward in rewards]
        for column, (image, caption) in enumerate(
            zip([group.sample.source, *group.rollout.images], captions, strict=True)
        ):
            small = image.convert("RGB").resize((cell - 4, cell - 4), Images.Resampling.BICUBIC)
            grid.paste(small, (column * cell + 2, top + 14))
            draw.text((column * cell + 2, top + cell + 11), caption, fill="black")
    return grid


def _ascii(text: str) -> str:
    """The built-in font of Pillow may have no other letters."""
    return text.encode("ascii", "replace").decode()
