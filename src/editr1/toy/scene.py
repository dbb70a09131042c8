"""Scenes of the toy world and how they are drawn: up to four named objects on a background, 64x64 pixels.

Each object stands in one of four cells of 32x32. Drawing is exact and free of randomness: one Scene, one picture.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

import numpy as np
from PIL import Image

from editr1.errors import UserError

SIZE = 64  # side of a scene, pixels
CELL = 32  # side of a cell, pixels
CELLS = ("top left", "top right", "bottom left", "bottom right")
SIDES = {"small": 15, "normal": 22, "large": 30}  # side of an object, pixels
COLOURS = {
    "red": "#e81f2e",
    "orange": "#ff8a1f",
    "yellow": "#ffd428",
    "green": "#1fa64a",
    "blue": "#1f6fe8",
    "purple": "#8a3fc0",
    "pink": "#ff6fb5",
    "black": "#26262b",
}
BACKGROUNDS = {
    "white": (255, 255, 255),  # only where something was extracted
    "grey": (160, 164, 172),
    "pink": (255, 178, 205),
    "yellow": (255, 240, 120),
    "blue": (140, 200, 250),
    "green": (150, 222, 150),
    "purple": (200, 165, 245),
    "orange": (255, 186, 110),
    "brown": (150, 110, 85),
}
PATTERNS = ("plain", "gradient", "stripes", "dots", "checks")
STYLES = ("black and white", "sepia", "negative", "pixel art")


@dataclass(frozen=True)
class Thing:
    """One object of a scene: its name, cell (0-3), colour (None = the artwork's own), size and pose."""

    name: str
    cell: int
    colour: str | None = None
    size: str = "normal"
    flipped: bool = False
    turned: bool = False  # upside down


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `style` is applied to the whole picture after drawing."""

    things: tuple[Thing, ...]
    background: str = "grey"
    pattern: str = "plain"
    style: str | None = None

    def at(self, cell: int) -> Thing | None:
        """The object in `cell`, if there is one."""
        return next((thing for thing in self.things if thing.cell == cell), None)

    def without(self, cell: int) -> Scene:
        """The scene with `cell` emptied."""
        return replace(self, things=tuple(thing for thing in self.things if thing.cell != cell))

    def put(self, thing: Thing) -> Scene:
        """The scene with `thing` in its cell, in place of any object there."""
        things = (*self.without(thing.cell).things, thing)
        return replace(self, things=tuple(sorted(things, key=lambda one: one.cell)))

    def free(self) -> list[int]:
        """The empty cells."""
        return [cell for cell in range(len(CELLS)) if self.at(cell) is None]


@lru_cache(maxsize=1)
def artwork() -> dict[str, dict[str, str]]:
    """Name -> {"icon", "body" (SVG under viewBox 32x32), "fill" (the dominant one)}."""
    text = resources.files("editr1.toy").joinpath("art/objects.json").read_text()
    return dict(json.loads(text))


@lru_cache(maxsize=8192)
def sprite(name: str, colour: str | None, size: str, flipped: bool, turned: bool) -> np.ndarray:
    """One object drawn alone: [side, side, 4] float32 in [0, 1], alpha not premultiplied."""
    art, side = artwork()[name], SIDES[size]
    body = art["body"] if colour is None else art["body"].replace(art["fill"], COLOURS[colour])
    # Icons spell the same colour in either case.
    if colour is not None:
        body = body.replace(art["fill"].upper(), COLOURS[colour])
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="{side}" height="{side}">{body}</svg>'
    rgba = np.asarray(render_svg(svg).convert("RGBA"), np.float32) / 255
    rgba = rgba[:, ::-1] if flipped else rgba
    return np.ascontiguousarray(rgba[::-1] if turned else rgba)


def render_svg(svg: str) -> Image.Image:
    """An SVG drawn at its own size."""
    try:
        import resvg_py
    except ImportError as error:
        raise UserError("drawing the toy world needs resvg-py: pip install 'editr1[toy]'") from error
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg))))


@lru_cache(maxsize=64)
def backdrop(background: str, pattern: str) -> np.ndarray:
    """A background alone: [64, 64, 3] float32 in [0, 1]."""
    flat = np.tile(np.asarray(BACKGROUNDS[background], np.float32) / 255, (SIZE, SIZE, 1))
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    shade = {
        "plain": np.zeros((SIZE, SIZE)),
        "gradient": y / SIZE * 0.3,
        "stripes": (x // 8 % 2) * 0.12,
        "dots": ((x % 16 - 8) ** 2 + (y % 16 - 8) ** 2 < 12) * 0.18,
        "checks": ((x // 8 + y // 8) % 2) * 0.12,
    }[pattern]
    return np.clip(flat * (1 - shade[..., None]), 0, 1).astype(np.float32)


def box(thing: Thing) -> tuple[slice, slice]:
    """Rows and columns of the picture that the object's sprite covers, centred in its cell."""
    side = SIDES[thing.size]
    top = thing.cell // 2 * CELL + (CELL - side) // 2
    left = thing.cell % 2 * CELL + (CELL - side) // 2
    return slice(top, top + side), slice(left, left + side)


def alpha(thing: Thing) -> np.ndarray:
    """Opacity of one object over the whole picture: [64, 64] float32 in [0, 1]."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[box(thing)] = sprite(thing.name, thing.colour, thing.size, thing.flipped, thing.turned)[..., 3]
    return mask


def stylise(picture: np.ndarray, style: str) -> np.ndarray:
    """The whole picture ([64, 64, 3] in [0, 1]) in another style."""
    grey = picture @ np.asarray([0.299, 0.587, 0.114], np.float32)
    if style == "black and white":
        return np.repeat(grey[..., None], 3, axis=-1)
    if style == "sepia":
        return np.clip(grey[..., None] * np.asarray([1.0, 0.78, 0.5], np.float32), 0, 1)
    if style == "negative":
        return 1 - picture
    blocks = picture.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean((1, 3))
    return np.repeat(np.repeat(blocks, 4, axis=0), 4, axis=1)


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene: [64, 64, 3] float32 in [0, 1]."""
    picture = backdrop(scene.background, scene.pattern).copy()
    for thing in scene.things:
        rgba = sprite(thing.name, thing.colour, thing.size, thing.flipped, thing.turned)
        where = box(thing)
        picture[where] = picture[where] * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]
    return stylise(picture, scene.style) if scene.style else picture


def to_image(picture: np.ndarray) -> Image.Image:
    """[H, W, 3] in [0, 1] -> an RGB image."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def to_array(image: Image.Image) -> np.ndarray:
    """An RGB image -> [H, W, 3] float32 in [0, 1]."""
    return np.asarray(image.convert("RGB"), np.float32) / 255


@lru_cache(maxsize=512)
def looks_flipped(name: str) -> bool:
    """Whether mirroring the object can be seen: at least a quarter of its pixels change."""
    return _changes(name, flipped=True, turned=False)


@lru_cache(maxsize=512)
def looks_turned(name: str) -> bool:
    """Whether turning the object upside down can be seen."""
    return _changes(name, flipped=False, turned=True)


def _changes(name: str, flipped: bool, turned: bool) -> bool:
    plain = sprite(name, None, "normal", False, False)
    other = sprite(name, None, "normal", flipped, turned)
    visible = np.abs(plain * plain[..., 3:] - other * other[..., 3:]).max(-1) > 0.25
    return bool(visible.sum() > 0.25 * (plain[..., 3] > 0.5).sum())


@lru_cache(maxsize=1024)
def colours_for(name: str) -> tuple[str, ...]:
    """Colours that differ clearly from the object's own."""
    own = _rgb(artwork()[name]["fill"])
    return tuple(colour for colour, code in COLOURS.items() if np.abs(_rgb(code) - own).sum() > 0.8)


def _rgb(code: str) -> np.ndarray:
    return np.asarray([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255
