"""How weights are distributed: a table of all layers, and histograms on common bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_core.errors import RecipeError
from prune_core.models.structure import Layer, Structure

_QUANTILES = {"q01": 0.01, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q99": 0.99}


def layer_row(model: nn.Module, structure: Structure, layer: Layer) -> dict[str, Any]:
    """Statistics of one layer's weights; see ``engine.jobs.LayerTable`` for the fields."""
    weight = layer.weight(model).float().cpu()
    row: dict[str, Any] = {
        "name": layer.name,
        "block": layer.block,
        "stack": structure.blocks[layer.block].stack,
        "role": layer.role,
        "rows": layer.out_features,
        "columns": layer.in_features,
        "numel": layer.numel,
    }
    # own sort in place of torch.quantile, which refuses more than 16.7 million values
    ordered = np.sort(weight.abs().reshape(-1).numpy())
    values = weight.double()
    mean, std = float(values.mean()), float(values.std(correction=0))
    fourth = float(((values - mean) ** 4).mean())
    row["mean_abs"] = float(np.mean(ordered, dtype=np.float64))
    row["std"] = std
    row["kurtosis"] = fourth / std**4 - 3 if std > 0 else 0.0
    row["zeros"] = int(np.searchsorted(ordered, 0.0, "right"))
    row["norm"] = float(values.norm())
    for name, share in _QUANTILES.items():
        row[name] = float(ordered[round(share * (ordered.size - 1))])
    row["max_abs"] = float(ordered[-1])
    row["distinct_share"] = float((1 + np.count_nonzero(np.diff(ordered))) / ordered.size)
    return row


def magnitude_histograms(
    model: nn.Module,
    layers: Sequence[Layer],
    masks: Mapping[str, Tensor | None],
    bins: int,
) -> dict[str, Any]:
    """Histograms of |w| of several layers on common bins; see ``engine.jobs.Histograms``.

    Args:
        model: the dense model.
        layers: which.
        masks: layer name to keep-mask (out, in), or None where nothing is removed.
        bins: 1 to 1024.

    Raises:
        RecipeError: bins out of range.
    """
    if not 1 <= bins <= 1024:
        raise RecipeError("a histogram has 1 to 1024 bins, got {bins}.", bins=bins)
    values = {x.name: x.weight(model).float().abs().cpu() for x in layers}
    top = max((float(v.max()) for v in values.values()), default=1.0) or 1.0
    edges = np.linspace(0.0, top, bins + 1)
    rows = []
    for layer in layers:
        magnitude = values[layer.name]
        counts = torch.histc(magnitude, bins, 0.0, top)
        mask = masks.get(layer.name)
        removed_counts, cut, removed = torch.zeros(bins), None, 0
        if mask is not None:
            lost = magnitude[~mask]
            removed = lost.numel()
            if removed:
                removed_counts, cut = torch.histc(lost, bins, 0.0, top), float(lost.max())
        rows.append(
            {
                "name": layer.name,
                "block": layer.block,
                "role": layer.role,
                "counts": [int(c) for c in counts],
                "removed_counts": [int(c) for c in removed_counts],
                "cut": cut,
                "numel": layer.numel,
                "removed": removed,
            }
        )
    return {"edges": [float(e) for e in edges], "layers": rows}
