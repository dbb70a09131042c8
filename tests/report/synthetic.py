"""A run's folder made of known numbers: what a demo leaves behind, without running one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Images
from PIL import ImageDraw

from editr1.algorithms.base import find_algorithms
from editr1.config.loading import dump_config, load_config
from editr1.evaluation.heldout.rows import SOURCE, EditRow, RowStore
from editr1.evaluation.paired import summarise

TASKS = ("add", "adjust", "background", "compose", "extract", "move", "remove", "replace", "style")
STEPS = 40
PARTS = {
    "nft": {"loss_pos": 2.0, "loss_neg": 2.1},
    "awm": {"policy": -0.2, "clipped": 0.1, "kl_old": 0.03},
    "grpo": {"policy": -0.02, "clipped": 0.1},
}


def write_metrics(folder: Path, steps: int = STEPS, algorithm: str = "nft") -> None:
    """config.yaml and metrics.jsonl as a training leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config("toy", [f"out={folder}", f"algorithm.name={algorithm}"])
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    rng = np.random.default_rng(0)
    parts = PARTS.get(algorithm) or {name: 0.2 for name in find_algorithms()[algorithm].parts if name != "kl"}
    rows = [_metrics_row(step, rng) | parts for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_demo(folder: Path, items: int = 36, unscored: int = 1) -> dict[str, Any]:
    """The whole folder of a demo; returns the content of results.json."""
    write_metrics(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [{**row, "watched": {"oracle": 0.45 + 0.004 * row["step"]}} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    before = _evaluation(folder / "evaluation/before", items, 0.0, unscored)
    after = _evaluation(folder / "evaluation/after", items, 0.2, 0)
    results = summarise(before, after, seed=3, train_seconds=312.4)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "samples").mkdir()
    for step in (1, STEPS):
        picture(step).resize((1456, 280)).save(folder / "samples" / f"step_{step:04d}.png")
    return results


def picture(number: int) -> Images.Image:
    """A scene of two shapes, another for every number."""
    image = Images.new("RGB", (64, 64), (200, 220 - number % 60, 240))
    draw = ImageDraw.Draw(image)
    draw.ellipse((6, 8, 28, 30), fill=(40 * number % 255, 90, 160))
    draw.rectangle((34, 36, 56, 58), fill=(220, 60 * number % 255, 70))
    return image


def _metrics_row(step: int, rng: np.random.Generator) -> dict[str, Any]:
    reward = 0.5 + 0.005 * step + float(rng.normal(0, 0.03))
    kept = int(rng.integers(5, 9))
    drift = ("latent_norm", "brightness", "saturation", "sharpness", "source_distance")
    return {
        "step": step,
        "reward_mean": reward,
        "reward_std_within": 0.16 - 0.001 * step + float(rng.normal(0, 0.01)),
        "reward_std_all": 0.27 + float(rng.normal(0, 0.01)),
        "reward_by_task": {task: reward + 0.02 * i for i, task in enumerate(TASKS) if (step + i) % 3},
        "unscored": int(step == 5),
        "groups_kept": kept,
        "dropped": {"agree_and_high": 7 - kept, "no_spread": 1} if kept < 7 else {"agree_and_high": 8 - kept},
        "loss": 4.0 + float(rng.normal(0, 0.1)),
        "kl": 0.0004 * step,
        "grad_norm": None if step == 3 else 0.5 + float(rng.normal(0, 0.05)),
        "update_norm": 0.02,
        "drift": {name: 0.001 * step * (i - 1) + float(rng.normal(0, 0.004)) for i, name in enumerate(drift)},
        "seconds": {"rollout": 3.0, "judge": 0.9, "train": 1.5, "rest": 0.1},
        "images_per_s": 96 / 5.5,
    }


def _evaluation(folder: Path, items: int, gain: float, unscored: int) -> list[EditRow]:
    store = RowStore(folder, {"weights": folder.name})
    for item in range(items):
        key, task = f"toy/small/heldout/0/{item}", TASKS[item % len(TASKS)]
        store.save_image(key, SOURCE, picture(item))
        for seed in range(2):
            score = min(
                1.0, 0.2 + 0.01 * item + 0.1 * seed + gain * (1 + (item % 5) / 4) * (-1 if item % 11 == 0 else 1)
            )
            judge = None if item < unscored else 0.9 * score
            name = store.save_image(key, seed, picture(item + seed + int(100 * gain)))
            oracle = {"score": score, "done": score, "preserved": 1.0}
            store.add([EditRow(key, task, seed, f"put thing {item} <beside> the house", judge, None, oracle, name)])
    return store.rows
