"""Names of the files and folders that a run leaves in its own folder."""

from __future__ import annotations

LOCK = ".lock"  # of the process that writes
CONFIG = "config.yaml"
SESSION = "session.json"
SELF_CHECK = "self_check.json"  # whether what is trained is what was sampled
METRICS = "metrics.jsonl"
DAMAGED = "metrics.jsonl.damaged"  # lines that are no rows
DATA = "data.json"  # what the data was when the run began
BOARD = "tb"  # for TensorBoard
TRACKERS = "trackers"  # what other trackers know the run by, and have of it
WANDB = "wandb"  # what W&B writes
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
GROUPS = "groups"  # edits of every step, with rollout.save_groups
BEFORE, AFTER = "evaluation/before", "evaluation/after"
BETWEEN = "evaluation"  # holds step_<step>/, measured between the two
RESULTS = "results.json"
REPORT = "report.html"
