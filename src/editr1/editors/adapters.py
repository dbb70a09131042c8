"""Three policies in one denoiser: "default" is trained, "old" samples, "reference" is what was loaded.

LoRA: "default" and "old" are PEFT adapters of the diffusers model, "reference" is both switched off.
Full: "old" and "reference" are kept copies of every weight (three times the denoiser's memory), swapped in whole.

Gradients always belong to "default" alone, whatever policy is active. PEFT's own switch makes the active adapter
trainable and the others not; a backward pass after such a switch would drop the gradients of "default" silently.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import Parameter

from editr1.errors import UserError

if TYPE_CHECKING:
    from editr1.editors.editor import Editor

PolicyName = Literal["default", "old", "reference"]
Mode = Literal["lora", "full"]


class Policies(Protocol):
    """The three policies of one denoiser; `weights[policy]` maps the name of each trained weight to its tensor."""

    active: PolicyName
    weights: dict[str, dict[str, Parameter]]

    def activate(self, policy: PolicyName) -> None:
        """Make the denoiser compute with `policy`."""

    def save(self, pipe: Any, folder: Path, policy: PolicyName) -> None:
        """Write the weights of `policy` in diffusers' own format."""


class LoraPolicies:
    """LoRA adapters in float32; both start as the same adapter, which changes nothing."""

    def __init__(self, denoiser: Any, name: str, *, rank: int, alpha: float, targets: Sequence[str], seed: int) -> None:
        _check_targets(denoiser, targets)
        self.denoiser, self.name = denoiser, name
        self.active: PolicyName = "default"
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # two adapters are meant
            torch.manual_seed(seed)
            for policy in ("old", "default"):
                config = LoraConfig(
                    r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights="gaussian"
                )
                add_adapter(denoiser, config, policy)
        self.weights = {policy: _adapter_weights(denoiser, policy) for policy in ("default", "old")}
        _copy(self.weights["default"], self.weights["old"])
        for weight in self.weights["old"].values():
            weight.requires_grad_(False)
        self._layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]

    def activate(self, policy: PolicyName) -> None:
        """Switch adapters without the walk over all modules of `denoiser.set_adapter`; see above for gradients."""
        for layer in self._layers:
            layer._disable_adapters = policy == "reference"
            if policy != "reference":
                layer._active_adapter = [policy]
        self.active = policy

    def save(self, pipe: Any, folder: Path, policy: PolicyName) -> None:
        """Write what `pipe.load_lora_weights(folder)` loads; rank and alpha stand in the metadata.

        The file is the same where the pipeline has no such method; `editr1 edit --lora` takes it then, and diffusers'
        `denoiser.load_lora_adapter`, where the denoiser has that.
        """
        settings = self.denoiser.peft_config[policy].to_dict()
        settings = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
        settings = {f"{self.name}.{name}": value for name, value in settings.items()}
        layers = {f"{self.name}.{name}": weight.detach() for name, weight in self.weights[policy].items()}
        LoraBaseMixin.write_lora_layers(
            state_dict=layers,
            save_directory=folder,
            is_main_process=True,
            weight_name=None,
            save_function=None,
            safe_serialization=True,
            lora_adapter_metadata=settings,
        )


class FullPolicies:
    """Every weight of the denoiser is trained; the other policies are copies.

    Switching exchanges Parameter objects, not their data, so that a graph recorded with "default" still finds its own
    weights at the backward pass.
    """

    def __init__(self, denoiser: Any) -> None:
        self.denoiser = denoiser
        self.active: PolicyName = "default"
        default: dict[str, Parameter] = dict(denoiser.named_parameters())
        self.weights = {"default": default, "old": _frozen_copy(default), "reference": _frozen_copy(default)}
        self._slots = [(denoiser.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in default]
        for weight in default.values():
            weight.requires_grad_(True)

    def activate(self, policy: PolicyName) -> None:
        """Put the Parameter objects of `policy` into the denoiser's modules."""
        for (module, leaf), weight in zip(self._slots, self.weights[policy].values(), strict=True):
            setattr(module, leaf, weight)
        self.active = policy

    def save(self, pipe: Any, folder: Path, policy: PolicyName) -> None:
        """Write a denoiser folder that its class's `from_pretrained` loads."""
        with _activated(self, policy):
            self.denoiser.save_pretrained(folder)


def add_adapter(denoiser: Any, config: LoraConfig, name: str) -> None:
    """Put an adapter into a denoiser, also one without diffusers' adapter methods (JoyImage's)."""
    if isinstance(denoiser, PeftAdapterMixin):
        denoiser.add_adapter(config, name)
    else:
        inject_adapter_in_model(config, denoiser, name)


def add_policies(
    editor: Editor,
    *,
    rank: int = 32,
    alpha: float = 64,
    targets: Sequence[str] | None = None,
    mode: Mode = "lora",
    seed: int = 0,
) -> None:
    """Give an editor its three policies, all equal to what was loaded; "default" is active afterwards.

    Args:
        editor: has none yet.
        rank: of the LoRA matrices.
        alpha: the LoRA is scaled by alpha / rank.
        targets: names of the modules that get a LoRA; None for the family's.
        mode: "lora", or "full" to train every weight of the denoiser.
        seed: of the LoRA's initial weights.

    Raises:
        UserError: a target names no module of the denoiser.
    """
    if mode == "full":
        editor.policies = FullPolicies(editor.denoiser)
    else:
        names = editor.family.lora_targets if targets is None else targets
        editor.policies = LoraPolicies(
            editor.denoiser, editor.family.denoiser, rank=rank, alpha=alpha, targets=names, seed=seed
        )


@contextmanager
def use_policy(editor: Editor, policy: PolicyName) -> Iterator[None]:
    """Compute with `policy` inside, and afterwards with the one that was active before; no weight is copied.

    An editor without policies is its own reference.
    """
    if editor.policies is None and policy == "reference":
        yield
    else:
        with _activated(_policies(editor), policy):
            yield


def trainable_parameters(editor: Editor) -> list[tuple[str, Parameter]]:
    """Names and parameters of "default", the ones that an optimiser gets; their order and names are stable."""
    return list(_policies(editor).weights["default"].items())


@torch.no_grad()
def update_old(editor: Editor, decay: float) -> None:
    """theta_old <- decay theta_old + (1 - decay) theta_default, in place."""
    weights = _policies(editor).weights
    for name, old in weights["old"].items():
        old.lerp_(weights["default"][name], 1 - decay)


def save_lora(editor: Editor, folder: Path, policy: PolicyName) -> None:
    """Write "default" or "old" in diffusers' format: `pipe.load_lora_weights(folder)` loads it.

    In mode "full" it is a denoiser folder for `from_pretrained`.
    """
    _policies(editor).save(editor.pipe, folder, policy)


@torch.no_grad()
def load_lora(editor: Editor, folder: Path, policy: PolicyName) -> None:
    """Copy what `save_lora` wrote into a policy, in place: an optimiser keeps its parameters.

    Raises:
        UserError: a file is not readable, or does not hold exactly the weights of this editor and adapter config.
    """
    try:
        files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights in {folder}: {error}") from error
    tensors = {
        name.removeprefix(f"{editor.family.denoiser}."): tensor for file in files for name, tensor in file.items()
    }
    weights = _policies(editor).weights[policy]
    wrong = sorted(name for name in weights.keys() | tensors.keys() if _shape(weights, name) != _shape(tensors, name))
    if wrong:
        raise UserError(
            f"{folder} does not fit this editor: {len(wrong)} of {len(weights)} weights are missing, left over or of "
            f"another shape, first {wrong[0]!r}; use the adapter settings (mode, rank, targets) it was saved with."
        )
    _copy(tensors, weights)


@contextmanager
def _activated(policies: Policies, policy: PolicyName) -> Iterator[None]:
    before = policies.active
    policies.activate(policy)
    try:
        yield
    finally:
        policies.activate(before)


def _policies(editor: Editor) -> Policies:
    if editor.policies is None:
        raise RuntimeError("this editor has no policies yet: call add_policies first")
    return editor.policies


def _check_targets(denoiser: nn.Module, targets: Sequence[str]) -> None:
    """PEFT itself is content when one of several targets is found."""
    names = [name for name, _ in denoiser.named_modules()]
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in names)]
    if missing:
        linear = sorted({n.split(".", 2)[-1] for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)})
        raise UserError(f"adapter.targets: the denoiser has no module {missing[0]!r}; it has {', '.join(linear)}.")


def _adapter_weights(denoiser: nn.Module, policy: str) -> dict[str, Parameter]:
    """The adapter's parameters in float32, by their names without the adapter's."""
    suffix = f".{policy}.weight"
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


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
