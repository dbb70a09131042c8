"""What every part of the settings is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the settings. It refuses unknown keys and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def is_toy(path: object) -> bool:
    """Whether a name is that of a shipped model."""
    return isinstance(path, str) and (path == "toy" or path.startswith("toy:"))
