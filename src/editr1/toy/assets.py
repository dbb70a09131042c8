"""Where the shipped toy models lie."""

from __future__ import annotations

from pathlib import Path

from editr1.errors import UserError

TOY_PIXELS = 64 * 64
"""The only area that a toy editor knows."""
WEIGHTS = Path(__file__).parent / "weights"


def toy_path(name: str) -> Path:
    """The folder of a shipped model: "qwen-image-edit" (a diffusers pipeline) or "judge" (a transformers model).

    Raises:
        UserError: nothing of that name is shipped.
    """
    folder = WEIGHTS / name
    if not folder.is_dir():
        known = sorted(path.name for path in WEIGHTS.glob("*") if path.is_dir())
        raise UserError(
            f"no toy model is called {name!r}; there are: {', '.join(known) or 'none in this installation'}"
        )
    return folder


def locate(path: str) -> str | Path:
    """A path or hub name as it is; "toy:NAME" as the folder of what is shipped under that name."""
    if not path.startswith("toy:"):
        return path
    return toy_path(path.removeprefix("toy:"))
