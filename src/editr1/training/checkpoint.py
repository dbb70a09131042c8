"""Folders that are whole or not there.

A checkpoint is written beside its place under a hidden name, brought to the disk, and renamed: a full disk or a kill at
any moment leaves the previous one as it was. `state.json` lists the size of every file, so that a copy that was cut
short is noticed. Tensors are safetensors, the rest is JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from editr1.config.settings import Config, EvaluationConfig, MemoryConfig, ParallelConfig
from editr1.devices import pick_device, pick_dtype
from editr1.errors import UserError, first_problem
from editr1.files import sync
from editr1.training.distributed import ALONE, World
from editr1.training.run_files import CHECKPOINTS

STATE = "state.json"
FORMAT = 1
FREE = (
    {"steps", "save_every", "keep", "out", "editor.device", "optim.micro_batch", "failures.share", "failures.steps"}
    | {f"judge.{name}" for name in ("batch_size", "endpoints", "api_key_env", "in_flight", "timeout", "tries")}
    | {f"memory.{name}" for name in MemoryConfig.model_fields if name != "quantize"}
    | {f"parallel.{name}" for name in ParallelConfig.model_fields}
    | {f"evaluation.{name}" for name in EvaluationConfig.model_fields if name != "split"}
)
"""What may change when a run is continued, on another machine too; of another judge in `rewards` the same."""


def save(
    root: Path, step: int, state: Mapping[str, Any], write: Callable[[Path], None], keep: int, world: World = ALONE
) -> Path:
    """Write `root`/step_<step> and remove all but the newest `keep` checkpoints. One that is there already stays.

    Args:
        root: Folder of the checkpoints.
        step: Steps done.
        state: Content of state.json besides "step" and the list of files.
        write: Writes the files into a folder.
        keep: Checkpoints that stay, at least 1.
        world: Ranks that write the files together; all of them call this.

    Raises:
        UserError: The disk is full or fails; older checkpoints are as they were.
    """
    final = place(root, step)
    if world.agree(world.is_main and is_complete(final), "a checkpoint"):
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
                _seal(part, {"format": FORMAT, "step": step, **state})
                part.replace(final)
                sync(root)
                for old in complete(root)[:-keep]:
                    _discard(old.replace(root / f".{old.name}.part"))
    except (OSError, SafetensorError) as error:
        if world.is_main:
            shutil.rmtree(part, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint {final}: {error}; older ones are whole: make room, run again"
        ) from error
    return final


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


def latest(root: Path) -> Path | None:
    """The newest checkpoint that is whole, or None."""
    return next(reversed(complete(root)), None)


def trained_weights(path: Path) -> Path:
    """The folder of averaged weights in a checkpoint, or in the newest checkpoint of a run; any other path as it is."""
    folder = latest(path / CHECKPOINTS) or path
    return folder / "ema" if (folder / "ema").is_dir() else folder


def complete(root: Path) -> list[Path]:
    """All checkpoints that are whole, oldest first."""
    return sorted(
        (path for path in root.glob("step_*") if is_complete(path)), key=lambda path: read_state(path)["step"]
    )


def is_complete(folder: Path) -> bool:
    """Whether state.json is there and every file that it lists has the size it should have."""
    try:
        files = read_state(folder)["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def read_state(folder: Path) -> dict[str, Any]:
    """The content of state.json."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


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

    Settings that are newer than the run have their defaults in it.
    """
    try:
        old = Config.model_validate(before).model_dump(mode="json")
    except ValidationError as error:
        return f"they cannot be read: {first_problem(error)}"
    was, now = (dict(_leaves(tree)) for tree in (old, config.model_dump(mode="json")))
    changed = [key for key in {**was, **now} if not _is_free(key) and was.get(key) != now.get(key)]
    return "; ".join(f"{key}: {was.get(key)} there, {now.get(key)} here" for key in changed)


def fixed_settings(config: Config) -> dict[str, Any]:
    """The settings that may not change when a run is continued, by dotted key, without those with their default."""
    tree = config.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in _leaves(tree) if not _is_free(key)}


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


def _is_free(key: str) -> bool:
    """Whether a setting may change when a run is continued."""
    section, _, below = key.partition(".")
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


def _seal(folder: Path, state: Mapping[str, Any]) -> None:
    """Bring every file to the disk, then list them in state.json."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / STATE).write_text(json.dumps({**state, "files": sizes}, indent=1), encoding="utf-8")
    for path in [*files, folder / STATE, *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)
