"""A grid: variants of one run that are trained with several seeds and measured on the same items."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from editr1.config.loading import load_config
from editr1.config.section import Section
from editr1.config.settings import Config
from editr1.config.yaml_text import parse_yaml
from editr1.errors import UserError, first_problem, text_of

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")
OWN = ("seed", "out", "steps", "save_every", "keep", "trackers")  # settings that the runs of a grid are given
Overrides = tuple[str, ...]


class Grid(Section):
    """What is compared, and how it is measured."""

    title: str
    """The question, as the page's title."""
    about: str = ""
    """What the tables may be read for, and what they cannot say."""
    base: str
    """The run that all variants are variants of: a preset, or a YAML file beside the grid."""
    overrides: Overrides = ()
    """Settings of all variants that differ from it, such as "data.size=1024"."""
    variants: dict[str, Overrides] = Field(min_length=1)
    """Settings of each variant that differ; the others are compared with the first one."""
    steps: PositiveInt
    """Steps of a run."""
    measured: tuple[PositiveInt, ...] = ()
    """Steps after which the averaged weights are measured, besides the last one."""
    seconds: tuple[PositiveFloat, ...] = ()
    """Lengths of training for which gains are compared at equal time, once steps are timed."""
    items: PositiveInt = 144
    """Number of measured items."""
    split: Literal["heldout", "rl"] = "heldout"
    """Toy items: held-out scenes, or scenes like those of training for choosing settings. Items of your own are those
    of `evaluation` in the run's settings."""
    edits: PositiveInt = 1
    """Edits per measured item."""
    eval_steps: int = Field(default=10, ge=2)
    """Denoiser calls of a measured edit."""
    seeds: PositiveInt = 3
    """Number of runs of each variant; the seeds are 0, 1, ..."""

    @model_validator(mode="after")
    def _good_names(self) -> Grid:
        for name, overrides in self.variants.items():
            if not NAME.fullmatch(name) or name == "untrained":
                raise ValueError(f"variants: {name!r} is no name; use a-z, 0-9, and . _ - inside, and not untrained")
            for override in [*self.overrides, *overrides]:
                if (key := override.partition("=")[0]) in OWN:
                    raise ValueError(f"variants: {name}: {key} is set by the grid itself; leave it out")
        if any(step >= self.steps for step in self.measured) or list(self.measured) != sorted(set(self.measured)):
            raise ValueError(f"measured={list(self.measured)}: give rising numbers below steps={self.steps}")
        return self

    @property
    def points(self) -> list[int]:
        """All steps after which a run is measured."""
        return [*self.measured, self.steps]

    @property
    def first(self) -> str:
        """The variant that the others are compared with."""
        return next(iter(self.variants))


def read_grid(path: Path) -> Grid:
    """The grid in a YAML file.

    Raises:
        UserError: It cannot be read, or a key or value is wrong.
    """
    try:
        grid = Grid.model_validate(parse_yaml(text_of(path), str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the grid {str(path)!r}: {error}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from error
    beside = path.parent / grid.base
    return grid.model_copy(update={"base": str(beside)}) if beside.is_file() else grid


def config_of(grid: Grid, variant: str, seed: int, out: Path) -> Config:
    """The run of a variant.

    Raises:
        UserError: A setting is wrong.
    """
    own = (f"seed={seed}", f"out={out}", f"steps={grid.steps}", "save_every=5", "keep=1", "trackers=[]")
    try:
        config = load_config(grid.base, [*grid.overrides, *grid.variants[variant], *own])
    except UserError as error:
        raise UserError(f"variant {variant}: {error}") from error
    if config.data.kind != "toy" and config.evaluation is None:
        raise UserError(f"variant {variant}: nothing is held out; set evaluation.split or evaluation.data")
    return config
