"""Steps with noise: the marginals of the ODE on an exactly solvable flow, and the same steps in every pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from editr1.algorithms.noise import NoiseKind, StepNoise
from editr1.data.seeds import derive_seed
from editr1.editors.editor import Editor
from editr1.editors.families import FAMILIES
from editr1.editors.open import open_editor
from editr1.editors.sde import FlowSDE, noisy, transitions
from editr1.errors import UserError
from tests.editors.test_matrix import PIXELS, SAMPLE
from tests.tiny import tiny_sample

KINDS: tuple[NoiseKind, ...] = ("flow", "cps")
every_kind = pytest.mark.parametrize("kind", KINDS)

# Data x0 ~ N(MEAN, STD^2), of which the velocity E[eps - x0 | x_s = x] = slope x + offset is linear in x.
MEAN, STD = 1.5, 0.6


def exact(s: float) -> tuple[float, float]:
    """Mean and variance of x_s."""
    return (1 - s) * MEAN, (1 - s) ** 2 * STD**2 + s**2


def linear_velocity(s: float) -> tuple[float, float]:
    slope = (s - (1 - s) * STD**2) / exact(s)[1]
    return slope, -slope * (1 - s) * MEAN - MEAN


def moments(levels: Tensor, noise: StepNoise) -> tuple[float, float]:
    """Mean and variance after all steps, by recursion, from the exact ones at the first level."""
    mean, variance = exact(float(levels[0]))
    for s, (a, b, std) in zip(levels[:-1].tolist(), transitions(levels, noise).tolist(), strict=True):
        slope, offset = linear_velocity(s)
        mean, variance = (a + b * slope) * mean + b * offset, (a + b * slope) ** 2 * variance + std**2
    return mean, variance


def moment_error(kind: NoiseKind, steps: int, scale: float) -> float:
    levels = torch.linspace(0.95, 0.1, steps + 1, dtype=torch.float64)
    got, expected = moments(levels, StepNoise(kind, scale, range(steps))), exact(0.1)
    return max(abs(one - other) for one, other in zip(got, expected, strict=True))


def test_the_sde_keeps_the_marginals_of_the_ode_to_first_order_of_the_step() -> None:
    errors = [moment_error("flow", steps, 0.7) for steps in (200, 400, 800)]
    assert all(0.9 < math.log2(a / b) < 1.1 for a, b in pairwise(errors)) and errors[-1] < 1e-3


def test_coefficients_preserving_steps_keep_them_if_their_noise_shrinks_with_the_step() -> None:
    errors = [moment_error("cps", steps, 2 / math.sqrt(steps)) for steps in (200, 400, 800)]
    assert all(0.9 < math.log2(a / b) < 1.1 for a, b in pairwise(errors)) and errors[-1] < 2e-3


def test_only_coefficients_preserving_steps_leave_the_level_of_noise_exact_where_the_data_is_one_picture() -> None:
    """There v = (x - x0) / s is exact: x_t must be (1 - t) x0 plus noise of size t, in however few steps."""
    levels = torch.tensor([1.0, 0.8, 0.5, 0.2], dtype=torch.float64)
    sizes = {}
    for kind in KINDS:
        size, share = 1.0, 0.0  # of the noise, and of x0, in x_1
        numbers = transitions(levels, StepNoise(kind, 0.7, range(3))).tolist()
        for s, (a, b, std) in zip(levels[:-1].tolist(), numbers, strict=True):
            size, share = math.hypot((a + b / s) * size, std), (a + b / s) * share - b / s
        assert share == pytest.approx(0.8)
        sizes[kind] = size
    assert sizes["cps"] == pytest.approx(0.2) and sizes["flow"] > 0.25  # the excess that CPS is made to avoid


def test_numbers_equal_the_papers_formulas() -> None:
    s, t, level = 0.6, 0.35, 0.7
    x, v = 1.3, -0.4
    sigma = level * math.sqrt(s / (1 - s))
    drift = v + sigma**2 / (2 * s) * (x + (1 - s) * v)  # Flow-GRPO, equation 9
    flow = x + drift * (t - s), sigma * math.sqrt(s - t)
    std = t * math.sin(level * math.pi / 2)
    cps = (1 - t) * (x - s * v) + math.sqrt(t**2 - std**2) * (x + (1 - s) * v), std
    levels = torch.tensor([s, t], dtype=torch.float64)
    for kind, (mean, size) in zip(KINDS, (flow, cps), strict=True):
        ((a, b, got),) = transitions(levels, StepNoise(kind, level, range(1))).tolist()
        assert (a * x + b * v, got) == pytest.approx((mean, size))


@every_kind
def test_small_noise_is_the_ode_and_steps_outside_of_the_window_are_eulers_bit_for_bit(kind: NoiseKind) -> None:
    levels = torch.linspace(1, 0, 7)
    euler = torch.stack([torch.ones(6), levels.diff(), torch.zeros(6)], dim=1)
    torch.testing.assert_close(transitions(levels, StepNoise(kind, 1e-4, range(5))), euler, rtol=0, atol=3e-4)
    numbers = transitions(levels, StepNoise(kind, 0.7, range(1, 3)))
    assert torch.equal(numbers[[0, 3, 4, 5]], euler[[0, 3, 4, 5]]) and (numbers[1:3, 2] > 0).all()
    ours = noisy(FlowMatchEulerDiscreteScheduler(), StepNoise(kind, 0.7, range(0)), [])
    theirs = FlowMatchEulerDiscreteScheduler()
    x = y = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(sigmas=[1.0, 0.7, 0.3])
    for timestep in theirs.timesteps:
        x, y = (s.step(z.sin(), timestep, z, return_dict=False)[0] for s, z in ((ours, x), (theirs, y)))
    assert torch.equal(x, y)


def test_noise_has_the_size_of_its_step_and_the_dtype_of_the_velocity() -> None:
    sde = noisy(FlowMatchEulerDiscreteScheduler(), StepNoise("flow", 0.7, range(1)), [5, 6])
    assert isinstance(sde, FlowSDE)
    sde.set_timesteps(sigmas=[0.8, 0.4])
    x = torch.zeros(2, 10_000, dtype=torch.bfloat16)
    (got,) = sde.step(x, sde.timesteps[0], x, return_dict=False)
    assert got.dtype == torch.bfloat16 and not torch.equal(got[0], got[1])
    assert got.float().std().item() == pytest.approx(0.7 * math.sqrt(0.8 / 0.2) * math.sqrt(0.4), rel=0.02)


def test_noise_before_the_end_leaves_as_many_denoiser_calls_and_no_noise_in_the_last_step(tiny_editor: Editor) -> None:
    rollout = tiny_editor.rollout(
        tiny_sample(), 2, steps=4, seed=0, noise=StepNoise("flow", 0.7, range(3)), keep_trajectory=True
    )
    assert rollout.trajectory is not None and rollout.transitions is not None
    assert len(rollout.levels) == 4 and (rollout.transitions[:, 2] > 0).tolist() == [True, True, True, False]
    with torch.no_grad():
        v = tiny_editor.velocity(rollout.conditioning, rollout.trajectory[3], rollout.levels[3].expand(2))
    want = rollout.trajectory[3] - rollout.levels[3] * v
    torch.testing.assert_close(rollout.latents, want, rtol=0, atol=1e-6)


@every_kind
def test_the_noise_of_an_edit_depends_on_its_seed_and_number_alone(tiny_editor: Editor, kind: NoiseKind) -> None:
    def latents(count: int, seed: int, places: list[int] | None = None) -> Tensor:
        noise = StepNoise(kind, 0.7, range(1, 3))
        return tiny_editor.rollout(tiny_sample(), count, steps=4, seed=seed, noise=noise, places=places).latents

    whole = latents(3, 7)
    torch.testing.assert_close(latents(2, 7), whole[:2])
    torch.testing.assert_close(latents(2, 7, [2, 0]), whole[[2, 0]])
    assert not torch.isclose(latents(1, 8), whole[:1]).all()
    quiet = tiny_editor.rollout(tiny_sample(), 3, steps=4, seed=7, scheduler="euler").latents
    assert all((one - other).abs().max() > 0.1 for one, other in zip(whole, quiet, strict=True))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_pipelines_step_is_the_one_that_its_replay_is_trained_on(
    pipeline_path: Callable[[str], Path], name: str
) -> None:
    """x_next - a x - b v, with the replayed velocity, is the noise: that of the edit's generator, or nothing."""
    editor, noise = open_editor(pipeline_path(name), pixels=PIXELS), {}
    for kind in KINDS:
        rollout = editor.rollout(SAMPLE, 2, steps=3, seed=1, noise=StepNoise(kind, 0.7, range(2)), keep_trajectory=True)
        path, numbers = rollout.trajectory, rollout.transitions
        assert path is not None and numbers is not None
        drawn = []
        for i, (a, b, std) in enumerate(numbers):
            with torch.no_grad():
                v = editor.velocity(rollout.conditioning, path[i], rollout.levels[i].expand(2))
            drawn.append((path[i + 1] - a * path[i] - b * v) / (std if std > 0 else 1))
        noise[kind] = torch.stack(drawn[:2])
        assert drawn[2].abs().max() <= 1e-4
    torch.testing.assert_close(noise["flow"], noise["cps"], rtol=0, atol=1e-3)
    assert noise["flow"].std().item() == pytest.approx(1, abs=0.1)
    if not name.startswith("JoyImage"):  # their samplers step the source's latents too
        own = [torch.Generator().manual_seed(derive_seed(1, "step", i)) for i in range(2)]
        want = [[torch.randn(noise["flow"].shape[2:], generator=each) for each in own] for _ in range(2)]
        torch.testing.assert_close(noise["flow"], torch.stack([torch.stack(step) for step in want]), rtol=0, atol=1e-4)


def test_guidance_that_mixes_calls_is_refused_in_words(pipeline_path: Callable[[str], Path]) -> None:
    noise = StepNoise("flow", 0.7, range(2))
    guided = open_editor(pipeline_path("QwenImageEditPlusPipeline"), pixels=PIXELS, guidance=4.0)
    with pytest.raises(UserError, match=r"qwen-image-edit-plus is guided: .*; set editor\.guidance to 1") as refused:
        guided.rollout(SAMPLE, 2, steps=3, seed=1, noise=noise)
    assert "\n" not in str(refused.value)
    guided.rollout(SAMPLE, 2, steps=3, seed=1)  # other algorithms may
    distilled = open_editor(pipeline_path("FluxKontextPipeline"), pixels=PIXELS, guidance=2.5)
    assert distilled.rollout(SAMPLE, 2, steps=3, seed=1, noise=noise).transitions is not None
