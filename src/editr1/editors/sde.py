"""Euler with noise in some steps, for algorithms that need the likelihood of a step: a diffusers scheduler.

Every step from level s to t is x_t = a x_s + b v + std z, z ~ N(0, 1), with the velocity v = eps - x0 at x_s and
dt = t - s < 0:

    none:  a = 1                  b = dt                                std = 0
    flow:  a = 1 + g dt           b = (1 + g (1 - s)) dt                std = sigma_s sqrt(-dt)
           sigma_s = scale sqrt(s / (1 - s)),  g = sigma_s^2 / (2 s)    Flow-GRPO, arXiv 2505.05470
    cps:   a = (1 - t) + c t      b = c t (1 - s) - (1 - t) s           std = t sin(scale pi / 2)
           c = cos(scale pi / 2), so x_t = (1 - t) x0hat + c t epshat + std z    CPS, arXiv 2509.05952

Where s = 1, and sigma_s infinite, the published code of Flow-GRPO takes t for s in its denominator; so do we.

Letters: G edits, S steps, N tokens, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from torch import Tensor

from editr1.config.settings import StepNoise
from editr1.editors import recorder
from editr1.editors.family import Family
from editr1.editors.recorder import Conditioning, Recording
from editr1.errors import UserError

UNGUIDED = 0.01
"""Largest relative difference, by rounding, between the velocities that a sampler and its replay get."""


class FlowSDE(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler with noise in some steps.

    Attributes:
        noise: Which steps, and how much.
        generators: Of the noise, one per edit; on the CPU, so that it is the same on every device.
    """

    noise: StepNoise
    generators: Sequence[torch.Generator]

    def step(
        self, model_output: Tensor, timestep: Tensor | float, sample: Tensor, return_dict: bool = True
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple[Tensor]:
        """From x_s to x_t; arguments as of `FlowDPMSolver2M.step`, of G edits."""
        if self.step_index is None:
            self._init_step_index(timestep)
        i = self.step_index
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        a, b, std = transitions(flow_levels(self, self.sigmas), self.noise)[i]
        result = a * x + b * flow_velocity(self, model_output)
        if i in self.noise.steps:
            z = [torch.randn(each.shape, generator=own) for each, own in zip(x, self.generators, strict=True)]
            result = result + std * torch.stack(z).to(x)
        self._step_index += 1
        result = result.to(model_output.dtype)
        return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=result) if return_dict else (result,)


def noisy(scheduler: Any, noise: StepNoise | None, seeds: Sequence[int]) -> Any:
    """A `FlowSDE` with the settings of a scheduler and one seed per edit; without noise, the scheduler itself."""
    if noise is None:
        return scheduler
    sde = FlowSDE.from_config(scheduler.config)
    sde.noise, sde.generators = noise, [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return sde


def transitions(levels: Tensor, noise: StepNoise) -> Tensor:
    """The numbers a, b and std of every step, [S, 3].

    Args:
        levels: Noise levels before and after all steps, falling, [S + 1].
        noise: Which steps have noise.
    """
    s, t = levels[:-1], levels[1:]
    numbers = torch.stack([torch.ones_like(s), t - s, torch.zeros_like(s)], dim=1)
    some = slice(noise.steps.start, noise.steps.stop)
    law = _flow if noise.kind == "flow" else _cps
    numbers[some] = torch.stack(law(s[some], t[some], noise.scale), dim=1)
    return numbers


def recorded_transitions(
    recording: Recording, family: Family, conditioning: Conditioning, scheduler: Any, noise: StepNoise
) -> Tensor:
    """The numbers of the steps of a rollout, [S, 3], on the CPU; `scheduler` has the settings of the one that made it.

    Raises:
        UserError: The sampler gets another velocity than that of the conditional call, which training replays.
    """
    assert recording.sigmas is not None, "the scheduler has stepped"
    call, shape = recording.calls[0], conditioning.shape
    v = recorder.tokens(flow_velocity(scheduler, recording.inputs[0][0]), family, shape)
    rows = recorder.conditional_rows(call.arguments[family.latents], family, len(v))
    replayed = recorder.tokens(recorder.predicted(call.output, family, shape)[rows], family, shape)
    if not (v - replayed).abs().max() <= UNGUIDED * replayed.abs().max():
        raise UserError(
            f"{family.name} is guided: a step of its sampler mixes several calls of the denoiser, so its likelihood is "
            "not that of the call that is trained; set editor.guidance to 1, or use an algorithm that needs no "
            "likelihood, such as nft."
        )
    return transitions(flow_levels(scheduler, recording.sigmas), noise).cpu()


def flow_levels(scheduler: Any, sigmas: Tensor) -> Tensor:
    """The noise levels of a scheduler's sigmas, which rise from noise if they are inverted (as for OmniGen)."""
    return 1 - sigmas if scheduler.config.get("invert_sigmas") else sigmas


def flow_velocity(scheduler: Any, model_output: Tensor) -> Tensor:
    """The velocity eps - x0 of what a scheduler gets."""
    return -model_output if scheduler.config.get("invert_sigmas") else model_output


def _flow(s: Tensor, t: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    sigma = scale * (s / (1 - torch.where(s == 1, t, s))).sqrt()
    g, dt = sigma.square() / (2 * s), t - s
    return 1 + g * dt, (1 + g * (1 - s)) * dt, sigma * (-dt).sqrt()


def _cps(s: Tensor, t: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    angle = scale * math.pi / 2
    c = math.cos(angle)
    return (1 - t) + c * t, c * t * (1 - s) - (1 - t) * s, t * math.sin(angle)
