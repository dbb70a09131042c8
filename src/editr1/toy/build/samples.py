"""Edits by a toy editor on sft items, kept on disk for the judge to learn from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from editr1.editors.editor import Editor
from editr1.samplers import SchedulerName
from editr1.toy.world import Level, ToyDataset

log = logging.getLogger(__name__)


def make_samples(
    editor: Editor,
    out: Path,
    name: str,
    *,
    level: Level,
    seed: int,
    items: int,
    edits: int = 12,
    steps: int = 6,
    scheduler: SchedulerName = "dpm2",
) -> None:
    """Write `out`/name.safetensors ({"images": uint8 [items, edits, 64, 64, 3]}) and the items' keys beside it."""
    dataset = ToyDataset("sft", items, seed, level)
    images = []
    for index in range(items):
        rollout = editor.rollout(dataset[index], edits, steps=steps, seed=seed * 1_000_003 + index, scheduler=scheduler)
        images.append(np.stack([np.asarray(image) for image in rollout.images]))
        if index % 50 == 49:
            log.info("samples %s %d", name, index + 1)
    out.mkdir(parents=True, exist_ok=True)
    keys = [dataset.item(index).key for index in range(items)]
    (out / f"{name}.json").write_text(json.dumps(keys))
    save_file({"images": torch.from_numpy(np.stack(images))}, out / f"{name}.safetensors")
