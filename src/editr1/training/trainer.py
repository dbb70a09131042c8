"""Online reinforcement learning of an image editor, as in Edit-R1 (arXiv 2510.16888): the loop.

`Trainer.train_step` is one step, top to bottom: the sampling policy edits every item of the step G times, the judge
rewards each edit, rewards become advantages within groups and groups without signal are dropped, the kept edits are
noised and replayed for the loss, one optimiser step is made, the sampling policy and the average follow. What credit
and loss are is the algorithm's matter (`algorithms/base.py`).

Denoiser calls of a noised edit: v with gradient; v of the other policies that the loss asks for, but not of the
sampling policy while it equals the trained one (as in the first two steps of DiffusionNFT: then v_old is v, detached).
None for a dropped group or an edit without reward.

Every random draw in a step comes from (seed, step, group index), and weights are saved only as they stand between two
steps: a run that was stopped anywhere and continued is, bit for bit, the run that was not.

Left out: more than one process, several optimiser steps on one set of rollouts.

Letters: G edits of a group, B rows of a denoiser call (one row is one noised edit), N tokens, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from editr1.algorithms.base import Rows
from editr1.algorithms.ema import EMA
from editr1.config.loading import dump_config
from editr1.config.settings import Config
from editr1.data.pictures import png
from editr1.data.samples import EditDataset, EditSample, GroupSampler
from editr1.data.seeds import derive_seed
from editr1.editors.editor import Editor
from editr1.editors.policies import START
from editr1.errors import UserError
from editr1.files import make_folder, write_file
from editr1.judges.base import Judge, weights_of
from editr1.training import checkpoint
from editr1.training.alarms import sounding
from editr1.training.grid import sample_grid
from editr1.training.group import Group
from editr1.training.interrupts import Interrupts
from editr1.training.log import RunLog, StepProgress, Stopwatch
from editr1.training.rewarding import FailureWatch, Rewarding, assign_advantages, edits_of
from editr1.training.run_files import CHECKPOINTS, CONFIG, SAMPLES
from editr1.training.session import header, kept_session
from editr1.training.step_row import GroupMeasures, StepRow, Watch, edit_statistics, measure, step_row

TENSORS = "training.safetensors"


class Trainer:
    """Trains `editor` on `dataset` by the rewards of `judge`, and goes on from the newest checkpoint in `out`, if any.

    It gives the editor its policies.

    Attributes:
        step: Optimiser steps done.
        seconds: Spent on them, sessions before a restart included.
        ema: The averaged weights; `with trainer.ema.swap():` puts them into the editor.

    Raises:
        UserError: `out` holds a run with other settings.
    """

    def __init__(
        self,
        config: Config,
        editor: Editor,
        judge: Judge,
        dataset: EditDataset,
        out: Path | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.config, self.editor, self.judge, self.dataset = config, editor, judge, dataset
        self.out, self.watch, self.algorithm = out or config.out, watch, config.algorithm
        editor.add_policies(config.adapter, derive_seed(config.seed, "adapter"))
        if config.adapter.init is not None and config.evaluation is not None:
            editor.policies.copy(START)
        self.names, self.params = map(list, zip(*editor.policies.parameters(), strict=True))
        optim = config.optim
        self.optimizer = torch.optim.AdamW(self.params, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
        self.ema = EMA(zip(self.names, self.params, strict=True), config.ema)
        self.sampler = GroupSampler(len(dataset), config.rollout.groups_per_step, config.seed)
        self.step, self.seconds = 0, 0.0
        self.place, self.banned = 0, set[int]()  # in the epochs, and the items that are not drawn any more
        self.start: dict[str, float] = {}  # what the edits of the first step looked like
        self._step_seconds = 0.0
        self._whole = True  # the weights are those after `step` steps, not between two
        self._checked = False
        self._failures = FailureWatch(config.failures.share, config.failures.steps, config.optional_rewards)
        self._resume()
        edits = config.rollout.groups_per_step * config.rollout.group_size
        self.progress = StepProgress(self.step, config.steps, edits)

    def train(
        self,
        max_seconds: float | None = None,
        on_step: Callable[[StepRow], None] | None = None,
        until: int | None = None,
    ) -> Path:
        """Train to `config.steps` and return the last checkpoint. Whatever stops it, the steps done are saved first.

        Args:
            max_seconds: Training time, earlier sessions included; it ends before a step that would not fit.
            until: Step after which it ends, if that is earlier.
            on_step: Receives the row of every step.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; the state is saved.
            UserError: The judge failed too often, gradients are not finite, a picture or the disk fails.
        """
        last = self.config.steps if until is None else min(until, self.config.steps)
        make_folder(self.out)
        write_file(self.out / CONFIG, dump_config(self.config).encode())
        with (
            self.progress as progress,
            closing(RunLog(self.out, self.step)) as log,
            kept_session(self.out, self.params[0].device),
            Interrupts() as interrupts,
        ):
            try:
                progress.begin(header(self.config, self.editor, self.params, len(self.dataset)))
                while self.step < last and self._fits(max_seconds):
                    row = self.train_step(log, interrupts)
                    progress.show(row, sounding(log.rows, self.config.optim.grad_clip))
                    if on_step:
                        on_step(row)
            except KeyboardInterrupt:
                self._rescue(interrupts)
                progress.say(self._how_to_go_on())
                raise
            finally:
                self._rescue(interrupts)
            return self.save()

    def train_step(self, log: RunLog, interrupts: Interrupts) -> StepRow:
        """One step; its row."""
        # Edits by the sampling policy, each group judged as soon as it is made
        groups = self._collect()

        # Advantages within groups; groups without signal are dropped
        assign_advantages(groups, self.algorithm, weights_of(self.judge) or None)

        # Gradient of the loss over all kept edits
        losses = self._backward(groups)

        # Optimiser step, sampling policy, average; nothing may stop the run between here and the row's end
        measures = [measure(group, self.watch) for group in groups]
        with interrupts.held():
            with self._between_steps():
                norms = self._update()
                self._ban(groups)
                row = self._row(measures, {**losses, **norms})
                log.write(row)
            self._keep(groups)

        self._failures.check(measures)
        return row

    def save(self) -> Path:
        """Write the checkpoint of this step, unless it is there; returns its folder."""
        state = {
            "seconds": self.seconds,
            "start": self.start,
            "place": self.place,
            "banned": sorted(self.banned),
            "config": self.config.model_dump(mode="json"),
        }
        return checkpoint.save(self._checkpoints, self.step, state, self._write_weights, self.config.keep)

    def rollout(self, sample: EditSample, index: int) -> Group:
        """G edits of `sample` by the sampling policy, as group `index` of this step."""
        settings = self.config.rollout
        with self.editor.policies.using("old"):
            rollout = self.editor.rollout(
                sample,
                settings.group_size,
                steps=settings.steps,
                seed=derive_seed(self.config.seed, "rollout", self.step, index),
                scheduler=self.algorithm.scheduler or settings.scheduler,
                keep_trajectory=self.algorithm.keeps_trajectory,
            )
            if not self._checked:  # once a session: what is trained is what was sampled
                self.editor.self_check(rollout)
                self._checked = True
        return Group(index, sample, replace(rollout, calls=[]))  # the recorded calls are large, and done with

    def rows(self, group: Group) -> Rows:
        """The noised edits of a group that the loss is computed on."""
        seed = derive_seed(self.config.seed, "noise", self.step, group.index)
        return self.algorithm.rows(edits_of(group), torch.Generator().manual_seed(seed))

    def _collect(self) -> list[Group]:
        """The groups of this step, with their rewards."""
        self.clock, groups = Stopwatch(), list[Group]()
        size = self.config.rollout.group_size
        self._items, self._next = self.sampler.draw(self.place, self.banned)
        with Rewarding(self.judge, self.config.rollout.groups_per_step) as rewarding:
            for index, item in enumerate(self._items):
                with self.clock("rollout"):
                    groups.append(self.rollout(self.dataset[item], index))
                with self.clock("judge"):
                    rewarding.start(groups[-1])
                self.progress.collects(size * len(groups), size * rewarding.done)
            with self.clock("judge"):
                rewarding.finish(on_wait=lambda done: self.progress.waits(size * done))
        return groups

    def _backward(self, groups: Sequence[Group]) -> dict[str, float | None]:
        """Add up the gradient of the mean loss over all rows of the kept groups, and clip it; loss, parts and norm."""
        names = ("loss", *self.algorithm.parts)
        with self.clock("train"):
            self.optimizer.zero_grad()
            kept = [group for group in groups if group.dropped is None]
            total = sum(self.algorithm.count(edits_of(group)) for group in kept)
            sums = torch.zeros(len(names), device=groups[0].rollout.latents.device)
            for number, group in enumerate(kept, start=1):
                for rows in self.rows(group).split(self.config.optim.micro_batch):
                    loss, parts = self.algorithm.loss(rows, self._velocities(group, rows))
                    share = len(rows) / total
                    (share * loss).backward()
                    sums += share * torch.stack([loss.detach(), *(parts[name] for name in self.algorithm.parts)])
                self.progress.trains(number, len(kept))
            losses = dict(zip(names, sums.tolist(), strict=True)) if kept else dict.fromkeys(names)
            return {**losses, "grad_norm": self._clip()}

    def _velocities(self, group: Group, rows: Rows) -> Mapping[str, Tensor]:
        """The velocities [B, N, C] of the policies that the loss needs; gradients flow through that of "default"."""
        policies, inputs = self.editor.policies, (group.rollout.conditioning, rows.x_t, rows.t)
        velocities = {"default": self.editor.velocity(*inputs)}
        for name in self.algorithm.asks(self.step):
            if name == "old" and policies.on_policy:
                velocities[name] = velocities["default"].detach()
            else:
                with torch.no_grad(), policies.using(name):
                    velocities[name] = self.editor.velocity(*inputs)
        return velocities

    def _clip(self) -> float:
        """Clip the gradient; its norm before.

        Raises:
            UserError: It is not finite.
        """
        norm = float(nn.utils.clip_grad_norm_(self.params, self.config.optim.grad_clip))
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient of step {self.step + 1} is not finite, the weights are as before it; lower optim.lr "
                f"(now {self.config.optim.lr}) or raise algorithm.kl (now {self.algorithm.kl}) in a new run"
            )
        return norm

    @torch.no_grad()
    def _update(self) -> dict[str, float]:
        """One optimiser step (none if nothing was kept); the sampling policy and the average follow. Norms."""
        with self.clock("train"):
            before = [param.clone() for param in self.params]
            self.optimizer.step()
            self.editor.policies.follow(self.algorithm.old_decay(self.step))
            self.ema.update(self.step)
            moved = [param - was for param, was in zip(self.params, before, strict=True)]
            norms = torch.stack([get_total_norm(moved), get_total_norm(self.params)]).tolist()
        self.step, self.place = self.step + 1, self._next
        weights = "lora_norm" if self.config.adapter.mode == "lora" else "weight_norm"
        return dict(zip(("update_norm", weights), norms, strict=True))

    def _ban(self, groups: Sequence[Group]) -> None:
        """Draw the items that are solved never again, if the config says so."""
        if self.config.data.ban_solved:
            pairs = zip(self._items, groups, strict=True)
            self.banned |= {
                i for i, group in pairs if group.rewards is not None and self.algorithm.solves(group.rewards)
            }

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Inside, the weights are not those of any step: a failure there costs the steps since the last checkpoint."""
        self._whole = False
        yield
        self._whole = True

    def _row(self, measures: Sequence[GroupMeasures], numbers: Mapping[str, float | None]) -> StepRow:
        """The row of the step that was just made."""
        self.start = self.start or edit_statistics(measures)
        if self.config.data.ban_solved:
            numbers = {**numbers, "banned": len(self.banned)}
        return step_row(self.step, measures, numbers, self.start, self.clock.read())

    def _keep(self, groups: Sequence[Group]) -> None:
        """A picture of samples, of the first step and with every checkpoint; a checkpoint every `save_every` steps."""
        due = self.step % self.config.save_every == 0
        if due or self.step == 1:
            path = self.out / SAMPLES / f"step_{self.step:06d}.png"
            write_file(path, png(sample_grid(groups)))
        self._step_seconds = self.clock.read()["total"]
        self.seconds += self._step_seconds
        if due:
            self.save()

    def _rescue(self, interrupts: Interrupts) -> None:
        """Save the steps done, unless the weights stand between two."""
        if self._whole and self.step:
            with interrupts.held():
                self.save()

    @property
    def _checkpoints(self) -> Path:
        return self.out / CHECKPOINTS

    def _fits(self, max_seconds: float | None) -> bool:
        return max_seconds is None or self.seconds + self._step_seconds < max_seconds

    def _how_to_go_on(self) -> str:
        done = f"Stopped after step {self.step} of {self.config.steps}"
        return (
            f"{done}. Everything is saved in {self.out}; run the same command again to go on."
            if self.step
            else f"{done}."
        )

    def _write_weights(self, folder: Path) -> None:
        """policy/ and ema/ as diffusers loads them, old/ likewise, and the exact tensors of optimiser and average."""
        policies = self.editor.policies
        policies.save(folder / "policy", "default")
        policies.save(folder / "old", "old")
        with self.ema.swap():
            policies.save(folder / "ema", "default")
        moments = checkpoint.optimizer_tensors(self.optimizer, self.names)
        averages = {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        save_file({name: tensor.contiguous() for name, tensor in {**moments, **averages}.items()}, folder / TENSORS)

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        folder = checkpoint.latest(self._checkpoints)
        if folder is None:
            return
        state = checkpoint.read_state(folder)
        checkpoint.refuse_changes(self.out, state["config"], self.config)
        self.editor.policies.load(folder / "policy", "default")
        self.editor.policies.load(folder / "old", "old")
        tensors = load_file(folder / TENSORS)
        averages = {name.removeprefix("ema."): tensors.pop(name) for name in [*tensors] if name.startswith("ema.")}
        try:
            self.ema.load_state_dict(averages)
        except ValueError as error:
            raise UserError(f"{folder}: {error}") from error
        checkpoint.restore_optimizer(self.optimizer, self.names, tensors)
        self.step, self.seconds, self.start = state["step"], state["seconds"], state["start"]
        self.place = state.get("place", self.step * self.config.rollout.groups_per_step)  # none before bans were
        self.banned = {*state.get("banned", [])}
        self._step_seconds = self.seconds / max(self.step, 1)
