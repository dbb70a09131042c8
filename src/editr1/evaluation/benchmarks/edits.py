"""The edits of a benchmark: made by one process or several, written one by one, chosen among N by a reward.

The starting noise of edit i of an item follows from (seed, key, i) alone, so an edit does not depend on the number of
processes, on earlier edits, or on N.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL.Image import Image

from editr1.config.settings import SchedulerName
from editr1.data.pictures import open_picture, png
from editr1.data.seeds import item_seed
from editr1.devices import pick_device
from editr1.editors.editor import Editor
from editr1.editors.open import inference_guidance, open_named_editor
from editr1.errors import UserError, read_json
from editr1.evaluation.benchmarks.base import Benchmark, Item
from editr1.evaluation.benchmarks.flight import shared
from editr1.files import JsonLines, first_difference, write_file
from editr1.judges.base import Judge, JudgeRequest
from editr1.training.distributed import ALONE, World

CANDIDATES = "candidates"
PICKS = "picks.jsonl"


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """How edits are made.

    Attributes:
        editor: Folder, hub name, "toy:NAME", or the YAML of a run.
        lora: File of a LoRA; None for the editor as it is.
        lora_scale: Factor on what the LoRA adds to the weights.
        steps: Denoiser calls per edit.
        seed: Seed of the starting noise.
        scheduler: Sampler.
        guidance: Guidance scale; None for the pipeline's own default (`inference_guidance`).
        pixels: Area of an edit in pixels; None for the editor's own.
        best_of: Edits per item, of which a reward picks one.
    """

    editor: str
    lora: str | None = None
    lora_scale: float = 1.0
    steps: int = 28
    seed: int = 0
    scheduler: SchedulerName = "euler"
    guidance: float | None = None
    pixels: int | None = None
    best_of: int = 1


Open = Callable[[], Benchmark]
Message = tuple[str, str, str]  # kind ("done", "no edit", "error"), key, reason


def files_of(item: Item, settings: EditSettings) -> list[str]:
    """Paths of an item's edits, below OUT: that of its edit, or one per candidate."""
    if settings.best_of == 1:
        return [item.edit_file]
    stem = PurePosixPath(CANDIDATES, item.edit_file).with_suffix("")
    return [f"{stem}_{i}.png" for i in range(settings.best_of)]


def missing(items: Sequence[Item], settings: EditSettings, out: Path) -> list[Item]:
    """The items that have not all of their edits yet."""
    return [item for item in items if not all((out / name).is_file() for name in files_of(item, settings))]


def make_edits(
    open_benchmark: Open,
    settings: EditSettings,
    out: Path,
    processes: int = 1,
    on_item: Callable[[], object] = lambda: None,
    world: World = ALONE,
) -> dict[str, str]:
    """Make the edits that are not there yet.

    Args:
        open_benchmark: opens the benchmark, in every process, so it must be picklable.
        settings: How the edits are made.
        out: Folder of the edits.
        processes: Worker processes; each loads the editor, onto the GPUs in turn if there are any.
        on_item: Callback after every item.
        world: The ranks of torchrun that share the items; each makes and writes its own.

    Returns:
        Why an item has no edit, by key: its source cannot be read or edited.

    Raises:
        UserError: the editor cannot be loaded, or a process died.
    """
    failed: dict[str, str] = {}
    todo = [item.key for item in missing(open_benchmark().items, settings, out)]
    world.meet("the start of the edits")  # every rank has seen what is left before one adds to it
    if not todo:
        return failed
    if world.size > 1:
        messages = _rounds(_work(open_benchmark, settings, out, todo[world.rank :: world.size]), len(todo), world)
    elif processes == 1:
        messages = _work(open_benchmark, settings, out, todo)
    else:
        messages = _share(open_benchmark, settings, out, [todo[rank::processes] for rank in range(processes)])
    for kind, key, reason in messages:
        if kind == "error":
            raise UserError(reason)
        if kind == "no edit":
            failed[key] = reason
        on_item()
    return failed


def _work(
    open_benchmark: Open, settings: EditSettings, out: Path, todo: Sequence[str], worker: int | None = None
) -> Iterator[Message]:
    """Make the edits of the items with these keys, all of an item in one call of the pipeline."""
    items = {item.key: item for item in open_benchmark().items}
    gpus = torch.cuda.device_count()
    own = pick_device("auto") if worker is None or not gpus else torch.device("cuda", worker % gpus)
    editor = open_editor(settings, own)
    count, steps, scheduler = settings.best_of, settings.steps, settings.scheduler
    for item in map(items.__getitem__, todo):
        seed = item_seed(settings.seed, item.key)
        try:
            sample = item.sample((item.original or item.source)())
            images = editor.rollout(sample, count, steps=steps, seed=seed, scheduler=scheduler).images
        except UserError as error:
            yield "no edit", item.key, str(error)
            continue
        except torch.OutOfMemoryError as error:
            remedy = "take fewer --pixels or a smaller --best-of"
            yield "error", item.key, f"no memory left for {item.key}: {remedy} ({error})"
            return
        for name, image in zip(files_of(item, settings), images, strict=True):
            write_file(out / name, png(image))
        yield "done", item.key, ""


def open_editor(settings: EditSettings, device: torch.device) -> Editor:
    """The editor that makes the edits, with its LoRA."""
    lora = None if settings.lora is None else Path(settings.lora)
    return open_named_editor(
        settings.editor,
        lora,
        lora_scale=settings.lora_scale,
        guidance=settings.guidance,
        pixels=settings.pixels,
        device=device,
    )


def _rounds(messages: Iterator[Message], items: int, world: World) -> Iterator[Message]:
    """The messages of all ranks, on every rank, one item of each at a time, so that none waits long for the others."""
    for _ in range(0, items, world.size):
        for own in world.gather([*islice(messages, 1)], "a round of edits"):
            yield from ((kind, key, reason) for kind, key, reason in own)  # JSON has lists for tuples


def _share(
    open_benchmark: Open, settings: EditSettings, out: Path, shares: Sequence[Sequence[str]]
) -> Iterator[Message]:
    """The same, with one process per share; they end when this one is interrupted."""
    context = multiprocessing.get_context("spawn")
    inbox: multiprocessing.Queue[Message] = context.Queue()
    workers = [
        context.Process(target=_worker, args=(inbox, open_benchmark, settings, out, todo, rank), daemon=True)
        for rank, todo in enumerate(shares)
    ]
    for worker in workers:
        worker.start()
    try:
        while True:
            ended = [worker for worker in workers if worker.exitcode is not None]
            try:
                yield inbox.get(timeout=0.2)
            except queue.Empty:
                _refuse_crash(ended)
                if len(ended) == len(workers):
                    return
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _refuse_crash(ended: Sequence[BaseProcess]) -> None:
    for worker in ended:
        if worker.exitcode:
            raise UserError(
                f"a process that made edits ended with code {worker.exitcode} (-9 is mostly a lack of memory: use "
                "fewer --processes); finished edits are kept, the same command goes on"
            )


def _worker(
    inbox: multiprocessing.Queue[Message],
    open_benchmark: Open,
    settings: EditSettings,
    out: Path,
    todo: Sequence[str],
    rank: int,
) -> None:
    """One process; errors become messages. All messages are sent before it ends."""
    try:
        for message in _work(open_benchmark, settings, out, todo, rank):
            inbox.put(message)
    except UserError as error:
        inbox.put(("error", "", str(error)))
    except KeyboardInterrupt:
        pass  # the parent reports it
    inbox.close()
    inbox.join_thread()


def choose(
    items: Sequence[Item],
    reward: Judge,
    settings: EditSettings,
    out: Path,
    *,
    width: int = 1,
    on_item: Callable[[], object] = lambda: None,
    world: World = ALONE,
) -> dict[str, str]:
    """Copy the candidate with the highest reward, or the first of equals, to the path of each missing edit.

    A candidate without a reward is never chosen. OUT/picks.jsonl holds the choices and every reward. `width` items are
    scored at a time, and `on_item` is called after each.

    Returns:
        Why an item has no edit, by key: none of its candidates has a reward.
    """

    def pick(item: Item) -> dict[str, Any]:
        sample = item.sample(item.source())
        edits = [open_edit(out / name) for name in files_of(item, settings)]
        scores = reward.score([JudgeRequest(sample, edit) for edit in edits])
        values = [score.value for score in scores]
        rewards = [value for value in values if value is not None]
        best = values.index(max(rewards)) if rewards else None
        return {"key": item.key, "picked": best, "rewards": values, "reasons": [s.reason for s in scores]}

    failed: dict[str, str] = {}
    by_key = {item.key: item for item in to_choose(items, settings, out)}
    picks: JsonLines[dict[str, Any]] = JsonLines(out / PICKS, "picks", "delete it", load=dict, writes=world.is_main)
    world.meet("the start of the choices")
    for line in shared([*by_key.values()], pick, width, world):
        item, best = by_key[line["key"]], line["picked"]
        if best is None:
            failed[item.key] = f"none of {len(line['rewards'])} candidates has a reward: {line['reasons'][0]}"
        elif world.is_main:
            picks.append([line])
            write_file(out / item.edit_file, (out / files_of(item, settings)[best]).read_bytes())
        on_item()
    world.meet("the end of the choices")
    return failed


def to_choose(items: Sequence[Item], settings: EditSettings, out: Path) -> list[Item]:
    """The items with all candidates and no edit yet."""
    incomplete = {item.key for item in missing(items, settings, out)}
    return [item for item in items if item.key not in incomplete and not (out / item.edit_file).is_file()]


def open_edit(path: Path) -> Image:
    """An edit that was made before; a UserError if it cannot be read."""
    return open_picture(path, "an edit (delete it and run again)")


def prepare(out: Path, made_with: Mapping[str, Any], world: World = ALONE) -> None:
    """Record in OUT how its edits are made; a UserError if it holds edits of other settings."""
    if world.is_main:
        _prepare(out, made_with)
    world.meet("the folder of the edits")


def _prepare(out: Path, made_with: Mapping[str, Any]) -> None:
    path = out / "edits.json"
    if path.is_file() and next(out.rglob("*.png"), None) is not None:
        if not isinstance(record := read_json(path), dict):
            raise UserError(f"{path} is no record of edits; give another folder")
        old = with_lora_scale(record)
        if difference := first_difference({name: old.get(name) for name in made_with}, made_with):
            raise UserError(
                f"--out {out} holds edits made with {difference}: give another folder, or go on with the same settings"
            )
    else:
        write_file(path, (json.dumps(dict(made_with), indent=1) + "\n").encode())


def with_lora_scale(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """A record of how edits were made, with the scale of its LoRA, which older versions did not record."""
    return {**({"lora_scale": 1.0} if made_with.get("lora") else {}), **made_with}


def settings_dict(settings: EditSettings) -> dict[str, Any]:
    """The settings for the record: the guidance that is used, checksums of files (a run's newest weights change).

    Raises:
        UserError: There is no such editor.
    """
    record = asdict(settings)
    if settings.lora is None:
        record["lora_scale"] = None
    if settings.guidance is None:
        record["guidance"] = inference_guidance(settings.editor)
    for name in ("editor", "lora"):
        if record[name] is not None and (file := Path(record[name])).is_file():
            record[f"{name}_crc32"] = f"{zlib.crc32(file.read_bytes()):08x}"
    return record
