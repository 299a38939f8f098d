"""Neurons: a block's scores from the least to the most important, and how many never fire."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from prune_core.figures.theme import Look, color_bar, legend_below_title, log_ticks, style

FLOOR = 1e-6
"""Scores below this share of the largest stand at it: a logarithm needs an end."""


def sorted_scores(
    scores: Sequence[Sequence[float]],
    neurons: Sequence[Sequence[int]],
    blocks: Sequence[int],
    shares: Sequence[float],
    look: Look,
    *,
    selection: tuple[int, int] | None,
    below: float | None = None,
    words: Mapping[str, str],
) -> go.Figure:
    """Heat map, a row for each block: its neurons in order of their score, in bins; clickable.

    Args:
        scores: (block x bin) score in the middle of each bin, lowest first.
        neurons: (block x bin) index of that neuron; with the block it is the point's customdata.
        blocks: flat index of each row.
        shares: share of each block's neurons that the recipe removes: a line marks it.
        look: colors and scale.
        selection: (block, neuron) whose bin is marked.
        below: share of its block's neurons that score lower, where known: without it only a
            neuron in the middle of a bin is found.
        words: ``title``, ``x``, ``y``, ``score``, ``block``, ``neuron``, ``gone``.
    """
    most = max((x for row in scores for x in row), default=1.0) or 1.0
    logs = [[math.log10(max(x, FLOOR * most)) for x in row] for row in scores]
    bins = len(scores[0]) if scores else 1
    places = [100 * (index + 0.5) / bins for index in range(bins)]
    rows = list(range(len(blocks)))
    levels = [level for row in logs for level in row] or [0.0]
    ticks, texts = log_ticks(10 ** min(levels), 10 ** max(levels))
    figure = go.Figure(
        go.Heatmap(
            z=logs,
            x=places,
            y=rows,
            colorscale=look.sequence,
            hoverinfo="skip",
            colorbar=color_bar(
                words["score"], look, tickvals=[math.log10(x) for x in ticks], ticktext=texts
            ),
        )
    )
    height = max(240, 120 + (15 if len(blocks) > 12 else 34) * len(blocks))
    style(figure, look, title=words["title"], height=height, x=words["x"], y=words["y"])
    # a click on a heat map fires nothing: near-transparent points lie over its cells
    figure.add_scatter(
        x=[place for _ in rows for place in places],
        y=[row for row in rows for _ in places],
        mode="markers",
        marker={"symbol": "square", "size": 11, "color": look.text, "opacity": 0.01},
        selected={"marker": {"opacity": 0.01}},
        unselected={"marker": {"opacity": 0.01}},
        customdata=[[blocks[row], neurons[row][index]] for row in rows for index in range(bins)],
        text=[
            f"{words['block']} {blocks[row]} · {words['neuron']} {neurons[row][index]}"
            f"<br>{scores[row][index]:.4g}"
            for row in rows
            for index in range(bins)
        ],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    if any(shares):
        figure.add_scatter(
            x=[100 * share for share in shares for _ in (0, 1)],
            y=[row + end for row in rows for end in (-0.5, 0.5)],
            mode="lines",
            name=words["gone"],
            line={"color": look.pruned, "width": look.size(3)},
            hoverinfo="skip",
        )
        legend_below_title(figure, look)
    if selection is not None and selection[0] in blocks:
        row = list(blocks).index(selection[0])
        index = _bin(neurons[row], selection[1], below)
        if index is not None:
            figure.add_scatter(
                x=[places[index]],
                y=[row],
                mode="markers",
                marker={
                    "symbol": "circle-open",
                    "size": look.size(15),
                    "color": look.accent,
                    "line": {"width": look.size(3), "color": look.accent},
                },
                cliponaxis=False,
                hoverinfo="skip",
                showlegend=False,
            )
    labeled = [row for row in rows if len(rows) <= 16 or row % 5 == 0]
    figure.update_yaxes(
        tickvals=labeled,
        ticktext=[str(blocks[row]) for row in labeled],
        range=[len(blocks) - 0.5, -0.5],
        showgrid=False,
    )
    # a ring at either end has room
    figure.update_xaxes(range=[-1, 101], ticksuffix=" %", showgrid=False)
    figure.update_layout(hovermode="closest")
    return figure


def _bin(middles: Sequence[int], neuron: int, below: float | None) -> int | None:
    """The bin a neuron lies in: one whose middle it is, or that of its rank if that is known."""
    bins = [index for index, middle in enumerate(middles) if middle == neuron]
    if bins:  # several where there are more bins than neurons
        return bins[len(bins) // 2]
    return None if below is None else min(len(middles) - 1, int(below * len(middles)))


def silent_bars(
    dead: Sequence[int],
    rare: Sequence[int],
    sizes: Sequence[int],
    blocks: Sequence[int],
    look: Look,
    *,
    words: Mapping[str, str],
) -> go.Figure:
    """Share of each block's neurons that never fire, and that fire on less than 1 % of the tokens.

    Args:
        dead: counts by block.
        rare: likewise.
        sizes: neurons of each block.
        blocks: flat indices.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``dead``, ``rare``.
    """
    figure = go.Figure()
    for name, counts, color, shape in (
        ("dead", dead, look.pruned, "/"),
        ("rare", rare, look.dense, ""),
    ):
        figure.add_bar(
            x=list(blocks),
            y=[100 * n / max(1, size) for n, size in zip(counts, sizes, strict=True)],
            name=words[name],
            customdata=list(counts),
            marker={"color": color, "pattern": {"shape": shape, "size": 6, "solidity": 0.2}},
            hovertemplate=f"{words['x']} %{{x}}: %{{customdata}} {words[name]}<extra></extra>",
        )
    style(
        figure,
        look,
        title=words["title"],
        height=300,
        x=words["x"],
        y=words["y"],
        legend=True,
    )
    # room for the legend below the title
    figure.update_layout(barmode="stack", margin={"t": round(84 * look.scale)})
    tops = [100 * (n + m) / max(1, size) for n, m, size in zip(dead, rare, sizes, strict=True)]
    figure.update_yaxes(ticksuffix=" %", range=[0, 1.05 * max(tops, default=0.0) or 1.0])
    return figure
