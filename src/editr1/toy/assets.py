"""Folders of the shipped toy models."""

from __future__ import annotations

from pathlib import Path

from editr1.errors import UserError

TOY_PIXELS = 64 * 64
"""The only area of a toy editor's pictures."""
WEIGHTS = Path(__file__).parent / "weights"


def toy_path(name: str) -> Path:
    """The folder of a shipped model: "qwen-image-edit" (a diffusers pipeline) or "judge" (a transformers model)."""
    folder = WEIGHTS / name
    if not folder.is_dir():
        names = sorted(path.name for path in WEIGHTS.glob("*") if path.is_dir())
        raise UserError(
            f"no toy model is called {name!r}; there are: {', '.join(names) or 'none in this installation'}"
        )
    return folder


def locate(path: str) -> str | Path:
    """A path or hub name unchanged; the folder of a shipped model for "toy:NAME"."""
    if not path.startswith("toy:"):
        return path
    return toy_path(path.removeprefix("toy:"))
