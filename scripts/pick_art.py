"""Choose the toy world's objects from the npm package @iconify-json/fluent-emoji-flat 1.2.6 (MIT, Microsoft).

Usage: python scripts/pick_art.py PACKAGE_DIR src/editr1/toy/art

Writes objects.json: {name: {"icon", "body", "fill"}}, where `fill` is the colour of most opaque pixels, so that
swapping it recolours the object. An object is left out if no fill covers 40% of it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np

from editr1.toy.scene import render_svg

# Name in the toy's language -> icon. The first 32 are the level `small`.
CHOSEN = {
    "apple": "red-apple", "carrot": "carrot", "mushroom": "mushroom", "cat": "cat-face", "pig": "pig-face",
    "fish": "fish", "bird": "bird", "turtle": "turtle", "octopus": "octopus", "car": "automobile",
    "boat": "sailboat", "plane": "airplane", "tree": "evergreen-tree", "cactus": "cactus", "tulip": "tulip",
    "star": "star", "heart": "red-heart", "umbrella": "umbrella", "key": "key", "bell": "bell", "guitar": "guitar",
    "hat": "top-hat", "crown": "crown", "shirt": "t-shirt", "teapot": "teapot", "book": "closed-book",
    "moon": "crescent-moon", "whale": "whale", "pear": "pear", "jeans": "jeans", "house": "house",
    "magnet": "magnet", "strawberry": "strawberry", "dog": "dog-face", "butterfly": "butterfly",
    "balloon": "balloon", "bulb": "light-bulb", "basketball": "basketball", "cloud": "cloud", "frog": "frog",
    "hammer": "hammer", "lemon": "lemon", "crab": "crab", "ladder": "ladder", "trophy": "trophy", "bread": "bread",
    "locomotive": "locomotive", "candle": "candle", "sunflower": "sunflower", "backpack": "backpack",
    "handbag": "handbag", "scissors": "scissors", "chair": "chair", "purse": "clutch-bag", "fox": "fox",
    "crayon": "crayon", "ladybug": "lady-beetle", "tractor": "tractor", "cherries": "cherries",
    "eggplant": "eggplant", "pepper": "hot-pepper", "tomato": "tomato", "shoe": "high-heeled-shoe",
    "sneaker": "running-shoe", "parrotfish": "tropical-fish", "elephant": "elephant", "rabbit": "rabbit-face",
    "cow": "cow-face",
}  # fmt: skip


def dominant_fill(body: str) -> tuple[str, float]:
    """The fill that covers most of the icon's opaque pixels, and its share in [0, 1]."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="64" height="64">{body}</svg>'
    rgba = np.asarray(render_svg(svg).convert("RGBA")).astype(int)
    opaque = rgba[..., 3] > 128
    shares = {}
    for fill in set(re.findall(r'fill="(#[0-9A-Fa-f]{6})"', body)):
        rgb = [int(fill[i : i + 2], 16) for i in (1, 3, 5)]
        shares[fill] = ((abs(rgba[..., :3] - rgb).sum(-1) < 12) & opaque).sum() / opaque.sum()
    return max(shares.items(), key=lambda item: item[1])


def main(package: Path, out: Path) -> None:
    """Write objects.json and the artwork's licence note into `out`."""
    icons = json.loads((package / "icons.json").read_text())["icons"]
    objects = {}
    for name, icon in CHOSEN.items():
        fill, share = dominant_fill(icons[icon]["body"])
        if share >= 0.4:
            objects[name] = {"icon": icon, "body": icons[icon]["body"], "fill": fill}
    out.mkdir(parents=True, exist_ok=True)
    (out / "objects.json").write_text(json.dumps(objects, indent=0) + "\n")
    sys.stdout.write(f"{len(objects)} objects\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
