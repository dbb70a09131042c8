"""One rank of a sharded bfloat16 editor, whose LoRA computes in bfloat16: `torchrun autocast_rank.py OUT FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from editr1.editors.editor import Editor
from editr1.editors.open import open_config_editor
from editr1.training.process_end import run_and_exit
from tests.editors.rank import RANKS, config, meet, work
from tests.tiny import PIXELS


def opened(folder: Path, ranks: int = 1) -> Editor:
    """The editor of one process, or this rank's part of it."""
    editor = {"path": str(folder), "pixels": PIXELS, "dtype": "bfloat16", "device": "cpu"}
    return open_config_editor(config(folder, editor=editor, parallel={"shard": ranks}), ranks, meet)


def main(out: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    save_file(work(opened(folder, RANKS), seed=rank, autocast=True), out / f"{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    run_and_exit(lambda: main(Path(sys.argv[1]), Path(sys.argv[2])))
