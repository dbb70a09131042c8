"""One benchmark, from edits to tables: `editr1 eval imgedit` and `editr1 eval gedit`.

    items -> edits (best of N) -> questions -> raw answers -> the official rule -> official files, tables, page

The result of every arrow is in OUT and is never made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image
from rich.console import Console

from editr1.config.rewards import JudgeConfig
from editr1.data.pictures import png
from editr1.devices import pick_device
from editr1.errors import UserError
from editr1.evaluation.benchmarks import edits
from editr1.evaluation.benchmarks.asking import (
    AnswerStore,
    Asker,
    Job,
    Record,
    by_score_logit,
    from_json,
    to_json,
    written,
)
from editr1.evaluation.benchmarks.base import Benchmark, Item, ItemResult
from editr1.evaluation.benchmarks.edits import EditSettings, Open
from editr1.evaluation.benchmarks.flight import shared
from editr1.evaluation.benchmarks.outside import check_masks, find_masks, measure_edits, with_outside
from editr1.evaluation.benchmarks.results import Result, rows_of
from editr1.evaluation.progress import progress
from editr1.files import write_file
from editr1.judges.base import MLLM, close
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.local import load_processor
from editr1.judges.open import open_judge, open_model, parse_judge
from editr1.judges.prompts import load_prompt
from editr1.model_files import check_files
from editr1.toy.assets import locate
from editr1.training.distributed import ALONE, World

PIXELS_PER_TOKEN = 28 * 28  # of Qwen2.5-VL; other judges differ
LETTERS_PER_TOKEN = 4
SAMPLED = 8  # items of which the estimate counts tokens


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who judges, and how.

    Attributes:
        judge: value of `--judge`.
        way: "written" (the official form) or "score_logit" (criterion by criterion).
        reward: judge that picks among the candidates; None for one candidate.
        price: dollars per million tokens read, and written; None for an estimate without the cost.
    """

    judge: str
    way: str
    reward: str | None = None
    price: tuple[float, float] | None = None


def run_benchmark(
    open_benchmark: Open,
    settings: EditSettings,
    asked: Asked,
    out: Path,
    processes: int,
    console: Console,
    world: World = ALONE,
    masks: Path | None = None,
    features: str | None = None,
) -> Result:
    """Run a benchmark into `out`, or resume it; a UserError if `out` holds a run with other settings.

    With a folder of masks, it is measured what the edits keep outside of them; by the vision model in the folder
    `features` too, if there is one. All masks are looked at before the first edit is made.
    """
    if world.size > 1 and processes > 1:
        raise UserError(f"--processes {processes}: torchrun starts the processes already; leave it out")
    benchmark = open_benchmark()
    found = {} if masks is None else find_masks(benchmark.items, masks)
    if features is not None:
        check_files(Path(features))  # before hours of edits, as for the judge
    if found and world.is_main:
        _check_masks(benchmark, found, console)
    judge = parse_judge(asked.judge)
    reward = None if asked.reward is None else parse_judge(asked.reward)
    made_with = {"benchmark": benchmark.name, "data": benchmark.digest, **edits.settings_dict(settings)}
    made_with["reward"] = reward and reward.name
    for each in filter(None, (judge, reward)):
        if not each.endpoints:
            load_processor(Path(locate(str(each.path))))  # a missing judge is reported before hours of edits
    edits.prepare(out, made_with, world)
    how = {"judge": judge.name, "asked": asked.way, "prompts": benchmark.prompts, "judge_settings": judge.own_settings}
    if asked.way == "score_logit":
        how["prompts"] = load_prompt(judge.template, judge.order).version
    store = AnswerStore(out, how, writes=world.is_main)
    if world.is_main:
        estimate(benchmark, settings, asked, store, out, console)

    with progress(console, "edits", len(edits.missing(benchmark.items, settings, out))) as done:
        failed = edits.make_edits(open_benchmark, settings, out, processes, on_item=done, world=world)
    if reward is not None:
        failed |= _choose(benchmark, reward, settings, out, console, world)
    _judge(benchmark, judge, asked.way, store, out, console, world)
    results = score_all(benchmark, store.records, failed)
    made_with |= {**how, **store.tokens()}
    world.meet("the end of the benchmark")
    tables, rows = benchmark.finish(results, out) if world.is_main else {}, rows_of(results, out)
    result = Result(benchmark.name, tuple(benchmark.metrics), benchmark.best, "types", made_with, tables, rows)
    if not found or not world.is_main:
        return result
    return with_outside(result, *measure_edits(benchmark, settings, found, out, features))


def _check_masks(benchmark: Benchmark, masks: Mapping[str, Path], console: Console) -> None:
    console.print(f"{len(masks)} of {len(benchmark.items)} items have a mask.", highlight=False)
    with progress(console, "masks", len(masks)) as done:
        check_masks(benchmark.items, masks, done)


def _choose(
    benchmark: Benchmark, config: JudgeConfig, settings: EditSettings, out: Path, console: Console, world: World
) -> dict[str, str]:
    """Have the reward pick among the candidates; returns why an item has none, by key."""
    reward = open_judge(config, pick_device("auto"))
    width = config.in_flight if reward.remote else 1
    try:
        with progress(console, "best of", len(edits.to_choose(benchmark.items, settings, out))) as done:
            return edits.choose(benchmark.items, reward, settings, out, width=width, on_item=done, world=world)
    finally:
        close(reward)  # else an interrupted run would wait for the server


def _judge(
    benchmark: Benchmark,
    judge: JudgeConfig,
    way: str,
    store: AnswerStore,
    out: Path,
    console: Console,
    world: World,
) -> None:
    """Have all edits judged that lack an answer."""
    device = pick_device("auto")
    model: MLLM
    if way == "score_logit":
        # the source at its own size, as the official scripts show it
        own = {
            "method": "score_logit",
            "criteria": dict.fromkeys(benchmark.criteria, 1.0),
            "criteria_by_task": {},
            "formula": None,
            "source_size": "original",
        }
        scorer = open_judge(judge.model_copy(update=own), device)
        if not isinstance(scorer, MLLMJudge):
            raise UserError(f"the judge {judge.path} gives no Score Logit")
        ask, model = by_score_logit(scorer), scorer.model
    else:
        model = open_model(judge, device)
        ask = written(model, benchmark)
    width, chunk = (judge.in_flight * len(judge.endpoints), 1) if model.remote else (1, judge.batch_size)
    try:
        ask_all(benchmark, ask, store, out, console, width=width, chunk=chunk, world=world)
    finally:
        close(model)


def ask_all(
    benchmark: Benchmark,
    ask: Asker,
    store: AnswerStore,
    out: Path,
    console: Console,
    *,
    width: int,
    chunk: int,
    world: World = ALONE,
) -> None:
    """Have every edit judged that lacks an answer; every rank judges `width` chunks of items at a time."""

    def work(items: Sequence[Item]) -> list[dict[str, Any]]:
        jobs = []
        for item in items:
            source, edit = item.source(), edits.open_edit(out / item.edit_file)
            if not (out / item.source_file).is_file():
                write_file(out / item.source_file, png(source))
            questions = benchmark.questions(item, source, edit)
            left = {name: question for name, question in questions.items() if (item.key, name) not in store.records}
            jobs.append(Job(item, source, edit, left))
        return to_json(ask(jobs))

    todo = [item for item in unanswered(benchmark, store) if (out / item.edit_file).is_file()]
    world.meet("the start of the questions")  # every rank has seen what is left before one adds to it
    chunks = [todo[start : start + chunk] for start in range(0, len(todo), chunk)]
    with progress(console, "judged", len(todo)) as done:
        for records in map(from_json, shared(chunks, work, width, world)):
            store.add(records)
            for _ in {record.key for record in records}:
                done()


def unanswered(benchmark: Benchmark, store: AnswerStore) -> list[Item]:
    """The items that lack an answer."""
    asks = benchmark.asks
    return [item for item in benchmark.items if any((item.key, name) not in store.records for name in asks)]


def score_all(benchmark: Benchmark, records: dict[tuple[str, str], Record], failed: dict[str, str]) -> list[ItemResult]:
    """Scores of all items, from the raw answers alone; `failed` says why an item has no edit."""
    results = []
    for item in benchmark.items:
        by_question = {name: records.get((item.key, name)) for name in benchmark.asks}
        answers = {name: record.text if record else None for name, record in by_question.items()}
        reasons = {
            name: (record.reason if record else failed.get(item.key)) or "no edit"
            for name, record in by_question.items()
            if record is None or record.text is None
        }
        results.append(benchmark.score(item, answers, reasons))
    return results


def estimate(
    benchmark: Benchmark, settings: EditSettings, asked: Asked, store: AnswerStore, out: Path, console: Console
) -> None:
    """Print how many edits, questions and tokens the run needs, before it starts."""
    items = unanswered(benchmark, store)
    sample = items[:: max(1, len(items) // SAMPLED)][:SAMPLED]
    read = write = count = 0
    for item in sample:
        source = item.source()
        for question in benchmark.questions(item, source, source).values():
            parts = question.ask.parts
            letters = sum(len(part) for part in parts if isinstance(part, str))
            pixels = sum(part.width * part.height for part in parts if isinstance(part, Image))
            read += letters // LETTERS_PER_TOKEN + pixels // PIXELS_PER_TOKEN
            write += question.ask.max_tokens
            count += 1
    share = len(items) / max(len(sample), 1)
    left = len(edits.missing(benchmark.items, settings, out))
    line = (
        f"{benchmark.name}: {len(benchmark.items)} items, {left} of them to edit ({settings.best_of} each), "
        f"{round(count * share)} questions to {asked.judge.partition('?')[0]}: about {read * share / 1e6:.2f} million "
        f"tokens read, at most {write * share / 1e6:.2f} million written"
    )
    if asked.price is not None:
        dollars = (read * asked.price[0] + write * asked.price[1]) * share / 1e6
        line += f", at most about ${dollars:.2f} where no answer is asked for twice"
    console.print(f"{line}.", markup=False, soft_wrap=True)
