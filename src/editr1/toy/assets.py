"""Folders of the shipped toy models."""

from __future__ import annotations

from pathlib import Path

from editr1.config.section import is_toy
from editr1.errors import UserError

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


def locate(path: str, toy: str = "qwen-image-edit") -> str | Path:
    """A path or hub name unchanged; the folder of a shipped model for "toy:NAME", and of the model `toy` for "toy"."""
    if not is_toy(path):
        return path
    return toy_path(toy if path == "toy" else path.removeprefix("toy:"))
