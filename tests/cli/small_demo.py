"""`editr1 demo` with few small steps and few held-out items: `python -m tests.cli.small_demo --out OUT`."""

from __future__ import annotations

import sys

from editr1.cli import demo
from editr1.cli.main import app
from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.training.process_end import run_and_exit

SIZES = ["rollout.groups_per_step=3", "rollout.group_size=5", "rollout.steps=2", "data.size=16", "steps=2"]


def load_small(preset: str, overrides: list[str]) -> Config:
    return load_config(preset, [*overrides, *SIZES])


if __name__ == "__main__":
    # 18 items are three batches of the judge
    for name, value in {"load_config": load_small, "HELD_OUT": 18, "EVAL_STEPS": 2}.items():
        setattr(demo, name, value)
    run_and_exit(lambda: app(["demo", *sys.argv[1:]]))
