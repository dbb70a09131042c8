"""Folders that are whole or not there.

A checkpoint is written beside its place under a hidden name, brought to the disk, and renamed: a full disk or a kill at
any moment leaves the previous one as it was. `state.json` seals it (`seal.py`): damage is noticed, told, and the newest
checkpoint that is whole is used. Tensors are safetensors, the rest is JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from editr1.config.data import EvaluationConfig
from editr1.config.own_code import own_algorithm
from editr1.config.settings import Config, MemoryConfig, ParallelConfig
from editr1.devices import pick_device, pick_dtype
from editr1.errors import UserError, first_problem, tell
from editr1.files import sync
from editr1.training.best import SUFFIX, read_best, split_best
from editr1.training.distributed import ALONE, World
from editr1.training.run_files import CHECKPOINTS
from editr1.training.seal import NAME, STATE, fault, seal

FREE = (
    {"steps", "save_every", "keep", "out", "editor.device", "optim.micro_batch", "failures.share", "failures.steps"}
    | {"data.root", "data.changed", "trackers", "preservation.features"}
    | {f"judge.{name}" for name in ("batch_size", "endpoints", "api_key_env", "in_flight", "timeout", "tries")}
    | {f"memory.{name}" for name in MemoryConfig.model_fields if name != "quantize"}
    | {f"parallel.{name}" for name in ParallelConfig.model_fields}
    | {f"evaluation.{name}" for name in EvaluationConfig.model_fields if name != "split"}
)
"""What may change when a run is continued, on another machine too; of another judge in `rewards` the same."""


def save(
    root: Path, step: int, state: Mapping[str, Any], write: Callable[[Path], None], keep: int, world: World = ALONE
) -> Path:
    """Write `root`/step_<step> and remove all but the newest `keep` checkpoints and the best one.

    One that is there already stays.

    Args:
        root: Folder of the checkpoints.
        step: Steps done.
        state: Content of state.json besides "step" and the list of files.
        write: Writes the files into a folder.
        keep: Newest checkpoints that stay, at least 1.
        world: Ranks that write the files together; all of them call this.

    Raises:
        UserError: The disk is full or fails; older checkpoints are as they were.
    """
    final = place(root, step)
    if world.agree(world.is_main and fault(final) is None, "a checkpoint"):
        return final
    part = root / f".{final.name}.part"
    try:
        with _together(world):
            if world.is_main:
                _discard(*root.glob(".step_*.part"), final)
                part.mkdir(parents=True)
        with _together(world):
            write(part)
        with _together(world):
            if world.is_main:
                seal(part, {"step": step, **state})
                part.replace(final)
                sync(root)
                for old in _stale(root, keep):
                    _discard(old.replace(root / f".{old.name}.part"))
    except (OSError, SafetensorError) as error:
        if world.is_main:
            shutil.rmtree(part, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint {final}: {error}; older ones are whole: make room, run again"
        ) from error
    return final


def _stale(root: Path, keep: int) -> list[Path]:
    """The checkpoints that are neither among the newest nor the best one; none if nobody can tell which that is."""
    old = complete(root)[:-keep]
    try:
        best = read_best(root) if old else None
    except UserError as error:
        tell(f"warning: {error}; no checkpoint is removed until then")
        return []
    return [folder for folder in old if best is None or folder != place(root, best.step)]


@contextmanager
def _together(world: World) -> Iterator[None]:
    """A block of work that fails on all ranks if it fails on one."""
    problem = None
    try:
        yield
    except (OSError, SafetensorError) as error:
        problem = error
    problems = world.gather(problem and str(problem), "the files of a checkpoint")
    if problem is not None:
        raise problem
    for rank, words in enumerate(problems):
        if words is not None:
            raise OSError(f"rank {rank}: {words}")


def place(root: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return root / f"step_{step:06d}"


def step_of(folder: Path) -> int:
    """The reverse: the step that the name of a checkpoint says."""
    return int(folder.name.removeprefix("step_"))


def latest(root: Path) -> Path | None:
    """The newest checkpoint that is whole by the sizes of its files, or None."""
    return next((folder for folder in reversed(_folders(root)) if fault(folder) is None), None)


def complete(root: Path) -> list[Path]:
    """All checkpoints that are whole by the sizes of their files, oldest first."""
    return [folder for folder in _folders(root) if fault(folder) is None]


def newest(root: Path, world: World = ALONE) -> Path | None:
    """The newest checkpoint that is whole, to go on from; None if there is no checkpoint.

    The main rank reads all its files. Newer ones are told and renamed, so that none of their steps counts as saved.

    Raises:
        UserError: There are checkpoints and none is whole, or not all ranks see the same.
    """
    if world.is_main:
        open_part(root, "", aside=True)
    world.meet("the checkpoint to go on from")
    folder = latest(root)
    seen = world.gather(folder and folder.name, "the start of the run")
    if len({*seen}) > 1:
        raise UserError(
            f"out={root.parent}: ranks see different checkpoints there; give a folder that all machines share"
        )
    return folder


def refuse_lost(root: Path) -> None:
    """A UserError if there are checkpoints and none is whole, so that no run begins anew over them."""
    folders = _folders(root)
    if folders and latest(root) is None:
        raise _lost(root, fault(folders[-1]))


def open_part(root: Path, part: str, aside: bool = False) -> Path | None:
    """The newest checkpoint whose folder `part` ("" for all) is whole, contents included; None without checkpoints.

    Newer ones are told, and renamed if `aside` says so.

    Raises:
        UserError: There are checkpoints and none is whole.
    """
    faults: dict[Path, str] = {}
    for folder in reversed(_folders(root)):
        if (words := fault(folder, part)) is not None:
            faults[folder] = words
            continue
        for damaged, words in faults.items():
            place = f"the checkpoint is now {_aside(damaged)}, and " if aside else ""
            tell(f"warning: {words}; {place}{folder.name} is used")
        return folder
    if faults:
        raise _lost(root, next(iter(faults.values())))
    return None


def refuse_damage(folder: Path, part: str) -> None:
    """A UserError if the folder `part` of a checkpoint is not as it was written."""
    if words := fault(folder, part):
        raise UserError(f"{words}; put a copy of the checkpoint there, or give another one")


def best_of(run: Path, part: str) -> Path:
    """The checkpoint that a run names as its best, whose folder `part` is whole.

    Raises:
        UserError: It names none, or the checkpoint is damaged.
    """
    best = read_best(run / CHECKPOINTS)
    if best is None:
        raise UserError(
            f"{run} names no best checkpoint, as `editr1 train` does when it measures held-out items (evaluation in "
            f"its settings); leave out {SUFFIX} for the last one"
        )
    folder = place(run / CHECKPOINTS, best.step)
    refuse_damage(folder, part)
    return folder


def trained_weights(path: Path) -> Path:
    """The folder of averaged weights in a checkpoint, or in the newest checkpoint of a run; any other path as it is.

    "RUN@best" is the best checkpoint of a run.

    Raises:
        UserError: They are damaged, or there is no best checkpoint.
    """
    path, best = split_best(path)
    if best:
        return best_of(path, "ema") / "ema"
    if (folder := open_part(path / CHECKPOINTS, "ema")) is not None:
        return folder / "ema"
    path = path / "ema" if (path / "ema").is_dir() else path
    for folder in path.absolute().parents:
        marks = NAME.fullmatch(folder.name) is not None, (folder / STATE).is_file(), (folder / "ema").is_dir()
        if sum(marks) >= 2:  # a checkpoint, renamed or damaged perhaps
            refuse_damage(folder, path.absolute().relative_to(folder).as_posix())
    return path


def _folders(root: Path) -> list[Path]:
    """All checkpoints, damaged ones too, oldest first."""
    return sorted((path for path in root.glob("step_*") if NAME.fullmatch(path.name)), key=step_of)


def _lost(root: Path, words: str | None) -> UserError:
    return UserError(
        f"none of the checkpoints in {root} is whole ({words}); put a copy of one there, or remove them all to begin "
        "anew, or choose another out"
    )


def _aside(folder: Path) -> str:
    """Rename a damaged checkpoint; its new name."""
    names = (f"damaged_{folder.name}" + f".{number}" * (number > 1) for number in count(1))
    to = next(place for name in names if not (place := folder.with_name(name)).exists())
    try:
        return folder.replace(to).name
    except OSError as error:
        raise UserError(f"{folder} is damaged and cannot be renamed: {error}; move it away") from error


def resolve(config: Config) -> Config:
    """The config with the number format that `editor.dtype: auto` means on this machine; a run keeps it."""
    name, device = config.editor.dtype, pick_device(config.editor.device)
    if name == "auto" and config.adapter.mode == "full":
        name = "float32"  # bfloat16 would round small steps of the weights away
    dtype = pick_dtype(name, device)
    editor = config.editor.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
    return config.model_copy(update={"editor": editor})


def refuse_changes(out: Path, before: dict[str, Any], config: Config) -> None:
    """Refuse to continue the run in `out` with other settings than `before`, those of its checkpoint."""
    if changes := changed_settings(before, config):
        raise UserError(f"{out} holds a run with other settings ({changes}); choose another out, or set them back")


def changed_settings(before: dict[str, Any], config: Config) -> str:
    """What keeps `config` from continuing a run with the settings `before`, a JSON tree: "key: was, is"; "" if nothing.

    Settings that are newer than the run have their defaults in it, or what they stand for in earlier versions: a reward
    of kind preservation knew no masks. An algorithm that only the run names is not loaded.
    """
    if (own := own_algorithm(before)) not in (None, config.algorithm.name):
        return f"algorithm.name: {own} there, {config.algorithm.name} here"
    try:
        old = Config.model_validate(_with_masks(before)).model_dump(mode="json")
    except ValidationError as error:
        return f"they cannot be read: {first_problem(error)}"
    was, now = (dict(_leaves(_trained_on(tree))) for tree in (old, config.model_dump(mode="json")))
    changed = [key for key in {**was, **now} if not _is_free(key) and was.get(key) != now.get(key)]
    return "; ".join(f"{key}: {was.get(key)} there, {now.get(key)} here" for key in changed)


def _with_masks(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings, with what a reward of kind preservation measured before it had `masks`."""
    match tree:
        case {"rewards": dict(rewards)}:
            old = {name: each for name, each in rewards.items() if isinstance(each, dict)}
            kept = {name: {"masks": "edit", **each} for name, each in old.items() if each.get("kind") == "preservation"}
            return {**tree, "rewards": {**rewards, **kept}}
    return tree


def fixed_settings(config: Config) -> dict[str, Any]:
    """The settings that may not change when a run is continued, by dotted key, without those with their default.

    An algorithm other than the default one and the kind of a reward are there too, though each is the default of its
    own class.
    """
    every, own = (
        dict(_leaves(_trained_on(config.model_dump(mode="json", exclude_defaults=without))))
        for without in (False, True)
    )
    kinds = {key for key in every if key.startswith("rewards.") and key.endswith(".kind")}
    if config.algorithm.name != Config.model_fields["algorithm"].default.name:
        kinds.add("algorithm.name")
    return {key: value for key, value in every.items() if (key in own or key in kinds) and not _is_free(key)}


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """The state of an optimiser as "<quantity>.<parameter>": tensor; its settings are the config's business.

    Args:
        optimizer: One whose state is tensors, such as AdamW.
        names: Names of its parameters, in their order.
    """
    state = optimizer.state_dict()["state"]
    return {f"{key}.{names[i]}": value for i, tensors in state.items() for key, value in tensors.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`, on an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    index = {name: i for i, name in enumerate(names)}
    for key, value in tensors.items():
        quantity, _, name = key.partition(".")
        state.setdefault(index[name], {})[quantity] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _trained_on(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings without `preservation`, if that only measures."""
    kept = tree.get("preservation") or {}
    measures = not kept.get("weight") and kept.get("advantages", "edit") == "edit"
    return {name: value for name, value in tree.items() if name != "preservation" or not measures}


def _is_free(key: str) -> bool:
    """Whether a setting may change when a run is continued."""
    section, _, below = key.partition(".")
    if section == "watch":
        return True
    own = below.partition(".")[2] if section == "rewards" else key  # a reward's settings stand under its name
    return own in FREE or (section == "rewards" and own == "optional")


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _discard(*folders: Path) -> None:
    """Remove what a killed run left."""
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
