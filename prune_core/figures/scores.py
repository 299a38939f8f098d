"""What a criterion gives a layer, and where two criteria remove the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log10, sqrt
from typing import Any

import plotly.graph_objects as go

from prune_core.figures.theme import (
    Look,
    escape,
    hatched,
    legend_below_title,
    map_by_role,
    style,
    style_by_role,
)


def score_histogram(
    histogram: Mapping[str, Any], look: Look, *, words: Mapping[str, str]
) -> go.Figure:
    """One layer's scores on a logarithmic axis: kept and removed weights stacked.

    Args:
        histogram: result of ``engine.jobs.ScoreHistogram``.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``kept``, ``removed``.
    """
    edges = histogram["edges"]
    middles = [sqrt(a * b) for a, b in pairwise(edges)]
    # on a logarithmic axis a bar's width is a difference of values
    widths = [b - a for a, b in pairwise(edges)]
    kept_counts = [
        c - r for c, r in zip(histogram["counts"], histogram["removed_counts"], strict=True)
    ]
    figure = go.Figure()
    for name, counts, color, shape in (
        ("removed", histogram["removed_counts"], look.pruned, "/"),
        ("kept", kept_counts, look.dense, ""),
    ):
        figure.add_bar(
            x=[a + w / 2 for a, w in zip(edges, widths, strict=False)],
            y=counts,
            width=widths,
            name=words[name],
            customdata=middles,
            marker=hatched(look, color, shape),
            hovertemplate=f"%{{customdata:.3g}}<br>%{{y:,}} {words[name]}<extra></extra>",
        )
    cutting = bool(histogram["removed"])
    style(
        figure,
        look,
        title=words["title"],
        height=430,
        x=words["x"],
        y=words["y"],
        legend=cutting,
    )
    if cutting:
        legend_below_title(figure, look)
    figure.update_layout(
        barmode="stack",
        bargap=0,
        legend={"x": 0, "y": 1.0, "yanchor": "bottom", "traceorder": "reversed"},
    )
    figure.update_xaxes(
        type="log", range=[log10(edges[0]), log10(edges[-1])], exponentformat="power", dtick=1
    )
    figure.update_yaxes(rangemode="tozero", exponentformat="SI")
    return figure


def overlap_map(
    layers: Sequence[Mapping[str, Any]],
    look: Look,
    *,
    words: Mapping[str, str],
    roles: Mapping[str, str],
) -> go.Figure:
    """Heat map of the Jaccard overlap of two masks, block by role.

    Args:
        layers: rows of the result of ``engine.jobs.MaskOverlap``.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``overlap``.
        roles: role to its name.
    """
    order = list(dict.fromkeys(row["role"] for row in layers))
    blocks = sorted({row["block"] for row in layers})
    place = {(row["role"], row["block"]): row for row in layers}
    cells = [[place.get((role, block)) for block in blocks] for role in order]
    figure = go.Figure(
        map_by_role(
            look,
            values=[[cell["jaccard"] if cell else None for cell in line] for line in cells],
            texts=[[escape(cell["name"], 80) if cell else "" for cell in line] for line in cells],
            blocks=blocks,
            roles=[roles[role] for role in order],
            legend=words["overlap"],
            form=".1f .3f",
        )
    )
    return style_by_role(figure, look, blocks, len(order), words)
