"""Rank correlations: Spearman's rho and Kendall's tau-b."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ranks(values: Floats) -> Floats:
    """Places from 1; equal values share the mean of their places."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[where]


def spearman(x: Floats, y: Floats) -> float | None:
    """Rank correlation; None if one side is constant."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean() if len(a) else a, b - b.mean() if len(b) else b
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None


def kendall(x: Floats, y: Floats) -> float | None:
    """Kendall's tau-b; None if one side is constant."""
    agree = x_untied = y_untied = 0
    for i in range(len(x) - 1):
        dx, dy = np.sign(x[i + 1 :] - x[i]).astype(np.int64), np.sign(y[i + 1 :] - y[i]).astype(np.int64)
        agree += int(dx @ dy)
        x_untied += int(np.abs(dx).sum())
        y_untied += int(np.abs(dy).sum())
    scale = float(np.sqrt(float(x_untied) * float(y_untied)))
    return agree / scale if scale > 0 else None
