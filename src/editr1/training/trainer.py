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

Where credit needs no reward of other groups (`std: group`), one process trains on each group as soon as it is judged.
Stored edits (`offline.py`) take the place of rollouts and rewards, and the rest is the same.

Several processes (`distributed.py`) share out the edits of a step, then the rows of the kept groups (`sharing.py`);
rewards and gradients meet, so that all of them make the same optimiser step on the same groups as one process.

Left out: several optimiser steps on one set of rollouts.

Letters: G edits of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from editr1.algorithms.base import Edits, Rows
from editr1.algorithms.ema import EMA
from editr1.config.settings import Config
from editr1.data.samples import EditDataset, EditSample
from editr1.data.seeds import derive_seed
from editr1.editors.editor import Editor
from editr1.editors.policies import START
from editr1.errors import UserError
from editr1.judges.base import Judge
from editr1.training import checkpoint
from editr1.training.alarms import sounding
from editr1.training.collecting import count_missing
from editr1.training.distributed import ALONE, World
from editr1.training.exchange import Judged, Portion, gather_groups, hand_out, sum_gradients, total_norm
from editr1.training.gradient import Gradient, clip, count_rows, full_rows, one_by_one, velocities_of
from editr1.training.grid import gather_strips
from editr1.training.group import Group, without_latents
from editr1.training.interrupts import Interrupts
from editr1.training.log import RunLog, StepProgress, Stopwatch, by_rank, imbalance, slowest
from editr1.training.mask_check import masks_shown
from editr1.training.offline import collector_of
from editr1.training.regions import loss_of, token_finder
from editr1.training.rewarding import FailureWatch, assign_advantages
from editr1.training.run_files import CHECKPOINTS
from editr1.training.seal import read_state
from editr1.training.self_check import SelfCheck
from editr1.training.session import header, how_to_go_on, opened_log
from editr1.training.sharing import Share, share_rows
from editr1.training.state import read_weights, write_weights
from editr1.training.step_row import GroupMeasures, StepRow, Watch, edit_statistics, step_row

Trained = tuple[list[Group], list[Judged], dict[str, float | None]]
"""Groups of this rank; what is known of all; loss, its parts and norm of the gradient."""


class Trainer:
    """Gives `editor` policies and trains it on `dataset` by rewards of `judge`, from the newest checkpoint in `out` on.

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
        world: World = ALONE,
    ) -> None:
        self.config, self.editor, self.judge, self.dataset, self.world = config, editor, judge, dataset, world
        self.out, self.watch, self.algorithm = out or config.out, watch, config.algorithm
        self._checkpoints = self.out / CHECKPOINTS
        editor.add_policies(config.adapter, derive_seed(config.seed, "adapter"))
        if config.adapter.init is not None and config.evaluation is not None:
            editor.policies.copy(START)
        self.names, self.params = map(list, zip(*editor.policies.parameters(), strict=True))
        optim = config.optim
        self.optimizer = torch.optim.AdamW(self.params, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
        self.ema = EMA(zip(self.names, self.params, strict=True), config.ema, config.ema_warmup)
        self._weights = editor.policies, self.ema, self.optimizer, self.names
        self.collector = collector_of(config, judge, dataset, world, editor, self.out)
        self.step, self.seconds, self._step_seconds = 0, 0.0, 0.0
        self.start: dict[str, float] = {}  # what the edits of the first step looked like
        self._whole = True  # the weights are those after `step` steps, not between two
        self._self_check = SelfCheck(editor, self.names, self.out, world)
        self._failures = FailureWatch(config.failures.share, config.failures.steps, config.optional_rewards)
        self._resume()
        self.progress = StepProgress(self.step, config.steps, self.collector.edits, quiet=not world.is_main)

    def train(
        self,
        max_seconds: float | None = None,
        on_step: Callable[[StepRow], None] | None = None,
        until: int | None = None,
    ) -> Path:
        """Train to `config.steps`, or till all items are solved; the last checkpoint. If stopped, steps done are saved.

        Args:
            max_seconds: Training time, earlier sessions included; it ends before a step that would not fit.
            until: Step after which it ends, if that is earlier.
            on_step: Receives the row of every step.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; the state is saved.
            UserError: The judge failed too often, gradients are not finite, a picture or the disk fails.
        """
        if not self._whole:
            raise UserError(f"step {self.step} of {self.out} broke off half-way; open the trainer again to go on")
        last = self.config.steps if until is None else min(until, self.config.steps)
        device, ranks = self.params[0].device, self.world.size
        with (
            self.progress as progress,
            opened_log(self.world.is_main, self.config, self.out, self.step, device) as log,
            Interrupts(together=ranks > 1) as interrupts,
        ):
            try:
                progress.begin(header(self.config, self.editor, self.params, len(self.dataset), ranks))
                while self.step < last and self._fits(max_seconds):
                    row = self.train_step(log, interrupts)
                    progress.show(row, sounding(log.rows if log else [row], self.config.optim.grad_clip))
                    self._self_check.tell(progress, last=self.step == self.config.steps)
                    if on_step:
                        on_step(row)
                self.collector.tell_end(progress)
            except KeyboardInterrupt:
                self._rescue(interrupts)
                progress.warn(how_to_go_on(self.step, self.config.steps, self.out))
                raise
            finally:
                self._rescue(interrupts)
            return self.save()

    def train_step(self, log: RunLog | None, interrupts: Interrupts) -> StepRow:
        """One step; its row. Of several ranks, the main one has a log."""
        # Edits by the sampling policy, rewards, advantages; groups without signal are dropped; gradient over the others
        early = one_by_one(self.algorithm, self.config.rollout, self.world.size)
        groups, judged, losses = self._one_by_one() if early else self._together(interrupts)
        with self._meeting(interrupts):
            clocks = self.world.gather(self.clock.read(), "the end of a step")

        # Optimiser step, sampling policy, average; nothing may stop the run between here and the row's end
        measures = [replace(each.measures, dropped=each.dropped) for each in judged]
        with interrupts.held():
            with self._between_steps():
                norms = self._update()
                drawn = self.collector.move_on(judged)
                row = self._row(measures, {**losses, **norms, **drawn}, clocks)
                if log is not None:
                    log.write(row)
            self._keep(log, groups, judged)

        self._failures.check(measures)
        return row

    def save(self) -> Path:
        """Write the checkpoint of this step, unless it is there; returns its folder."""
        spread = self.editor.policies.spread
        if not (spread or self.world.is_main):
            return checkpoint.place(self._checkpoints, self.step)
        config = self.config.model_dump(mode="json")
        state = {"seconds": self.seconds, "start": self.start, **self.collector.state, "config": config}
        write, world = partial(write_weights, self._weights), self.world if spread else ALONE
        return checkpoint.save(self._checkpoints, self.step, state, write, self.config.keep, world)

    def rollout(
        self,
        sample: EditSample,
        index: int,
        share: Share | None = None,
        places: Sequence[int] | None = None,
        steps: int | None = None,
    ) -> Group:
        """G edits of `sample` by the sampling policy, as group `index` of this step; or those of a share alone.

        `places` are the numbers of its edits, which their noise depends on; None for 0 to G - 1.
        """
        settings = self.config.rollout
        share = share or Share(index, 0, settings.group_size)
        steps, seed = steps or settings.steps, derive_seed(self.config.seed, "rollout", self.step, index)
        with self.editor.policies.using("old"):
            rollout = self.editor.rollout(
                sample,
                share.count,
                places=(places or range(settings.group_size))[share.first : share.first + share.count],
                steps=steps,
                seed=seed,
                scheduler=settings.scheduler,
                noise=self.algorithm.noise(self.step, steps, torch.Generator().manual_seed(seed)),
                keep_trajectory=self.algorithm.keeps_trajectory,
            )
            self._self_check.replay(rollout)
        return Group(index, sample, replace(rollout, calls=[]), first=share.first)  # its calls are large, and done with

    def rows(self, index: int, edits: Edits) -> Rows:
        """The noised edits of group `index` that the loss is computed on."""
        seed = derive_seed(self.config.seed, "noise", self.step, index)
        return self.algorithm.rows(edits, torch.Generator().manual_seed(seed))

    def _collect(self, first: int = 0, count: int | None = None) -> list[Group]:
        """The edits of `count` groups that this rank makes, with their rewards; `first` 0 begins a step."""
        return [*self._collecting(first, count)]

    def _collecting(self, first: int, count: int | None) -> Generator[Group]:
        """The same, one after another as they get their rewards."""
        if first == 0:
            self.clock = Stopwatch()
        return self.collector.collect(self.rollout, self.clock, self.progress, first, count)

    def _together(self, interrupts: Interrupts) -> Trained:
        """The groups of a step, which are trained on when all have their credit."""
        groups, judged, missing = list[Group](), list[Judged](), self.config.rollout.groups_per_step
        while missing:
            made = self._collect(len(judged), missing)
            with self._meeting(interrupts):
                judged += gather_groups(self.world, made, self.watch)
            groups += made
            assign_advantages(judged, self.algorithm, self.collector.weights, self.config.outside_rewards)
            missing = count_missing(judged, self.config.rollout)
        return groups, judged, self._backward(self._hand_out(groups, judged))

    def _one_by_one(self) -> Trained:
        """The same; each group is trained on as soon as it has its rewards, in their order, and its latents are freed.

        A remote judge goes on with the next ones meanwhile. Several ranks do not: they share out the rows of all kept
        groups, which are not known before, so that each trains on equally many.
        """
        groups, judged, missing = list[Group](), list[Judged](), self.config.rollout.groups_per_step
        gradient = Gradient(self.optimizer, self.algorithm, missing * full_rows(self.algorithm, self.config.rollout))
        rows = 0
        while missing:
            with closing(self._collecting(len(judged), missing)) as made:
                for group in made:
                    each = gather_groups(self.world, [group], self.watch)
                    assign_advantages(each, self.algorithm, self.collector.weights, self.config.outside_rewards)
                    for portion in self._hand_out([group], each):
                        self._train_on(portion, gradient)
                    rows, judged = rows + self._total, judged + each
                    groups.append(without_latents(group))
                    self.progress.trains(len(judged), self.config.rollout.groups_per_step)
            missing = count_missing(judged, self.config.rollout)
        return groups, judged, self._finish(gradient, rows)

    def _hand_out(self, groups: Sequence[Group], judged: Sequence[Judged]) -> list[Portion]:
        """The rows of kept groups that this rank trains on; every rank has equally many."""
        kept = [each for each in judged if each.dropped is None]
        counts = count_rows(self.algorithm, kept)
        self._total = sum(rows for _, rows, _ in counts)
        batch = self.config.optim.micro_batch if self.editor.is_sharded else None
        takers = share_rows(counts, self.world.workers, batch)
        with self._meeting():
            return hand_out(self.world, groups, kept, self.collector.shares, takers, token_finder(self.config))

    def _backward(self, portions: Sequence[Portion]) -> dict[str, float | None]:
        """Add up the gradient of the mean loss over all rows of all ranks, and clip it; loss, parts and norm."""
        gradient = Gradient(self.optimizer, self.algorithm, self._total)
        for number, portion in enumerate(portions, start=1):
            self._train_on(portion, gradient)
            self.progress.trains(number, len(portions))
        return self._finish(gradient, self._total)

    def _train_on(self, portion: Portion, gradient: Gradient) -> None:
        """Add the rows of a portion."""
        share = portion.share
        with self.clock("train"):
            every = self.rows(portion.index, portion.edits)
            for rows in every[share.start : share.stop].split(self.config.optim.micro_batch):
                velocities = velocities_of(self.editor, portion.conditioning, rows, self.algorithm.asks(self.step))
                loss, parts = loss_of(self.config, portion, rows, velocities)
                gradient.add(loss, parts, share.weight * len(rows))

    def _finish(self, gradient: Gradient, rows: int) -> dict[str, float | None]:
        """The gradient of all ranks, of the mean over so many rows, clipped; loss, parts and norm."""
        gradient.divide_by(rows)
        if rows:
            with self._meeting():
                sum_gradients(self.world, self.params, gradient.sums, self.editor.replicas)
            self._self_check.watch(self.params)
        with self.clock("train"):
            norm = clip(self.params, self.step + 1, self.config.optim, self.algorithm)
            return {**gradient.losses(rows), "grad_norm": norm}

    @torch.no_grad()
    def _update(self) -> dict[str, float]:
        """One optimiser step (none if nothing was kept); the sampling policy and the average follow. Norms."""
        with self.clock("train"):
            before = [param.clone() for param in self.params]
            self.optimizer.step()
            self.editor.policies.follow(self.algorithm.old_decay(self.step))
            self.ema.update(self.step)
            moved = [param - was for param, was in zip(self.params, before, strict=True)]
            norms = torch.stack([total_norm(moved), total_norm(self.params)]).tolist()
        self.step += 1
        weights = "lora_norm" if self.config.adapter.mode == "lora" else "weight_norm"
        return dict(zip(("update_norm", weights), norms, strict=True))

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Inside, the weights are not those of any step: a failure there costs the steps since the last checkpoint."""
        self._whole = False
        yield
        self._whole = True

    def _row(
        self,
        measures: Sequence[GroupMeasures],
        numbers: Mapping[str, float | None],
        clocks: Sequence[Mapping[str, float]],
    ) -> StepRow:
        """The row of the step that was just made; `clocks` are those of all ranks before the update."""
        self.start = self.start or edit_statistics(measures)
        seconds = slowest([*clocks, self.clock.read()])
        self._step_seconds = seconds["total"]
        self.seconds += self._step_seconds
        row = step_row(self.step, measures, numbers, self.start, seconds)
        waits = {"imbalance": imbalance(clocks), "rank_seconds": by_rank(clocks)}
        return {**row, **waits} if self.world.size > 1 else row

    def _keep(self, log: RunLog | None, groups: Sequence[Group], judged: Sequence[Judged]) -> None:
        """A picture of samples, of the first step and with every checkpoint; a checkpoint every `save_every` steps."""
        due = self.step % self.config.save_every == 0
        if due or self.step == 1:
            dropped = [each.dropped for each in judged]
            strips = gather_strips(self.world, groups, dropped, masks_shown(self.config))
            if log is not None:
                log.picture(self.step, strips)
        if due:
            self.save()

    def _rescue(self, interrupts: Interrupts) -> None:
        """Save the steps done, unless the weights stand between two, or are spread over ranks that are not all here."""
        if self._whole and self.step:
            with interrupts.held():
                if not self.editor.policies.spread or self.world.all_come(f"the end after step {self.step}"):
                    self.save()

    def _fits(self, max_seconds: float | None) -> bool:
        """Whether there is an item to draw, and all ranks have time for a step."""
        over = max_seconds is not None and self.seconds + self._step_seconds >= max_seconds
        return not self.world.agree(over or self.collector.all_solved, "the next step")

    @contextmanager
    def _meeting(self, interrupts: Interrupts | None = None) -> Iterator[None]:
        """A block in which ranks wait for each other; it ends the run if any of them is to stop."""
        if self.world.size == 1:
            yield
            return
        with self.clock("exchange"):
            yield
            if interrupts and self.world.agree(interrupts.requested or self.world.is_orphan, "a place to stop"):
                raise KeyboardInterrupt

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one.

        Raises:
            UserError: It is another run's, none is whole, or not all ranks see it.
        """
        folder = checkpoint.newest(self._checkpoints, self.world)
        if folder is None:
            return
        state = read_state(folder)
        checkpoint.refuse_changes(self.out, state["config"], self.config)
        read_weights(self._weights, folder)
        self.step, self.seconds, self.start = state["step"], state["seconds"], state["start"]
        self.collector.restore(state)
        self._step_seconds = self.seconds / max(self.step, 1)
