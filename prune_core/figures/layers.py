"""What blocks do: how far each turns its input, and how far runs of blocks do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from prune_core.figures.theme import (
    Look,
    color_bar,
    hatched,
    legend_below_title,
    log_ticks,
    style,
)

BAR = 0.85
"""Width of a bar, in blocks; left alone, bars are as wide as the gaps between a trace's blocks."""

FLOOR = 1e-9
"""Influences below this stand at it: a logarithm needs an end."""


def influence_bars(
    influence: Sequence[float],
    dropped: Collection[int],
    look: Look,
    *,
    words: Mapping[str, str],
) -> go.Figure:
    """One bar per block on a logarithmic axis; dropped blocks hatched. Bars can be clicked.

    Args:
        influence: by flat index.
        dropped: flat indices.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``kept``, ``dropped``.
    """
    figure = go.Figure()
    heights = [max(float(x), FLOOR) for x in influence]
    for name, bars, color, shape in (
        ("kept", [b for b in range(len(influence)) if b not in dropped], look.dense, ""),
        ("dropped", sorted(dropped), look.pruned, "/"),
    ):
        if not bars:
            continue
        figure.add_bar(
            x=bars,
            y=[heights[block] for block in bars],
            width=BAR,
            name=words[name],
            customdata=[[block] for block in bars],
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
            marker=hatched(look, color, shape),
            hovertemplate=f"{words['x']} %{{x}}: %{{y:.4f}} ({words[name]})<extra></extra>",
        )
    style(
        figure,
        look,
        title=words["title"],
        height=400,
        x=words["x"],
        y=words["y"],
        legend=bool(dropped),
    )
    if dropped:
        legend_below_title(figure, look)
    figure.update_layout(barmode="overlay", hovermode="closest")
    if heights:
        low, high = min(heights), max(heights)
        # the lowest bar has a height too, and equal ones do not fill the figure
        room = max(math.log10(high / low), 0.3)
        low, high = low / 10 ** (0.15 * room), high * 10 ** (0.05 * room)
        values, texts = log_ticks(low, high)
        figure.update_yaxes(
            type="log",
            range=[math.log10(low), math.log10(high)],
            tickvals=values,
            ticktext=texts,
        )
    step = max(1, len(influence) // 15)
    figure.update_xaxes(tickvals=list(range(0, len(influence), step)), showgrid=False)
    return figure


def cost_bars(
    costs: Sequence[float | None],
    errors: Sequence[float | None],
    dropped: Collection[int],
    look: Look,
    *,
    words: Mapping[str, str],
) -> go.Figure:
    """One signed bar per block with its standard error; dropped blocks hatched, unknown ones open.

    Args:
        costs: by flat index, None where nothing is known yet.
        errors: standard errors, or None.
        dropped: flat indices.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``kept``, ``dropped``.
    """
    figure = go.Figure()
    for name, is_dropped, color, shape in (
        ("kept", False, look.dense, ""),
        ("dropped", True, look.pruned, "/"),
    ):
        bars = [
            b for b, cost in enumerate(costs) if cost is not None and (b in dropped) == is_dropped
        ]
        if not bars:
            continue
        figure.add_bar(
            x=bars,
            y=[costs[block] for block in bars],
            width=BAR,
            error_y={
                "type": "data",
                "array": [errors[block] or 0.0 for block in bars],
                "color": look.muted,
                "thickness": 1,
                "width": 2,
            },
            name=words[name],
            customdata=[[block] for block in bars],
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
            marker=hatched(look, color, shape),
            hovertemplate=f"{words['x']} %{{x}}: %{{y:.4f}} ({words[name]})<extra></extra>",
        )
    legend = bool(dropped)
    style(figure, look, title=words["title"], height=400, x=words["x"], y=words["y"], legend=legend)
    if legend:
        legend_below_title(figure, look)
    figure.update_layout(barmode="overlay", hovermode="closest")
    figure.update_yaxes(zeroline=True, zerolinecolor=look.muted)
    step = max(1, len(costs) // 15)
    ticks = list(range(0, len(costs), step))
    figure.update_xaxes(tickvals=ticks, range=[-0.6, len(costs) - 0.4], showgrid=False)
    return figure


def greedy_curve(
    path: Sequence[Mapping[str, Any]],
    dense: float,
    selection: Collection[int],
    look: Look,
    *,
    words: Mapping[str, str],
) -> go.Figure:
    """The value after each removal with its 95 % interval; each point names the block that went.

    Args:
        path: steps of a ``GreedyBlocks`` result.
        dense: value without removals.
        selection: blocks of the current recipe; the step with just these is marked.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``dense``, ``chosen``.
    """
    values = [float(step["value"]) for step in path]
    up = [float(s["high"] if s["high"] is not None else s["value"]) - s["value"] for s in path]
    down = [s["value"] - float(s["low"] if s["low"] is not None else s["value"]) for s in path]
    steps = list(range(1, len(path) + 1))
    mine = [set(step["blocks"]) == set(selection) for step in path]
    figure = go.Figure()
    figure.add_hline(y=dense, line={"color": look.dense, "width": 1.5, "dash": "dash"})
    figure.add_scatter(
        x=steps,
        y=values,
        mode="lines+markers+text",
        text=[f"  {step['block']}" for step in path],
        textposition="middle right",
        customdata=[[place] for place in range(len(path))],
        error_y={"type": "data", "array": up, "arrayminus": down, "color": look.muted, "width": 3},
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
        line={"color": look.pruned, "width": 2},
        marker={
            "size": [look.size(15 if here else 10) for here in mine],
            "symbol": ["star" if here else "circle" for here in mine],
            "color": look.pruned,
        },
        hovertemplate=f"{words['x']} %{{x}}: %{{y:.4g}}<extra></extra>",
    )
    style(figure, look, title=words["title"], height=400, x=words["x"], y=words["y"])
    figure.update_xaxes(tickvals=steps, range=[0.5, max(2, len(steps)) + 0.5], showgrid=False)
    return figure


def angular_map(
    blocks: Sequence[int],
    distance: Sequence[Sequence[float | None]],
    look: Look,
    *,
    words: Mapping[str, str],
) -> go.Figure:
    """Heat map of the angular distance over runs of blocks; the smallest of each length marked.

    Args:
        blocks: flat indices of the stack.
        distance: ``[n - 1][l]``, in units of pi; None past the end.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``distance``, ``least``.
    """
    lengths = list(range(1, len(distance) + 1))
    figure = go.Figure(
        go.Heatmap(
            z=[list(row) for row in distance],
            x=[str(block) for block in blocks],
            y=lengths,
            colorscale=look.intensity,
            zmin=0,
            hoverongaps=False,
            colorbar=color_bar(words["distance"], look),
            hovertemplate="%{x} + %{y}: %{z:.3f}<extra></extra>",
        )
    )
    least = [
        min((value, place) for place, value in enumerate(row) if value is not None)[1]
        for row in distance
    ]
    figure.add_scatter(
        x=[str(blocks[place]) for place in least],
        y=lengths,
        mode="markers",
        marker={
            "symbol": "circle-open",
            "size": look.size(7),
            "color": look.accent,
            "line": {"width": 1.5},
        },
        name=words["least"],
        hovertemplate=words["least"] + ": %{x} + %{y}<extra></extra>",
    )
    style(figure, look, title=words["title"], height=400, x=words["x"], y=words["y"], legend=True)
    legend_below_title(figure, look)
    step = max(1, len(blocks) // 15)
    figure.update_xaxes(
        type="category", showgrid=False, tickvals=[str(b) for b in blocks][::step], tickangle=0
    )
    figure.update_yaxes(showgrid=False, dtick=1 if len(blocks) <= 16 else 5)
    return figure
