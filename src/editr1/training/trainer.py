"""Online reinforcement learning of an image editor, as in Edit-R1 (arXiv 2510.16888): the loop.

`Trainer.train_step` is one step, top to bottom: the sampling policy edits every item of the step G times, the judge
rewards each edit, rewards become advantages within groups, groups without signal are dropped, the kept edits are noised
and replayed for the DiffusionNFT loss, one optimiser step is made, the sampling policy and the average follow.

Denoiser calls of a noised edit: v with gradient; v_old only where the sampling policy differs from the trained one (it
does not while its decay is 0, as in the first two steps: then v_old is v, detached); v_ref only where the kl weight is
above 0. None for a dropped group or an edit without reward. An edit is noised to levels that its own rollout visited,
drawn without repeats, as in the released code of DiffusionNFT and Edit-R1 (5 of 6 levels there;
`algorithm.timesteps_per_image` here).

Every random draw in a step comes from (seed, step, group index), and weights are saved only as they stand between two
steps: a run that was stopped anywhere and continued is, bit for bit, the run that was not.

Left out: more than one process, several optimiser steps on one set of rollouts.

Letters: G edits of a group, S levels that the sampler visits, T levels an edit is trained at, B rows of a denoiser
call, N tokens, C channels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from editr1.algorithms.ema import EMA, old_decay
from editr1.algorithms.nft import NFTBatch, nft_loss, optimality
from editr1.config import Config, differences, dump_config
from editr1.data.pictures import png
from editr1.data.samples import EditDataset, EditSample, GroupSampler
from editr1.data.seeds import derive_seed
from editr1.editors.editor import Editor
from editr1.errors import UserError
from editr1.files import write_file
from editr1.judges.base import Judge
from editr1.training import checkpoint
from editr1.training.grid import sample_grid
from editr1.training.group import Group
from editr1.training.interrupts import Interrupts
from editr1.training.log import RunLog, StepProgress, Stopwatch
from editr1.training.rewarding import FailureWatch, Judging, rate
from editr1.training.run_files import CHECKPOINTS, CONFIG, SAMPLES
from editr1.training.step_row import Row, edit_statistics, step_row

LEVEL_MIN = 1e-3
TENSORS = "training.safetensors"
Watch = Callable[[Sequence[Group]], dict[str, float]]
"""Measures a step's edits for the log alone; nothing that it says reaches the training."""
LOSS_PARTS = ("loss", "loss_pos", "loss_neg", "kl")


@dataclass(frozen=True)
class Noised:
    """Noised edits of one group, one row an edit and level.

    Attributes:
        x0: clean latents, [B, N, C].
        x_t: noised, [B, N, C].
        t: noise levels, [B], in (0, 1].
        r: optimality, [B], in [0, 1].
    """

    x0: Tensor
    x_t: Tensor
    t: Tensor
    r: Tensor

    def split(self, size: int) -> Iterator[Noised]:
        """The rows, at most `size` at a time."""
        for parts in zip(*(field.split(size) for field in (self.x0, self.x_t, self.t, self.r)), strict=True):
            yield Noised(*parts)


class Trainer:
    """Trains `editor` on `dataset` by the rewards of `judge`, and goes on from the newest checkpoint in `out`, if any.

    It gives the editor its policies.

    Attributes:
        step: optimiser steps done.
        seconds: spent on them, sessions before a restart included.
        ema: the averaged weights; `with trainer.ema.swap():` puts them into the editor.

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
        self.out, self.watch = out or config.out, watch
        adapter, optim = config.adapter, config.optim
        editor.add_policies(
            rank=adapter.rank,
            alpha=adapter.alpha,
            targets=adapter.targets,
            mode=adapter.mode,
            seed=derive_seed(config.seed, "adapter"),
        )
        self.names, self.params = map(list, zip(*editor.policies.parameters(), strict=True))
        self.optimizer = torch.optim.AdamW(self.params, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
        self.ema = EMA(zip(self.names, self.params, strict=True), config.ema)
        self.sampler = GroupSampler(len(dataset), config.rollout.groups_per_step, config.seed)
        self.step, self.seconds = 0, 0.0
        self.start: dict[str, float] = {}  # what the edits of the first step looked like
        self._step_seconds = 0.0
        self._whole = True  # the weights are those after `step` steps, not between two
        self._checked = False
        self._failures = FailureWatch(config.failures.share, config.failures.steps)
        others = {name: reward.weight for name, reward in config.rewards.items()}
        self._weights = {"judge": config.judge.weight, **others} if others else None
        self._resume()

    def train(self, max_seconds: float | None = None, on_step: Callable[[Row], None] | None = None) -> Path:
        """Train to `config.steps` and return the last checkpoint. Whatever stops it, the steps done are saved first.

        Args:
            max_seconds: end before a step that would not fit into so much training time, earlier sessions included.
            on_step: told the metrics of every step.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; the state is saved.
            UserError: the judge failed too often, gradients are not finite, a picture or the disk fails.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        write_file(self.out / CONFIG, dump_config(self.config).encode())
        with (
            StepProgress(self.step, self.config.steps) as progress,
            closing(RunLog(self.out, self.step)) as log,
            Interrupts() as interrupts,
        ):
            try:
                while self.step < self.config.steps and self._fits(max_seconds):
                    row = self.train_step(log, interrupts)
                    progress.show(row)
                    if on_step:
                        on_step(row)
            except KeyboardInterrupt:
                self._rescue(interrupts)
                progress.say(self._how_to_go_on())
                raise
            finally:
                self._rescue(interrupts)
            return self.save()

    def train_step(self, log: RunLog, interrupts: Interrupts) -> Row:
        """One step; its metrics."""
        clock, begun = Stopwatch(), time.perf_counter()
        groups: list[Group] = []
        levels: list[Tensor] = []

        # Edits by the sampling policy, each group judged as soon as it is made
        with Judging(self.judge, self.config.rollout.groups_per_step) as judging:
            for index, item in enumerate(self.sampler.indices(self.step)):
                with clock("rollout"):
                    group, visited = self._rollout(self.dataset[item], index)
                with clock("judge"):
                    judging.start(group)
                groups.append(group)
                levels.append(visited)
            with clock("judge"):
                judging.finish()

        # Advantages within groups; groups without signal are dropped
        rate(groups, self.config.algorithm, self._weights)

        # Gradient of the loss over all kept edits
        with clock("train"):
            losses = self._backward(groups, levels)
            grad_norm = self._clip()

        # Optimiser step, sampling policy, average; nothing may stop the run between here and the row's end
        with interrupts.held():
            self._whole = False
            with clock("train"):
                norms = self._update()
            self.step += 1
            self.start = self.start or edit_statistics(groups)
            measures = {**losses, "grad_norm": grad_norm, **norms}
            row = step_row(self.step, groups, measures, self.start, clock.read())
            if self.watch:
                row["watched"] = self.watch(groups)
            log.write(row)
            self._whole = True
            self._after_step(groups)
            self._step_seconds = time.perf_counter() - begun
            self.seconds += self._step_seconds
            if self.step % self.config.save_every == 0:
                self.save()
        self._failures.check(groups)
        return row

    def save(self) -> Path:
        """Write the checkpoint of this step, unless it is there; returns its folder."""
        state = {"seconds": self.seconds, "start": self.start, "config": self.config.model_dump(mode="json")}
        return checkpoint.save(self._checkpoints, self.step, state, self._write_weights, self.config.keep)

    def _rescue(self, interrupts: Interrupts) -> None:
        """Save the steps done, unless the weights stand between two."""
        if self._whole and self.step:
            with interrupts.held():
                self.save()

    @property
    def _checkpoints(self) -> Path:
        return self.out / CHECKPOINTS

    def _rollout(self, sample: EditSample, index: int) -> tuple[Group, Tensor]:
        """G edits of `sample`, and the noise levels that the sampler visited, [S]."""
        rollout = self.config.rollout
        seed = derive_seed(self.config.seed, "rollout", self.step, index)
        with self.editor.policies.using("old"):
            made = self.editor.rollout(
                sample, rollout.group_size, steps=rollout.steps, seed=seed, scheduler=rollout.scheduler
            )
            if not self._checked:  # once a session: what is trained is what was sampled
                self.editor.self_check(made)
                self._checked = True
        return Group(sample, made.conditioning, made.latents, made.images), made.times

    def _backward(self, groups: Sequence[Group], levels: Sequence[Tensor]) -> dict[str, float | None]:
        """Add up the gradient of the mean loss over all rows of the kept groups; the loss and its parts."""
        settings = self.config.algorithm
        self.optimizer.zero_grad()
        kept = [i for i, group in enumerate(groups) if group.dropped is None]
        if not kept:
            return dict.fromkeys(LOSS_PARTS)
        rows = sum(len(_rewarded(groups[i])[0]) for i in kept) * self.config.timesteps_per_image
        sums = torch.zeros(len(LOSS_PARTS), device=groups[kept[0]].latents.device)
        for i in kept:
            for noised in self._noise(groups[i], levels[i], i).split(self.config.optim.micro_batch):
                batch = self._predict(groups[i], noised)
                loss, parts = nft_loss(
                    batch, beta=settings.beta, kl=settings.kl, adv_clip=settings.adv_clip, form=settings.form
                )
                weight = len(noised.t) / rows
                (weight * loss).backward()
                sums += weight * torch.stack([loss.detach(), *(parts[name] for name in LOSS_PARTS[1:])])
        return dict(zip(LOSS_PARTS, sums.tolist(), strict=True))

    def _noise(self, group: Group, levels: Tensor, index: int) -> Noised:
        """Noise the edits that have a reward, each to T levels; the draws do not depend on which ones have."""
        count, device = self.config.timesteps_per_image, group.latents.device
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "noise", self.step, index))
        uniform = self.config.algorithm.timesteps == "uniform"
        t = draw_levels(None if uniform else levels, len(group.images), count, generator)  # G T
        eps = torch.randn(*t.shape, *group.latents.shape[1:], generator=generator).to(device)  # G T N C
        edits, advantages = _rewarded(group)
        r = optimality(advantages, self.config.algorithm.adv_clip)
        t, eps = t.to(device)[edits].flatten(), eps[edits].flatten(0, 1)  # B; B N C
        x0 = group.latents[edits].repeat_interleave(count, dim=0)  # B N C
        x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
        return Noised(x0, x_t, t, r.repeat_interleave(count).to(device))

    def _predict(self, group: Group, noised: Noised) -> NFTBatch:
        """The velocities of the policies that the loss needs."""
        settings, inputs = self.config.algorithm, (group.conditioning, noised.x_t, noised.t)
        v = self.editor.velocity(*inputs)
        v_old, v_ref = v.detach(), None
        with torch.no_grad():
            if self.step > 0 and old_decay(self.step - 1, settings.old_rate, settings.old_cap) > 0:
                with self.editor.policies.using("old"):
                    v_old = self.editor.velocity(*inputs)
            if settings.kl > 0:
                with self.editor.policies.using("reference"):
                    v_ref = self.editor.velocity(*inputs)
        return NFTBatch(noised.x0, noised.x_t, noised.t, v, v_old, v_ref, noised.r)

    def _clip(self) -> float:
        """Clip the gradient; its norm before.

        Raises:
            UserError: it is not finite.
        """
        norm = float(nn.utils.clip_grad_norm_(self.params, self.config.optim.grad_clip))
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient of step {self.step + 1} is not finite, the weights are as before it; lower optim.lr "
                f"(now {self.config.optim.lr}) or raise algorithm.kl (now {self.config.algorithm.kl}) in a new run"
            )
        return norm

    @torch.no_grad()
    def _update(self) -> dict[str, float]:
        """One optimiser step (none where nothing was kept); the sampling policy and the average follow. Norms."""
        before = [param.clone() for param in self.params]
        self.optimizer.step()
        self.editor.policies.follow(old_decay(self.step, self.config.algorithm.old_rate, self.config.algorithm.old_cap))
        self.ema.update()
        moved = [param - was for param, was in zip(self.params, before, strict=True)]
        update_norm, lora_norm = torch.stack([norm_of(moved), norm_of(self.params)]).tolist()
        return {"update_norm": update_norm, "lora_norm": lora_norm}

    def _after_step(self, groups: Sequence[Group]) -> None:
        """A picture of samples, of the first step and with every checkpoint."""
        if self.step == 1 or self.step % self.config.save_every == 0:
            path = self.out / SAMPLES / f"step_{self.step:06d}.png"
            write_file(path, png(sample_grid(groups)))

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
        self.editor.policies.save(folder / "policy", "default")
        self.editor.policies.save(folder / "old", "old")
        with self.ema.swap():
            self.editor.policies.save(folder / "ema", "default")
        moments = checkpoint.optimizer_tensors(self.optimizer, self.names)
        averages = {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        save_file({name: tensor.contiguous() for name, tensor in {**moments, **averages}.items()}, folder / TENSORS)

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        folder = checkpoint.latest(self._checkpoints)
        if folder is None:
            return
        state = checkpoint.read_state(folder)
        if different := differences(state["config"], self.config):
            raise UserError(
                f"{self.out} holds a run with other settings ({different}); choose another out, or set them back"
            )
        self.editor.policies.load(folder / "policy", "default")
        self.editor.policies.load(folder / "old", "old")
        tensors = load_file(folder / TENSORS)
        averages = {name.removeprefix("ema."): tensors.pop(name) for name in [*tensors] if name.startswith("ema.")}
        self.ema.load_state_dict(averages)
        checkpoint.restore_optimizer(self.optimizer, self.names, tensors)
        self.step, self.seconds, self.start = state["step"], state["seconds"], state["start"]
        self._step_seconds = self.seconds / max(self.step, 1)


def _rewarded(group: Group) -> tuple[list[int], Tensor]:
    """Indices of the edits that have a reward, as a list (no wait for the device), and their advantages."""
    assert group.advantages is not None, "advantages come before the loss"
    edits = (~group.advantages.isnan()).nonzero()[:, 0].tolist()
    return edits, group.advantages[edits]


def draw_levels(visited: Tensor | None, edits: int, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels [G, T]: for each edit `count` of `visited` [S], without repeats; None for anywhere in (0, 1)."""
    if visited is None:
        return torch.rand(edits, count, generator=generator) * (1 - LEVEL_MIN) + LEVEL_MIN
    order = torch.rand(edits, len(visited), generator=generator).argsort(dim=1)[:, :count]  # G T
    return visited[order.to(visited.device)]


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all entries of all tensors together."""
    return torch.stack([tensor.float().norm() for tensor in tensors]).norm()
