"""The picture of a demo for the README: `python scripts/demo_figure.py RUN docs/demo.png`.

Left, the oracle's mean before and after by task; right, of each task the edit that gained most (the report of the run
shows typical and worst ones too).
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL.Image import Image

from editr1.errors import UserError
from editr1.evaluation.heldout.rows import open_image
from editr1.report.run_folder import BeforeAfter, Run, read_run
from editr1.report.text import number, signed
from editr1.training.run_files import AFTER, BEFORE

BLUE, GREY, INK = "#0066a8", "#8a919c", "#1b1d21"
COLUMNS = 3


def draw_figure(run: Run, path: Path) -> None:
    """Write the picture of a run that was evaluated.

    Raises:
        UserError: it was not.
    """
    if run.results is None:
        raise UserError(f"{run.folder} holds no results.json: give the folder of a finished `editr1 demo`")
    figure = Figure(figsize=(14, 5.6), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.1), squeeze=False)[0]
    _draw_tasks(left, run.results)
    best = {pair.before.task: pair for pair in sorted(run.pairs, key=lambda pair: pair.change)}
    _draw_edits(right, run, [best[task] for task in sorted(best)])
    figure.savefig(path)


def _draw_tasks(part: SubFigure, results: dict[str, Any]) -> None:
    """A line a task from before (hollow) to after (full), the mean of all at the bottom."""
    axes: Axes = part.subplots()
    lines = {task: entry["oracle"] for task, entry in results["by_task"].items()} | {"all": results["oracle"]}
    for height, (task, figures) in enumerate(reversed(lines.items())):
        before, after = figures["before"], figures["after"]
        colour = INK if task == "all" else BLUE
        axes.plot([before, after], [height, height], color=colour, lw=2)
        axes.plot(before, height, "o", mfc="white", mec=GREY, ms=7)
        axes.plot(after, height, "o", color=colour, ms=8)
    axes.set_yticks(range(len(lines)), list(reversed(lines)))
    axes.set_xlim(0, 1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e2e4e8")
    axes.set_axisbelow(True)
    total = results["oracle"]
    before, after, delta = number(total["before"]), number(total["after"]), signed(total["delta"])
    axes.set_title(f"Oracle score, before ○ and after ●\nall: {before} → {after} ({delta})", loc="left", fontsize=11)


def _draw_edits(part: SubFigure, run: Run, pairs: list[BeforeAfter]) -> None:
    """Source, before and after of each pair under its instruction."""
    cells = part.subfigures(-(-len(pairs) // COLUMNS), COLUMNS, squeeze=False).flatten()
    for cell, pair in zip(cells, pairs, strict=False):
        shown = {
            "source": (BEFORE, pair.before.source),
            f"before {number(pair.before.oracle['score'])}": (BEFORE, pair.before.image),
            f"after {number(pair.after.oracle['score'])}": (AFTER, pair.after.image),
        }
        images = {caption: open_image(run.folder / folder, name) for caption, (folder, name) in shown.items()}
        draw_cell(cell, pair.before.instruction, images)


def draw_cell(cell: SubFigure, instruction: str, images: dict[str, Image]) -> None:
    """Images side by side, by their captions, under an instruction."""
    lines = textwrap.wrap(instruction, 40, max_lines=2, placeholder=" …")
    cell.suptitle("\n".join(lines), fontsize=9, x=0.02, ha="left")
    for axes, (caption, image) in zip(cell.subplots(1, len(images)), images.items(), strict=True):
        axes.imshow(image)
        axes.set_xlabel(caption, fontsize=8, color="#5d636d")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#d5d8dd")


if __name__ == "__main__":
    try:
        draw_figure(read_run(Path(sys.argv[1])), Path(sys.argv[2]))
    except (IndexError, UserError) as error:
        sys.exit(f"usage: python scripts/demo_figure.py RUN PICTURE.png ({error})")
