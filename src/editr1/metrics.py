"""What a step was like: one row of numbers, and where it goes (metrics.jsonl, TensorBoard, a picture, the terminal).

A row says why a run goes wrong. Reward by task and the spread of rewards, within groups and over all: is there a
signal? Groups kept, and why the others were dropped. Size of gradient, update and weights. Drift: how the edits changed
since the first step, each measured against its own source, since the sources differ from step to step.

Letters: G edits of a group, H W height and width.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Images
from PIL import ImageDraw
from PIL.Image import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from editr1.checkpoint import write_file
from editr1.errors import UserError
from editr1.group import Group

Row = dict[str, Any]
Pixels = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Stopwatch:
    """Seconds spent in the named parts of a step."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time of the block toward `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """The parts, "rest" and their sum "total"."""
        total = time.perf_counter() - self._start
        return {**self.parts, "rest": total - sum(self.parts.values()), "total": total}


def step_row(
    step: int,
    groups: Sequence[Group],
    measures: Mapping[str, float | None],
    start: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Row:
    """The row of one step.

    Args:
        step: steps done, this one included (from 1).
        groups: all groups of the step with their rewards, dropped ones too.
        measures: loss and its parts, norms: None where nothing was trained.
        start: `edit_statistics` of the run's first step.
        seconds: of the parts of the step, with "total".

    Returns:
        "reward_std_within" is the mean over groups of their std, "reward_std_all" the std of all rewards (both of the
        population); "edits" is `edit_statistics`, "drift" its difference to `start`. None where there is no value.
    """
    edits = edit_statistics(groups)
    return {
        "step": step,
        **reward_statistics(groups),
        "groups_kept": sum(group.dropped is None for group in groups),
        "dropped": dict(Counter(group.dropped for group in groups if group.dropped)),
        **measures,
        "edits": edits,
        "drift": {name: value - start[name] for name, value in edits.items()},
        "seconds": {part: spent for part, spent in seconds.items() if part != "total"},
        "images_per_s": sum(len(group.images) for group in groups) / seconds["total"],
    }


def reward_statistics(groups: Sequence[Group]) -> Row:
    """Mean and spread of the rewards that are there, by task too, and how many are not and why."""
    rewards = [group.rewards[~group.rewards.isnan()].double() for group in groups if group.rewards is not None]
    every = torch.cat(rewards)
    tasks: dict[str, list[torch.Tensor]] = {}
    for group, scored in zip(groups, rewards, strict=True):
        tasks.setdefault(group.sample.task, []).append(scored)
    within = [float(scored.std(correction=0)) for scored in rewards if len(scored)]
    return {
        "reward_mean": _mean(every),
        "reward_std_within": sum(within) / len(within) if within else None,
        "reward_std_all": float(every.std(correction=0)) if len(every) else None,
        "reward_by_task": {task: _mean(torch.cat(parts)) for task, parts in sorted(tasks.items())},
        "unscored": sum(len(group.images) for group in groups) - len(every),
        "reasons": [f"{count} x {reason}" for reason, count in _reasons(groups).most_common(5)],
        "reward_parts": {name: _mean(torch.cat(parts)) for name, parts in sorted(_parts(groups).items())},
        "prompts": sorted({prompt for group in groups for prompt in group.prompts}),
    }


def _reasons(groups: Sequence[Group]) -> Counter[str]:
    """How often each reason for having no reward was given."""
    return Counter(reason for group in groups for reason in group.reasons if reason is not None)


def _parts(groups: Sequence[Group]) -> dict[str, list[torch.Tensor]]:
    """The values that are there of each mixed reward."""
    parts: dict[str, list[torch.Tensor]] = {}
    for group in groups:
        for name, values in group.parts.items():
            parts.setdefault(name, []).append(values[~values.isnan()].double())
    return parts


def _mean(values: torch.Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def edit_statistics(groups: Sequence[Group]) -> dict[str, float]:
    """What the edits look like, means over all of them.

    Returns:
        latent_norm: root mean square of x0. brightness, saturation, sharpness: of the edit less that of its source (see
        `look`). source_distance: mean absolute difference to the source, in [0, 1].
    """
    rows = [_beside_source(group.sample.source, image) for group in groups for image in group.images]
    brightness, saturation, sharpness, distance = np.mean(rows, axis=0).tolist()
    norms = [float(group.latents.float().square().mean().sqrt()) for group in groups]
    return {
        "latent_norm": sum(norms) / len(norms),
        "brightness": brightness,
        "saturation": saturation,
        "sharpness": sharpness,
        "source_distance": distance,
    }


def look(pixels: Pixels) -> NDArray[np.float64]:
    """[brightness, saturation, sharpness] of an image [H, W, 3] in [0, 1].

    Mean luma; mean of (max - min) / max over the channels, 0 for black; mean absolute step between neighbouring lumas.
    """
    luma: Pixels = pixels @ LUMA  # H W
    high, low = pixels.max(axis=-1), pixels.min(axis=-1)
    saturation = (high - low) / np.maximum(high, 1e-6)
    steps = [np.abs(np.diff(luma, axis=axis)).mean() for axis in (0, 1)]
    return np.array([luma.mean(), saturation.mean(), sum(steps) / 2], np.float64)


def _beside_source(source: Image, edit: Image) -> NDArray[np.float64]:
    """[brightness, saturation, sharpness, distance] of an edit against its source, brought to the edit's size."""
    before, after = _pixels(source.resize(edit.size, Images.Resampling.LANCZOS)), _pixels(edit)
    return np.array([*(look(after) - look(before)), np.abs(after - before).mean()], np.float64)


def _pixels(image: Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)


class RunLog:
    """Writes rows to `out`: metrics.jsonl, one line a step, on the disk when `write` returns, and tb/ for TensorBoard.

    Args:
        out: folder of the run.
        step: steps that the run has done; rows past it (of a run that was killed after its last checkpoint) are cut.
    """

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, which `editr1 --help` need not wait for

        self.path = out / "metrics.jsonl"
        _cut(self.path, step)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tb"), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Append one row.

        Raises:
            UserError: the disk does not take it.
        """
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}") from error
        for name, value in _flat(row):
            self._board.add_scalar(name, value, row["step"])
        self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._board.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; a last line that was cut off while being written is left out."""
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


def _cut(path: Path, step: int) -> None:
    """Drop the rows past `step`, whole or not at all."""
    rows = [row for row in read_rows(path) if row["step"] <= step] if path.exists() else []
    write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """("reward_by_task/add", 0.5), ... for every number of a row."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield prefix + name, value


def sample_grid(groups: Sequence[Group], cell: int = 112, rows: int = 6) -> Image:
    """A picture of the first groups, one a row: source, then its edits with their rewards; the instruction above."""
    shown = groups[:rows]
    columns = 1 + max(len(group.images) for group in shown)
    height = cell + 28  # room for the instruction above and the reward below
    grid = Images.new("RGB", (columns * cell, len(shown) * height), "white")
    draw = ImageDraw.Draw(grid)
    for row, group in enumerate(shown):
        top = row * height
        state = f" (dropped: {group.dropped})" if group.dropped else ""
        draw.text((2, top + 1), _ascii(f"{group.sample.task}: {group.sample.instruction}{state}"), fill="black")
        rewards = group.rewards.tolist() if group.rewards is not None else []
        captions = ["source"] + ["no reward" if math.isnan(reward) else f"{reward:.2f}" for reward in rewards]
        for column, (image, caption) in enumerate(zip([group.sample.source, *group.images], captions, strict=True)):
            small = image.convert("RGB").resize((cell - 4, cell - 4), Images.Resampling.BICUBIC)
            grid.paste(small, (column * cell + 2, top + 14))
            draw.text((column * cell + 2, top + cell + 11), caption, fill="black")
    return grid


def _ascii(text: str) -> str:
    """The built-in font of Pillow may have no other letters."""
    return text.encode("ascii", "replace").decode()


class StepProgress:
    """A bar with reward, groups kept, images a second and time left; one line a step where there is no terminal."""

    def __init__(self, done: int, total: int) -> None:
        self.console = Console(stderr=True)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[state]}"))
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal
        )
        self._task = self._bar.add_task("", completed=done, total=total, state="")
        self._total = total

    def __enter__(self) -> StepProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, row: Row) -> None:
        """Show the row of a step that is done."""
        reward = "none" if row["reward_mean"] is None else f"{row['reward_mean']:.3f}"
        groups = f"{row['groups_kept']}/{row['groups_kept'] + sum(row['dropped'].values())} groups kept"
        state = f"reward {reward}, {groups}, {row['images_per_s']:.1f} images/s"
        self._bar.update(self._task, completed=row["step"], state=state)
        if not self.console.is_terminal:
            self.say(f"step {row['step']}/{self._total}: {state}")

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
