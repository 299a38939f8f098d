"""Estimates that refine: means with standard errors, from the windows measured so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHUNK = 32
"""Tokens of one part of a window: the unit of the error while fewer than two windows are known."""

Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error.

    Attributes:
        mean: over all tokens.
        stderr: None where fewer than two independent parts are known.
        count: tokens it rests on.
    """

    mean: float
    stderr: float | None
    count: int


def _standard_error(parts: list[npt.NDArray[np.float64]]) -> float | None:
    """Standard error of the mean over all tokens, the parts being the independent units."""
    if len(parts) < 2:
        return None
    sizes = np.array([p.size for p in parts], dtype=np.float64)
    means = np.array([p.mean() for p in parts])
    center = float((sizes * means).sum() / sizes.sum())
    # parts may differ in length (a last, shorter window): ratio estimator
    residual = sizes * (means - center)
    n = len(parts)
    return float(math.sqrt(n / (n - 1) * (residual**2).sum()) / sizes.sum())


def estimate(windows: list[npt.NDArray[np.float32]]) -> Estimate:
    """Mean over all tokens of all windows, error over windows.

    With one window the error is over its parts of 32 tokens, which are not fully independent.

    Args:
        windows: (tokens,) per-token values of each window, at least one not empty.
    """
    values = [np.asarray(w, dtype=np.float64) for w in windows if w.size]
    count = int(sum(v.size for v in values))
    if not count:
        return Estimate(math.nan, None, 0)
    mean = float(sum(v.sum() for v in values) / count)
    if len(values) >= 2:
        return Estimate(mean, _standard_error(values), count)
    only = values[0]
    parts = [only[i : i + CHUNK] for i in range(0, only.size, CHUNK)]
    if len(parts) > 1 and parts[-1].size < CHUNK // 2:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return Estimate(mean, _standard_error(parts), count)


def safe_exp(value: float) -> float:
    """exp, with infinity in place of an overflow."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
