"""The figures of docs/method.md, drawn by the code that trains: `python scripts/method_figures.py docs/figures`.

group.png: one toy item and its edits, with the toy judge's rewards and the advantages that training makes of them.
rules.svg: how strongly an edit pulls the velocity, by its advantage; the groups that the filter drops; the pace of the
sampling policy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from editr1 import load_config, open_trainer, rollout, score
from editr1.algorithms.advantages import Filter, filter_groups
from editr1.algorithms.base import Rows
from editr1.algorithms.nft import NFT

BLUE, GREY = "#0066a8", "#8a919c"
ITEM, EDITS = 3, 12


def pull(advantage: float, algorithm: NFT) -> float:
    """The step of v along the way to the edit's velocity, per unit of that way, at v = v_old, before the optimiser."""
    x0, t = torch.zeros(1, 1, 1), torch.ones(1)
    v = torch.zeros(1, 1, 1, requires_grad=True)
    rows = Rows(x0, torch.ones(1, 1, 1), t, torch.tensor([advantage]))  # the edit's velocity is 1, v and v_old are 0
    loss, _ = algorithm.loss(rows, {"default": v, "old": v.detach(), "reference": v.detach()})
    loss.backward()
    assert v.grad is not None
    return -v.grad.item()


def is_dropped(mean: float, std: float, mode: Filter) -> bool:
    """Whether a group of two edits with this mean and spread is dropped."""
    rewards = torch.tensor([mean - std, mean + std], dtype=torch.float64)
    return filter_groups([rewards], mode)[0] is not None


def draw_rules(path: Path) -> None:
    """Three panels: pull, filter, pace."""
    mpl.rcParams.update({"svg.hashsalt": "editr1", "svg.fonttype": "none", "font.size": 8})
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_pull(left)
    _draw_filter(middle)
    _draw_pace(right)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _draw_pull(axes: Axes) -> None:
    advantages = torch.linspace(-7, 7, 57).tolist()
    axes.plot(advantages, [pull(each, NFT()) for each in advantages], color=BLUE)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set(title="Pull toward an edit", xlabel="advantage A of the edit", ylabel="- dL/dv toward the edit")


def _draw_filter(axes: Axes) -> None:
    means, stds = torch.linspace(0.7, 1, 121).tolist(), torch.linspace(0, 0.12, 97).tolist()
    colours: dict[Filter, str] = {"released": "#c9cdd3", "paper": "#e6a39e"}
    for mode, colour in colours.items():
        dropped = [[float(is_dropped(mean, std, mode)) for mean in means] for std in stds]
        axes.contourf(means, stds, dropped, levels=[0.5, 1.5], colors=[colour])
        axes.fill_between([], [], color=colour, label=f"{mode} drops")
    axes.set(title="Groups that teach nothing", xlabel="mean reward", ylabel="std of rewards")
    axes.legend(loc="upper left", fontsize=7)


def _draw_pace(axes: Axes) -> None:
    steps = range(0, 801, 10)
    axes.plot(steps, [NFT().old_decay(step) for step in steps], color=BLUE)
    axes.set(title="Pace of the sampling policy", xlabel="step s", ylabel="decay d", ylim=(0, 0.6))


def draw_group(path: Path) -> None:
    """One item's edits, best first."""
    trainer = open_trainer(load_config("toy", ["out=build/figures"]))
    sample = trainer.dataset[ITEM]
    edits = rollout(trainer.editor, sample, EDITS, steps=6, scheduler="dpm2")
    rewards = torch.tensor([each.value or 0.0 for each in score(trainer.judge, sample, edits)])
    advantages = trainer.config.algorithm.credit([rewards]).advantages[0].tolist()
    figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
    figure.suptitle(sample.instruction, fontsize=10)
    cells = figure.subplots(2, 7).flatten()
    order = rewards.argsort(descending=True).tolist()
    words = [f"R {rewards[index]:.2f}  A {advantages[index]:+.1f}" for index in order]
    pictures = [sample.source, *(edits[index] for index in order)]
    for axes, picture, caption in zip(cells, pictures, ["source", *words], strict=False):
        axes.imshow(picture)
        axes.set_title(caption, fontsize=7)
    for axes in cells:
        axes.axis("off")
    figure.savefig(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/method_figures.py FOLDER")
    draw_rules(Path(sys.argv[1]) / "rules.svg")
    draw_group(Path(sys.argv[1]) / "group.png")
