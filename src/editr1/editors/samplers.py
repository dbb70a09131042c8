"""Samplers: diffusers schedulers that replace the own one of any flow-matching pipeline.

`FlowDPMSolver2M` is DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, Algorithm 2) for the flow-matching path
x_s = (1 - s) x0 + s eps, so alpha_s = 1 - s, sigma_s = s. Left out: thresholding, stochastic variants, orders above 2.
`euler` is the stock scheduler, which for this path is DPM-Solver++ of first order.

Sampling starts at s = 1 and ends at s = 0. Both have an infinite lambda_s = log(alpha_s / sigma_s), so the update does
not contain it. The steps next to both ends cost a logarithm: the error is O(h^2 log(1/h)), and O(h^2) elsewhere.
"""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from torch import Tensor

from editr1.config.settings import SchedulerName


class FlowDPMSolver2M(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """DPM-Solver++(2M), midpoint form; the first and the last step are of first order."""

    _x0_before: Tensor | None = None

    def step(
        self, model_output: Tensor, timestep: Tensor | float, sample: Tensor, return_dict: bool = True
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple[Tensor]:
        """From s to the next sigma t: x_t = (t/s) x_s + (alpha_t - t alpha_s / s) D, D = x0 extrapolated to midway.

        Args:
            model_output: Velocity eps - x0 at `sample`, any shape; x0 - eps if the scheduler's own times rise from
                noise (`invert_sigmas`, as for OmniGen).
            timestep: One of `self.timesteps`.
            sample: x_s, same shape; the result has the dtype of `model_output`.
            return_dict: False returns a tuple, as pipelines request.
        """
        if self.step_index is None:
            self._init_step_index(timestep)
            self._x0_before = None
        i = self.step_index
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        sign, levels = (-1, 1 - self.sigmas) if self.config.invert_sigmas else (1, self.sigmas)
        s, t = levels[i], levels[i + 1]
        x0 = x - s * (sign * model_output)
        is_last = i == len(self.timesteps) - 1
        direction = (
            x0 if self._x0_before is None or is_last else _extrapolate(x0, self._x0_before, levels[i - 1 : i + 2])
        )
        result = (t / s) * x + (1 - t - t * (1 - s) / s) * direction
        self._x0_before = x0
        self._step_index += 1
        result = result.to(model_output.dtype)
        return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=result) if return_dict else (result,)


def _extrapolate(x0: Tensor, x0_before: Tensor, levels: Tensor) -> Tensor:
    """D = x0 + h / (2 h_before) (x0 - x0_before) for steps h in lambda; a step from s = 1 is infinite, then D = x0."""
    h_before, h = torch.log((1 - levels) / levels).diff().unbind()
    return x0 + h / (2 * h_before) * (x0 - x0_before)


SCHEDULERS: dict[SchedulerName, type[FlowMatchEulerDiscreteScheduler]] = {
    "dpm2": FlowDPMSolver2M,
    "euler": FlowMatchEulerDiscreteScheduler,
}
