"""The sparsity map: which share of each layer is removed, block by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from prune_core.figures.theme import Look, escape, style
from prune_core.models.info import LayerInfo


def sparsity_map(
    layers: Sequence[LayerInfo],
    removed: Mapping[str, int],
    left_dense: Sequence[str],
    look: Look,
    *,
    words: Mapping[str, str],
    roles: Mapping[str, str],
) -> go.Figure:
    """Heat map of the removed share of each layer.

    Args:
        layers: all layers of the model.
        removed: layer name to removed weights.
        left_dense: layers that the pattern does not fit: marked with a cross.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``share``, ``dense`` (says why a layer is crossed).
        roles: role to its name.
    """
    order = list(dict.fromkeys(layer.role for layer in layers))
    blocks = sorted({layer.block for layer in layers})
    place = {(layer.role, layer.block): layer for layer in layers}
    shares: list[list[float | None]] = []
    texts: list[list[str]] = []
    for role in order:
        found = [place.get((role, block)) for block in blocks]
        shares.append([_share(layer, removed) if layer else None for layer in found])
        texts.append([escape(layer.name, 80) if layer else "" for layer in found])
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=[str(block) for block in blocks],
            y=[roles[role] for role in order],
            customdata=texts,
            zmin=0,
            zmax=1,
            colorscale=look.intensity,
            xgap=1,
            ygap=1,
            colorbar={
                "title": {"text": words["share"], "side": "right"},
                "tickformat": ".0%",
                "thickness": 12,
                "outlinewidth": 0,
            },
            hovertemplate="%{customdata}<br>%{y}, %{x}: %{z:.1%}<extra></extra>",
            hoverongaps=False,
        )
    )
    crossed = [layer for layer in layers if layer.name in set(left_dense)]
    if crossed:
        figure.add_scatter(
            x=[str(layer.block) for layer in crossed],
            y=[roles[layer.role] for layer in crossed],
            mode="markers",
            marker={"symbol": "x-thin", "size": look.size(9), "line": {"width": 1.5}},
            name=words["dense"],
            hovertemplate=words["dense"] + "<extra></extra>",
        )
    style(
        figure,
        look,
        title=words["title"],
        height=110 + max(130, 30 * len(order)),
        x=words["x"],
        y=words["y"],
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    step = max(1, len(blocks) // 15)
    figure.update_xaxes(
        type="category", showgrid=False, tickvals=[str(b) for b in blocks][::step], tickangle=0
    )
    return figure


def _share(layer: LayerInfo, removed: Mapping[str, int]) -> float:
    numel = layer.rows * layer.columns
    return removed.get(layer.name, 0) / numel if numel else 0.0
