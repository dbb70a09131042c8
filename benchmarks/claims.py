"""The page of results, docs/results.md, from the grids that were run: `python benchmarks/claims.py`.

    python benchmarks/claims.py take NAME OUT
    editr1 ablate benchmarks/grids/NAME.yaml --out OUT
    python benchmarks/claims.py add NAME OUT

"take" lays the measurements of runs that are kept (kept_runs.py) in OUT; without it, all runs are trained. "keep" keeps
those in OUT, also of a grid that is not finished. "add" does so too, copies OUT/ablation.json to
benchmarks/ablations/NAME.json, with command, date, commit, machine and versions, and writes the page again.
"picture NAME OUT VARIANT" draws the edits of its first seed whose judge's score has risen most beyond the oracle's, for
the page; OUT must hold the edits, so the run was trained there.
`claims.yaml` holds what others have claimed and which difference of which grid speaks for it; whether the toy agrees is
computed: the claimed sign, an interval without 0, at equal time if steps were timed, else at equal steps.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import kept_runs
import matplotlib as mpl
import parting
import results
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, TypeAdapter

from editr1.ablation.grid import Grid, read_grid
from editr1.ablation.runs import run_of, start_of
from editr1.errors import UserError, parse_json, text_of
from editr1.files import write_file
from editr1.training.run_files import AFTER

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
ABLATIONS, PAGE, PLOTS = HERE / "ablations", DOCS / "results.md", DOCS / "figures"
MAIN = "algorithm"  # the grid that the README shows
STOPPED = "hacking"  # the grid that tells what stopping early does, beside its variants
PRESERVING = "preserve"  # what the names of grids begin with that tell what is done and what is preserved apart
PARTS = ("done", "preserved")
FOOLED = "_fooled_"  # between grid and variant in the name of a picture
INTERVALS = {"gain": "ci95", "more": "more_ci95", "change": "ci95"}
Entry = Mapping[str, Any]
Ablations = Mapping[str, Entry]
"""The contents of benchmarks/ablations by grid."""


class Claim(BaseModel):
    """What was claimed of real editors, and the difference on the toy that speaks for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str
    source: str
    note: str = ""
    """What the verdict does not say."""
    grid: str
    variant: str
    against: Literal["first", "untrained"] = "first"
    """What it is compared with: the grid's first variant, or the editor before training."""
    measure: Literal["oracle", "done", "preserved"] = "oracle"
    """What is compared: the oracle's score, or one of its parts."""
    expected: Literal["less", "more"]
    """Its gain, if the claim holds."""

    @property
    def key(self) -> Literal["gain", "more"]:
        """The figure that speaks for it."""
        return "gain" if self.against == "untrained" else "more"


def read_claims(folder: Path = HERE) -> list[Claim]:
    """All claims, in the order of the page."""
    text = (folder / "claims.yaml").read_text(encoding="utf-8")
    return TypeAdapter(list[Claim]).validate_python(yaml.safe_load(text))


def read_ablations(folder: Path = ABLATIONS) -> dict[str, Any]:
    """What the grids have shown, by their names."""
    return {path.stem: parse_json(text_of(path), str(path)) for path in sorted(folder.glob("*.json"))}


def add(name: str, out: Path, folder: Path = ABLATIONS) -> Path:
    """Copy the figures of a grid, and say how they were made.

    Raises:
        UserError: There are none, or they are another grid's.
    """
    path = out / "ablation.json"
    if not path.exists():
        raise UserError(f"{path} is missing; write it by: editr1 ablate benchmarks/grids/{name}.yaml --out {out}")
    found, grid = parse_json(text_of(path), str(path)), grid_of(name)
    if found["grid"]["title"] != grid.title:
        raise UserError(f"{path} holds {found['grid']['title']!r}, not {grid.title!r}; give its own NAME")
    made = results.origin(f"editr1 ablate benchmarks/grids/{name}.yaml --out {out.name}")
    ran = grid.model_copy(update={"seeds": found["grid"]["seeds"]})
    if kept_runs.can_keep(ran):
        made["runs"] = kept_runs.keep(ran, out, made, folder / kept_runs.KEPT.name)
    place = folder / f"{name}.json"
    write_file(place, json.dumps({**found, "made": made}, indent=1).encode() + b"\n")
    return place


def take(name: str, out: Path, folder: Path = ABLATIONS) -> int:
    """Lay the kept measurements of a grid's runs in a folder, and the seconds of its steps; returns how many files."""
    variants = read_ablations(folder).get(name, {}).get("variants", {})
    seconds = {variant: each["timed"] for variant, each in variants.items() if each["timed"]}
    return kept_runs.take(grid_of(name), out, seconds, folder / kept_runs.KEPT.name)


def grid_of(name: str) -> Grid:
    """A shipped grid."""
    return read_grid(HERE / "grids" / f"{name}.yaml")


def figure_of(ablation: Entry, variant: str, measure: str = "oracle") -> tuple[str, Entry] | None:
    """How a variant is compared with the first one, in words, and its figures: the last of equal time, else steps."""
    found = ablation["variants"].get(variant, {})
    for kind, words in (("seconds", "{} s of training"), ("steps", "step {}")):
        places = {at: each[measure] for at, each in found.get(kind, {}).items() if each.get(measure)}
        if places:
            at = max(places, key=float)
            return words.format(f"{float(at):g}"), places[at]
    return None


def place_of(ablation: Entry) -> str:
    """Where the variants of a grid are compared, in words."""
    found = figure_of(ablation, next(iter(ablation["variants"])))
    return found[0] if found else ""


def verdict(expected: str, interval: list[float]) -> str:
    """Whether a difference with this interval agrees with what is expected."""
    low, high = interval
    if low <= 0 <= high:
        return "no difference shown"
    return "agrees" if (low > 0) == (expected == "more") else "**disagrees**"


def figure_here(ablation: Entry, variant: str, measure: str = "oracle") -> Entry | None:
    """The figures of a variant at the place of the first one; None where it was not measured so far, or not by that."""
    found = figure_of(ablation, variant, measure)
    return found[1] if found and found[0] == place_of(ablation) else None


def judged(claims: list[Claim], ablations: Ablations) -> Iterator[dict[str, Any]]:
    """Each claim with the toy's figures; without them where its grid was not run."""
    for claim in claims:
        ablation = ablations.get(claim.grid)
        at, entry = (ablation and figure_of(ablation, claim.variant, claim.measure)) or (None, None)
        if ablation and at:
            other = "the untrained editor" if claim.against == "untrained" else next(iter(ablation["variants"]))
            at = f"{at}, with {other}"
        said = verdict(claim.expected, entry[INTERVALS[claim.key]]) if entry else "not run"
        yield {"claim": claim, "at": at, "entry": entry, "verdict": said}


def words(entry: Entry, key: str) -> str:
    """A gain, how much more than the first variant's, or a change, with its interval if that is known."""
    interval = entry[INTERVALS[key]]
    return signed(entry[key]) + (f" [{signed(interval[0])}, {signed(interval[1])}]" if interval else "")


def signed(value: float) -> str:
    """A change, three decimals."""
    return f"{value:+.3f}".replace("-", "−")


def page(claims: list[Claim], ablations: Ablations) -> str:
    """docs/results.md."""
    loader = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    loader.filters |= {"figures": words, "signed": signed}
    return loader.get_template("results.md.j2").render(
        claims=list(judged(claims, ablations)),
        grids={name: sheet_of(name, each) for name, each in ablations.items()},
        main=MAIN,
        preserving=PRESERVING,
        parts=PARTS,
    )


def sheet_of(name: str, ablation: Entry) -> dict[str, Any]:
    """A grid for the page: a row per variant with its figures by both measures, all at one place."""
    measures = ("oracle", "judge", *PARTS)
    rows = []
    for variant, each in ablation["variants"].items():
        figures = {measure: figure_here(ablation, variant, measure) for measure in measures}
        rows.append({"name": variant, "settings": each["settings"], "timed": each["timed"], **figures})
    seeds = max((row["oracle"]["seeds"] for row in rows if row["oracle"]), default=0)
    timed = any(row["timed"] for row in rows)
    stopped = parting.stopped_early(ablation) if name == STOPPED else None
    if stopped:
        words = f"{rows[0]['name']}, stopped at step {stopped['step']}"
        rows.append({**dict.fromkeys(measures), "name": words, "settings": [], "timed": None, **stopped})
    pictures = {path.stem.partition(FOOLED)[2]: path.name for path in sorted(PLOTS.glob(f"{name}{FOOLED}*.png"))}
    more = {"partings": parting.partings_of(ablation), "pictures": pictures}
    return {**ablation, "rows": rows, "at": place_of(ablation), "seeds": seeds, "timed": timed, **more}


def picture(name: str, out: Path, variant: str) -> Path:
    """Draw the edits of a variant's first seed by which the judge is fooled most, before and after.

    Raises:
        UserError: The run's edits are not there, or there is nothing to draw.
    """
    grid = grid_of(name)
    if variant not in grid.variants:
        raise UserError(f"{variant!r} is no variant of {name}; it has {', '.join(grid.variants)}")
    config, _ = run_of(grid, variant, 0, out)
    before, after = start_of(grid, config, out).path.parent / "edits", config.out / AFTER
    for folder in (before, after):
        if not folder.is_dir():
            again = f"editr1 ablate benchmarks/grids/{name}.yaml --only {variant} --seeds 1 --out OTHER"
            raise UserError(f"{folder} is missing: kept measurements hold no edits; train the run: {again}")
    path, script = PLOTS / f"{name}{FOOLED}{variant}.png", HERE.parent / "scripts" / "fooled_figure.py"
    done = subprocess.run([sys.executable, script, before, after, path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"no picture of {variant}: {done.stderr.strip()}")
    return path


def plot_gains(figure: Figure, ablation: Entry) -> None:
    """The oracle's gain of each variant with its interval, and the judge's beside it."""
    axes = figure.add_subplot()
    names = [name for name in ablation["variants"] if figure_here(ablation, name)]
    for shift, measure, colour in ((-0.15, "oracle", "#2563eb"), (0.15, "judge", "#d97706")):
        for place, name in enumerate(names):
            entry = figure_here(ablation, name, measure)
            if entry:
                error = [[entry["gain"] - entry["ci95"][0]], [entry["ci95"][1] - entry["gain"]]]
                label = measure if place == 0 else None
                axes.errorbar(entry["gain"], place + shift, xerr=error, fmt="o", ms=4, color=colour, label=label)
    axes.axvline(0, color="#94a3b8", lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(title=ablation["grid"]["title"], xlabel=f"gain on held-out items after {place_of(ablation)}")
    axes.legend(fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))


def draw(plot: Any, ablation: Entry, size: tuple[float, float]) -> bytes:
    """An SVG; the same bytes for the same figures."""
    with mpl.rc_context({"svg.hashsalt": "editr1", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure, ablation)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def write() -> None:
    """Write the page and its plots."""
    ablations = read_ablations()
    write_file(PAGE, page(read_claims(), ablations).encode())
    if MAIN in ablations:
        write_file(PLOTS / f"{MAIN}.svg", draw(plot_gains, ablations[MAIN], (7.5, 3.6)))
    for name, each in ablations.items():
        if parting.measured_twice(each):
            write_file(PLOTS / f"{name}_steps.svg", draw(parting.plot_curves, each, parting.size_of(each)))


def main() -> int:
    """Do what is asked with a grid, if one is named, and write the page."""
    match sys.argv[1:]:
        case []:
            pass
        case ["take", name, out]:
            print(f"{take(name, Path(out))} files of measurements laid in {out}")
            return 0
        case ["keep", name, out]:
            makers = kept_runs.keep(grid_of(name), Path(out), results.origin(f"claims.py keep {name}"))
            print(f"{sum(by['runs'] for by in makers)} runs are kept")
            return 0
        case ["add", name, out]:
            print(add(name, Path(out)))
        case ["picture", name, out, variant]:
            print(picture(name, Path(out), variant))
        case _:
            ways = "take NAME OUT | keep NAME OUT | add NAME OUT | picture NAME OUT VARIANT"
            raise UserError(f"usage: python benchmarks/claims.py [{ways}]")
    write()
    print(PAGE)
    return 0


if __name__ == "__main__":
    results.finish(main)
