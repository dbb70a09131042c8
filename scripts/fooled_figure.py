"""The edits that fool a judge: `python scripts/fooled_figure.py BEFORE AFTER PICTURE.png`.

BEFORE and AFTER are folders of measured edits of the same items, such as `evaluation/before` and `evaluation/after` of
a demo, or `untrained/ID/edits` and `VARIANT/SEED/evaluation/after` of an ablation. Shown are the edits for which the
judge's score has risen most beyond the oracle's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo_figure import COLUMNS, draw_cell
from matplotlib.figure import Figure

from editr1.errors import UserError
from editr1.evaluation.heldout.rows import EditRow, open_image, read_rows
from editr1.report.run_folder import BeforeAfter
from editr1.report.text import number

SHOWN = 9


def fooled(before: list[EditRow], after: list[EditRow]) -> list[BeforeAfter]:
    """Pairs whose judge's score has risen more than the oracle's, by how much more.

    Raises:
        UserError: No edit is in both with the scores of both, or there is no such pair.
    """
    known = {(row.key, row.index): row for row in before if row.judge is not None and row.oracle}
    pairs = [BeforeAfter(known[row.key, row.index], row) for row in after if (row.key, row.index) in known]
    scored = [pair for pair in pairs if pair.after.judge is not None and pair.after.oracle]
    if not scored:
        raise UserError("no edit is in both folders with the scores of judge and oracle")
    risen = [pair for pair in scored if gap(pair) > 0]
    if not risen:
        raise UserError("of no edit has the judge's score risen more than the oracle's: there is nothing to draw")
    return sorted(risen, key=gap, reverse=True)


def gap(pair: BeforeAfter) -> float:
    """Rise of the judge's score less that of the oracle's."""
    old, new = pair.before, pair.after
    assert old.judge is not None and new.judge is not None, "both are scored"
    return (new.judge - old.judge) - (new.oracle["score"] - old.oracle["score"])


def draw_figure(before: Path, after: Path, path: Path) -> None:
    """Write the picture; a UserError if there is nothing to show."""
    figure = Figure(figsize=(10, 5.6), dpi=110, layout="constrained")
    cells = figure.subfigures(-(-SHOWN // COLUMNS), COLUMNS, squeeze=False).flatten()
    for cell, pair in zip(cells, fooled(read_rows(before), read_rows(after)), strict=False):
        images = {"source": open_image(before, pair.before.source)}
        for folder, row, when in ((before, pair.before, "before"), (after, pair.after, "after")):
            words = f"{when}\njudge {number(row.judge)}\noracle {number(row.oracle['score'])}"
            images[words] = open_image(folder, row.image)
        draw_cell(cell, pair.before.instruction, images)
    figure.savefig(path)


if __name__ == "__main__":
    try:
        draw_figure(*map(Path, sys.argv[1:4]))
    except (TypeError, UserError) as error:
        sys.exit(f"usage: python scripts/fooled_figure.py BEFORE AFTER PICTURE.png ({error})")
