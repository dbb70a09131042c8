"""Editors from a folder, a hub id or a config; whatever is wrong with it is one line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, ModelMixin
from torch.distributed.device_mesh import DeviceMesh

from editr1.config.loading import load_config
from editr1.config.section import is_toy
from editr1.config.settings import TOY_PIXELS, Config, EditorConfig, MemoryConfig, Quantization
from editr1.devices import pick_device, pick_dtype
from editr1.editors.context import check_context, open_context, share_tokens
from editr1.editors.editor import Editor
from editr1.editors.encoding_cache import cache_encodings
from editr1.editors.families import FAMILIES
from editr1.editors.family import DENOISERS, Family, for_inference
from editr1.editors.index import check_scheduler, place_of, read_index
from editr1.editors.lora.files import check_scale, load_lora_into
from editr1.editors.lora.find import find_file
from editr1.editors.memory import (
    check_tf32,
    checkpoint_blocks,
    compile_blocks,
    multiply_in_tf32,
    place,
    quantization,
    set_attention,
    tile_vae,
)
from editr1.editors.one_frame import skip_absent_frames
from editr1.editors.probe import GUIDANCE_ARGUMENTS, derive_family
from editr1.editors.sharding import (
    Meeting,
    alone,
    empty_denoiser,
    is_large,
    keeps_gathered,
    open_mesh,
    read_shards,
    shard_denoiser,
    shard_text_encoder,
    turn,
)
from editr1.errors import UserError, first_line
from editr1.terminal import announce
from editr1.toy.assets import locate

ONE_PROCESS = ("memory.gradient_checkpointing=false", "parallel.shard=1", "parallel.context=1")
"""Settings of a run's YAML outside of training."""


def open_editor(
    path_or_id: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    guidance: float | None = None,
    pixels: int | None = None,
    text_tokens: int | None = None,
    **loading: Any,
) -> Editor:
    """An editor with its family record, which is derived if there is none; arguments of `load_pipeline` and `Editor`.

    Raises:
        UserError: There is no pipeline, it cannot be read, or it is no flow-matching editor.
    """
    family = find_family(path_or_id)
    pipe = load_pipeline(path_or_id, dtype, device, **loading)
    family = family or derive_family(pipe, pixels=pixels)
    return Editor(pipe, family, guidance=guidance, pixels=pixels, text_tokens=text_tokens)


def open_config_editor(config: Config, ranks: int = 1, meet: Meeting = alone) -> Editor:
    """The editor that a config names, with the settings of its `memory` and `parallel`.

    Args:
        config: The run.
        ranks: Processes of the run, all of which call this function.
        meet: Waits for all of them.

    Raises:
        UserError: There is no such editor, `parallel.shard` or `parallel.context` does not divide the number of ranks,
            or ranks cannot share the calls of this editor.
    """
    settings, memory, context = config.editor, config.memory, config.parallel.context
    check_sharing(locate(settings.path), context)
    device = pick_device(settings.device)
    mesh = open_mesh(ranks, config.parallel.shard, device.type)
    sharing = open_context(ranks, context, device.type)
    editor = open_editor(
        locate(settings.path),
        dtype=pick_dtype(settings.dtype, device),
        device=device,
        guidance=settings.guidance,
        pixels=settings.pixels,
        text_tokens=settings.text_tokens,
        quantize=memory.quantize,
        offload=memory.offload,
        mesh=mesh,
        # whether a rank finds an encoding in the cache, and calls no text encoder, is its own matter
        whole_encoders=memory.offload or memory.cache is not None,
        meet=meet,
    )
    if mesh is not None and mesh["replicate"].size() > 1:
        editor.replicas = mesh["replicate"].get_group()
    apply_memory(editor, memory)
    if sharing is not None:
        share_tokens(editor, sharing, memory.attention)
    return editor


def open_named_editor(
    name: str,
    lora: Path | None = None,
    *,
    lora_scale: float = 1.0,
    guidance: float | None = None,
    pixels: int | None = None,
    device: torch.device | None = None,
) -> Editor:
    """An editor for making edits outside of training: as shipped, or with a trained LoRA.

    Args:
        name: Folder, hub name, "toy", "toy:NAME", or the YAML of a run with its `editor` and `memory`.
        lora: File or folder of a trained LoRA; None for none.
        lora_scale: Factor on what the LoRA adds to the weights.
        guidance: Guidance scale; None for `inference_guidance`.
        pixels: Area of an edit; None for the editor's own.
        device: Device; None for a GPU if there is one.

    Raises:
        UserError: There is no such editor or LoRA.
    """
    check_scale(lora, lora_scale)
    file = None if lora is None else find_file(lora)  # before the editor, which may take minutes to load
    guidance = inference_guidance(name) if guidance is None else guidance
    if Path(name).suffix in (".yaml", ".yml"):
        options = {"editor.guidance": guidance, "editor.pixels": pixels, "editor.device": device}
        overrides = [f"{key}={value}" for key, value in options.items() if value is not None]
        editor = open_config_editor(load_config(name, [*overrides, *ONE_PROCESS]))
    else:
        device = device or pick_device("auto")
        dtype = pick_dtype("auto", device)
        area = TOY_PIXELS if pixels is None and is_toy(name) else pixels
        editor = open_editor(locate(name), dtype=dtype, device=device, guidance=guidance, pixels=area)
    editor.family = for_inference(editor.family)
    if file is not None:
        load_lora_into(editor.pipe, file, scale=lora_scale, component=editor.family.denoiser)
    return editor


def inference_guidance(name: str) -> float | None:
    """Guidance scale of an edit outside of training: the default of the pipeline's own call; None if it takes none.

    It is read from the call's signature, and is no second field of the record beside the `guidance` of training: it
    cannot differ from what a user of the stock pipeline gets, and holds for pipelines that have no record.

    A toy editor is the exception, because of how its weights were made: they never saw the empty prompt that
    classifier-free guidance needs, and one scale alone is embedded. It keeps the scale that its presets train with.

    Args:
        name: An editor as `open_named_editor` takes it; the `editor.guidance` of a run's YAML is for its training.

    Raises:
        UserError: There is no such editor.
    """
    is_config = Path(name).suffix in (".yaml", ".yml")
    path = load_config(name).editor.path if is_config else name
    kind = pipeline_class(locate(path))
    family = FAMILIES.get(kind.__name__)
    if family is not None and is_toy(path):
        return family.guidance
    parameters = inspect.signature(kind.__call__).parameters
    # without a record: an embedded scale goes before that of true guidance, whose default is 1 beside it
    names = reversed(GUIDANCE_ARGUMENTS) if family is None else filter(None, [family.guidance_arg])
    scales = [parameters[name].default for name in names if name in parameters]
    return next((float(scale) for scale in scales if isinstance(scale, int | float)), None)


def apply_memory(editor: Editor, settings: MemoryConfig) -> None:
    """Apply `settings` to a loaded editor, except quantisation and offloading, which `load_pipeline` applies.

    The order matters: the cache's keys contain the VAE's tiling, and compilation sees the chosen attention.

    Raises:
        UserError: This editor or this machine does not support one of them.
    """
    multiply_in_tf32(settings.tf32, next(editor.denoiser.parameters()).device)
    if settings.vae_tiling:
        tile_vae(editor.pipe)
    if settings.attention is not None:
        set_attention(editor.denoiser, settings.attention)
    if settings.gradient_checkpointing:
        checkpoint_blocks(editor.denoiser, lambda: editor.policies)
    if settings.cache is not None:
        cache_encodings(editor.pipe, editor.denoiser, settings.cache)
    if settings.compile:
        compile_blocks(editor.denoiser)


def find_family(path_or_id: str | Path) -> Family | None:
    """The record for a pipeline folder or hub id; None if its pipeline class has no record."""
    return FAMILIES.get(pipeline_class(path_or_id).__name__)


def check_loading(settings: EditorConfig, memory: MemoryConfig, context: int = 1) -> None:
    """Refuse an editor whose pipeline this diffusers lacks, or `memory.quantize` without its package or GPU.

    Likewise `memory.tf32` without its GPU, and an editor whose calls `context` ranks cannot share.
    """
    pipeline_class(locate(settings.path))
    check_sharing(locate(settings.path), context)
    if memory.quantize is not None:
        quantization(memory.quantize, DENOISERS[0], pick_dtype(settings.dtype, pick_device(settings.device)))
    if memory.tf32:
        check_tf32(pick_device(settings.device))


def check_sharing(path_or_id: str | Path, context: int) -> None:
    """Refuse an editor whose denoiser's calls `context` ranks cannot share; one without a denoiser cannot be opened."""
    index = read_index(path_or_id) if context > 1 else {}
    name = denoiser_name(index)
    kind: type[ModelMixin] | None = getattr(diffusers, str(index[name][1]), None) if name else None
    if name is None or kind is None:
        return
    try:
        check_context(kind, kind.load_config(path_or_id, subfolder=name), context)
    except OSError as error:
        raise UserError(f"{place_of(path_or_id)}: cannot load the pipeline: {first_line(error)}") from error


def pipeline_class(path_or_id: str | Path) -> type[DiffusionPipeline]:
    """The class of a pipeline folder or hub id.

    Raises:
        UserError: There is no pipeline, or it is no flow-matching pipeline.
    """
    index, where = read_index(path_or_id), place_of(path_or_id)
    name = str(index.get("_class_name"))
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, DiffusionPipeline)):
        raise UserError(f"{where}: this diffusers ({diffusers.__version__}) has no {name}; install one that has it.")
    check_scheduler(index, where)
    return kind


def denoiser_name(index: Mapping[str, Any]) -> str | None:
    """The denoiser's name among the components in a model_index.json; None if there is no denoiser."""
    family = FAMILIES.get(str(index.get("_class_name")))
    return next((name for name in (DENOISERS if family is None else (family.denoiser,)) if name in index), None)


def load_pipeline(
    path_or_id: str | Path,
    dtype: torch.dtype,
    device: str | torch.device,
    *,
    quantize: Quantization | None = None,
    offload: bool = False,
    mesh: DeviceMesh | None = None,
    whole_encoders: bool = False,
    meet: Meeting = alone,
) -> DiffusionPipeline:
    """Load all weights of a pipeline.

    Args:
        path_or_id: Folder, or a model's id on the hub.
        dtype: Number format of all weights that are not quantised.
        device: Device of the pipeline.
        quantize: Number format of the denoiser's weights; None for `dtype`.
        offload: Whether all but the denoiser stay on the CPU and come to `device` while they compute.
        mesh: Ranks over which the weights of the denoiser and of large text encoders are spread; None for none.
        whole_encoders: Whether large text encoders are whole nevertheless.
        meet: Waits for the other ranks of the mesh.

    Raises:
        UserError: They cannot be read or do not fit their configs, or a package that `quantize` needs is missing.
    """
    index = read_index(path_or_id)
    denoiser = denoiser_name(index) or DENOISERS[0]
    settings: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    settings |= {"quantization_config": quantization(quantize, denoiser, dtype)} if quantize else {}
    announce(f"Loading the editor {path_or_id}", diffusers.utils.logging, transformers.utils.logging)
    try:
        if mesh is None:
            pipe = DiffusionPipeline.from_pretrained(path_or_id, **settings)
            skip_absent_frames(pipe.components.get("vae"))
            return place(pipe, device, denoiser if offload else None)
        empty = empty_denoiser(path_or_id, denoiser, dtype)
        shard_denoiser(empty, mesh, keeps_gathered(empty, torch.device(device)))
        read_shards(empty, path_or_id, denoiser, torch.device(device))
        with turn(meet, "loading the editor"):
            pipe = DiffusionPipeline.from_pretrained(path_or_id, **settings, **{denoiser: empty})
            for name, component in pipe.components.items():
                if name != denoiser and is_large(component) and not whole_encoders:
                    shard_text_encoder(component, mesh)
            skip_absent_frames(pipe.components.get("vae"))
            return place(pipe, device, denoiser if offload else None)
    except (torch.OutOfMemoryError, UserError):
        raise
    except Exception as error:  # the libraries raise whatever they stumble over in a stranger's files
        raise UserError(f"editor.path={str(path_or_id)!r}: cannot load the pipeline: {first_line(error)}") from error
