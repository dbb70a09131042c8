"""A run's folder -> report.html: one file with no reference to anything outside it and no script."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from markupsafe import Markup

from editr1 import __version__
from editr1.config.data import STORED
from editr1.data.pictures import png_data_url
from editr1.evaluation.heldout.rows import open_image
from editr1.evaluation.paired import FEW
from editr1.preservation.measure import NAMES
from editr1.report.best import best_words
from editr1.report.environment import write_page
from editr1.report.outside import NOTE as CEILING_NOTE
from editr1.report.outside import TITLES, outside_charts, task_charts, trained_words
from editr1.report.records import shown
from editr1.report.run_folder import BeforeAfter, Run, read_run
from editr1.report.svg import Line, interval_bar, interval_chart, line_chart, stack_chart
from editr1.report.text import number
from editr1.report.thumbnails import picture_url
from editr1.training.alarms import WINDOW, Heard, item_noise, sounded
from editr1.training.log import duration
from editr1.training.run_files import BEFORE, REPORT
from editr1.training.self_check import in_words as self_check_words

GALLERY_PAIRS = 6  # gains, and as many losses
DROPPED_TONES = ("b", "c", "quiet")
DRIFT = {
    "latent_norm": "Norm of the latents",
    "brightness": "Brightness",
    "saturation": "Saturation",
    "sharpness": "Sharpness",
    "source_distance": "Distance to the source",
}
NORMS = {"grad_norm": "Gradient norm", "update_norm": "Update norm"}


@dataclass(frozen=True)
class Figure:
    """A chart with the words above and under it."""

    title: str
    chart: Markup
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()


def write_report(run_dir: str | Path) -> Path:
    """Write `run_dir`/report.html and return its path; a sentence stands in for what the run did not record.

    Raises:
        UserError: if the folder holds no run.
    """
    run = read_run(Path(run_dir))
    grids = run.grids[:: max(1, len(run.grids) - 1)]
    return write_page(
        run.folder / REPORT,
        "run.html.j2",
        run=run,
        alarms=alarms(run),
        facts=facts(run),
        config=yaml.safe_dump(run.config, sort_keys=False),
        curves=reward_figures(run),
        parts=part_figures(run),
        by_task=task_figures(run),
        outside=[Figure(*each) for each in outside_charts(run.metrics)],
        outside_words=trained_words(run.config),
        outside_by_task=[Figure(*each) for each in task_charts(run.metrics)],
        drift={} if is_stored(run) else single_figures(run, DRIFT, "drift"),
        judge_words=judge_words(run),
        captions={"oracle": "Oracle: measured, never trained on", "judge": f"Judge: {judge_words(run)}", **TITLES},
        optimiser=single_figures(run, optimiser_titles(run)),
        tables=score_tables(run.results) if run.results else [],
        ceiling_note=CEILING_NOTE,
        heldout=heldout_figures(run),
        gallery=[(title, note, [pair_card(run, pair) for pair in pairs]) for title, note, pairs in pair_gallery(run)],
        grids=[(path.stem.replace("_", " "), png_data_url(open_image(path.parent, path.name))) for path in grids],
    )


def is_stored(run: Run) -> bool:
    """Whether the run read its edits from the disk."""
    return run.config["data"]["kind"] in STORED


def judge_words(run: Run) -> str:
    """What the judge's scores of held-out items are to the run."""
    return "not asked in training" if is_stored(run) else "the reward that training follows"


def alarms(run: Run) -> list[tuple[str, str, str]]:
    """(name, steps, text) of every alarm that sounded in the run."""
    return alarm_words(sounded(run.metrics, run.config["optim"]["grad_clip"]))


def alarm_words(heard: Sequence[Heard]) -> list[tuple[str, str, str]]:
    """(name, steps, text) of alarms."""
    words = {True: "step {0}", False: "steps {0} to {1}"}
    return [(alarm.name, words[first == last].format(first, last), alarm.text) for first, last, alarm in heard]


def facts(run: Run) -> dict[str, str]:
    """What was run, in a few lines; the page shows the whole configuration beside them."""
    config = run.config
    rollout, algorithm, adapter, data = (config[name] for name in ("rollout", "algorithm", "adapter", "data"))
    most = f" to {rollout['most_groups']}" if rollout.get("most_groups") else ""
    choice = f" of {rollout['scouts']}" if rollout.get("scouts") else ""
    scouting = f" ({rollout['scout_steps']} per scout)" if rollout.get("scouts") else ""
    per_step = f"{rollout['groups_per_step']}{most} instructions × {rollout['group_size']}{choice} edits"
    making = "read from the disk" if is_stored(run) else f"{rollout['steps']} denoiser calls each{scouting}"
    trained = f"LoRA, rank {adapter['rank']}" if adapter["mode"] == "lora" else "all weights of the denoiser"
    method = run.algorithm.title + (f", β {algorithm['beta']:g}" if "beta" in algorithm else "")
    return {
        "Editor": f"{config['editor']['path']} ({trained})",
        "Judge": _judge_name(config["judge"], is_stored(run)),
        **_rewards(config.get("rewards", {})),
        "Data": f"{data['kind']}: {data['path'] or data['split'] + ', level ' + data['level']}",
        "A step": f"{per_step}, {making}",
        "Loss": f"{method}, KL {algorithm['kl']:g}, filter “{algorithm['filter']}”",
        "Seed": str(config["seed"]),
        "Trained": f"{len(run.metrics)} steps in {duration(run.train_seconds)}",
        **({"Best checkpoint": best_words(run.best)} if run.best else {}),
        **({"Sampled = trained": self_check_words(run.self_check)} if run.self_check else {}),
        **session_facts(run.session),
        "Report made": f"{time.strftime('%Y-%m-%d %H:%M')} by editr1 {__version__}",
    }


def session_facts(session: Mapping[str, Any]) -> dict[str, str]:
    """Command, commit, machine, memory and versions of the run's last session, as far as they are recorded."""
    facts = {name.capitalize(): session[name] for name in ("command", "hardware") if name in session}
    words = {"process": "main memory", "gpu": "GPU memory"}
    joined = {
        "Commit": ", ".join(f"{place} {commit}" for place, commit in session.get("commit", {}).items()),
        "Peak of memory": ", ".join(
            f"{size:.1f} GiB {words[name]}" for name, size in session.get("peak_memory_gib", {}).items()
        ),
        "Float32 products": session.get("float32_products", ""),
        "Versions": ", ".join(f"{name} {number}" for name, number in session.get("versions", {}).items()),
    }
    return {**facts, **{name: text for name, text in joined.items() if text}}


def _rewards(rewards: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    words = [f"{name} ({reward['kind']}, weight {reward.get('weight', 1):g})" for name, reward in rewards.items()]
    return {"Further rewards": ", ".join(words)} if words else {}


def _judge_name(settings: Mapping[str, Any] | None, stored: bool) -> str:
    if not settings:
        return "none: edits are read" if stored else "none: the rewards alone"
    return f"{settings['path'] or settings['model']} ({settings['method']}{', held-out items alone' if stored else ''})"


def reward_figures(run: Run) -> list[Figure]:
    """Reward and oracle, spread of the rewards, groups kept: whether there is a signal."""
    if not run.metrics:
        return []
    steps = [row["step"] for row in run.metrics]
    if is_stored(run):
        return [_kept_figure(run, steps, "Edits are read from the disk, and no judge is asked about them.")]
    lines = [Line("mixed" if run.config.get("rewards") else "judge", column(run, "reward_mean"), "b")]
    if run.oracle:
        lines.append(Line("oracle", [run.oracle.get(step) for step in steps], "a"))
    spread = [
        Line("all edits", column(run, "reward_std_all"), "quiet"),
        Line("in a group", column(run, "reward_std_within"), "a"),
    ]
    return [
        Figure("Mean reward of the training edits", line_chart("Reward", steps, lines), _reward_note(run)),
        Figure(
            "Spread of the rewards (std)",
            line_chart("Spread", steps, spread),
            "Training learns from the spread within a group.",
        ),
        _kept_figure(run, steps, " ".join(filter(None, (_missing_note(run), _solved_note(run))))),
    ]


def part_figures(run: Run) -> list[Figure]:
    """Each of the rewards that are mixed, on one scale; none if there is one reward."""
    names = sorted({name for row in run.metrics for name in row.get("reward_parts", {})})
    return single_figures(run, {name: name for name in names}, "reward_parts", "b", (0, 1))


def task_figures(run: Run) -> list[Figure]:
    """The reward of each task on one scale; no figure if there is one task only."""
    tasks = sorted(
        {task for row in run.metrics for task, reward in row["reward_by_task"].items() if reward is not None}
    )
    titles = {task: task for task in tasks} if len(tasks) > 1 else {}
    return single_figures(run, titles, "reward_by_task", "b", (0, 1))


def single_figures(
    run: Run,
    titles: Mapping[str, str],
    within: str | None = None,
    tone: str = "a",
    span: tuple[float, float] | None = None,
) -> list[Figure]:
    """One chart for each of `titles` that the metrics hold, in the mapping `within` of a row if given."""
    steps = [row["step"] for row in run.metrics]
    columns = {title: column(run, key, within) for key, title in titles.items()}
    charts = {title: line_chart(title, steps, [Line(title, values, tone)], span) for title, values in columns.items()}
    return [Figure(title, chart) for title, chart in charts.items() if chart]


def column(run: Run, key: str, within: str | None = None) -> list[float | None]:
    """One number per step; None if the row lacks it."""
    rows = (row.get(within) or {} if within else row for row in run.metrics)
    return [shown(row.get(key)) for row in rows]


def optimiser_titles(run: Run) -> dict[str, str]:
    """Titles of the loss, of the parts that the run's algorithm names, and of the norms, by their names in the metrics.

    The summands of a loss, `loss_...`, are left out: the loss itself is their sum.
    """
    return {
        "loss": "Loss",
        **{name: title for name, title in run.algorithm.parts.items() if not name.startswith("loss_")},
        **NORMS,
    }


def score_tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each measure: a line per task, then one of all, each with its change drawn against zero."""
    tables = []
    for name in measures_of(results):
        lines = [(task, entry["n"], entry[name]) for task, entry in results["by_task"].items()]
        lines.append(("all", results["items"], results[name]))
        intervals = [figures["ci95"] for _, _, figures in lines if figures["ci95"]]
        reach = max((abs(end) for interval in intervals for end in interval), default=1.0)
        bars = [interval_bar(f["delta"], f["ci95"], reach, n >= FEW) if f["ci95"] else "" for _, n, f in lines]
        ceiling = any(figures.get("ceiling") is not None for _, _, figures in lines)
        rows = [(*line, bar) for line, bar in zip(lines, bars, strict=True)]
        tables.append({"name": name, "lines": rows, "ceiling": ceiling})
    return tables


def measures_of(results: Mapping[str, Any]) -> list[str]:
    """What the held-out edits were measured by."""
    return [name for name in ("oracle", "judge", *NAMES) if results.get(name)]


def heldout_figures(run: Run) -> list[Figure]:
    """The held-out scores over the steps at which they were measured; none if that was before and after alone."""
    results = run.results or {}
    points, certain = results.get("curve", []), results.get("items", 0) >= FEW
    if len(points) < 2:
        return []
    names, steps = measures_of(points[0]), [0, *(point["step"] for point in points)]
    note, last = "Same items and noise each time. Bars: 95% interval of the change since the start.", points[-1]
    return [
        Figure(
            f"Held-out items, {name}",
            interval_chart(name, steps, *_curve([p[name] for p in points]), certain),
            note + _ceiling(last[name]),
        )
        for name in names
        if all((point.get(name) or {}).get("ci95") for point in points)
    ]


def _ceiling(figures: Mapping[str, Any]) -> str:
    return "" if figures.get("ceiling") is None else f" Ceiling, the VAE's round trip: {number(figures['ceiling'])}."


def _curve(points: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[tuple[float, float]]]:
    """Means with the start first, and their intervals: that of the change, around the mean at the start."""
    start = [point["before"] for point in points]
    means = [start[0], *(point["before"] + point["delta"] for point in points)]
    bars = [(was + point["ci95"][0], was + point["ci95"][1]) for was, point in zip(start, points, strict=True)]
    return means, [(start[0], start[0]), *bars]


def pair_gallery(run: Run) -> Iterator[tuple[str, str, list[BeforeAfter]]]:
    """Best, typical and worst, by the change of the oracle's score, else of the judge's: (title, note, pairs)."""
    if not run.pairs:
        return
    ranked = sorted(run.pairs, key=lambda pair: pair.change)
    yield "Largest gains", "", _one_per_item(reversed(ranked))[:GALLERY_PAIRS]
    tasks = sorted({pair.before.task for pair in ranked})
    typical = [[pair for pair in ranked if pair.before.task == task] for task in tasks]
    yield (
        "One of each task",
        "The edit whose change is the median of its task.",
        [each[len(each) // 2] for each in typical],
    )
    yield "Largest losses", "", _one_per_item(ranked)[:GALLERY_PAIRS]


def pair_card(run: Run, pair: BeforeAfter) -> dict[str, Any]:
    """One instruction: three pictures, and the scores before and after."""
    before_oracle = pair.before.oracle
    before, after = run.folder / BEFORE, run.folder / run.after
    return {
        "task": pair.before.task,
        "instruction": pair.before.instruction,
        "pictures": [
            ("source", picture_url(open_image(before, pair.before.source))),
            ("before", picture_url(open_image(before, pair.before.image))),
            ("after", picture_url(open_image(after, pair.after.image))),
        ],
        "scores": {
            **({"oracle": (before_oracle["score"], pair.after.oracle["score"])} if before_oracle else {}),
            "judge": (pair.before.judge, pair.after.judge),
        },
    }


def _one_per_item(pairs: Iterable[BeforeAfter]) -> list[BeforeAfter]:
    """The first pair of each item."""
    first: dict[str, BeforeAfter] = {}
    for pair in pairs:
        first.setdefault(pair.before.key, pair)
    return list(first.values())


def _reward_note(run: Run) -> str:
    words = "What the judge gave the edits that each step made."
    if run.oracle:
        words = (
            "The judge is what training follows; the oracle measures the same edits and is read by nothing that trains."
        )
    rewards, noise = [r for r in column(run, "reward_mean") if r is not None], item_noise(run.metrics)
    if len(rewards) < 2 * WINDOW or noise == math.inf:
        return words
    first, last = fmean(rewards[:WINDOW]), fmean(rewards[-WINDOW:])
    return (
        f"{words} Every step has other items, which alone moves its mean by about ±{noise:.2f}: a gain shows over many "
        f"steps ({first:.2f} in the first {WINDOW}, {last:.2f} in the last {WINDOW}), and best on held-out items."
    )


def _kept_figure(run: Run, steps: Sequence[int], note: str) -> Figure:
    """Groups that were trained on and those that the filter dropped, by reason."""
    reasons = sorted({reason for row in run.metrics for reason in row["dropped"]})
    names = {"kept": "a"} | {reason: DROPPED_TONES[min(i, 2)] for i, reason in enumerate(reasons)}
    stacks = {
        name: [row["groups_kept"] if name == "kept" else row["dropped"].get(name, 0) for row in run.metrics]
        for name in names
    }
    words = tuple((name.replace("_", " "), tone) for name, tone in names.items())
    return Figure("Groups kept and dropped", stack_chart("Groups", steps, stacks, names), note, words)


def _solved_note(run: Run) -> str:
    """How many items are not drawn any more, with `data.ban_solved`."""
    solved = shown(run.metrics[-1].get("banned"))
    return "" if solved is None else f"Solved items, which are not drawn again: {solved:.0f}."


def _missing_note(run: Run) -> str:
    """How many edits have no reward, and how many lack one of those that are mixed, with the last step's reason."""
    unscored = sum(row["unscored"] for row in run.metrics)
    notes = [f"Edits without a reward: {unscored}." if unscored else "Every edit got a reward."]
    counts, last = Counter[str](), dict[str, str]()
    for row in run.metrics:
        counts.update(row.get("parts_unscored", {}))
        last.update({name: reasons[0] for name, reasons in row.get("parts_reasons", {}).items()})
    notes += [f"Edits without the reward “{name}”: {counts[name]} (last: {last[name]})." for name in sorted(last)]
    return " ".join(notes)
