"""What a session of training runs with: told before its first step, and kept beside the run for the report."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editr1 import __version__
from editr1.algorithms.base import Algorithm
from editr1.config.loading import dump_config
from editr1.config.rewards import JudgeConfig
from editr1.config.settings import Config
from editr1.devices import memory_of
from editr1.editors.editor import Editor
from editr1.errors import UserError
from editr1.files import locked, write_file
from editr1.training import checkpoint
from editr1.training.log import RunLog
from editr1.training.run_files import CHECKPOINTS, CONFIG, LOCK, SESSION
from editr1.training.trackers import open_trackers

LIBRARIES = ("torch", "diffusers", "transformers", "peft")
GIB = 2**30


def header(config: Config, editor: Editor, params: Sequence[Tensor], items: int, ranks: int = 1) -> list[str]:
    """What a session starts with, in lines: editor, machine, judge, data."""
    device, adapter, rollout = params[0].device, config.adapter, config.rollout
    kind = f"LoRA of rank {adapter.rank}" if adapter.mode == "lora" else "all weights of the denoiser"
    trained = f"{sum(param.numel() for param in params):,} trained parameters ({kind})"
    options = [name for name, value in config.memory.model_dump(exclude_defaults=True).items() if value]
    saving = f", memory: {', '.join(options)}" if options else ""
    processes = f", {ranks} processes" if ranks > 1 else ""
    judges = [judge_name(config.judge)] if config.judge else []
    judges += [f"{name} ({reward.kind})" for name, reward in config.rewards.items()]
    watch = f", watched by {judge_name(config.watch.judge)}" if config.watch else ""
    most = f" to {rollout.most_groups}" if rollout.most_groups else ""
    choice = f" of {rollout.scouts}" if rollout.scouts else ""
    scouting = f" ({rollout.scout_steps} per scout)" if rollout.scouts else ""
    groups = f"{rollout.groups_per_step}{most} items × {rollout.group_size}{choice} edits"
    making = "on the disk" if config.data.is_stored else f"{rollout.steps} denoiser calls each{scouting}"
    judging = " + ".join(judges) + (" (held-out items alone)" if config.data.is_stored else "")
    return [
        f"editor: {config.editor.path}, {editor.family.name}, {trained}",
        f"device: {device}, {config.editor.dtype}, {hardware(device)}{saving}{processes}",
        f"judge:  {judging if judges else 'none, edits are read'}{watch}",
        f"data:   {items} items; a step: {groups}, {making}; {config.steps} steps",
    ]


def judge_name(judge: JudgeConfig) -> str:
    """A judge in words."""
    place = f" at {len(judge.endpoints)} endpoint{'s'[: len(judge.endpoints) > 1]}" if judge.endpoints else ""
    return f"{judge.name} ({judge.method}{place})"


def hardware(device: torch.device) -> str:
    """The machine that computes: the GPU with its memory, or the CPU's cores with the machine's memory."""
    if device.type == "cuda":
        name = torch.cuda.get_device_properties(device).name
    else:
        name = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return f"{name}, {memory_of(device) / GIB:.0f} GiB"


def how_to_go_on(step: int, steps: int, out: Path) -> str:
    """What a run says that is stopped."""
    done = f"Stopped after step {step} of {steps}."
    return f"{done} Everything is saved in {out}; run the same command again to go on." if step else done


@contextmanager
def opened_log(main: bool, config: Config, out: Path, step: int, device: torch.device) -> Iterator[RunLog | None]:
    """The files of a run that has done `step` steps, open for more; None on a rank that is not the main one.

    Raises:
        UserError: Another process writes there, or another trainer has made more steps.
    """
    if not main:
        yield None
        return
    with locked(out / LOCK):
        _refuse_newer(out, step)
        write_file(out / CONFIG, dump_config(config).encode())
        with closing(RunLog(out, step)) as log, kept_session(out, device, config.algorithm):
            log.trackers += open_trackers(config, out, log.rows, step)
            yield log


def _refuse_newer(out: Path, step: int) -> None:
    last = checkpoint.latest(out / CHECKPOINTS)
    if last is not None and checkpoint.step_of(last) > step:
        raise UserError(
            f"{out} has gone on to {last.name} since this trainer was at step {step}; open it anew, or set another out"
        )


@contextmanager
def kept_session(out: Path, device: torch.device, algorithm: Algorithm) -> Iterator[None]:
    """Write command, commit, machine, precision, versions, the algorithm's words; at the end, the peak of memory."""
    facts = {
        "command": command(),
        "commit": commits(),
        "hardware": hardware(device),
        "float32_products": torch.get_float32_matmul_precision(),  # "high" is TF32
        "versions": {"editr1": __version__, **{name: version(name) for name in LIBRARIES}},
        "algorithm": {"title": algorithm.title, "parts": dict(algorithm.parts)},
    }
    write_file(out / SESSION, json.dumps(facts, indent=1).encode())
    try:
        yield
    finally:
        write_file(out / SESSION, json.dumps({**facts, "peak_memory_gib": peak_memory(device)}, indent=1).encode())


def peak_memory(device: torch.device) -> dict[str, float]:
    """GiB of memory at most: of this process, and of the GPU if there is one."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}
    return {**peak, "gpu": torch.cuda.max_memory_allocated(device) / GIB} if device.type == "cuda" else peak


def command() -> str:
    """The command line of this process."""
    name = Path(sys.argv[0]).name
    return shlex.join(["editr1" if name == "__main__.py" else name, *sys.argv[1:]])


def commits() -> dict[str, str]:
    """The git commits of editr1 and of the working folder, where these are in a repository."""
    places = {"editr1": Path(__file__).parent, "working folder": Path.cwd()}
    found = {name: commit(place) for name, place in places.items()}
    # installed packages may lie inside another repository, which does not track them
    if not _git(Path(__file__).parent, "ls-files", "--error-unmatch", Path(__file__).name):
        found["editr1"] = None
    return {name: words for name, words in found.items() if words}


def commit(folder: Path) -> str | None:
    """The commit of the repository around a folder, with a word on changes that it lacks; None outside of one."""
    if not (head := _git(folder, "rev-parse", "--short=12", "HEAD")):
        return None
    return head + (" with changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str:
    """What git says; "" if it fails or is not installed."""
    call: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 20, "check": True}
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], **call).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
