"""A step of the trainer without weights: its own code, on fake tensors, with a few of the denoiser's blocks.

One group is made, and one micro-batch of it is trained on beside the gradient of those before it, by a trainer that has
made two steps: the sampling policy is then another one than the trained one, and the optimiser has its moments. What
else a step does is more of the same, and is counted by `workload.py`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._pytree import tree_leaves

from editr1.config.settings import Config, MemoryConfig
from editr1.editors.context import check_context, share_tokens
from editr1.editors.editor import Editor, temporarily
from editr1.editors.families import FAMILIES
from editr1.editors.open import apply_memory
from editr1.editors.sharding import is_large, shard_denoiser, shard_text_encoder
from editr1.errors import UserError
from editr1.planning.blocks import cuts, extrapolated
from editr1.planning.pipelines import Blueprint
from editr1.planning.ranks import WHOLE, Spread, neighbours
from editr1.planning.shadow import ACTIVATIONS, Shadow, Work, bytes_of
from editr1.planning.stand_ins import Ranking, item, pack
from editr1.training.interrupts import Interrupts
from editr1.training.log import StepProgress
from editr1.training.sharing import whole_units
from editr1.training.trainer import Trainer


@dataclass(frozen=True)
class Step:
    """What a rehearsed step took.

    Attributes:
        work: Of each stage; peaks are without `held`.
        held: Bytes that are there all the time, by what holds them.
        group: Bytes that a group keeps until it is trained on.
        rows: Rows that the denoiser computes, by stage; in training those with gradient.
        parameters: Of the denoiser.
        trained: Those that are trained, of the denoiser or of its adapters.
        host: Bytes in main memory that each call of the editor moves to the GPU.
        layers: The largest layer of these, by stage, in bytes.
    """

    work: dict[str, Work]
    held: dict[str, int]
    group: int
    rows: dict[str, int]
    parameters: int
    trained: int
    host: int
    layers: dict[str, int]


class Stage:
    """Rehearses steps of one editor, each once; what its text encoders compute is computed once for all.

    Args:
        blueprint: The editor.
        dtype: Number format of its weights.

    Raises:
        UserError: The editor has no record.
    """

    def __init__(self, blueprint: Blueprint, dtype: torch.dtype) -> None:
        if blueprint.kind.__name__ not in FAMILIES:
            raise UserError(f"{blueprint.kind.__name__} is not in `editr1 editor list`: it cannot be planned")
        self.blueprint, self.dtype = blueprint, dtype
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._components: dict[tuple[bool, int], dict[str, Any]] = {}
        self._text: dict[int, tuple[Any, Work]] = {}
        self._steps: dict[tuple[str, str, Spread], Step] = {}

    def rehearse(self, config: Config, blocks: Mapping[str, int], spread: Spread = WHOLE) -> Step:
        """A step with the denoiser's blocks of each kind cut to these numbers.

        Args:
            config: The run of one process, whose step has one group.
            blocks: By the setting that says how many there are.
            spread: What its process shares with others.

        Raises:
            UserError: The editor does not support a setting.
        """
        memory = config.memory
        whole = with_memory(config, offload=False, vae_tiling=False)
        step = self._once(whole, blocks, spread)
        if memory.vae_tiling:
            few, tiled = cuts(self.blueprint.blocks)[0], with_memory(config, offload=False)
            step = in_tiles(step, self._once(whole, few, spread), self._once(tiled, few, spread))
        return self._offloaded(step) if memory.offload else step

    def _once(self, config: Config, blocks: Mapping[str, int], spread: Spread) -> Step:
        """The step of these settings, which is rehearsed where it was not yet."""
        key = config.model_dump_json(), str(blocks), spread
        if key not in self._steps:
            self._steps[key] = self._rehearse(config, blocks, spread)
        return self._steps[key]

    def _offloaded(self, step: Step) -> Step:
        """The step with all models but the denoiser in main memory, from where each layer comes to compute."""
        held = {name: size for name, size in step.held.items() if name != "encoders"}
        return replace(
            step, held=held, host=step.held["encoders"], layers=largest_layers(models_of(self._others(False, None)))
        )

    def _rehearse(self, config: Config, blocks: Mapping[str, int], spread: Spread) -> Step:
        """The step, wherever its weights are: all of them are counted as held."""
        memory, shadow = config.memory, Shadow(self.fake)
        with neighbours(spread) as (mesh, sharing), tempfile.TemporaryDirectory() as folder:
            denoiser, parameters = self._denoiser(memory, blocks, spread, mesh)
            others = self._others(memory.vae_tiling, mesh if spread.encoders > 1 else None)
            pipe = self.blueprint.build(others, denoiser)
            shadow.hold(tensors_of(denoiser), "denoiser")
            for part in models_of(others).values():
                shadow.hold(tensors_of(part), "encoders")
            with shadow:
                trainer = self._trainer(config, pipe, Path(folder), shadow, sharing)
                held = shadow.settle()
                group, rows = self._step(trainer, shadow, spread)
        trained = sum(param.numel() for param in trainer.params)
        return Step(dict(shadow.work), held, group, rows, parameters, trained, host=0, layers={})

    def _denoiser(
        self, memory: MemoryConfig, blocks: Mapping[str, int], spread: Spread = WHOLE, mesh: DeviceMesh | None = None
    ) -> tuple[nn.Module, int]:
        """A denoiser of these blocks, or this rank's part of it, and its number of parameters."""
        denoiser: Any = self.blueprint.build_denoiser(blocks)
        if spread.context > 1:
            check_context(type(denoiser), denoiser.config, spread.context)
        parameters = sum(weight.numel() for weight in denoiser.parameters())
        if memory.quantize is not None:
            pack(denoiser, memory.quantize, self.dtype)
        self._filled(denoiser)
        if mesh is not None:
            with self.fake:
                shard_denoiser(denoiser, mesh, spread.keeps_gathered)
        return denoiser, parameters

    def denoiser(self, memory: MemoryConfig) -> int:
        """Bytes of the whole denoiser's weights."""
        points = cuts(self.blueprint.blocks)
        sizes = [bytes_of(self._denoiser(memory, point)[0].parameters()) for point in points]
        return round(extrapolated(sizes, points, self.blueprint.blocks))

    def weights(self, memory: MemoryConfig, spread: Spread) -> int:
        """Bytes that the denoiser's and the encoders' weights take at least on a GPU."""
        parts = models_of(self._others(False, None)).values()
        sizes = [bytes_of(part.parameters()) // (spread.encoders if is_large(part) else 1) for part in parts]
        return self.denoiser(memory) // spread.shard + (0 if memory.offload else sum(sizes))

    def _others(self, tiled: bool, mesh: DeviceMesh | None) -> dict[str, Any]:
        """The components besides the denoiser: others whose VAE tiles, or whose large text encoders are sharded."""
        key = tiled, 1 if mesh is None else mesh["fsdp"].size()
        if key not in self._components:
            parts = self._components[key] = self.blueprint.components()
            for part in models_of(parts).values():
                self._filled(part)
                if mesh is not None and is_large(part):
                    with self.fake:
                        shard_text_encoder(part, mesh)
        return self._components[key]

    def _filled(self, model: nn.Module) -> nn.Module:
        """The model, frozen, with fake weights in place of those on the meta device."""
        kept: set[str] = {*(getattr(model, "_keep_in_fp32_modules", None) or ())}
        fakes: dict[int, nn.Parameter] = {}
        for place, module in model.named_modules():
            whole = torch.float32 if kept & {*place.split(".")} else self.dtype
            for name, weight in [*module._parameters.items()]:
                if weight is not None and id(weight) not in fakes:
                    dtype = whole if weight.is_floating_point() else weight.dtype
                    with self.fake:
                        fakes[id(weight)] = nn.Parameter(torch.empty(weight.shape, dtype=dtype), requires_grad=False)
                if weight is not None:
                    module._parameters[name] = fakes[id(weight)]
            for name, buffer in [*module._buffers.items()]:
                if buffer is not None and buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                    module._buffers[name] = buffer.to(self.dtype)
        return model

    def _trainer(self, config: Config, pipe: Any, folder: Path, shadow: Shadow, sharing: DeviceMesh | None) -> Trainer:
        """A trainer that has made two steps."""
        settings, family = config.editor, FAMILIES[type(pipe).__name__]
        pixels, tokens = settings.pixels, settings.text_tokens
        editor = Editor(pipe, family, guidance=settings.guidance, pixels=pixels, text_tokens=tokens)
        apply_memory(editor, config.memory)
        if sharing is not None:
            share_tokens(editor, sharing)
        trainer = Trainer(config, editor, Ranking(), [item(settings.pixels)], folder)
        for name, weights in editor.policies.weights.items():
            shadow.hold(weights.values(), "adapters" if config.adapter.mode == "lora" else f"policy {name}")
        shadow.hold(trainer.ema.averages.values(), "average")
        for param in trainer.params:
            param.grad = torch.zeros_like(param)
            shadow.hold([param.grad], "gradients")
        for group in trainer.optimizer.param_groups:
            group["foreach"] = True  # as torch does on a GPU
        trainer.optimizer.step()
        moments = [moment for state in trainer.optimizer.state.values() for moment in state.values()]
        shadow.hold([moment for moment in moments if moment.ndim], "moments")
        editor.policies.follow(0.5)
        trainer.step = 2
        trainer.progress = StepProgress(0, config.steps, quiet=True)
        trainer._self_check._replay = 0.0  # the replay of a session's first rollout is no part of a step
        return trainer

    def _step(self, trainer: Trainer, shadow: Shadow, spread: Spread) -> tuple[int, dict[str, int]]:
        """Make a step under watch; the bytes of a group, and rows of the denoiser."""
        editor, limit = trainer.editor, trainer.config.optim.micro_batch
        pipe: Any = editor.pipe
        rows, group, again = Counter[str](), 0, Again(shadow, "denoise", spread.keeps_gathered)

        def denoise(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if shadow.stage != "train":
                rows["denoise"] += len(kwargs[editor.family.latents])
                return again(forward, *args, **kwargs)
            rows["train"] += len(kwargs[editor.family.latents]) * torch.is_grad_enabled()
            return forward(*args, **kwargs)

        def decode(whole: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with shadow.during("decode"):
                picture: Tensor = whole(*args, **kwargs)[0]
            return (torch.from_numpy(np.zeros(picture.shape, np.float32)).to(picture.dtype),)  # a known one

        def hand_out(whole: Callable[..., Any], *args: Any) -> Any:
            (portion,) = whole(*args)
            most = whole_units(limit, trainer.algorithm.unit(portion.edits.advantages))
            return [replace(portion, share=replace(portion.share, stop=min(portion.share.stop, most)))]

        def backward(whole: Callable[..., Any], *args: Any) -> Any:
            nonlocal group
            shadow.hold(tensors_of(editor.denoiser), "gathered")  # what stays of the rollout, once for all groups
            group = shadow.alive[ACTIVATIONS]
            with shadow.during("train"):
                return whole(*args)

        places: list[tuple[Any, str, Callable[..., Any]]] = [
            (pipe, "encode_prompt", partial(self._encode, shadow, spread.encoders)),
            (pipe.vae, "encode", partial(staged, shadow, "encode")),
            (pipe.vae, "decode", decode),
            (editor.denoiser, "forward", denoise),
            (trainer, "_hand_out", hand_out),
            (trainer, "_backward", backward),
            (trainer, "_update", partial(staged, shadow, "update")),
            (trainer.optimizer, "zero_grad", lambda _: None),  # the gradient of an earlier micro-batch stays
        ]
        with ExitStack() as stack:
            for owner, name, function in places:
                whole = getattr(owner, name)
                stack.enter_context(temporarily(owner, **{name: wraps(whole)(partial(function, whole))}))
            trainer.train_step(None, Interrupts(together=False))
        return group, dict(rows)

    def _encode(self, shadow: Shadow, encoders: int, whole: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The text encoders' results and their work, which do not depend on the denoiser."""
        if encoders not in self._text:
            with shadow.during("text"):
                self._text[encoders] = whole(*args, **kwargs), shadow.work["text"]
        result, shadow.work["text"] = self._text[encoders]
        shadow.hold((each for each in tree_leaves(result) if isinstance(each, Tensor)), ACTIVATIONS)
        return result


class Again:
    """Calls a denoiser once; what its other calls of a rollout take is what this one took.

    Args:
        shadow: Watches.
        stage: What is called.
        keeps_gathered: Whether the first call gathers weights for all others.
    """

    def __init__(self, shadow: Shadow, stage: str, keeps_gathered: bool) -> None:
        self._shadow, self._stage, self._keeps_gathered = shadow, stage, keeps_gathered
        self._output: list[Tensor] = []
        self._once = Work()

    def __call__(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        work = self._shadow.work[self._stage]
        with self._shadow.during(self._stage):
            if self._output:
                work.add(self._once)
                return tuple(each.clone() for each in self._output)
            output = forward(*args, **kwargs)
        self._once = replace(work, weights=0.0 if self._keeps_gathered else work.weights)
        self._output = [each.clone() for each in output]
        return output


def staged(shadow: Shadow, stage: str, whole: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `whole` as a part of the step."""
    with shadow.during(stage):
        return whole(*args, **kwargs)


def with_memory(config: Config, **settings: bool) -> Config:
    """The run with some settings of `memory` changed."""
    return config.model_copy(update={"memory": config.memory.model_copy(update=settings)})


def in_tiles(step: Step, whole: Step, tiled: Step) -> Step:
    """A step with a VAE that works in tiles: what they change does not depend on the denoiser.

    Args:
        step: The step with whole pictures.
        whole: Likewise, of a few blocks.
        tiled: With tiles, of a few blocks.
    """
    vae = {
        stage: replace(tiled.work[stage], peak=step.work[stage].peak + tiled.work[stage].peak - whole.work[stage].peak)
        for stage in ("encode", "decode")
    }
    return replace(step, work={**step.work, **vae})


def models_of(components: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The components of a pipeline that have weights."""
    return {name: part for name, part in components.items() if isinstance(part, nn.Module)}


def largest_layers(models: Mapping[str, nn.Module]) -> dict[str, int]:
    """Bytes of the largest layer of the models that compute in a stage: the VAE, and all others for the text."""
    sizes = {
        name: max(bytes_of(layer.parameters(recurse=False)) for layer in each.modules())
        for name, each in models.items()
    }
    vae = sizes.pop("vae")
    return {"text": max(sizes.values(), default=0), "encode": vae, "decode": vae}


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers of a model."""
    return [*model.parameters(), *model.buffers()]
