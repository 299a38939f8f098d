"""What a criterion makes of a layer: its scores in numbers and bins, and how two masks agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prune_core.errors import RecipeError

_QUANTILES = {"q01": 0.01, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q99": 0.99}
_TAIL = 0.001  # share of the positive scores that the first bin takes in: they reach down for ever


def score_row(scores: Tensor) -> dict[str, float | int]:
    """A layer's scores in numbers: ``score_mean``, ``score_std``, ``score_q01`` … ``score_max``.

    Args:
        scores: any shape, at least one.
    """
    ordered = np.sort(scores.float().cpu().reshape(-1).numpy())
    row: dict[str, float | int] = {
        "score_mean": float(ordered.mean(dtype=np.float64)),
        "score_std": float(ordered.std(dtype=np.float64)),
        "score_zeros": int(np.searchsorted(ordered, 0.0, "right")),
    }
    for name, share in _QUANTILES.items():
        row[f"score_{name}"] = float(ordered[round(share * (ordered.size - 1))])
    row["score_max"] = float(ordered[-1])
    return row


def score_bins(scores: Tensor, mask: Tensor | None, bins: int) -> dict[str, Any]:
    """Histogram of a layer's scores on bins of equal ratio; see ``engine.jobs.ScoreHistogram``.

    Scores span many powers of ten, so the edges are even in log10. The first bin also holds
    whatever is smaller; scores of exactly zero are counted apart.

    Args:
        scores: (out, in), >= 0.
        mask: keep-mask of the same shape, or None where nothing is removed.
        bins: 1 to 1024.

    Raises:
        RecipeError: bins out of range.
    """
    if not 1 <= bins <= 1024:
        raise RecipeError("a histogram has 1 to 1024 bins, got {bins}.", bins=bins)
    values = scores.float().cpu().reshape(-1).numpy().astype(np.float64)
    keep = np.ones(values.size, bool) if mask is None else mask.cpu().reshape(-1).numpy()
    positive = values > 0
    edges = np.array([1.0, 10.0]) if not positive.any() else _edges(values[positive], bins)
    inside = np.maximum(values, edges[0])  # what is smaller belongs to the first bin
    counts = np.histogram(inside[positive], edges)[0]
    removed_counts = np.histogram(inside[positive & ~keep], edges)[0]
    removed = values[~keep]
    return {
        "edges": [float(e) for e in edges],
        "counts": [int(c) for c in counts],
        "removed_counts": [int(c) for c in removed_counts],
        "zeros": int((~positive).sum()),
        "removed_zeros": int((~positive & ~keep).sum()),
        "cut": float(removed.max()) if removed.size else None,
        "numel": int(values.size),
        "removed": int(removed.size),
    }


def _edges(positive: np.ndarray[Any, np.dtype[np.float64]], bins: int) -> Any:
    low, high = float(np.quantile(positive, _TAIL)), float(positive.max())
    if high <= low * (1 + 1e-9):
        low, high = high / 2, high * 2
    edges = np.geomspace(low, high, bins + 1)
    edges[-1] = max(edges[-1], high)  # rounding must not lose the largest
    return edges


def overlap(ours: Tensor, theirs: Tensor) -> Mapping[str, int]:
    """Weights that two keep-masks remove: ``ours``, ``theirs``, ``both`` and ``either``."""
    removed_ours, removed_theirs = ~ours, ~theirs
    both = int(torch.count_nonzero(removed_ours & removed_theirs))
    first, second = int(torch.count_nonzero(removed_ours)), int(torch.count_nonzero(removed_theirs))
    return {"ours": first, "theirs": second, "both": both, "either": first + second - both}


def jaccard(both: int, either: int) -> float | None:
    """|A and B| / |A or B|; None where both sets are empty."""
    return both / either if either else None
