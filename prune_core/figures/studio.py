"""The sparsity map: which share of each layer is removed, block by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from prune_core.figures.theme import Look, escape, map_by_role, style_by_role
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
        row = [place.get((role, block)) for block in blocks]
        shares.append([_share(layer, removed) if layer else None for layer in row])
        texts.append([escape(layer.name, 80) if layer else "" for layer in row])
    figure = go.Figure(
        map_by_role(
            look,
            values=shares,
            texts=texts,
            blocks=blocks,
            roles=[roles[role] for role in order],
            legend=words["share"],
            form=".0% .1%",
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
    return style_by_role(figure, look, blocks, len(order), words)


def _share(layer: LayerInfo, removed: Mapping[str, int]) -> float:
    numel = layer.rows * layer.columns
    return removed.get(layer.name, 0) / numel if numel else 0.0
