"""The EMA against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from editr1.algorithms.ema import EMA


def _layer(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Linear:
    layer = nn.Linear(3, 2, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    for theta in layer.parameters():
        theta.data.copy_(torch.randn(theta.shape, generator=generator))
    return layer


def _values(layer: nn.Linear) -> dict[str, torch.Tensor]:
    return {name: theta.detach().clone() for name, theta in layer.named_parameters()}


def test_average_equals_its_closed_form() -> None:
    layer = _layer()
    start = _values(layer)
    ema = EMA(layer.named_parameters(), decay=0.9)
    seen = []
    for step in range(100, 105):  # past the warm-up
        for theta in layer.parameters():
            theta.data += step
        ema.update(step)
        seen.append(_values(layer))
    for name, average in ema.state_dict().items():
        expected = 0.9**5 * start[name] + sum(0.1 * 0.9 ** (4 - k) * values[name] for k, values in enumerate(seen))
        torch.testing.assert_close(average, expected)


def test_untrained_start_fades_as_in_the_released_code() -> None:
    """theta = 1 from the first step on: the start's weight is the product of min((1 + s) / (10 + s), 0.9)."""
    theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    ema = EMA([("theta", theta)], decay=0.9)
    theta.data.fill_(1.0)
    for step in range(120):
        ema.update(step)
        weights = [min((1 + s) / (10 + s), 0.9) for s in range(step + 1)]
        assert float(ema.state_dict()["theta"]) == pytest.approx(1 - math.prod(weights), abs=1e-12)
    assert weights[0] == 0.1 and weights[79] < 0.9 == weights[80]


def test_without_warm_up_the_untrained_start_fades_by_the_rate_alone() -> None:
    """theta = 1 from the first step on: the start's weight after n steps is 0.99^n, with warm-up nearly none."""
    theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    plain, warm = EMA([("theta", theta)], decay=0.99, warmup=False), EMA([("theta", theta)], decay=0.99)
    theta.data.fill_(1.0)
    for step in range(10):
        plain.update(step)
        warm.update(step)
        assert float(plain.state_dict()["theta"]) == pytest.approx(1 - 0.99 ** (step + 1), abs=1e-12)
    assert float(plain.state_dict()["theta"]) < 0.1 and float(warm.state_dict()["theta"]) > 0.99


def test_with_warm_up_a_higher_rate_is_the_same_for_81_steps() -> None:
    lower, higher = (EMA([], decay=decay) for decay in (0.9, 0.99))
    same = [lower.decay_after(step) == higher.decay_after(step) for step in range(90)]
    assert same == [True] * 81 + [False] * 9


def test_swap_shows_the_average_inside_and_the_trained_values_after_even_a_failure() -> None:
    layer = _layer()
    ema = EMA(layer.named_parameters(), decay=0.5)
    start = _values(layer)
    layer.weight.data.zero_()
    ema.update(100)
    with pytest.raises(KeyboardInterrupt), ema.swap():
        torch.testing.assert_close(layer.weight.detach(), start["weight"] / 2, rtol=0, atol=0)
        torch.testing.assert_close(layer.bias.detach(), start["bias"], rtol=0, atol=0)
        raise KeyboardInterrupt
    assert not layer.weight.any()
    torch.testing.assert_close(ema.state_dict()["weight"], start["weight"] / 2, rtol=0, atol=0)


def test_parameters_stay_the_same_objects_with_their_gradients() -> None:
    layer = _layer()
    layer(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    before, gradient = layer.weight, layer.weight.grad
    ema = EMA(layer.named_parameters(), decay=0.5)
    ema.update(0)
    with ema.swap():
        pass
    assert layer.weight is before
    assert layer.weight.grad is gradient
    assert layer.weight.requires_grad


def test_saved_average_goes_on_as_if_never_stopped() -> None:
    layer = _layer()
    straight, stopped = (EMA(layer.named_parameters(), decay=0.9) for _ in range(2))
    layer.weight.data += 1
    straight.update(0)
    stopped.update(0)
    saved = {name: average.clone() for name, average in stopped.state_dict().items()}
    resumed = EMA(layer.named_parameters(), decay=0.9)
    resumed.load_state_dict(saved)
    layer.weight.data *= 3
    straight.update(1)
    resumed.update(1)
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), rtol=0, atol=0)
    assert saved["weight"].data_ptr() != resumed.state_dict()["weight"].data_ptr()


@pytest.mark.parametrize(
    "state",
    [
        {"weight": torch.zeros(2, 3)},
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)},
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "bias2": torch.zeros(2)},
    ],
    ids=["missing", "other shape", "unknown"],
)
def test_average_of_another_adapter_is_refused_by_name(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="first at 'bias"):
        EMA(_layer().named_parameters(), decay=0.9).load_state_dict(state)


def test_small_steps_of_bfloat16_weights_are_not_rounded_away() -> None:
    layer = _layer(dtype=torch.bfloat16)
    layer.weight.data.fill_(1.0)
    ema = EMA(layer.named_parameters(), decay=0.999)
    layer.weight.data.fill_(1.0078125)  # the next bfloat16
    for step in range(10_000, 10_100):  # past the warm-up
        ema.update(step)
    expected = 1 + 0.0078125 * (1 - 0.999**100)
    torch.testing.assert_close(ema.state_dict()["weight"], torch.full((2, 3), expected))
    with ema.swap():
        assert layer.weight.dtype == torch.bfloat16
        assert (layer.weight == 1.0).all()
