"""A picture of the edits of a step."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image as Images
from PIL import ImageDraw
from PIL.Image import Image

from editr1.config.rewards import PreservationConfig
from editr1.config.watching import KeptConfig
from editr1.data.masks import outlined
from editr1.data.pictures import decode, png
from editr1.preservation.masks import find_mask
from editr1.training.distributed import World
from editr1.training.group import Group

ACROSS = 8  # edits side by side: with the source, no wider than a report
CELL = 112  # pixels
ROWS = 6  # groups that are drawn


@dataclass(frozen=True)
class Strip:
    """Small pictures of a group: the source, then its edits, with their rewards and what else is written there."""

    title: str
    pictures: list[Image]
    rewards: list[float]
    dropped: str | None = None
    source: str = "source"
    """What is written below the source."""


def strip_of(group: Group, masks: KeptConfig | PreservationConfig | None = None, cell: int = CELL) -> Strip:
    """The strip of the edits of a group that this rank made; the mask is outlined on the source, if `masks` has one."""
    small = [
        image.convert("RGB").resize((cell - 4, cell - 4), Images.Resampling.BICUBIC)
        for image in (group.sample.source, *group.rollout.images)
    ]
    rewards = group.rewards.tolist() if group.rewards is not None else []
    strip = Strip(f"{group.sample.task}: {group.sample.instruction}", small, rewards, group.dropped)
    if masks is None or masks.masks == "edit":
        return strip
    mask = find_mask(group.sample, group.rollout.images, masks.masks, masks.whole_tasks)
    if isinstance(mask, str):
        return strip
    return replace(strip, pictures=[outlined(small[0], mask), *small[1:]], source="source, its mask")


def gather_strips(
    world: World,
    groups: Sequence[Group],
    dropped: Sequence[str | None],
    masks: KeptConfig | PreservationConfig | None = None,
) -> list[Strip]:
    """The strips of the step's first groups, by whichever rank they were made.

    Args:
        world: The ranks.
        groups: Those that this rank made.
        dropped: The reasons of all groups.
        masks: Which masks are outlined; None outlines none.
    """
    own = [(group.index, group.first, strip_of(group, masks)) for group in groups if group.index < ROWS]
    if world.size > 1:
        told = world.gather([_told(*strip) for strip in own], "the pictures of a step")
        own = [_heard(**part) for parts in told for part in parts]
    strips: dict[int, Strip] = {}
    for index, _, strip in sorted(own, key=lambda part: part[:2]):
        before = strips.get(index, replace(strip, pictures=strip.pictures[:1], rewards=[]))
        pictures, rewards = before.pictures + strip.pictures[1:], before.rewards + strip.rewards
        strips[index] = replace(before, pictures=pictures, rewards=rewards, dropped=dropped[index])
    return list(strips.values())


def _told(index: int, first: int, strip: Strip) -> dict[str, Any]:
    """A strip as JSON."""
    pictures = [base64.b64encode(png(picture)).decode() for picture in strip.pictures]
    told = {"title": strip.title, "pictures": pictures, "rewards": strip.rewards, "source": strip.source}
    return {"index": index, "first": first, **told}


def _heard(index: int, first: int, pictures: list[str], **told: Any) -> tuple[int, int, Strip]:
    """The reverse."""
    images = [decode(base64.b64decode(picture), "a sample of another rank") for picture in pictures]
    return index, first, Strip(pictures=images, **told)


def sample_grid(strips: Sequence[Strip]) -> Image:
    """A picture of the first groups: source, then its edits with their rewards, `ACROSS` a line; instruction above."""
    strips = strips[:ROWS]
    cell = strips[0].pictures[0].width + 4
    most = max(len(strip.pictures) for strip in strips) - 1
    grid = Images.new("RGB", ((1 + min(most, ACROSS)) * cell, len(strips) * _lines(strips) * (cell + 28)), "white")
    draw = ImageDraw.Draw(grid)
    for row, strip in enumerate(strips):
        corners = [*_corners(strips, row)]
        state = f" (dropped: {strip.dropped})" if strip.dropped else ""
        draw.text((2, corners[0][1] + 1), _ascii(f"{strip.title}{state}"), fill="black")
        captions = [strip.source] + ["no reward" if math.isnan(reward) else f"{reward:.2f}" for reward in strip.rewards]
        for picture, caption, (x, y) in zip(strip.pictures, captions, corners, strict=True):
            grid.paste(picture, (x, y + 14))
            draw.text((x, y + cell + 11), caption, fill="black")
    return grid


def places(strips: Sequence[Strip]) -> dict[str, Any]:
    """What is where in `sample_grid` of these strips, as JSON: [x, y] of each picture of a group, its source first."""
    strips = strips[:ROWS]
    groups = []
    for row, strip in enumerate(strips):
        corners = [[x, y + 14] for x, y in _corners(strips, row)]
        rewards = [None if math.isnan(reward) else reward for reward in strip.rewards]
        groups.append({"title": strip.title, "rewards": rewards, "dropped": strip.dropped, "places": corners})
    return {"side": strips[0].pictures[0].width, "groups": groups}


def _corners(strips: Sequence[Strip], row: int) -> Iterator[tuple[int, int]]:
    """Where the source and the edits of a group begin: left, and the top of what is written above."""
    cell, lines = strips[0].pictures[0].width + 4, _lines(strips)
    for number in range(len(strips[row].pictures)):
        line, column = divmod(number - 1, ACROSS) if number else (0, -1)  # the source before the first edit
        yield (column + 1) * cell + 2, (row * lines + line) * (cell + 28)  # room for the words above and below


def _lines(strips: Sequence[Strip]) -> int:
    """Lines of pictures per group."""
    return math.ceil((max(len(strip.pictures) for strip in strips) - 1) / ACROSS)


def _ascii(text: str) -> str:
    """The built-in font of Pillow may have no other letters."""
    return text.encode("ascii", "replace").decode()
