"""A picture of the edits of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image as Images
from PIL import ImageDraw
from PIL.Image import Image

from editr1.training.group import Group

ACROSS = 8  # edits side by side: with the source, no wider than a report


def sample_grid(groups: Sequence[Group], cell: int = 112, rows: int = 6) -> Image:
    """A picture of the first groups: source, then its edits with their rewards, `ACROSS` a line; instruction above."""
    groups = groups[:rows]
    most = max(len(group.rollout.images) for group in groups)
    columns, lines = 1 + min(most, ACROSS), math.ceil(most / ACROSS)
    height = cell + 28  # room for the instruction above and the reward below
    grid = Images.new("RGB", (columns * cell, len(groups) * lines * height), "white")
    draw = ImageDraw.Draw(grid)
    for row, group in enumerate(groups):
        top = row * lines * height
        state = f" (dropped: {group.dropped})" if group.dropped else ""
        draw.text((2, top + 1), _ascii(f"{group.sample.task}: {group.sample.instruction}{state}"), fill="black")
        rewards = group.rewards.tolist() if group.rewards is not None else []
        captions = ["source"] + ["no reward" if math.isnan(reward) else f"{reward:.2f}" for reward in rewards]
        pictures = zip([group.sample.source, *group.rollout.images], captions, strict=True)
        for number, (image, caption) in enumerate(pictures):
            line, column = divmod(number - 1, ACROSS) if number else (0, -1)  # the source before the first edit
            x, y = (column + 1) * cell + 2, top + line * height
            small = image.convert("RGB").resize((cell - 4, cell - 4), Images.Resampling.BICUBIC)
            grid.paste(small, (x, y + 14))
            draw.text((x, y + cell + 11), caption, fill="black")
    return grid


def _ascii(text: str) -> str:
    """The built-in font of Pillow may have no other letters."""
    return text.encode("ascii", "replace").decode()
