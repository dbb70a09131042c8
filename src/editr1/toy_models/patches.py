"""Supervision of the edit's own tokens, training only: what each patch should show, and how near it is to that.

A causal judge reads instruction, source and edit in this order, so each of the edit's 16 tokens can work out what the
edit should show at its place and compare that with what it does show. Small heads, dropped after training, read
both from middle layers; the label is the oracle's target.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editr1.toy.oracle import OracleScore, match
from editr1.toy.scene import draw
from editr1.toy.world import ToyItem

TARGET_LAYER, NEAR_LAYER, PARTS_LAYER = 4, 5, 6  # of 7, after which target, nearness and the score's parts are read
CHANGED_WEIGHT, SAME = 3.0, 0.98  # patches less like the target than that must change, and weigh more
SIDE, CELLS = 16, 4  # a token sees 16x16 pixels; its target is given as 4x4 means


def patches(picture: np.ndarray) -> np.ndarray:
    """[64, 64, ...] -> [16, 256, ...]: the pixels of each token, in reading order."""
    rest = picture.shape[2:]
    blocks = picture.reshape(4, SIDE, 4, SIDE, *rest).swapaxes(1, 2)
    return blocks.reshape(16, SIDE * SIDE, *rest)


def patch_labels(item: ToyItem, picture: np.ndarray, score: OracleScore) -> np.ndarray:
    """[16, 52] of an edit: the target's thumbnail (48), how near edit and source are to it, and the score's parts."""
    source, target = draw(item.scene), draw(item.edit.target)
    small = target.reshape(4, CELLS, 4, 4, CELLS, 4, 3).mean((2, 5)).swapaxes(1, 2).reshape(16, 48)
    near = [patches(match(shown, target)).mean(1) for shown in (picture, source)]
    parts = np.broadcast_to([score.done, score.preserved], (16, 2))
    return np.concatenate([small, np.stack(near, 1), parts], 1).astype(np.float32)


class PatchHeads(nn.Module):
    """Reads targets and nearness from the edit's tokens, and the score's two parts from their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(3))
        self.target, self.near, self.parts = nn.Linear(width, 48), nn.Linear(width, 2), nn.Linear(width, 2)

    def forward(self, states: tuple[Tensor, ...], where: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Losses of the edits' tokens.

        Args:
            states: hidden states after each layer, [B, L, C] each.
            where: positions of the edits' tokens, [B, 16].
            labels: `patch_labels` of the edits, [B, 16, 52].
        """
        rows = torch.arange(len(where))[:, None]
        layers = (TARGET_LAYER, NEAR_LAYER, PARTS_LAYER)
        at = [norm(states[layer][rows, where].float()) for norm, layer in zip(self.norms, layers, strict=True)]
        off = (self.target(at[0]).float() - labels[..., :48]).abs().mean(-1)  # B 16
        weight = 1 + CHANGED_WEIGHT * (labels[..., 49] < SAME)
        near, parts = self.near(at[1]).float(), self.parts(at[2].mean(1)).float()
        return {
            "target": (weight * off).sum() / weight.sum(),
            "near": F.binary_cross_entropy_with_logits(near, labels[..., 48:50]),
            "parts": F.binary_cross_entropy_with_logits(parts, labels[:, 0, 50:]),
        }
