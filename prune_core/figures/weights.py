"""Weight magnitudes as ridge plot and histogram, with what a recipe removes. Binned data only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from prune_core.figures.theme import Look, escape, hatched, legend_below_title, style

RIDGE_HEIGHT = 2.6  # of a ridge, in rows: neighbors overlap
TARGETS = 24  # clickable points along a ridge
MAX_BINS = 128  # drawn; the engine counts finer, as a few large weights stretch the range


def ridges(
    edges: Sequence[float],
    layers: Sequence[Mapping[str, Any]],
    look: Look,
    *,
    selected: str,
    log: bool,
    words: Mapping[str, str],
) -> go.Figure:
    """One ridge per block: the distribution of |w|, removed part tinted.

    Args:
        edges: bin edges of |w|, one more than counts.
        layers: dicts with ``name``, ``block``, ``counts``, ``removed_counts``, ``cut``, ``numel``
            and ``removed``, in block order.
        look: colors and scale.
        selected: name of the chosen layer: drawn with a heavy line.
        log: heights as log10(1 + count) in place of the count.
        words: ``title``, ``x``, ``y``, ``block``, ``removed``, ``cut``.
    """
    figure = go.Figure()
    edges, layers = _coarser(edges, layers)
    last = _last_bin(layers)
    centers = [(a + b) / 2 for a, b in pairwise(edges)][: last + 1]
    top = max((h for layer in layers for h in _heights(layer["counts"], log)), default=1.0) or 1.0
    ramp = _ramp(look, len(layers))
    for row, layer in enumerate(layers):
        heights = [RIDGE_HEIGHT * h / top for h in _heights(layer["counts"], log)[: last + 1]]
        is_selected = layer["name"] == selected
        color = ramp[row]
        base = -float(row)
        figure.add_scatter(
            x=[centers[0], centers[-1]],
            y=[base, base],
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=centers,
            y=[round(base + h, 4) for h in heights],
            mode="lines",
            fill="tonexty",
            fillcolor=_faded(color, 0.75 if is_selected else 0.34, look),
            line={"width": 2.6 if is_selected else 1, "color": look.text if is_selected else color},
            hoverinfo="skip",
        )
        if layer["removed"]:
            _removed_part(figure, centers, layer, base, top, look, log=log, is_selected=is_selected)
    _targets(figure, layers, centers, look, words)
    style(
        figure,
        look,
        title=words["title"],
        height=90 + max(220, 17 * len(layers)),
        x=words["x"],
        y=words["y"],
    )
    ticks = [row for row in range(len(layers)) if len(layers) <= 16 or row % 5 == 0]
    figure.update_yaxes(
        showgrid=False,
        tickvals=[-row for row in ticks],
        ticktext=[str(layers[row]["block"]) for row in ticks],
        range=[-len(layers) + 0.4, RIDGE_HEIGHT + 0.3],
    )
    figure.update_xaxes(range=[0, centers[-1] if centers else 1], showgrid=True)
    figure.update_layout(hovermode="closest")
    return figure


def _removed_part(
    figure: go.Figure,
    centers: Sequence[float],
    layer: Mapping[str, Any],
    base: float,
    top: float,
    look: Look,
    *,
    log: bool,
    is_selected: bool,
) -> None:
    """Tint what goes: all below the cut for a threshold, a part of every bin for N:M."""
    heights = _heights(layer["removed_counts"], log, total=sum(layer["counts"]))[: len(centers)]
    last = max(1, next((index for index, height in enumerate(heights) if not height), len(heights)))
    figure.add_scatter(
        x=[*centers[:last], centers[last - 1], centers[0]],
        y=[*(round(base + RIDGE_HEIGHT * h / top, 4) for h in heights[:last]), base, base],
        mode="lines",
        fill="toself",
        fillcolor=_faded(look.pruned, 0.85 if is_selected else 0.5, look),
        line={"width": 0},
        hoverinfo="skip",
    )


def _targets(
    figure: go.Figure,
    layers: Sequence[Mapping[str, Any]],
    centers: Sequence[float],
    look: Look,
    words: Mapping[str, str],
) -> None:
    """Near-invisible markers: a click on a filled line fires nothing."""
    if not layers:
        return
    xs, ys, data, texts = [], [], [], []
    for row, layer in enumerate(layers):
        share = layer["removed"] / layer["numel"] if layer["numel"] else 0.0
        text = (
            f"<b>{words['block']} {layer['block']}</b><br>{escape(layer['name'])}<br>"
            f"{100 * share:.1f} % {words['removed']}"
        )
        if _is_threshold(layer):
            text += f"<br>{words['cut']} {layer['cut']:.4g}"
        for step in range(TARGETS):
            xs.append(centers[-1] * (step + 0.5) / TARGETS)
            ys.append(-row + 0.45)
            data.append([layer["name"]])
            texts.append(text)
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="markers",
        marker={"symbol": "square", "size": look.size(17), "color": look.paper, "opacity": 0.01},
        customdata=data,
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        selected={"marker": {"opacity": 0.01}},
        unselected={"marker": {"opacity": 0.01}},
    )


def histogram(
    edges: Sequence[float],
    layer: Mapping[str, Any],
    look: Look,
    *,
    log: bool,
    words: Mapping[str, str],
) -> go.Figure:
    """One layer's |w|: kept and removed weights stacked, the cut as a line.

    Args:
        edges: bin edges of |w|.
        layer: as in :func:`ridges`.
        look: colors and scale.
        log: logarithmic counts.
        words: ``title``, ``x``, ``y``, ``kept``, ``removed``, ``cut``.
    """
    edges, (layer,) = _coarser(edges, [layer])
    last = _last_bin([layer])
    centers = [(a + b) / 2 for a, b in pairwise(edges)][: last + 1]
    removed = list(layer["removed_counts"])[: last + 1]
    kept_counts = [c - r for c, r in zip(layer["counts"], layer["removed_counts"], strict=False)][
        : last + 1
    ]
    figure = go.Figure()
    width = edges[1] - edges[0] if len(edges) > 1 else None
    for name, counts, color, shape in (
        ("removed", removed, look.pruned, "/"),
        ("kept", kept_counts, look.dense, ""),
    ):
        figure.add_bar(
            x=centers,
            y=counts,
            width=width,
            name=words[name],
            customdata=list(edges)[1 : len(centers) + 1],  # a click may cut at a bar's end
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
            marker=hatched(look, color, shape),
            hovertemplate=f"|w| ≈ %{{x:.4g}}<br>%{{y:,}} {words[name]}<extra></extra>",
        )
    cutting = bool(layer["removed"])
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
        legend={
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "traceorder": "reversed",
        },
    )
    figure.update_yaxes(type="log" if log else "linear", rangemode="tozero", exponentformat="SI")
    if log:
        figure.update_yaxes(dtick=1)
    if _is_threshold(layer):
        figure.add_vline(
            x=layer["cut"],
            line={"color": look.text, "width": 1.5, "dash": "dash"},
            annotation={
                "text": f"{words['cut']} {layer['cut']:.3g}",
                "font": {"size": look.size(12), "color": look.text},
                "bgcolor": look.surface,
                "yanchor": "top",
                "xanchor": "left",
                "xshift": 4,
            },
        )
    return figure


def _coarser(
    edges: Sequence[float], layers: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[float], list[Mapping[str, Any]]]:
    """Neighboring bins joined until at most :data:`MAX_BINS` are worth drawing."""
    step = -(-(_last_bin(layers) + 1) // MAX_BINS)

    def joined(counts: Sequence[int]) -> list[int]:
        return [sum(counts[start : start + step]) for start in range(0, len(counts), step)]

    merged: list[Mapping[str, Any]] = [
        {**layer, **{key: joined(layer[key]) for key in ("counts", "removed_counts")}}
        for layer in layers
    ]
    return [*list(edges)[:-1:step], *list(edges)[-1:]], merged


def _last_bin(layers: Sequence[Mapping[str, Any]]) -> int:
    """Last bin worth drawing: 99.9 % of the weights of every layer lie below it."""
    last = 1
    for layer in layers:
        total, so_far = sum(layer["counts"]), 0
        for index, amount in enumerate(layer["counts"]):
            so_far += amount
            if so_far >= 0.999 * total:
                last = max(last, index)
                break
    return last


def _is_threshold(layer: Mapping[str, Any]) -> bool:
    """Whether one cut parts what goes from what stays; N:M and rows have many cuts."""
    if layer["cut"] is None or layer["removed"] >= layer["numel"]:  # nothing stays above a cut
        return False
    # bins in which both are found: one for a cut inside it, one more for ties
    both = sum(0 < r < c for c, r in zip(layer["counts"], layer["removed_counts"], strict=True))
    return both <= 2


def _heights(counts: Sequence[int], log: bool, total: int = 0) -> list[float]:
    """Shares of ``total`` (of their sum, if 0), or logarithms of the counts."""
    if log:
        return [math.log10(1 + c) for c in counts]
    total = total or sum(counts) or 1
    return [c / total for c in counts]


def _ramp(look: Look, steps: int) -> list[str]:
    """From light to dark with depth."""
    ends = ["#9CC7E4", "#0B4F80"] if not look.dark else ["#2B5F86", "#A9DBFF"]
    positions = [index / max(1, steps - 1) for index in range(steps)]
    return [str(color) for color in sample_colorscale(ends, positions)]


def _faded(color: str, strength: float, look: Look) -> str:
    """Mix with the paper: opaque, so that a ridge hides those behind it."""
    mixed = sample_colorscale([look.paper, _hex(color)], [strength])
    return str(mixed[0])


def _hex(color: str) -> str:
    if color.startswith("#"):
        return color
    channels = [round(float(c)) for c in color[color.index("(") + 1 : -1].split(",")[:3]]
    return "#" + "".join(f"{c:02x}" for c in channels)
