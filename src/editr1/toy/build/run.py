"""All of the toy's training in order: VAE, editor, its samples, judge. Each phase resumes where it was stopped.

What is there already is not made again, so a phase can be redone by deleting its folder.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage

from editr1.editors.editor import Editor
from editr1.toy.build.editor import train_editor
from editr1.toy.build.judge import train_judge
from editr1.toy.build.samples import make_samples
from editr1.toy.build.vae import train_vae
from editr1.toy.verify import verify
from editr1.toy.world import Level

VAE_STEPS, EDITOR_STEPS, JUDGE_STEPS, JUDGE_LOOK, JUDGE_ALONE = 1500, 5000, 5000, 300, 1400
SAMPLE_ITEMS, VERIFY_ITEMS = 540, 108


def build_all(out: Path, *, seed: int, level: Level) -> None:
    """Train everything into `out` and gather what is shipped in `out`/weights, with its figures."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_flush_denormal(True)
    vae_dir, editor_dir, judge_dir = (out / name for name in ("vae", "editor", "judge"))
    if not (vae_dir / "vae").exists():
        train_vae(vae_dir, level=level, seed=seed, steps=VAE_STEPS)
    vae = AutoencoderKLQwenImage.from_pretrained(vae_dir / "vae")
    if not (editor_dir / "editor").exists():
        train_editor(editor_dir, vae, level=level, seed=seed, steps=EDITOR_STEPS)
    if not (out / "samples" / "base.json").exists():
        editor = Editor.load(editor_dir / "editor", pixels=64 * 64)
        make_samples(editor, out / "samples", "base", level=level, seed=seed, items=SAMPLE_ITEMS)
    train_judge(
        judge_dir,
        level=level,
        seed=seed,
        steps=JUDGE_STEPS,
        look=JUDGE_LOOK,
        alone=JUDGE_ALONE,
        samples=out / "samples",
    )
    gather(out, level)


def gather(out: Path, level: Level) -> None:
    """Copy what is shipped into `out`/weights and measure it."""
    weights = out / "weights"
    shutil.copytree(out / "editor" / "editor", weights / "qwen-image-edit", dirs_exist_ok=True)
    shutil.copytree(out / "judge" / "judge", weights / "judge", dirs_exist_ok=True)
    figures = verify(weights / "qwen-image-edit", weights / "judge", level=level, items=VERIFY_ITEMS)
    (weights / "verify.json").write_text(json.dumps(figures, indent=2) + "\n")
