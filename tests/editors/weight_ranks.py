"""One rank that writes sharded tensors and reads them again: `torchrun tests/editors/weight_ranks.py OUT SHARD`.

It tells in OUT/RANK.json what came of it. With SHARD less than the number of ranks there are several replicas.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from editr1.editors.weight_files import open_tensors, read_part, write_parts
from editr1.training.process_end import run_and_exit

PATTERN = "weights{suffix}.safetensors"
LIMIT = 100
SHAPES = {"matrix": (7, 3), "row": (1, 5), "few": (2,), "deep": (5, 2, 2), "none": (0, 4), "half": (9, 2)}


def tensors() -> dict[str, Tensor]:
    """Whole tensors, most of which no number of ranks divides."""
    generator = torch.Generator().manual_seed(0)
    some = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {**some, "half": some["half"].bfloat16(), "step": torch.tensor(3.0)}


def main(out: Path, shard: int) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mesh = init_device_mesh("cpu", (dist.get_world_size() // shard, shard), mesh_dim_names=("replicate", "fsdp"))
    own = {
        name: tensor if tensor.ndim == 0 else distribute_tensor(tensor, mesh["fsdp"], [Shard(0)])
        for name, tensor in tensors().items()
    }
    write_parts(own, out / "parts", PATTERN, LIMIT)
    dist.barrier()
    parts = open_tensors(sorted((out / "parts").glob("*.safetensors")))
    read = {name: read_part(parts[name], tensor) for name, tensor in own.items()}
    equal = all(same(read[name], tensor) for name, tensor in own.items())
    if rank == shard - 1:  # its disk is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        write_parts(own, out / "full", PATTERN, LIMIT)
        problem = None
    except (OSError, SafetensorError) as error:
        problem = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (out / f"{rank}.json").write_text(json.dumps({"equal": equal, "problem": problem}))
    dist.destroy_process_group()


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same sharding, number format and values."""
    if isinstance(other, DTensor):
        assert isinstance(one, DTensor) and one.placements == other.placements and one.shape == other.shape
        one, other = one.to_local(), other.to_local()
    return one.dtype == other.dtype and torch.equal(one, other)


if __name__ == "__main__":
    run_and_exit(lambda: main(Path(sys.argv[1]), int(sys.argv[2])))
