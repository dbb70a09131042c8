"""The commands `editr1 eval imgedit|gedit|toy|data|compare`. They import what they need, so that --help is quick."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from editr1.cli.completion import editors
from editr1.errors import UserError
from editr1.evaluation.benchmarks.registry import BASIC, BENCHMARKS
from editr1.terminal import open_console, show_table

_log = logging.getLogger(__name__)
TOY = "toy"
Data = Annotated[Path, typer.Option("--data", help="Folder of the benchmark.")]
Editor = Annotated[
    str,
    typer.Option("--editor", help="A pipeline's folder or hub name, toy, or a run's YAML.", autocompletion=editors),
]
Lora = Annotated[Path | None, typer.Option("--lora", help="A LoRA (file or folder), a checkpoint, a run or RUN@best.")]
LoraScale = Annotated[float, typer.Option("--lora-scale", help="Factor on what the LoRA adds; docs/evaluation.md.")]
JudgeName = Annotated[str, typer.Option("--judge", help='toy, a folder, hub name, YAML, or "openai:URL?model=NAME".')]
Out = Annotated[Path, typer.Option("--out", help="Folder of the result; a stopped run continues there.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the starting noise.")]
Steps = Annotated[int, typer.Option("--steps", min=2, help="Denoiser calls per edit.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", min=0, help="Guidance scale; without it, the pipeline's own default.")
]
Pixels = Annotated[
    int | None, typer.Option("--pixels", min=1, help="Area of an edit in pixels; without it, the editor's own.")
]
Scheduler = Annotated[str, typer.Option("--scheduler", help="Sampler: euler or dpm2.")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="Worker processes; each loads the editor.")]
BestOf = Annotated[int, typer.Option("--best-of", min=1, help="Edits per item, of which a reward picks one.")]
Reward = Annotated[str | None, typer.Option("--reward", help="Judge that picks among them; by default --judge.")]
Way = Annotated[str, typer.Option("--ask", help="written: the official answers; score_logit: criterion by criterion.")]
Suite = Annotated[str, typer.Option("--suite", help="Suite of the benchmark: basic; imgedit has uge too.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Number of items to run, the first ones; all by default.")
]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", help="Folder of masks, KEY.png, white where the edit may be; measures what is outside."),
]
Features = Annotated[
    str | None,
    typer.Option("--features", help="Folder of a vision model such as DINOv2; measures likeness outside of masks too."),
]
Price = Annotated[
    str | None, typer.Option("--price", help="Dollars per million tokens, IN,OUT; the estimate then names the cost.")
]


def benchmark(
    context: typer.Context,
    data: Data,
    editor: Editor,
    judge: JudgeName,
    out: Out,
    lora: Lora = None,
    lora_scale: LoraScale = 1.0,
    steps: Steps = 28,
    seed: Seed = 0,
    guidance: Guidance = None,
    pixels: Pixels = None,
    scheduler: Scheduler = "euler",
    processes: Processes = 1,
    best_of: BestOf = 1,
    reward: Reward = None,
    ask: Way = "",
    suite: Suite = BASIC,
    limit: Limit = None,
    price: Price = None,
    masks: Masks = None,
    features: Features = None,
) -> None:
    """Run the benchmark that the command is named after."""
    from editr1.evaluation.benchmarks.run import Asked, run_benchmark

    open_benchmark = BENCHMARKS[str(context.info_name)].opener(data, limit, judge, suite)
    numbers = {"steps": steps, "seed": seed, "guidance": guidance, "pixels": pixels, "best_of": best_of}
    settings = _settings(editor, lora, lora_scale, scheduler, **numbers)
    if reward is not None and best_of == 1:
        raise UserError("--reward picks among several edits: give --best-of N too")
    if features is not None and masks is None:
        raise UserError("--features measures outside of masks: give --masks FOLDER too")
    picks = (reward or judge) if best_of > 1 else None
    asked = Asked(judge=judge, way=_way(ask, judge), reward=picks, price=None if price is None else _price(price))
    with _world(out) as (world, console):
        result = run_benchmark(open_benchmark, settings, asked, out, processes, console, world, masks, features)
        _finish(result, out, console, world)


def toy(
    out: Out,
    editor: Editor = TOY,
    lora: Lora = None,
    lora_scale: LoraScale = 1.0,
    judge: JudgeName = TOY,
    steps: Steps = 10,
    seed: Seed = 0,
    guidance: Guidance = None,
    scheduler: Scheduler = "euler",
    best_of: BestOf = 1,
    edits: Annotated[int, typer.Option(min=1, help="Edits per item; all are measured.")] = 2,
    items: Annotated[int, typer.Option(min=1, help="Held-out instructions; the nine tasks take turns.")] = 144,
    features: Features = None,
) -> None:
    """The toy world's held-out items, as `editr1 demo` measures them: the oracle beside the judge."""
    from editr1.evaluation.benchmarks.toy_world import ToySettings, evaluate_toy
    from editr1.evaluation.progress import progress

    settings = _settings(
        editor, lora, lora_scale, scheduler, steps=steps, seed=seed, guidance=guidance, best_of=best_of
    )
    with _world(out) as (world, console):
        with progress(console, "instructions", items) as done:
            result = evaluate_toy(settings, ToySettings(items=items, edits=edits), judge, out, done, world, features)
        _finish(result, out, console, world)


def data(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Your items, in any form of data.path.")],
    editor: Editor,
    judge: JudgeName,
    out: Out,
    lora: Lora = None,
    lora_scale: LoraScale = 1.0,
    steps: Steps = 28,
    seed: Seed = 0,
    guidance: Guidance = None,
    pixels: Pixels = None,
    scheduler: Scheduler = "euler",
    best_of: BestOf = 1,
    edits: Annotated[int, typer.Option(min=1, help="Edits per item; all are judged.")] = 2,
    limit: Limit = None,
    root: Annotated[Path | None, typer.Option(help="A folder that may hold pictures too, as data.root.")] = None,
    features: Features = None,
) -> None:
    """Your own items, judged as in a run with held-out items: the mean reward by task, with a page of edits."""
    from editr1.cli.check import check_evaluation
    from editr1.data.forms import open_stored
    from editr1.evaluation.benchmarks.own_data import evaluate_data, first_items
    from editr1.evaluation.progress import progress
    from editr1.judges.open import parse_judge

    numbers = {"steps": steps, "seed": seed, "guidance": guidance, "pixels": pixels, "best_of": best_of}
    settings = _settings(editor, lora, lora_scale, scheduler, **numbers)
    whole = open_stored(folder, root)
    dataset, record = first_items(whole, limit)

    def check() -> None:
        check_evaluation(whole, editor_config(editor, pixels), parse_judge(judge), out)

    with _world(out, check) as (world, console):
        world.meet("the end of the checks")
        with progress(console, "items", len(dataset)) as done:
            result = evaluate_data(
                dataset, record, settings, judge, out, edits=edits, features=features, on_items=done, world=world
            )
        _finish(result, out, console, world)


def compare(
    results: Annotated[list[Path], typer.Argument(help="Folders of finished evals; the first is the one to beat.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison.")] = Path("compare"),
) -> None:
    """Set results beside each other and beside the published rows: tables, charts, intervals, wins and losses."""
    from editr1.evaluation.benchmarks.compare import compare as read_all
    from editr1.evaluation.benchmarks.compare import write_comparison
    from editr1.report.comparison import compare_tables, write_comparison_report

    comparison = read_all(results)
    write_comparison(comparison, out)
    page = write_comparison_report(comparison, out)
    console = open_console()
    for table in compare_tables(comparison):
        show_table(console, table)
    for note in comparison.notes:
        console.print(note, markup=False)
    typer.echo(page)


def _settings(editor: str, lora: Path | None, lora_scale: float, scheduler: str, **options: Any) -> Any:
    """The `EditSettings`; a LoRA is looked up before anything is loaded."""
    from editr1.editors.lora.files import check_scale
    from editr1.editors.lora.find import find_file
    from editr1.editors.samplers import SCHEDULERS
    from editr1.evaluation.benchmarks.edits import EditSettings
    from editr1.training.checkpoint import trained_weights

    if scheduler not in SCHEDULERS:
        raise UserError(f"--scheduler {scheduler}: there are {', '.join(SCHEDULERS)}")
    check_scale(lora, lora_scale)
    return EditSettings(
        editor="toy:qwen-image-edit" if editor == TOY else editor,
        lora=None if lora is None else str(find_file(trained_weights(lora))),
        lora_scale=lora_scale,
        scheduler=scheduler,
        **options,
    )


def editor_config(name: str, pixels: int | None) -> Any:
    """The `EditorConfig` of `--editor`, the YAML of a run too."""
    from editr1.config.loading import load_config
    from editr1.config.settings import EditorConfig

    if Path(name).suffix in (".yaml", ".yml"):
        return load_config(name, [] if pixels is None else [f"editor.pixels={pixels}"]).editor
    return EditorConfig(path=name, pixels=pixels)


def _way(ask: str, judge: str) -> str:
    """How the judge is asked; the toy judge cannot write."""
    from editr1.config.rewards import TOY_JUDGE
    from editr1.judges.open import parse_judge

    way = ask or ("score_logit" if parse_judge(judge).path == TOY_JUDGE["path"] else "written")
    if way not in ("written", "score_logit"):
        raise UserError(f"--ask {ask}: use written or score_logit")
    return way


def _price(text: str) -> tuple[float, float]:
    try:
        reading, writing = map(float, text.split(","))
    except ValueError as error:
        raise UserError(f"--price {text}: give two numbers, such as 2,8") from error
    return reading, writing


@contextmanager
def _world(out: Path, check: Callable[[], object] = lambda: None) -> Iterator[tuple[Any, Console]]:
    """The ranks of torchrun that share the items, and a console of the main one, which holds the folder of the result.

    The main one calls `check` before that folder is made. It says that Ctrl-C loses nothing.
    """
    from editr1.files import locked
    from editr1.training.distributed import open_world
    from editr1.training.run_files import LOCK

    with open_world() as world:
        try:
            if world.is_main:
                check()
            with locked(out / LOCK, world.is_main):
                yield world, open_console(speaks=world.is_main)
        except KeyboardInterrupt:
            if world.is_main:
                typer.echo("Stopped; nothing that was finished is lost. The same command goes on.", err=True)
            raise


def _finish(result: Any, out: Path, console: Console, world: Any) -> None:
    """Write the `Result`, show it, and say what has no score; no score at all is a `UserError`."""
    if not world.is_main:
        return
    from editr1.evaluation.benchmarks.outside import outside_line
    from editr1.evaluation.benchmarks.results import FILE, edits_line, misread, write_result
    from editr1.report.benchmark import write_benchmark_report
    from editr1.report.tables import terminal_tables

    write_result(result, out)
    page = write_benchmark_report(result, out)
    for table in terminal_tables(result):
        show_table(console, table)
    console.print(edits_line(result), markup=False, soft_wrap=True)
    if (line := outside_line(result)) is not None:
        console.print(line, markup=False, soft_wrap=True)
    unread = [row for row in misread(result) if not row.reasons]
    if unread:
        saved = sum(row.careful is not None for row in unread)
        line = f"{len(unread)} answers are dropped or read in part by the official rule, a careful reader scores"
        _log.warning("%s %d of them (column careful; the page lists them)", line, saved)
    unscored = [row for row in result.items if row.reasons]
    reasons = sorted({reason for row in unscored for reason in row.reasons.values()})
    if unscored:
        more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        line = "%d of %d items lack an answer: %s%s. The same command asks again."
        _log.warning(line, len(unscored), len(result.items), reasons[0], more)
    console.print(f"Page:   {page}", markup=False, soft_wrap=True)
    typer.echo(f"Result: {out / FILE}")
    if all(row.scores[result.metrics[0]] is None for row in result.items):
        raise UserError(f"no item has a score; {reasons[0] if reasons else f'the answers are in {out}/answers.jsonl'}")
