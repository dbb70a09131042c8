"""The measurements of a grid's runs, each in a file: a grid goes on from them elsewhere, and grids share equal runs.

    python benchmarks/claims.py take NAME OUT    # lay what is kept in OUT
    editr1 ablate benchmarks/grids/NAME.yaml --out OUT    # trains what is left

A file is named after the settings of its run and how it is measured, then after its seed, or "start" for what runs
start from. So two grids with a variant of the same settings share its runs. It holds every measured score, and the
commit, date and machine of the session that added it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from editr1.ablation.grid import Grid, config_of
from editr1.ablation.runs import Measured, run_of, start_of
from editr1.ablation.timing import SECONDS
from editr1.errors import UserError, parse_json, text_of
from editr1.files import JsonLines, write_file

KEPT = Path(__file__).parent / "ablations" / "runs"


def can_keep(grid: Grid) -> bool:
    """Whether all editors of a grid are those of the package."""
    configs = [config_of(grid, variant, 0, Path()) for variant in grid.variants]
    return all(config.editor.path.startswith("toy:") for config in configs)


def places(grid: Grid, out: Path, folder: Path) -> Iterator[tuple[Path, JsonLines[Measured]]]:
    """The kept file and the measurements in OUT of every run, and of what the runs start from."""
    for variant in grid.variants:
        for seed in range(grid.seeds):
            config, lines = run_of(grid, variant, seed, out)
            start = start_of(grid, config, out)
            yield folder / f"{_key(lines.head)}.{seed}.json", lines
            yield folder / f"{_key(start.head)}.start.json", start


def keep(grid: Grid, out: Path, origin: Mapping[str, Any], folder: Path = KEPT) -> list[dict[str, Any]]:
    """Keep the measurements in OUT that are not kept yet; returns when and where the grid's were kept, and how many.

    A run that has more measurements than what is kept of it replaces it. `origin` is that of `results.origin`.

    Raises:
        UserError: An editor of the grid is not of the package.
    """
    if not can_keep(grid):
        raise UserError(
            f"{grid.title}: its editor is made by a script, so its runs are not kept; add the grid when it is done"
        )
    makers: Counter[str] = Counter()
    made = {key: origin[key] for key in ("commit", "date", "machine")}
    for path, lines in dict(places(grid, out, folder)).items():
        kept = _read(path)
        if len(lines.rows) > len(kept["rows"]):
            kept = {"made": made, "head": lines.head, "rows": [asdict(row) for row in lines.rows]}
            write_file(path, json.dumps(kept).encode() + b"\n")
        if kept["rows"] and not path.name.endswith(".start.json"):
            makers[json.dumps(kept["made"])] += 1
    return [{**json.loads(maker), "runs": runs} for maker, runs in makers.most_common()]


def take(grid: Grid, out: Path, seconds: Mapping[str, Any], folder: Path = KEPT) -> int:
    """Lay what is kept in OUT, unless more is there, and the seconds of steps; returns the number of laid files."""
    laid = 0
    for path, lines in places(grid, out, folder):
        if len(rows := _read(path)["rows"]) > len(lines.rows):
            lines.replace(rows)
            laid += 1
    if seconds and not (out / SECONDS).exists():
        write_file(out / SECONDS, json.dumps(seconds, indent=1).encode() + b"\n")
    return laid


def _key(head: Mapping[str, Any] | None) -> str:
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    return parse_json(text_of(path), str(path)) if path.exists() else {"rows": []}
