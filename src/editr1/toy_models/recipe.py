"""All of the toy's training in order: each editor after its VAE, then the judge.

The judge learns in three parts: from synthetic edits; then from the editor's own edits too; then also from those of an
editor that was trained on the judge's scores so far, since such training finds what fools a judge.

A stopped phase resumes, and a finished one is skipped; to repeat one, delete its folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from editr1.config.data import Level
from editr1.config.loading import load_config
from editr1.editors.open import open_editor
from editr1.toy_models.samples import make_samples
from editr1.toy_models.train_editor import LAYOUTS, Layout, train_editor
from editr1.toy_models.train_judge import train_judge
from editr1.toy_models.train_vae import train_vae
from editr1.toy_models.verify import ITEMS as VERIFY_ITEMS
from editr1.toy_models.verify import verify
from editr1.training.open import open_trainer

VAE_STEPS, EDITOR_STEPS = 2000, 4200
EDITOR_BATCH, JUDGE_BATCH = 64, 48
SAMPLED = "qwen-image-edit"  # the editor whose edits the judge learns from
JUDGE_LOOK, JUDGE_ALONE, JUDGE_FIRST, JUDGE_STEPS = 300, 2400, 4500, 6000
PUSH_STEPS = 40
SAMPLE_ITEMS, PUSHED_ITEMS = 540, 216


def train_all(out: Path, *, seed: int, level: Level) -> None:
    """Train everything into `out`, and copy the models to ship into `out`/weights, with their figures."""
    for name, layout in LAYOUTS.items():
        train_vae_and_editor(out / name, layout, level=level, seed=seed)
    judge_dir = out / "judge"
    if not (out / "samples" / "base.json").exists():
        editor = open_editor(out / SAMPLED / "editor" / "editor", pixels=64 * 64)
        make_samples(editor, out / "samples", "base", level=level, seed=seed, items=SAMPLE_ITEMS)
    for steps in (JUDGE_FIRST, JUDGE_STEPS):
        train_judge(
            judge_dir,
            level=level,
            seed=seed,
            steps=steps,
            look=JUDGE_LOOK,
            alone=JUDGE_ALONE,
            samples=out / "samples",
            batch=JUDGE_BATCH,
        )
        if not (out / "samples" / "pushed.json").exists():
            push(out, seed=seed, level=level)
    gather(out, level)


def train_vae_and_editor(out: Path, layout: Layout, *, seed: int, level: Level) -> None:
    """Train the VAE of a layout, then the editor."""
    vae_dir, editor_dir = out / "vae", out / "editor"
    if not (vae_dir / "vae").exists():
        train_vae(vae_dir, layout.init_vae, level=level, seed=seed, steps=VAE_STEPS)
    vae = type(layout.init_vae()).from_pretrained(vae_dir / "vae", use_safetensors=True)
    vae.register_to_config(_name_or_path="")  # else the weights that are shipped name a folder of this machine
    if not (editor_dir / "editor").exists():
        train_editor(editor_dir, layout, vae, level=level, seed=seed, steps=EDITOR_STEPS, batch=EDITOR_BATCH)


def push(out: Path, *, seed: int, level: Level) -> None:
    """Train the editor on the scores of the judge so far, and store samples of its edits."""
    paths = [f"editor.path={out}/{SAMPLED}/editor/editor", f"judge.path={out}/judge/judge", f"out={out}/push"]
    config = load_config("toy", [*paths, f"steps={PUSH_STEPS}", f"seed={seed}", f"data.level={level}"])
    trainer = open_trainer(config)
    trainer.train()
    with trainer.ema.swap(), trainer.editor.policies.using("default"):
        make_samples(trainer.editor, out / "samples", "pushed", level=level, seed=seed + 1, items=PUSHED_ITEMS)


def gather(out: Path, level: Level) -> None:
    """Copy the models to ship into `out`/weights and measure them."""
    weights = out / "weights"
    shutil.copytree(out / "judge" / "judge", weights / "judge", dirs_exist_ok=True)
    for name in LAYOUTS:
        shutil.copytree(out / name / "editor" / "editor", weights / name, dirs_exist_ok=True)
        figures = verify(weights / name, weights / "judge", level=level, items=VERIFY_ITEMS)
        (weights / f"verify.{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
