"""What the page shows of the runs that are followed: a card per run, curves over each other, the latest groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from editr1.preservation.measure import CEILING
from editr1.report.best import best_words
from editr1.report.environment import environment
from editr1.report.outside import MEASURED, TITLES
from editr1.report.records import shown
from editr1.report.run import DRIFT, Figure, alarm_words, optimiser_titles
from editr1.report.run_folder import Run
from editr1.report.svg import Line, line_chart
from editr1.report.watch.following import Followed
from editr1.training.log import duration
from editr1.training.preserving import OUTSIDE
from editr1.training.step_row import groups_made

TONES = ("a", "b", "c", "d", "e", "f")
RECENT = 10  # steps whose mean is the time of those to come
REWARDS = {
    "reward_mean": "Mean reward",
    "reward_std_within": "Spread of the rewards in a group (std)",
    "reward_std_all": "Spread of all rewards (std)",
    "unscored": "Edits without a reward",
}
PACE = {"judge_latency": "Judge latency: seconds per group", "images_per_s": "Images per second"}
Row = Mapping[str, Any]
Value = Callable[[Row], Any]


def names_of(runs: Sequence[Followed]) -> list[str]:
    """A short name per run: its folder's, or the whole path where two have the same."""
    names = [run.folder.resolve().name for run in runs]
    return [str(run.folder) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def fragment(runs: Sequence[Followed]) -> str:
    """The content of the page as HTML."""
    names = names_of(runs)
    pairs = [*zip(runs, names, strict=True)]
    cards = [{"tone": TONES[i], "name": name, **card(run)} for i, (run, name) in enumerate(pairs)]
    page = environment().get_template("watch_runs.html.j2")
    samples = [
        {"number": i, "name": name, "step": run.samples["step"], "side": run.samples["side"], "groups": groups_of(run)}
        for i, (run, name) in enumerate(pairs)
        if run.samples
    ]
    return page.render(cards=cards, sections=[*sections([run.run for run in runs], names)], samples=samples)


def card(run: Followed) -> dict[str, Any]:
    """What a run is at: its last row in words, its alarms, what cannot be read."""
    rows, steps = run.run.metrics, run.run.config["steps"]
    return {
        "steps": steps,
        "step": rows[-1]["step"] if rows else 0,
        "left": time_left(rows, steps),
        "facts": {
            **(facts(rows[-1]) if rows else {}),
            **({"Best checkpoint": best_words(run.best)} if run.best else {}),
        },
        "ranks": ranks_of(rows[-1]) if rows else {},
        "alarms": alarm_words(run.alarms),
        "fault": run.fault,
    }


def time_left(rows: Sequence[Row], steps: int) -> str:
    """How long the other steps take, by the last ones."""
    if not rows:
        return "the first step is not done yet"
    left = steps - rows[-1]["step"]
    pace = fmean(sum(row["seconds"].values()) for row in rows[-RECENT:])
    return f"about {duration(left * pace)} left" if left > 0 else "all steps are done"


def facts(row: Row) -> dict[str, str]:
    """The last row in a few words."""
    dropped = ", ".join(f"{count} × {reason.replace('_', ' ')}" for reason, count in row["dropped"].items())
    reward = shown(row.get("reward_mean"))
    speed, solved = shown(row.get("images_per_s")), shown(row.get("banned"))
    return {
        "Reward": "none" if reward is None else f"{reward:.3f}",
        "Groups kept": f"{row['groups_kept']} of {groups_made(row)}",
        **({"Dropped": dropped} if dropped else {}),
        **({"Solved items": f"{solved:.0f}, not drawn again"} if solved is not None else {}),
        **({"Without a reward": f"{row['unscored']} edits"} if row["unscored"] else {}),
        **({"Speed": f"{speed:.2f} images/s"} if speed is not None else {}),
        "Seconds": ", ".join(f"{part} {spent:.1f}" for part, spent in row["seconds"].items()),
    }


def ranks_of(row: Row) -> dict[str, dict[str, float]]:
    """Seconds of the row by rank and part; empty for one process."""
    ranks: dict[str, dict[str, float]] = {}
    for name, spent in (row.get("rank_seconds") or {}).items():
        rank, _, part = name.partition("/")
        ranks.setdefault(rank, {})[part] = shown(spent) or 0.0
    return ranks


def sections(runs: Sequence[Run], names: Sequence[str]) -> Iterator[tuple[str, list[Figure]]]:
    """(title, charts) of all that the rows hold, a line per run in each chart."""
    titles = {title: key for run in runs for key, title in optimiser_titles(run).items()}
    yield (
        "Rewards",
        [
            *(figure(runs, names, title, _of(key)) for key, title in REWARDS.items()),
            figure(runs, names, "Share of groups kept", _share_kept, (0, 1)),
            *(
                figure(runs, names, f"Reward: {name}", _of(name, "reward_parts"))
                for name in _keys(runs, "reward_parts")
            ),
            *(figure(runs, names, f"Watched: {name}", _of(name, "watched")) for name in _keys(runs, "watched")),
        ],
    )
    yield (
        "What must not change",
        [
            *(
                figure(
                    runs,
                    names,
                    f"{title}; grey: the VAE's ceiling",
                    _of(key, OUTSIDE),
                    ceiling=_of(CEILING + key, OUTSIDE),
                )
                for key, title in TITLES.items()
            ),
            figure(runs, names, MEASURED, _of("measured", OUTSIDE), (0, 1)),
        ],
    )
    yield "Optimiser", [figure(runs, names, title, _of(key)) for title, key in titles.items()]
    yield "Drift from the first step", [figure(runs, names, title, _of(key, "drift")) for key, title in DRIFT.items()]
    yield (
        "Pace",
        [
            *(figure(runs, names, title, _of(key)) for key, title in PACE.items()),
            *(
                figure(runs, names, f"Seconds per step: {part}", _of(part, "seconds"))
                for part in _keys(runs, "seconds")
            ),
            figure(runs, names, "Share of time in which ranks wait", _of("imbalance")),
        ],
    )
    yield (
        "Reward by task",
        [figure(runs, names, task, _of(task, "reward_by_task"), (0, 1)) for task in _keys(runs, "reward_by_task")],
    )


def figure(
    runs: Sequence[Run],
    names: Sequence[str],
    title: str,
    value: Value,
    span: tuple[float, float] | None = None,
    ceiling: Value | None = None,
) -> Figure:
    """One chart with a line per run over the steps of all of them; its chart is empty if no row has a value.

    With a `ceiling`, that of each run is a quiet line.
    """
    steps = sorted({row["step"] for run in runs for row in run.metrics})
    lines = [*_lines(runs, names, steps, value, TONES)]
    if ceiling is not None:
        lines += _lines(runs, [f"{name}: ceiling" for name in names], steps, ceiling, ["quiet"] * len(runs))
    return Figure(title, line_chart(title, steps, lines, span if lines else None, named=False))


def _lines(
    runs: Sequence[Run], names: Sequence[str], steps: Sequence[int], value: Value, tones: Sequence[str]
) -> Iterator[Line]:
    """The line of each run that has a value."""
    for run, name, tone in zip(runs, names, tones, strict=False):
        column = {row["step"]: shown(value(row)) for row in run.metrics}
        if any(value is not None for value in column.values()):
            yield Line(name, [column.get(step) for step in steps], tone)


def groups_of(run: Followed) -> list[dict[str, Any]]:
    """The groups in the newest picture of samples, the edits of each from the best to the worst."""
    assert run.samples is not None, "without samples there are no groups"
    return [
        {
            "title": group["title"],
            "dropped": (group["dropped"] or "").replace("_", " "),
            "source": group["places"][0],
            "edits": sorted(
                zip(group["rewards"], group["places"][1:], strict=True),
                key=lambda pair: -math.inf if pair[0] is None else pair[0],
                reverse=True,
            ),
        }
        for group in run.samples["groups"]
    ]


def _of(key: str, within: str = "") -> Value:
    """Reads a value of a row, or of a mapping in it."""
    return lambda row: ((row.get(within) or {}) if within else row).get(key)


def _share_kept(row: Row) -> float | None:
    groups = groups_made(row)
    return row["groups_kept"] / groups if groups else None


def _keys(runs: Sequence[Run], within: str) -> list[str]:
    """The keys of a mapping of the rows, of all runs."""
    return [*dict.fromkeys(key for run in runs for row in run.metrics for key in row.get(within) or {})]
