"""The model card of exported weights: what they are, how to use them, and what the run recorded; no other number."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from editr1.export.call import Call
from editr1.report.run_folder import Run

PICTURE = "reward.png"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Card:
    """Content of a card.

    Attributes:
        run: The run's folder.
        step: Step of the exported checkpoint.
        ema: Whether these are the averaged weights.
        form: "diffusers", "peft", "comfyui" or "merged".
        folder: Name of the exported folder, as the code in the card calls it.
        facts: Base model, step, hash of the config, version.
        call: Call of the pipeline.
        denoiser: Name of the denoiser in the pipeline.
        loader: Whether the pipeline has `load_lora_weights`.
    """

    run: Run
    step: int
    ema: bool
    form: str
    folder: str
    facts: Mapping[str, str]
    call: Call
    denoiser: str
    loader: bool

    @property
    def base(self) -> str:
        """The trained editor."""
        return self.facts["base_model"]

    @property
    def rewards(self) -> dict[int, float]:
        """Mean reward of the training edits, by step up to the exported one."""
        rows = {row["step"]: row.get("reward_mean") for row in self.run.metrics if row["step"] <= self.step}
        return {step: reward for step, reward in rows.items() if reward is not None}


def write_card(folder: Path, card: Card) -> None:
    """Write README.md and, if the run recorded rewards and matplotlib is installed, a picture of them."""
    parts = [_front_matter(card), _summary(card), _usage(card)]
    if card.rewards:
        parts.append(_reward_text(card.rewards))
        if draw_rewards(card.rewards, folder / PICTURE):
            parts.append(f"![Mean reward by step]({PICTURE})")
    parts.append(f"## Settings of the run\n\n```yaml\n{yaml.safe_dump(card.run.config, sort_keys=False)}```")
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def draw_rewards(rewards: Mapping[int, float], path: Path) -> bool:
    """Draw the mean reward of the training edits over the steps as a PNG; False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        _log.warning("The card has no picture of the rewards; for one, pip install 'editr1[figures]' and export again.")
        return False
    figure = Figure(figsize=(7, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(list(rewards), list(rewards.values()), color="#0066a8", lw=1.6, marker="o", ms=3)
    axes.set(xlabel="step", ylabel="mean reward of the training edits")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e2e4e8")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path)
    return True


def _front_matter(card: Card) -> str:
    tags = ["editr1", "image-editing", "reinforcement-learning", card.run.algorithm.title]
    tags += [] if card.form == "merged" else ["lora"]
    kind = {"library_name": "diffusers", "pipeline_tag": "image-to-image"}
    matter = {"base_model": card.base, **kind, "tags": tags}
    return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---"


def _summary(card: Card) -> str:
    what = "The whole pipeline, with trained weights in its denoiser" if card.form == "merged" else "A LoRA"
    which = "average of the weights" if card.ema else "weights"
    facts = f"editr1 {card.facts['editr1_version']}, sha256 of the config `{card.facts['config_sha256']}`"
    return (
        f"# {card.folder}\n\n{what}, made by reinforcement learning of the image editor `{card.base}` with "
        f"[Edit-R1](https://arxiv.org/abs/2510.16888): the {which} after step {card.step} ({facts})."
    )


def _usage(card: Card) -> str:
    toy = card.base.startswith("toy:")
    base = f"toy_path({json.dumps(card.base.removeprefix('toy:'))})" if toy else json.dumps(card.base)
    name = json.dumps(card.folder)
    denoiser = f"pipe.{card.denoiser}"
    load = {
        "peft": f"{denoiser} = PeftModel.from_pretrained({denoiser}, {name}).to(dtype)",
        "merged": "",
    }.get(card.form, f"pipe.load_lora_weights({name})")
    if card.form == "diffusers" and not card.loader:
        prefix = "" if card.denoiser == "transformer" else f', prefix="{card.denoiser}"'  # diffusers' default
        load = f'{denoiser}.load_lora_adapter({name}, weight_name="pytorch_lora_weights.safetensors"{prefix})'
    lines = [
        "import torch",
        "from diffusers import DiffusionPipeline",
        *card.call.imports(),
        "from peft import PeftModel" if card.form == "peft" else "",
        "from editr1.toy.assets import toy_path" if toy and card.form != "merged" else "",
        'device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)',
        f"pipe = DiffusionPipeline.from_pretrained({name if card.form == 'merged' else base}, dtype=dtype).to(device)",
        load,
        *card.call.lines(),
        'edit.save("edit.png")',
    ]
    code = "\n".join(line for line in lines if line)
    comfy = (
        "Put the file into ComfyUI's `models/loras`, or use it with diffusers:\n\n" if card.form == "comfyui" else ""
    )
    return f"## Use\n\n{comfy}```python\n{code}\n```"


def _reward_text(rewards: Mapping[int, float]) -> str:
    first, last = min(rewards), max(rewards)
    return (
        f"## Reward\n\nMean reward of the edits that were made in training: {rewards[first]:.3f} in step {first}, "
        f"{rewards[last]:.3f} in step {last}."
    )
