"""What a process holds of an editor that is spread over several, and how much main memory it takes to load it.

    python benchmarks/sharding.py [MEGABYTES]

The shipped Qwen-Image-Edit toy gets a wider and deeper denoiser and is loaded on the CPU by 1, 2 and 4 processes. Every
weight is read once, as safetensors maps files into memory when they are read. Writes key "sharding" of
benchmarks/results.json, by `parallel.shard`; of the process that holds or takes most:

    weights    bytes of the denoiser's weights
    peak       bytes of resident memory at its highest while loading, beyond what the process took before
    ratio      peak / peak of one process
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copytree
from typing import Any

import psutil
import results
import torch
from diffusers import QwenImageTransformer2DModel
from torch.distributed.tensor import DTensor

from editr1.config.settings import Config
from editr1.editors.open import open_config_editor
from editr1.toy.assets import locate
from editr1.training.distributed import open_world
from editr1.training.process_end import run_and_exit

RANKS = (1, 2, 4)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def build(folder: Path, megabytes: int) -> None:
    """An editor whose denoiser has about as many megabytes in float32."""
    copytree(locate("toy"), folder)
    settings = QwenImageTransformer2DModel.load_config(folder, subfolder="transformer")
    heads = 768 // int(settings["attention_head_dim"])
    block = 4 * (24 + 12) * (heads * int(settings["attention_head_dim"])) ** 2  # bytes
    settings = {**settings, "num_attention_heads": heads, "num_layers": max(2, round(megabytes * 1e6 / block))}
    with torch.device("meta"):
        denoiser = QwenImageTransformer2DModel.from_config(settings)
    denoiser.to_empty(device="cpu")
    for weight in denoiser.parameters():
        weight.data.fill_(0.01)
    for file in (folder / "transformer").iterdir():
        file.unlink()
    denoiser.save_pretrained(folder / "transformer", max_shard_size="100MB")


def load(folder: Path, shard: int) -> None:
    """Load the editor as one of `shard` processes, and print what that took."""
    with open_world() as world:
        run = Config.model_validate(
            {
                "editor": {"path": str(folder), "device": "cpu", "dtype": "float32"},
                "judge": {"path": "toy"},
                "data": {"kind": "toy"},
                "parallel": {"shard": shard},
            }
        )
        before = psutil.Process().memory_info().rss
        editor = open_config_editor(run, world.size, world.meet)
        weights = [w.to_local() if isinstance(w, DTensor) else w for w in editor.denoiser.parameters()]
        touched = sum(float(weight.detach().sum()) for weight in weights)
        assert touched > 0
        row = {"weights": sum(w.numel() * w.element_size() for w in weights), "peak": peak() - before}
        rows = world.gather(row, "the end of loading")
    if world.is_main:
        print("ROW", json.dumps({key: max(row[key] for row in rows) for key in row}))


def peak() -> int:
    """Highest resident memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def measure(megabytes: int, ranks: tuple[int, ...] = RANKS) -> dict[str, dict[str, Any]]:
    """A row per number of processes."""
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "editor"
        build(folder, megabytes)
        for shard in ranks:
            command = [*TORCHRUN, f"--nproc-per-node={shard}", __file__, "--load", str(folder), str(shard)]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            output = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
            row = json.loads(output.stdout.decode().partition("ROW ")[2])
            table[str(shard)] = {**row, "ratio": round(row["peak"] / table["1"]["peak"], 3) if table else 1.0}
    return table


def main() -> None:
    """Measure, print, write."""
    if "--load" in sys.argv:
        torch.set_num_threads(1)
        run_and_exit(lambda: load(Path(sys.argv[2]), int(sys.argv[3])))
    table = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
    for shard, row in table.items():
        print(f"shard {shard}: {row['weights'] / 1e6:.0f} MB of weights, {row['peak'] / 1e6:.0f} MB to load them")
    results.add("sharding", {"sharding": table}, "python benchmarks/sharding.py")


if __name__ == "__main__":
    main()
