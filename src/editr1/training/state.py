"""The weights of a run in a checkpoint: policies and average as diffusers loads them, and the exact tensors beside.

policy/, old/ and ema/ are for diffusers; training.safetensors holds the optimiser's moments and the average.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from torch.optim import Optimizer

from editr1.algorithms.ema import EMA
from editr1.editors.policies import Policies
from editr1.editors.weight_files import open_tensors, read_part, write_parts
from editr1.errors import UserError, first_line
from editr1.training import checkpoint

TENSORS = "training{suffix}.safetensors"
Weights = tuple[Policies, EMA, Optimizer, Sequence[str]]
"""All weights of a run; the last are the names of the trained parameters, in the optimiser's order."""


def write_weights(weights: Weights, folder: Path) -> None:
    """Write all weights; if they are spread over ranks, all ranks do it together."""
    policies, ema, optimizer, names = weights
    policies.save(folder / "policy", "default")
    policies.save(folder / "old", "old")
    with ema.swap():
        policies.save(folder / "ema", "default")
    moments = checkpoint.optimizer_tensors(optimizer, names)
    averages = {f"ema.{name}": tensor for name, tensor in ema.state_dict().items()}
    write_parts({**moments, **averages}, folder, TENSORS)


def read_weights(weights: Weights, folder: Path) -> None:
    """The reverse, in place.

    Raises:
        UserError: The weights are not those of this editor and its settings.
    """
    policies, ema, optimizer, names = weights
    policies.load(folder / "policy", "default")
    policies.load(folder / "old", "old")
    params = dict(policies.parameters())
    try:
        # a moment is spread over ranks as its parameter is
        tensors = {
            key: read_part(part, params.get(key.partition(".")[2]))
            for key, part in open_tensors(sorted(folder.glob(TENSORS.format(suffix="*")))).items()
        }
        averages = {name.removeprefix("ema."): tensors.pop(name) for name in [*tensors] if name.startswith("ema.")}
        ema.load_state_dict(averages)
        checkpoint.restore_optimizer(optimizer, names, tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{folder}: {first_line(error)}") from error
