"""What editors of published sizes cost on this GPU: `python benchmarks/gpu.py`. Random weights; nothing is downloaded.

The trainer makes its own steps, of one group of 12 edits at 512x512 with the paper's settings; a judge that takes no
time ranks the edits, so that no group is dropped. Per editor and setting: seconds and images per second of each part
of a step, the share of what a matrix product reaches on this GPU in the same run (MFU), and peak memory by part. The
two first steps are not measured: they compile, fill the cache, and need no second velocity of the sampling policy.

Settings are the number format of the denoiser's weights, each with gradient checkpointing at `micro_batch` 12, and with
one change of that at a time: no checkpointing, compiled blocks, cached encodings, a LoRA in the editor's format
(`adapter.autocast`), TF32, another `micro_batch` up to 60, all rows of a group. One that fails (out of memory, a
package that is missing) is written down, and the next is measured.

Writes benchmarks/gpu_results/CARD.json after each setting, and keeps what is there of other settings. `--tiny` does
the same with the same models in small, on any device, to try the benchmark itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from gpu_editors import build_pipeline
from gpu_meter import MATRIX, PARTS, Meter, count_row, matrix_rate
from PIL import Image
from torch import nn

from editr1.config.settings import Config
from editr1.data.samples import EditSample
from editr1.devices import memory_of, pick_device, pick_dtype
from editr1.editors.editor import Editor
from editr1.editors.families import FAMILIES
from editr1.editors.open import apply_memory
from editr1.errors import UserError, first_line
from editr1.files import write_file
from editr1.judges.base import JudgeRequest, Score
from editr1.planning.pipelines import EDITORS, build_model, read_sizes
from editr1.training.trainer import Trainer

Weights = Literal["bf16", "int8", "nf4"]
WEIGHTS: tuple[Weights, ...] = ("bf16", "int8", "nf4")
MICRO_BATCHES = (1, 3, 6, 30, 60)
WARM, MEASURED = 2, 3  # steps
RESULTS = Path(__file__).parent / "gpu_results"
PACKAGES = ("editr1", "torch", "diffusers", "transformers", "peft", "torchao", "bitsandbytes")
INSTRUCTION = "make the red car on the left of the picture blue, and leave all other things as they are"


@dataclass(frozen=True)
class Setting:
    """How an editor is trained."""

    weights: Weights = "bf16"
    checkpointing: bool = True
    compile: bool = False
    cache: bool = False
    autocast: bool = False
    tf32: bool = False
    micro_batch: int = 12

    def __str__(self) -> str:
        switches = ("checkpointing", "compile", "cache", "autocast", "tf32")
        return " ".join([self.weights, *(s for s in switches if getattr(self, s)), f"micro_batch={self.micro_batch}"])


@dataclass(frozen=True)
class Size:
    """How much of a run is made.

    Attributes:
        side: Pixels of a picture's side.
        edits: Of a group.
        steps: Denoiser calls per edit.
        matrix: Side of the matrices that MFU is measured against.
        tiny: Whether the models are small.
        references: Source images besides the first one.
    """

    side: int = 512
    edits: int = 12
    steps: int = 6
    matrix: int = MATRIX
    tiny: bool = False
    references: int = 0


TINY = Size(side=64, edits=2, steps=5, matrix=128, tiny=True)


class Ranking:
    """A judge that takes no time: of n edits, the i-th gets i / n."""

    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, all different."""
        return [Score(place / len(requests)) for place in range(len(requests))]


def settings(weights: Sequence[Weights] = WEIGHTS) -> Iterator[Setting]:
    """The settings to measure."""
    for kind in weights:
        base = Setting(kind)
        yield base
        yield from (replace(base, checkpointing=False), replace(base, compile=True), replace(base, cache=True))
        yield from (replace(base, autocast=True), replace(base, tf32=True))
        yield from (replace(base, micro_batch=rows) for rows in MICRO_BATCHES)


def config_of(name: str, setting: Setting, size: Size, device: torch.device, folder: Path) -> Config:
    """The run: the paper's settings, of one group per step."""
    memory = {"gradient_checkpointing": setting.checkpointing, "compile": setting.compile, "tf32": setting.tf32}
    return Config.model_validate(
        {
            "editor": {"path": name, "device": str(device), "pixels": size.side**2},
            "judge": {"path": "toy"},  # not opened
            "data": {"kind": "toy"},  # not opened
            "rollout": {"group_size": size.edits, "groups_per_step": 1, "steps": size.steps},
            "optim": {"micro_batch": setting.micro_batch},
            "adapter": {"autocast": setting.autocast},
            "memory": {**memory, "cache": folder / "cache" if setting.cache else None},
            "trackers": (),
            "steps": WARM + MEASURED,
            "save_every": 10**6,
            "out": folder / "run",
        }
    )


def open_trainer(name: str, setting: Setting, size: Size, device: torch.device, folder: Path) -> Trainer:
    """The trainer of an editor with random weights.

    Raises:
        UserError: This machine does not support the setting.
    """
    config = config_of(name, setting, size, device, folder)
    quantize = None if setting.weights == "bf16" else setting.weights
    pipe = build_pipeline(name, pick_dtype("auto", device), device, quantize, size.tiny)
    editor = Editor(pipe, FAMILIES[type(pipe).__name__], pixels=config.editor.pixels)
    apply_memory(editor, config.memory)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    source = Image.fromarray(pixels).resize((size.side, size.side))
    sample = EditSample("0", source, INSTRUCTION, references=(source,) * size.references)
    return Trainer(config, editor, Ranking(), [sample])


def measure(name: str, setting: Setting, size: Size, device: torch.device, rate: float) -> dict[str, Any]:
    """Train an editor for a few steps; its row of the results.

    Args:
        name: The editor.
        setting: How it is trained.
        size: How much of it.
        device: Where.
        rate: Operations per second of a matrix product.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = open_trainer(name, setting, size, device, Path(folder))
        meter, steps = Meter(trainer), list[dict[str, float]]()
        with meter.watching():
            trainer.train(on_step=lambda row: steps.append(meter.end_step(row)))
    seconds = {part: median(step[part] for step in steps[WARM:]) for part in PARTS}
    whole = [sum(step.values()) for step in steps[WARM:]]
    seconds["step"] = median(whole)
    forward, backward = count_row(meta_denoiser(name, size, pick_dtype("auto", device)), meter.arguments)
    rows = meter.rows
    work = {
        "denoise": rows["denoise"] * forward,
        "train": rows["train"] * forward + rows["gradient"] * backward,
    }
    models = {part: model for part, model in trainer.editor.pipe.components.items() if isinstance(model, nn.Module)}
    return {
        "seconds": seconds,
        "seconds_of_steps": whole,
        "images_per_gpu_second": {part: size.edits / spent for part, spent in seconds.items() if spent > 0},
        "mfu": {part: flops / seconds[part] / rate for part, flops in work.items()},
        "flops": {"row_forward": forward, "row_backward": backward, **work},
        "rows": dict(rows),
        "bytes": {part: held(model) for part, model in models.items()},
        "peak_bytes": meter.peaks,
    }


def meta_denoiser(name: str, size: Size, dtype: torch.dtype) -> nn.Module:
    """The denoiser without memory, on which operations are counted."""
    _, parts = read_sizes(name, size.tiny)
    return nn.Module.to(build_model(parts["transformer"], {}), "meta", dtype).requires_grad_(False)


def held(model: nn.Module) -> int:
    """Bytes of a model's weights, those of a LoRA included, without NF4's scales, which are no weights."""
    return sum(bytes_of(param) for param in model.parameters())


def bytes_of(tensor: Any) -> int:
    """Bytes of a tensor; of a quantised one, those of the tensors that it consists of."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(bytes_of(getattr(tensor, name)) for name in names)
    return int(tensor.nbytes)


def tried(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `act` returns, or why it failed on this machine; what it held is free again."""
    try:
        return act()
    except torch.OutOfMemoryError:
        failed = "out of memory"
    except (UserError, RuntimeError) as error:
        failed = first_line(error)
    finally:
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
    return {"failed": failed}


def card_of(device: torch.device, tiny: bool) -> dict[str, Any]:
    """The machine and the versions that figures belong to."""
    versions = {name: installed(name) for name in PACKAGES}
    return {
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "memory_bytes": memory_of(device),
        "versions": {**versions, "cuda": torch.version.cuda},
        "date": datetime.now(timezone.utc).date().isoformat(),
        "tiny": tiny,
    }


def installed(package: str) -> str | None:
    """The version of a package; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run(editors: Sequence[str], asked: Sequence[Setting], size: Size, device: torch.device, out: Path) -> Path:
    """Measure all of `asked` on each editor; the file of the results."""
    machine = card_of(device, size.tiny)
    name = ("tiny-" if size.tiny else "") + re.sub(r"\W+", "-", machine["card"].lower())
    file = out / f"{name}.json"
    rows: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["editors"] if file.exists() else {}
    rate = matrix_rate(device, pick_dtype("auto", device), size.matrix)
    head = {"matrix_product_flops_per_second": rate, "side": size.side, "edits": size.edits, "steps": size.steps}
    for editor in editors:
        for setting in asked:
            row = tried(partial(measure, editor, setting, size, device, rate))
            rows.setdefault(editor, {})[str(setting)] = {**row, "measured_with": machine | head}
            print(f"{editor}, {setting}: {in_words(row)}", flush=True)
            write_file(file, json.dumps({"editors": rows}, indent=1).encode() + b"\n")
    return file


def in_words(row: dict[str, Any]) -> str:
    """A row of the results in a line."""
    if "failed" in row:
        return str(row["failed"])
    peak = f", {max(row['peak_bytes'].values()) / 1e9:.1f} GB" if row["peak_bytes"] else ""
    mfu = f"MFU {row['mfu']['denoise']:.0%} of rollouts, {row['mfu']['train']:.0%} of training"
    return f"{row['seconds']['step']:.2f} s per step, {mfu}{peak}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 2 without a GPU."""
    parser = argparse.ArgumentParser(description="What editors of published sizes cost on this GPU.")
    parser.add_argument("--editors", nargs="+", choices=EDITORS, default=EDITORS, help="Editors to measure.")
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS, help="Number formats to measure.")
    parser.add_argument("--tiny", action="store_true", help="Small models, on any device: tries the benchmark itself.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Folder of the results.")
    options = parser.parse_args(arguments)
    if not (options.tiny or torch.cuda.is_available()):
        print("benchmarks/gpu.py: there is no GPU here; --tiny tries it with small models", file=sys.stderr)
        return 2
    size = TINY if options.tiny else Size()
    print(run(options.editors, [*settings(options.weights)], size, pick_device("auto"), options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
