"""One rank of two that share the tokens of each call: `torchrun tests/editors/context_rank.py OUT WAYS FOLDER...`.

It does what `rank.work` says with each pipeline of FOLDER..., in every way of WAYS (their names with commas between
them), and a test compares it with one process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from editr1.editors.editor import Editor
from editr1.editors.open import open_config_editor
from editr1.training.process_end import run_and_exit
from tests.editors.rank import RANKS, config, meet, work

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing and offload": {"memory": {"gradient_checkpointing": True, "offload": True}},
    "shard": {"parallel": {"shard": RANKS}},
    "full and shard": {"parallel": {"shard": RANKS}},
    "odd text": {},
    "compile": {"memory": {"compile": True}},
}
WORK: dict[str, dict[str, Any]] = {
    "full and shard": {"mode": "full"},
    "odd text": {"instruction": "remove the ball"},  # 19 tokens of Qwen-Image-Edit; the other one has 20
}


def work_of(way: str, editor: Editor) -> dict[str, Tensor]:
    """The same on every rank."""
    return work(editor, seed=0, moved=0.05, **WORK.get(way, {}))


def main(out: Path, ways: list[str], folders: list[Path]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for folder in folders:
        for way in ways:
            parallel = {"context": RANKS, **WAYS[way].get("parallel", {})}
            editor = open_config_editor(config(folder, **{**WAYS[way], "parallel": parallel}), RANKS, meet)
            save_file(work_of(way, editor), out / f"{folder.name}-{way}-{dist.get_rank()}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    run_and_exit(lambda: main(Path(sys.argv[1]), sys.argv[2].split(","), [Path(name) for name in sys.argv[3:]]))
