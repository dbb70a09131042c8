"""Trained weights as others use them: a LoRA for diffusers, PEFT or ComfyUI, or a whole pipeline with it merged in.

A folder is written beside its place under a hidden name and renamed when it is complete. The written weights are loaded
onto a denoiser of the base's class and shapes (its weights take no memory), and compared with the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import diffusers
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn

from editr1 import __version__
from editr1.editors.family import DENOISERS
from editr1.editors.index import read_index
from editr1.editors.lora import files as lora_files
from editr1.editors.lora.comfyui import Lora, listing, to_original
from editr1.editors.lora.find import DIFFUSERS_FILE, PEFT_FILE
from editr1.editors.open import denoiser_name, find_family, inference_guidance
from editr1.editors.weight_files import save_tensors
from editr1.errors import UserError
from editr1.export.call import UNKNOWN, Call
from editr1.export.card import Card, write_card
from editr1.report.run_folder import Run, read_run
from editr1.toy.assets import locate
from editr1.training import checkpoint
from editr1.training.best import SUFFIX, split_best
from editr1.training.run_files import CHECKPOINTS, CONFIG
from editr1.training.seal import read_state

Layout = Literal["diffusers", "peft", "comfyui"]
COMFYUI_FILE = "lora_comfyui.safetensors"


@dataclass(frozen=True)
class ExportSource:
    """The weights to export.

    Attributes:
        run: The run's folder.
        step: Step of the checkpoint.
        weights: Folder of the averaged or of the last weights.
    """

    run: Run
    step: int
    weights: Path

    @property
    def name(self) -> str:
        """The trained editor, as the run's config names it."""
        return str(self.run.config["editor"]["path"])

    @property
    def whole(self) -> bool:
        """Whether all weights were trained, so that there is no LoRA."""
        return bool(self.run.config["adapter"]["mode"] == "full")

    def lora(self, base: BaseEditor) -> Lora:
        """The trained LoRA."""
        return lora_files.read_lora(self.weights, base.denoiser.__name__)

    @property
    def facts(self) -> dict[str, str]:
        """Origin of the weights, for the header of a file."""
        config = (self.run.folder / CONFIG).read_bytes()
        return {
            "base_model": self.name,
            "step": str(self.step),
            "config_sha256": hashlib.sha256(config).hexdigest(),
            "editr1_version": __version__,
        }


def export_run(
    folder: Path,
    to: Path,
    *,
    merge: bool = False,
    ema: bool = True,
    layout: str = "diffusers",
    step: int | None = None,
) -> Path:
    """Write the weights of a run with a model card, and return `to`.

    Args:
        folder: Folder of the run, or RUN@best.
        to: New or empty folder.
        merge: Whether to write a whole pipeline.
        ema: Whether to export the averaged weights, instead of the last ones.
        layout: "diffusers", "peft" or "comfyui".
        step: Step of the checkpoint; None for the newest.
    """
    if layout not in get_args(Layout):
        raise UserError(f"format must be one of {', '.join(get_args(Layout))}, not {layout!r}")
    source = find_source(folder, ema, step)
    if merge and layout != "diffusers":
        raise UserError(
            f"--merge writes a diffusers pipeline and has no format {layout}; leave out --merge or --format"
        )
    if source.whole and not merge:
        raise UserError(f"{folder} trained the whole denoiser (adapter.mode: full) and has no LoRA: add --merge")
    base = find_base(source.name)
    with _atomic_folder(to.resolve()) as part:
        if merge:
            _write_pipeline(source, base, part)
        else:
            WRITERS[layout](source, base, part)
        loader, form = hasattr(base.pipeline, "load_lora_weights"), "merged" if merge else layout
        call, name = _call(source, base), to.resolve().name
        card = Card(source.run, source.step, ema, form, name, source.facts, call, base.component, loader)
        write_card(part, card)
    return to


def find_source(folder: Path, ema: bool = True, step: int | None = None) -> ExportSource:
    """The newest whole checkpoint of a run, the one of a step, or, if it is RUN@best, the best one."""
    folder, best = split_best(folder)
    run, root, part = read_run(folder), folder / CHECKPOINTS, "ema" if ema else "policy"
    if best and step is not None:
        raise UserError(f"{SUFFIX} and --step {step} name two checkpoints; leave one of them out")
    source: Path | None
    if best:
        source = checkpoint.best_of(folder, part)
    elif step is None:
        source = checkpoint.open_part(root, part)
    elif (source := checkpoint.place(root, step)).exists():
        checkpoint.refuse_damage(source, part)
    else:
        steps = [str(read_state(path)["step"]) for path in checkpoint.complete(root)]
        raise UserError(f"{folder} has no checkpoint of step {step}; it has those of {', '.join(steps) or 'no step'}")
    if source is None:
        raise UserError(f"{folder} has no whole checkpoint; train at least one step of it with `editr1 train`")
    return ExportSource(run, read_state(source)["step"], source / part)


@dataclass(frozen=True)
class BaseEditor:
    """The editor before training, as its folder or the hub describes it; no weights are loaded.

    Attributes:
        path: Argument of `from_pretrained`.
        pipeline: Class of the pipeline.
        component: Name of the denoiser in the pipeline.
        denoiser: Class of the denoiser.
    """

    path: str | Path
    pipeline: Any
    component: str
    denoiser: Any

    def load(self, dtype: torch.dtype, **parts: Any) -> Any:
        """The pipeline with its weights; `parts` replace its own components."""
        try:
            return DiffusionPipeline.from_pretrained(self.path, dtype=dtype, use_safetensors=True, **parts)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot load the pipeline {self.path}: {' '.join(str(error).split())}") from error

    def skeleton(self) -> Any:
        """A denoiser of the right class and shapes; its weights are zeros that take no memory."""
        with torch.device("meta"):
            model = self.denoiser.from_config(self.denoiser.load_config(self.path, subfolder=self.component))
        for module in model.modules():
            for name, weight in [*module.named_parameters(recurse=False)]:
                setattr(module, name, nn.Parameter(torch.zeros(()).expand(weight.shape), requires_grad=False))
        return model


def find_base(path: str) -> BaseEditor:
    """The classes of a pipeline folder or hub id, or of "toy:NAME"."""
    place = locate(path)
    try:
        index = read_index(place)
        component = denoiser_name(index) or DENOISERS[0]
        pipeline, denoiser = index["_class_name"], index[component][1]
        return BaseEditor(place, getattr(diffusers, pipeline), component, getattr(diffusers, denoiser))
    except (UserError, KeyError, AttributeError) as error:
        raise UserError(
            f"the run's editor.path={path!r} is no diffusers pipeline with a denoiser, and an export is checked "
            "against it: put it back, or export on a machine that has it"
        ) from error


def _lora_and_denoiser(source: ExportSource, base: BaseEditor) -> tuple[Lora, Any]:
    """The trained LoRA and a denoiser that it fits."""
    lora, denoiser = source.lora(base), base.skeleton()
    lora_files.refuse_strangers(lora, denoiser)
    return lora, denoiser


def _write_diffusers(source: ExportSource, base: BaseEditor, folder: Path) -> None:
    (lora, denoiser), prefix = _lora_and_denoiser(source, base), f"{base.component}."
    settings = {**lora_files.adapter_settings(lora), "target_modules": _targets(lora, denoiser)}
    header = json.dumps({prefix + name: value for name, value in settings.items()}, indent=2, sort_keys=True)
    save_tensors(
        lora_files.matrices(lora, prefix),
        folder / DIFFUSERS_FILE,
        {**source.facts, lora_files.HEADER: header},
    )
    file = {"weight_name": DIFFUSERS_FILE, "prefix": base.component}
    denoiser.load_lora_adapter(str(folder), **file, adapter_name="check")
    lora_files.refuse_differences(lora, lora_files.injected(denoiser, "check"), f"in {DIFFUSERS_FILE}")


def _write_peft(source: ExportSource, base: BaseEditor, folder: Path) -> None:
    lora, denoiser = _lora_and_denoiser(source, base)
    targets = _targets(lora, denoiser)
    config = LoraConfig(
        **lora_files.adapter_settings(lora),
        target_modules=targets,
        base_model_name_or_path=source.name,
        inference_mode=True,
    )
    config.target_modules = targets  # PEFT makes it a set, whose order changes from process to process
    config.save_pretrained(str(folder))
    save_tensors(lora_files.matrices(lora, lora_files.PEFT_PREFIX), folder / PEFT_FILE, source.facts)
    wrapped = PeftModel.from_pretrained(denoiser, str(folder), adapter_name="check", torch_device="cpu")
    lora_files.refuse_differences(lora, lora_files.injected(wrapped, "check"), f"in {PEFT_FILE}")


def _write_comfyui(source: ExportSource, base: BaseEditor, folder: Path) -> None:
    lora, denoiser = _lora_and_denoiser(source, base)
    shapes, name = lora_files.linear_shapes(denoiser), base.denoiser.__name__
    save_tensors(to_original(lora, name, lambda module: shapes[module][0]), folder / COMFYUI_FILE, source.facts)
    lora_files.inject(denoiser, lora_files.read_lora(folder / COMFYUI_FILE, name), "check")
    lora_files.refuse_differences(lora, lora_files.injected(denoiser, "check"), f"in {COMFYUI_FILE}")


WRITERS: dict[str, Callable[[ExportSource, BaseEditor, Path], None]] = {
    "diffusers": _write_diffusers,
    "peft": _write_peft,
    "comfyui": _write_comfyui,
}


def _targets(lora: Lora, denoiser: nn.Module) -> list[str]:
    """Layer names without their block if these select exactly the LoRA's layers, else the full names."""
    short = {re.sub(r"^\w+\.\d+\.", "", name) for name in lora}
    selected = {
        name for name in lora_files.linear_shapes(denoiser) if any(name == t or name.endswith(f".{t}") for t in short)
    }
    return sorted(short if selected == lora.keys() else lora)


def _call(source: ExportSource, base: BaseEditor) -> Call:
    """How the card calls the pipeline: at the run's area, with the guidance of edits outside of training."""
    settings = source.run.config["editor"]
    pixels, text_tokens = settings.get("pixels"), settings.get("text_tokens")
    family = find_family(base.path)
    if family is None:
        return Call(UNKNOWN, pixels=pixels)
    return Call(family, inference_guidance(settings["path"]), pixels, text_tokens)


def _write_pipeline(source: ExportSource, base: BaseEditor, folder: Path) -> None:
    """Write the base with the trained weights in it; the written denoiser is loaded and compared."""
    dtype = getattr(torch, source.run.config["editor"]["dtype"])
    if source.whole:
        denoiser = base.denoiser.from_pretrained(source.weights, dtype=dtype, use_safetensors=True)
        pipe = base.load(dtype, **{base.component: denoiser})
    else:
        pipe = base.load(dtype)
        merge_lora(getattr(pipe, base.component), source.lora(base))
    pipe.save_pretrained(folder)
    expected = getattr(pipe, base.component).state_dict()
    loaded = base.denoiser.from_pretrained(folder / base.component, dtype=dtype, use_safetensors=True).state_dict()
    wrong = [name for name in expected.keys() | loaded.keys() if not _equal(expected.get(name), loaded.get(name))]
    if wrong:
        raise UserError(f"the merged denoiser does not load as it was written: {listing(wrong)}")


@torch.no_grad()
def merge_lora(denoiser: Any, lora: Lora) -> None:
    """Merge a LoRA into a denoiser through PEFT, layer by layer, each checked against W + scale up down."""
    lora_files.inject(denoiser, lora, "merged")
    wrong = []
    for name, layer in lora.items():
        module = denoiser.get_submodule(name)
        for matrix, exact in ((module.lora_A, layer.down), (module.lora_B, layer.up)):
            matrix["merged"].to(torch.float32).weight.copy_(exact)
        weight = module.get_base_layer().weight
        before, delta = weight.float().clone(), layer.delta().to(weight.device)
        module.merge(safe_merge=True, adapter_names=["merged"])
        off = (module.get_base_layer().weight.float() - before - delta).abs().max()
        if off > 2 * torch.finfo(weight.dtype).eps * (before.abs().max() + delta.abs().max()):
            wrong.append(name)
    if wrong:
        raise UserError(f"merging did not change these layers to W + scale B A: {listing(wrong)}")
    lora_files.remove_adapters(denoiser)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)


@contextmanager
def _atomic_folder(to: Path) -> Iterator[Path]:
    """A folder to write into; it becomes `to` at the end of the block, or vanishes if that fails."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} exists and is not an empty folder: give another --to, or remove it")
    part = to.with_name(f".{to.name}.part")
    try:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
        yield part
        part.replace(to)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot export to {to}: {' '.join(str(error).split())}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
