"""The same step the published way: what editr1's order of work saves, where the mathematics are the same.

    python benchmarks/recipe.py [ROUNDS]

`Recipe` trains as the released code of Edit-R1 does (PKU-YuanGroup/Edit-R1, `scripts/train_nft_qwen_image_edit.py` and
its pipeline), on our parts: prompt and source are encoded for every image, not once per group; trained, old and
reference policy are called for every image and level; dropped groups are computed and masked; a judge in this process,
of which the released code has none, is asked after all rollouts; the VAE is that of diffusers, whose convolutions count
frames that are not there (`editors/one_frame.py`). LoRA weights are float32 both ways. Loss and gradient are the same.

Left out of its cost, because that would change the mathematics, or because it can be set in both ways: padding of
prompts to 256 tokens, gradient checkpointing, one level of three images per call, error weights in float64, and all
that several GPUs add.

Both ways train the toy preset from the same seed and take turns: ours, recipe, ours, recipe. Before, the losses of a
few steps are compared, for which both have our VAE, since roundings of pictures add up; if they differ, nothing is
timed. Writes these keys of benchmarks/results.json, unless ROUNDS is less than 20:

    identical_ratio       seconds of a step, ours / recipe: medians, with none and with half of the groups dropped
    identical_spread      smallest and largest ratio of two neighbouring steps
    identical_seconds     medians
    ..._five_levels       the same three at the published five noise levels per edit, in place of the toy preset's two
    calls                 rows of each model in a step, none dropped, by stage: ours, recipe, fewest. The last one is
                          counted from the algorithm, for a step in which the old policy is not the trained one
    calls_half_dropped    likewise
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median
from typing import Any, TypeVar

import results
from rich.console import Console
from rich.table import Table
from speed import Call, Tape, replaced
from torch import Tensor, no_grad

from editr1.algorithms.base import Credit, Rows
from editr1.algorithms.nft import NFT
from editr1.algorithms.thrift import count_informative
from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.data.samples import EditSample
from editr1.editors.one_frame import skip_absent_frames
from editr1.editors.open import open_config_editor
from editr1.editors.recorder import Conditioning, map_tensors
from editr1.judges.open import open_config_judge
from editr1.training import collecting
from editr1.training.datasets import open_datasets
from editr1.training.exchange import Judged, Portion
from editr1.training.group import Group
from editr1.training.interrupts import Interrupts
from editr1.training.log import StepProgress
from editr1.training.rewarding import Rewarding
from editr1.training.sharing import Share
from editr1.training.trainer import Trained, Trainer

ROUNDS, WARM = 20, 2  # steps; in the first two, the old policy is the trained one
COMPARED = 4  # steps whose losses are compared
SIZES = ("rollout.groups_per_step=2", "rollout.group_size=12", "algorithm.filter=off", "save_every=1000")
PLAIN = (  # without savings that change the mathematics
    *("rollout.most_groups=null", "rollout.scouts=null"),
    *("algorithm.kl_share=1", "algorithm.informative=1", "algorithm.stratified=false"),
)
QUICK = ("rollout.group_size=2",)
FIVE_LEVELS = ("algorithm.timesteps_per_image=null",)  # per edit, as the published recipe trains; the toy preset: two
BARS = {"none_dropped": 0.90, "half_dropped": 0.65}
CLOSE = 1e-5  # of the loss, relative
K = TypeVar("K")
Calls = dict[str, dict[str, int]]
"""Rows of the calls of a step, by stage and model."""


class Recipe(Trainer):
    """Trains on one process as the released code does."""

    def rollout(self, sample: EditSample, index: int, share: Share | None = None, *how: Any) -> Group:
        edits = self.config.rollout.group_size if share is None else share.count
        with encoding_every_image(self.editor.pipe, edits):
            return super().rollout(sample, index, share, *how)

    def _collect(self, first: int = 0, count: int | None = None) -> list[Group]:
        with replaced(collecting, "Rewarding", AfterRollouts):
            return super()._collect(first, count)

    def _one_by_one(self) -> Trained:
        return self._together(Interrupts())

    def _hand_out(self, groups: Sequence[Group], judged: Sequence[Judged]) -> list[Portion]:
        """Rows of all groups, those of dropped ones with weight 0; none if all are dropped, which ends a step early."""
        kept = {each.index for each in judged if each.dropped is None}
        portions = super()._hand_out(groups, [replace(each, dropped=None) for each in judged])
        self._total = sum(part.share.stop - part.share.start for part in portions if part.index in kept)
        masked = [replace(part, share=replace(part.share, weight=float(part.index in kept))) for part in portions]
        return masked if kept else []

    def _velocities(self, conditioning: Conditioning, rows: Rows) -> Mapping[str, Tensor]:
        policies, inputs = self.editor.policies, (conditioning, rows.x_t, rows.t)
        velocities = {"default": self.editor.velocity(*inputs)}
        for name in ("old", "reference"):
            with no_grad(), policies.using(name):
                velocities[name] = self.editor.velocity(*inputs)
        return velocities


class AfterRollouts(Rewarding):
    """Asks a judge in this process about the groups when all are made; another one at once, as the released code."""

    def __init__(self, judge: Any, threads: int) -> None:
        super().__init__(judge, threads)
        self._waiting: list[Group] = []

    def start(self, group: Group) -> None:
        if self.judge.remote:
            super().start(group)
        else:
            self._waiting.append(group)

    def next(self, on_wait: Callable[[int], None] = lambda done: None) -> Group | None:
        while self._waiting:
            super().start(self._waiting.pop(0))
        return super().next(on_wait)


@contextmanager
def encoding_every_image(pipe: Any, images: int) -> Iterator[None]:
    """Inside, prompt and source are encoded `images` times: the text in one call, the source in one call each.

    The pipeline, which repeats an encoding for its images, gets one of them.
    """
    kind, encode = type(pipe.processor), pipe.vae.encode

    def encode_each(*args: Any, **kwargs: Any) -> Any:
        for _ in range(images - 1):
            encode(*args, **kwargs)
        return encode(*args, **kwargs)

    with ExitStack() as stack:
        for owner, name in ((kind, "__call__"), (pipe.text_encoder, "forward")):
            stack.enter_context(replaced(owner, name, _in_rows(getattr(owner, name), images)))
        stack.enter_context(replaced(pipe.vae, "encode", encode_each))
        yield


def _in_rows(function: Callable[..., Any], images: int) -> Callable[..., Any]:
    """`function` called with its lists and tensors repeated `images` times; of what it returns, the first part."""

    def repeated(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.repeat(images, *[1] * (value.ndim - 1))
        return value * images if isinstance(value, list) else value

    def call(*args: Any, **kwargs: Any) -> Any:
        made = function(*map(repeated, args), **{name: repeated(value) for name, value in kwargs.items()})
        return type(made)(map_tensors(dict(made), lambda tensor: tensor[: len(tensor) // images]))

    return call


class HalfDropped(NFT):
    """DiffusionNFT that drops every second group of a step, whatever the rewards are."""

    @property
    def needs_whole_step(self) -> bool:
        return True

    def credit(self, *args: Any, **kwargs: Any) -> Credit:
        credit = super().credit(*args, **kwargs)
        return replace(credit, dropped=["agree_and_high" if i % 2 else None for i in range(len(credit.dropped))])


def open_way(kind: type[Trainer], config: Config) -> Trainer:
    """A trainer of the toy that trains in one of the two ways."""
    editor = open_config_editor(config)
    if kind is Recipe:
        restore(editor.pipe.vae)
    trainer = kind(config, editor, open_config_judge(config), open_datasets(config)[0])
    trainer.progress = StepProgress(0, config.steps, quiet=True)
    return trainer


def restore(vae: Any) -> None:
    """Give a VAE the code of diffusers again."""
    for module in vae.modules():
        vars(module).pop("forward", None)


def drop_half(trainer: Trainer) -> None:
    """From now on, train on half of the groups."""
    trainer.algorithm = HalfDropped(**trainer.algorithm.model_dump())


def step(trainer: Trainer) -> dict[str, Any]:
    """One step; its row."""
    return trainer.train_step(None, Interrupts())


def take_turns(trainers: Mapping[K, Trainer], rounds: int) -> dict[K, list[dict[str, Any]]]:
    """The rows of WARM + `rounds` steps of each trainer; they take turns, so that all are timed in the same minutes."""
    rows: dict[K, list[dict[str, Any]]] = {name: [] for name in trainers}
    for _ in range(WARM + rounds):
        for name, trainer in trainers.items():
            rows[name].append(step(trainer))
    return rows


def seconds_of(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds of the steps after the first ones, by their rows."""
    return [sum(row["seconds"].values()) for row in rows[WARM:]]


def count_calls(trainer: Trainer) -> Calls:
    """Make a step, and return the rows of its model calls."""
    tape, models = Tape(trainer), models_of(trainer)
    calls: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    with tape.recording():
        step(trainer)
    for call in tape.calls:
        for name, model in models.items():
            if getattr(call.function, "__self__", None) is model:
                calls[call.part][name] += rows_of(call)
    return {stage: dict(rows) for stage, rows in calls.items()}


def models_of(trainer: Trainer) -> dict[str, Any]:
    """The models of a step by name."""
    pipe, judge = trainer.editor.pipe, trainer.judge
    models = {"encoder": pipe.text_encoder, "vae": pipe.vae, "denoiser": trainer.editor.denoiser}
    return {**models, "judge": judge.model.model}  # type: ignore[attr-defined]


def rows_of(call: Call) -> int:
    """Rows of a model's call."""
    batch = next((call.kwargs[name] for name in ("hidden_states", "input_ids") if name in call.kwargs), None)
    return len(call.args[0] if batch is None else batch)


def fewest_calls(trainer: Trainer, kept: int) -> Calls:
    """The rows without which the loss of a step, of whose groups `kept` are trained on, cannot be computed."""
    rows = fewest_rows(trainer, trainer.config.rollout.groups_per_step, kept)
    return {**rows, "train": {"denoiser": sum(rows["train"].values())}}


def fewest_rows(trainer: Trainer, groups: int, kept: int) -> Calls:
    """The same of `groups` groups, training by policy: "default", whose rows have a gradient, and those of the loss."""
    rollout, algorithm = trainer.config.rollout, trainer.algorithm
    images, scouts = groups * rollout.group_size, groups * (rollout.scouts or 0)
    rows = count_informative(rollout.group_size, algorithm.informative) * algorithm.levels_per_edit(rollout.steps)
    compared = max(round(algorithm.kl_share * rows), 1)
    asked = {name: kept * (compared if name == "reference" else rows) for name in algorithm.asks(trainer.step)}
    return {
        "encode": {"encoder": groups, "vae": groups},
        "rollout": {"denoiser": images * rollout.steps + scouts * (rollout.scout_steps or 0)},
        "decode": {"vae": images + scouts},
        "judge": {"judge": images + scouts},
        "train": {"default": kept * rows, **asked},
    }


@contextmanager
def both_ways(half: bool, sizes: Sequence[str]) -> Iterator[dict[str, Trainer]]:
    """Both trainers of the toy preset, of whose groups half are dropped if that is asked for."""
    with tempfile.TemporaryDirectory() as out:
        kinds = {"ours": Trainer, "recipe": Recipe}
        ways = {
            name: open_way(kind, load_config("toy", [*PLAIN, *sizes, f"out={out}/{name}"]))
            for name, kind in kinds.items()
        }
        for trainer in ways.values() if half else ():
            drop_half(trainer)
        yield ways


def largest_gap(half: bool, sizes: Sequence[str]) -> float:
    """The largest relative gap of the losses of both ways, which have the same VAE."""
    with both_ways(half, sizes) as ways:
        skip_absent_frames(ways["recipe"].editor.pipe.vae)
        rows = take_turns(ways, COMPARED - WARM)
        return max(abs(ours["loss"] / theirs["loss"] - 1) for ours, theirs in zip(*rows.values(), strict=True))


def compare(half: bool, rounds: int, sizes: Sequence[str] = SIZES) -> tuple[dict[str, list[float]], dict[str, Calls]]:
    """Seconds of the steps of both ways, their rows and the fewest."""
    with both_ways(half, sizes) as ways:
        groups = ways["ours"].config.rollout.groups_per_step
        rows = take_turns(ways, rounds)
        calls = {name: count_calls(trainer) for name, trainer in ways.items()}
        calls["fewest"] = fewest_calls(ways["ours"], groups - groups // 2 if half else groups)
    return {name: seconds_of(each) for name, each in rows.items()}, calls


def show(console: Console, seconds: Mapping[str, Mapping[str, float]], ratios: Mapping[str, float], calls: Any) -> None:
    """Print both tables, that of the rows if there are any."""
    table = Table(title="Seconds of a step, medians", title_justify="left")
    for name in ("groups", "ours", "recipe", "ours / recipe", "bar"):
        table.add_column(name)
    for name, ratio in ratios.items():
        ours, recipe = (f"{seconds[name][way]:.3f}" for way in ("ours", "recipe"))
        table.add_row(name.replace("_", " "), ours, recipe, f"{ratio:.3f}", f"{BARS[name]:.2f}")
    console.print(table)
    table = Table(title="Rows of model calls in a step", title_justify="left")
    for name in ("groups", "stage", "model", "ours", "recipe", "fewest"):
        table.add_column(name)
    for name, ways in calls.items():
        for stage, models in ways["fewest"].items():
            for model in models:
                rows = [str(ways[way][stage][model]) for way in ("ours", "recipe", "fewest")]
                table.add_row(name.replace("_", " "), stage, model, *rows)
    if calls:
        console.print(table)


def measure(quick: bool = False, rounds: int = ROUNDS) -> dict[str, Any]:
    """The keys of results.json; `quick` makes one round of small groups.

    Raises:
        SystemExit: The two ways are not the same mathematics.
    """
    rounds, sizes = (1, SIZES + QUICK) if quick else (rounds, SIZES)
    figures, calls = ratios_of(rounds, sizes)
    published, _ = ratios_of(rounds, (*sizes, *FIVE_LEVELS))
    figures |= {f"{name}_five_levels": each for name, each in published.items()}
    return {**figures, "calls": calls["none_dropped"], "calls_half_dropped": calls["half_dropped"]}


def ratios_of(rounds: int, sizes: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medians, ratios and spreads with none and with half of the groups dropped; rows of model calls likewise."""
    medians, spreads, calls = {}, {}, {}
    for name in BARS:
        half = name == "half_dropped"
        if (gap := largest_gap(half, sizes)) > CLOSE:
            raise SystemExit(f"{name}: the losses of both ways differ by {gap:.1e}, more than {CLOSE:.0e}")
        seconds, calls[name] = compare(half, rounds, sizes)
        medians[name] = {way: median(some) for way, some in seconds.items()}
        pairs = [ours / recipe for ours, recipe in zip(seconds["ours"], seconds["recipe"], strict=True)]
        spreads[name] = [min(pairs), max(pairs)]
    ratios = {name: each["ours"] / each["recipe"] for name, each in medians.items()}
    return {"identical_ratio": ratios, "identical_spread": spreads, "identical_seconds": medians}, calls


def main() -> None:
    """Measure, print, write."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    figures = measure(rounds=rounds)
    calls = {"none_dropped": figures["calls"], "half_dropped": figures["calls_half_dropped"]}
    for levels in ("", "_five_levels"):
        show(Console(), figures[f"identical_seconds{levels}"], figures[f"identical_ratio{levels}"], calls)
        calls = {}
    if rounds >= ROUNDS:
        results.add("identical", figures, "python benchmarks/recipe.py")


if __name__ == "__main__":
    main()
