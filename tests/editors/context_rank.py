"""One rank of two that share the tokens of each call: `torchrun tests/editors/context_rank.py OUT FOLDER...`.

It does what `rank.work` says with each pipeline of FOLDER..., and a test compares it with one process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from editr1.editors.open import open_config_editor
from tests.editors.rank import RANKS, config, meet, work

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing": {"memory": {"gradient_checkpointing": True}},
    "shard": {"parallel": {"shard": RANKS}},
}


def main(out: Path, folders: list[Path]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for folder in folders:
        for name, sections in WAYS.items():
            parallel = {"context": RANKS, **sections.get("parallel", {})}
            editor = open_config_editor(config(folder, **{**sections, "parallel": parallel}), RANKS, meet)
            save_file(work(editor, seed=0), out / f"{folder.name}-{name}-{dist.get_rank()}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
