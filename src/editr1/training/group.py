"""The one thing that flows through a training step: G edits of one dataset item, and what became of them.

Letters: G edits of a group, N target tokens, C channels of a token.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL.Image import Image
from torch import Tensor

from editr1.data.samples import EditSample
from editr1.editors.recorder import Conditioning


@dataclass
class Group:
    """G edits of one sample by the sampling policy.

    Attributes:
        sample: the dataset item that was edited.
        conditioning: what the denoiser was told; one row, since all G edits share it.
        latents: the clean results x0 of the sampler, [G, N, C], float32.
        images: the decoded edits, G of them, RGB.
        rewards: [G] in [0, 1]; NaN where the judge gave no reward (see `reasons`).
        reasons: for each edit, why it has no reward; None where it has one.
        parts: the rewards that were mixed into `rewards`, by name, [G] each; NaN where one is missing.
        prompts: versions of the words that the judges were asked with.
        advantages: [G], NaN where there is no reward; None until computed.
        dropped: why the filter dropped the group; None while it is kept.
    """

    sample: EditSample
    conditioning: Conditioning
    latents: Tensor
    images: list[Image]
    rewards: Tensor | None = None
    reasons: list[str | None] = field(default_factory=list)
    parts: dict[str, Tensor] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    advantages: Tensor | None = None
    dropped: str | None = None
