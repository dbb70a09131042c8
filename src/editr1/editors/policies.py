"""The policies of one denoiser: named sets of weights, one of which it computes with at a time.

"default" is trained, "old" samples, "reference" is the denoiser as loaded; `copy` adds more. A denoiser that is not
trained has the reference alone (`Policies`).

LoRA: every policy except the reference is a PEFT adapter of the diffusers model; the reference has all adapters off.
Full: every policy except "default" is a copy of all weights (each as large as the denoiser, or as this rank's shard).

Gradients belong to "default" alone, whatever policy is active. PEFT's own switch makes the active adapter trainable
and the others not; a backward pass after such a switch would drop the gradients of "default" silently.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from editr1.config.settings import AdapterConfig
from editr1.editors.lora.autocast import cast_weights
from editr1.editors.lora.comfyui import listing
from editr1.editors.lora.files import HEADER, read_lora
from editr1.editors.lora.find import DIFFUSERS_FILE
from editr1.editors.weight_files import open_tensors, read_part, save_tensors, write_parts
from editr1.errors import UserError

DEFAULT, OLD, REFERENCE = "default", "old", "reference"
FILES = "diffusion_pytorch_model{suffix}.safetensors"  # as diffusers names them
START = "start"  # a copy of `adapter.init`, in runs that measure what training starts from


class Policies:
    """A denoiser that is not trained: its only policy is "reference".

    Args:
        denoiser: A diffusers model.

    Attributes:
        active: Name of the policy with which the denoiser computes.
        weights: By policy, the tensors in which it differs from the reference, by name.
        on_policy: Whether "old" equals "default" at the start of a step, so that one velocity is that of both.
        spread: Whether each rank holds a shard of the policies; all ranks then save them together.
    """

    spread = False

    def __init__(self, denoiser: Any) -> None:
        self.denoiser = denoiser
        self.active = REFERENCE
        self.weights: dict[str, dict[str, Parameter]] = {}
        self.on_policy = True

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Compute with policy `name` inside, and afterwards with the previous one; no weight is copied.

        Raises:
            KeyError: There is no such policy.
        """
        if name != REFERENCE and name not in self.weights:
            raise KeyError(f"no policy {name!r}; there are {', '.join([*self.weights, REFERENCE])}")
        before = self.active
        self._activate(name)
        try:
            yield
        finally:
            self._activate(before)

    def parameters(self) -> list[tuple[str, Parameter]]:
        """Names and parameters of "default", in a stable order, for an optimiser; none if nothing is trained."""
        return list(self.weights.get(DEFAULT, {}).items())

    @property
    def coverage(self) -> tuple[int, int]:
        """How many of the denoiser's linear layers, and others with an adapter, are trained, and how many there are."""
        layers = _linear_layers(self.denoiser)
        return (len(layers) if DEFAULT in self.weights else 0), len(layers)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Update theta_old <- decay theta_old + (1 - decay) theta_default, in place."""
        default = self._own(DEFAULT)
        for name, old in self._own(OLD).items():
            old.lerp_(default[name], 1 - decay)
        self.on_policy = decay == 0

    def copy(self, name: str, of: str = DEFAULT) -> None:
        """Copy the current weights of policy `of` into policy `name`, which is added, frozen, if there is none."""
        if name not in self.weights:
            self._add(name)
        _copy(self._own(of), self.weights[name])
        if name in (DEFAULT, OLD):
            self.on_policy = {name, of} == {DEFAULT, OLD}

    @torch.no_grad()
    def load(self, folder: Path, name: str) -> None:
        """Copy weights that `save` wrote into policy `name`, in place, so that an optimiser keeps its parameters.

        Raises:
            UserError: A file is not readable, or does not hold exactly the weights of this denoiser and its settings.
        """
        weights = self._own(name)
        try:
            parts = {self._bare(key): part for key, part in open_tensors(sorted(folder.glob("*.safetensors"))).items()}
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read the weights in {folder}: {error}") from error
        own = {key: tuple(weight.shape) for key, weight in weights.items()}
        saved = {key: tuple(part.get_shape()) for key, part in parts.items()}
        if misfits := sorted(dict(own.items() ^ saved.items())):
            raise UserError(
                f"{folder} does not fit this editor: {len(misfits)} of {len(weights)} weights are missing, left over "
                f"or of another shape, first {misfits[0]!r}; use the adapter settings (mode, rank, targets) with "
                "which it was saved."
            )
        for key, weight in weights.items():
            weight.copy_(read_part(parts[key], weight))
        self.on_policy = self._equal(DEFAULT, OLD)

    def save(self, folder: Path, name: str) -> None:
        """Write policy `name` in the format of diffusers."""
        raise KeyError(f"the policy {name!r} is the editor as loaded: there is nothing to save")

    def _own(self, name: str) -> dict[str, Parameter]:
        """The weights in which policy `name` differs from the reference."""
        if name not in self.weights:
            raise KeyError(f"no policy {name!r} with weights of its own; there are {', '.join(self.weights) or 'none'}")
        return self.weights[name]

    def _equal(self, name: str, other: str) -> bool:
        """Whether two policies have the same weights, bit for bit."""
        return all(torch.equal(*pair) for pair in zip(self._tensors(name), self._tensors(other), strict=True))

    def _tensors(self, name: str) -> list[Tensor]:
        """What this rank holds of each tensor of a policy; those of all policies have one order."""
        return [*self.weights[name].values()]

    def _activate(self, name: str) -> None:
        """Make the denoiser compute with policy `name`."""

    def _add(self, name: str) -> None:
        """Add a frozen policy with any weights."""
        raise KeyError(f"no policy {name!r} can be added to a denoiser that is not trained")

    def _bare(self, key: str) -> str:
        """The name of a weight in a file, without the prefix that `save` adds."""
        return key


class LoraPolicies(Policies):
    """LoRA adapters in float32; "default" and "old" start as the same adapter: `adapter.init`, or one without effect.

    Args:
        denoiser: A diffusers model.
        component: Its name in the pipeline, which diffusers writes before the names of its layers.
        adapter: Rank, alpha, the LoRA to start from, and whether products are made in the denoiser's format.
        targets: Names of the modules that get a LoRA.
        seed: Seed of the initial weights.

    Raises:
        UserError: A target names no module of the denoiser, or with `autocast` no linear layer, or the LoRA to start
            from has other layers or another rank.
    """

    def __init__(
        self, denoiser: Any, component: str, adapter: AdapterConfig, targets: Sequence[str], seed: int
    ) -> None:
        super().__init__(denoiser)
        _check_targets(denoiser, targets)
        self.component, self._autocast = component, adapter.autocast
        # else diffusers takes float32 for the number format of a denoiser whose first weights are quantised
        denoiser._keep_in_fp32_modules = [*(getattr(denoiser, "_keep_in_fp32_modules", None) or ()), "lora_"]
        self._config = {"r": adapter.rank, "lora_alpha": adapter.alpha, "target_modules": list(targets)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name in (OLD, DEFAULT):  # in this order: "default" takes the second draw of the seed
                self._add(name)
        self._activate(DEFAULT)
        if adapter.init is not None:
            self._start_from(adapter.init, adapter)
        self.copy(OLD)

    @property
    def coverage(self) -> tuple[int, int]:
        adapted = {layer.get_base_layer() for layer in self._layers}
        return len(adapted), len(adapted | _linear_layers(self.denoiser))

    @torch.no_grad()
    def _start_from(self, path: Path, adapter: AdapterConfig) -> None:
        """Let "default" add to the weights `init_scale` times what a LoRA adds; layers without adapter are refused."""
        lora, own = read_lora(path, type(self.denoiser).__name__), self.weights[DEFAULT]
        strangers = [name for name in lora if f"{name}.lora_A.weight" not in own]
        if strangers:
            raise UserError(
                f"adapter.init={str(path)!r}: its layers {listing(strangers)} get no adapter in this run; name them in "
                "adapter.targets"
            )
        if ranks := sorted({layer.rank for layer in lora.values()} - {adapter.rank}):
            raise UserError(
                f"adapter.init={str(path)!r}: its rank is {ranks[0]}, adapter.rank is {adapter.rank}; make them equal"
            )
        gain = adapter.init_scale * adapter.rank / adapter.alpha
        for name, layer in lora.items():
            down, up = own[f"{name}.lora_A.weight"], own[f"{name}.lora_B.weight"]
            if (down.shape, up.shape) != (layer.down.shape, layer.up.shape):
                raise UserError(f"adapter.init={str(path)!r}: its layer {name} is for a denoiser of another size")
            down.copy_(layer.down)
            up.copy_(layer.up.float() * (layer.scale * gain))

    def save(self, folder: Path, name: str) -> None:
        """Write a file that `pipe.load_lora_weights(folder)` loads; rank and alpha are in its metadata.

        If the pipeline has no such method, `editr1 edit --lora` takes the file, and so does diffusers'
        `denoiser.load_lora_adapter` if the denoiser has it.
        """
        settings = self.denoiser.peft_config[name].to_dict()
        settings = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
        settings = {f"{self.component}.{key}": value for key, value in settings.items()}
        layers = {f"{self.component}.{key}": weight.detach() for key, weight in self.weights[name].items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(layers, folder / DIFFUSERS_FILE, {HEADER: json.dumps(settings, indent=2, sort_keys=True)})

    def _activate(self, name: str) -> None:
        """Switch adapters, without the walk of `denoiser.set_adapter` over all modules and its change of gradients."""
        for layer in self._layers:
            layer._disable_adapters = name == REFERENCE
            if name != REFERENCE:
                layer._active_adapter = [name]
        self.active = name

    def _add(self, name: str) -> None:
        with torch.random.fork_rng(devices=[], enabled=DEFAULT in self.weights), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are intended
            add_adapter(self.denoiser, LoraConfig(**self._config, init_lora_weights="gaussian"), name)
        self._layers = [module for module in self.denoiser.modules() if isinstance(module, BaseTunerLayer)]
        self.weights[name] = _adapter_weights(self.denoiser, name)
        if self._autocast:
            cast_weights(self.denoiser, name)
        for policy, weights in self.weights.items():  # PEFT makes the new adapter the trainable one
            for weight in weights.values():
                weight.requires_grad_(policy == DEFAULT)
        self._activate(self.active)

    def _bare(self, key: str) -> str:
        return key.removeprefix(f"{self.component}.")


class FullPolicies(Policies):
    """Every weight of the denoiser is trained; the other policies are copies.

    A switch exchanges Parameter objects, not their data, so that a graph recorded with "default" uses the same weights
    in the backward pass.
    """

    def __init__(self, denoiser: Any) -> None:
        super().__init__(denoiser)
        default: dict[str, Parameter] = dict(denoiser.named_parameters())
        self.weights = {DEFAULT: default, OLD: _frozen_copy(default), REFERENCE: _frozen_copy(default)}
        self._slots = [(denoiser.get_submodule(key.rpartition(".")[0]), key.rpartition(".")[2]) for key in default]
        for weight in default.values():
            weight.requires_grad_(True)
        self.active = DEFAULT

    def save(self, folder: Path, name: str) -> None:
        """Write a denoiser folder that its class's `from_pretrained` loads."""
        self._save_config(folder)
        with self.using(name):
            write_parts(self.denoiser.state_dict(), folder, FILES)

    def _save_config(self, folder: Path) -> None:
        self.denoiser.save_config(folder)

    def _activate(self, name: str) -> None:
        """Put the Parameter objects of policy `name` into the denoiser's modules."""
        for (module, leaf), weight in zip(self._slots, self.weights[name].values(), strict=True):
            setattr(module, leaf, weight)
        self.active = name

    def _add(self, name: str) -> None:
        self.weights[name] = _frozen_copy(self.weights[DEFAULT])


class ShardedPolicies(FullPolicies):
    """Full policies of a denoiser that `fully_shard` spreads over ranks: each policy is this rank's shard of it.

    The sharding keeps its own Parameter objects, so a switch exchanges values: while another policy is active, the
    tensors of "default" hold that policy, and its tensors hold "default". A graph recorded with "default" gathers its
    weights again in the backward pass, so "default" must be active then.
    """

    spread = True

    def __init__(self, denoiser: Any) -> None:
        for module in denoiser.modules():
            if isinstance(module, FSDPModule):  # gathered weights would outlive a switch
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()
        super().__init__(denoiser)
        self._mesh: DeviceMesh = next(denoiser.parameters()).device_mesh

    @torch.no_grad()
    def _activate(self, name: str) -> None:
        """Exchange the values of the active policy and of policy `name`."""
        if name == self.active:
            return
        for policy in (self.active, name):  # the active one goes back first
            if policy != DEFAULT:
                self._exchange(self._tensors(DEFAULT), self._tensors(policy))
        self.active = name

    def _equal(self, name: str, other: str) -> bool:
        differ = torch.tensor(float(not super()._equal(name, other)), device=self._mesh.device_type)
        dist.all_reduce(differ, group=self._mesh.get_group())
        return not differ

    def _tensors(self, name: str) -> list[Tensor]:
        return [weight.to_local() for weight in self.weights[name].values() if isinstance(weight, DTensor)]

    @staticmethod
    def _exchange(some: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        for one, other in zip(some, others, strict=True):
            before = one.clone()
            one.copy_(other)
            other.copy_(before)

    def _save_config(self, folder: Path) -> None:
        if dist.get_rank() == 0:
            super()._save_config(folder)


def add_adapter(denoiser: Any, config: LoraConfig, name: str) -> None:
    """Add an adapter to a denoiser, even to one without diffusers' adapter methods (JoyImage's)."""
    if isinstance(denoiser, PeftAdapterMixin):
        denoiser.add_adapter(config, name)
    else:
        inject_adapter_in_model(config, denoiser, name)


def _check_targets(denoiser: nn.Module, targets: Sequence[str]) -> None:
    """Refuse a target that names no module; PEFT itself refuses them only if all are unknown."""
    names = [name for name, _ in denoiser.named_modules()]
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in names)]
    if missing:
        linear = sorted({n.split(".", 2)[-1] for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)})
        raise UserError(f"adapter.targets: the denoiser has no module {missing[0]!r}; it has {', '.join(linear)}.")


def _linear_layers(denoiser: nn.Module) -> set[nn.Module]:
    """The linear layers of a denoiser without those of its adapters."""
    layers = {name: module for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    return {module for name, module in layers.items() if ".lora_" not in name}


def _adapter_weights(denoiser: nn.Module, name: str) -> dict[str, Parameter]:
    """The adapter's parameters in float32; their names leave the adapter's out."""
    suffix = f".{name}.weight"
    weights = {n.removesuffix(suffix) + ".weight": p for n, p in denoiser.named_parameters() if n.endswith(suffix)}
    for weight in weights.values():
        weight.data = weight.data.float()
    return weights


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _frozen_copy(weights: Mapping[str, Tensor]) -> dict[str, Parameter]:
    return {name: Parameter(weight.detach().clone(), requires_grad=False) for name, weight in weights.items()}
