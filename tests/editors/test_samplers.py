"""DPM-Solver++(2M) for flows: its order on an exactly solvable flow, and diffusers' own solver on equal sigmas."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from editr1.editors.samplers import SCHEDULERS, FlowDPMSolver2M

# Data x0 ~ N(MEAN, STD^2): everything below is closed form.
MEAN = torch.tensor([1.5, -0.7, 0.2], dtype=torch.float64)
STD = torch.tensor([0.6, 1.3, 0.1], dtype=torch.float64)


def exact_velocity(x: Tensor, s: Tensor) -> Tensor:
    """E[eps - x0 | x_s = x] for Gaussian data."""
    variance = (1 - s) ** 2 * STD**2 + s**2
    centred = x - (1 - s) * MEAN
    return (s * centred - (1 - s) * STD**2 * centred) / variance - MEAN


def exact_solution(x: Tensor, s: float, t: float) -> Tensor:
    """The probability-flow ODE carries each quantile along: x_t = mean_t + (std_t / std_s)(x_s - mean_s)."""
    std_s = ((1 - s) ** 2 * STD**2 + s**2).sqrt()
    std_t = ((1 - t) ** 2 * STD**2 + t**2).sqrt()
    return (1 - t) * MEAN + std_t / std_s * (x - (1 - s) * MEAN)


def solve(scheduler: FlowMatchEulerDiscreteScheduler, sigmas: Tensor, x: Tensor) -> Tensor:
    scheduler.set_timesteps(sigmas=sigmas[:-1].tolist())
    scheduler.sigmas = sigmas
    scheduler.set_begin_index(0)
    for s, timestep in zip(sigmas[:-1], scheduler.timesteps, strict=True):
        (x,) = scheduler.step(exact_velocity(x, s), timestep, x, return_dict=False)
    return x


def error(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, start: float, end: float) -> float:
    x = torch.tensor([0.3, -1.1, 0.8], dtype=torch.float64)
    got = solve(scheduler, torch.linspace(start, end, steps + 1, dtype=torch.float64), x)
    return float((got - exact_solution(x, start, end)).abs().max())


def orders(start: float, end: float) -> list[float]:
    errors = [error(FlowDPMSolver2M(), n, start, end) for n in (100, 200, 400, 800)]
    return [math.log2(a / b) for a, b in pairwise(errors)]


def test_error_falls_with_the_square_of_the_step() -> None:
    assert all(1.95 < order < 2.05 for order in orders(0.9, 0.1))


def test_start_from_noise_costs_only_a_logarithm() -> None:
    with_log = [2 - math.log2(math.log(2 * n) / math.log(n)) for n in (100, 200, 400)]
    assert orders(1.0, 0.1) == pytest.approx(with_log, abs=0.06)


def test_whole_way_beats_euler_at_the_rollout_step_counts() -> None:
    for steps in (6, 10, 20):
        assert error(FlowDPMSolver2M(), steps, 1.0, 0.0) < 0.5 * error(
            FlowMatchEulerDiscreteScheduler(), steps, 1.0, 0.0
        )


def test_equals_diffusers_own_solver_on_equal_sigmas() -> None:
    theirs = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=2, solver_type="midpoint"
    )
    theirs.set_timesteps(8)
    sigmas = theirs.sigmas.double()
    assert sigmas[-1] == 0
    x = x_theirs = torch.tensor([0.3, -1.1, 0.8], dtype=torch.float64)
    for s, timestep in zip(sigmas[:-1], theirs.timesteps, strict=True):
        x_theirs = theirs.step(exact_velocity(x_theirs, s), timestep, x_theirs, return_dict=False)[0]
    x = solve(FlowDPMSolver2M(), sigmas, x)
    torch.testing.assert_close(x, x_theirs, rtol=0, atol=2e-6)  # theirs rounds each sample to float32


def test_first_step_is_euler() -> None:
    x = torch.tensor([0.3, -1.1, 0.8], dtype=torch.float64)
    sigmas = torch.tensor([1.0, 0.4], dtype=torch.float64)
    want = x - 0.6 * exact_velocity(x, sigmas[0])
    torch.testing.assert_close(solve(FlowDPMSolver2M(), sigmas, x), want, rtol=0, atol=1e-15)


def test_last_step_lands_on_the_predicted_x0() -> None:
    sigmas = torch.tensor([0.7, 0.4, 0.0], dtype=torch.float64)
    scheduler = FlowDPMSolver2M()
    scheduler.set_timesteps(sigmas=sigmas[:-1].tolist())
    scheduler.sigmas = sigmas
    scheduler.set_begin_index(0)
    x, x0 = torch.tensor([2.0], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    (x,) = scheduler.step(x, scheduler.timesteps[0], x, return_dict=False)
    (x,) = scheduler.step((x - x0) / 0.4, scheduler.timesteps[1], x, return_dict=False)
    torch.testing.assert_close(x, x0, rtol=0, atol=1e-15)


def test_a_second_run_knows_nothing_of_the_first() -> None:
    x = torch.tensor([0.3, -1.1, 0.8], dtype=torch.float64)
    sigmas = torch.linspace(0.9, 0.1, 5, dtype=torch.float64)
    scheduler = FlowDPMSolver2M()
    assert torch.equal(solve(scheduler, sigmas, x), solve(scheduler, sigmas, x))


def test_half_precision_keeps_its_dtype_and_computes_in_float32() -> None:
    scheduler = FlowDPMSolver2M()
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    scheduler.set_begin_index(0)
    x = torch.tensor([0.1234], dtype=torch.bfloat16)
    v = torch.tensor([0.9876], dtype=torch.bfloat16)
    (got,) = scheduler.step(v, scheduler.timesteps[0], x, return_dict=False)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, (x.float() - 0.5 * v.float()).to(torch.bfloat16))


def test_both_names_take_a_pipelines_sigmas_and_shift() -> None:
    config = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02).config
    got = {}
    for name, scheduler_class in SCHEDULERS.items():
        scheduler = scheduler_class.from_config(config)
        scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.6)
        got[name] = scheduler.sigmas
    assert torch.equal(got["dpm2"], got["euler"])
    assert got["dpm2"][-2].item() == pytest.approx(0.02)
