"""The items that training draws, and a toy editor's edits of them on disk, from which the judge learns."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from editr1.config.data import Level
from editr1.editors.editor import Editor
from editr1.toy.tasks import TASKS
from editr1.toy.world import ToyDataset

log = logging.getLogger(__name__)


def weighted_index(rng: np.random.Generator, weights: dict[str, float]) -> int:
    """The index of a random item, its task drawn by `weights` (1 for a task without one)."""
    shares = np.array([weights.get(task, 1) for task in TASKS])
    task = rng.choice(len(TASKS), p=shares / shares.sum())
    return int(rng.integers(1 << 26)) * len(TASKS) + int(task)


def make_samples(editor: Editor, out: Path, name: str, *, level: Level, seed: int, items: int) -> None:
    """Write `out`/name.safetensors ({"images": uint8 [items, 12, 64, 64, 3]}) and the items' keys beside it."""
    dataset = ToyDataset("sft", items, seed, level)
    images = []
    for index in range(items):
        rollout = editor.rollout(dataset[index], 12, steps=6, seed=seed * 1_000_003 + index, scheduler="dpm2")
        images.append(np.stack([np.asarray(image) for image in rollout.images]))
        if index % 50 == 49:
            log.info("samples %s %d", name, index + 1)
    out.mkdir(parents=True, exist_ok=True)
    keys = [dataset.item(index).key for index in range(items)]
    (out / f"{name}.json").write_text(json.dumps(keys))
    save_file({"images": torch.from_numpy(np.stack(images))}, out / f"{name}.safetensors")
