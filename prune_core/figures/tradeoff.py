"""Size against quality: points of every method with intervals, the front, its knee, the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from prune_core.evaluation.metrics import METRICS
from prune_core.figures.theme import Look, escape, style
from prune_core.sweeps.axes import Value
from prune_core.sweeps.frontier import DOMINATED, UNCLEAR, Frontier, Point
from prune_core.words.numbers import counted_share, error_in, measured

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "pentagon", "star", "hexagon", "cross")
LOG_FROM = 4.0
"""Largest over smallest quality from which a logarithmic axis shows more."""

SCALES = {"nonzero": 1e6, "bytes": 1e6, "memory": 1e6, "decode": 1.0, "prefill": 1.0}
"""What one unit of an axis of cost is: a million parameters, a megabyte, a token per second."""

FAINT = 0.4


def scatter(
    frontier: Frontier,
    look: Look,
    *,
    words: Mapping[str, str],
    methods: Mapping[tuple[str, ...], str],
    limit: float | None = None,
    limit_size: float | None = None,
    selection: str = "",
    intervals: bool = True,
) -> go.Figure:
    """Every run on two axes; a point can be clicked (``customdata``: the run's id).

    What is surely beaten is faint, what may be is hollow; the front is joined by a line.

    Args:
        frontier: what to draw.
        look: colors and scale.
        words: ``title``, ``x``, ``y`` (with units), ``front``, ``knee``, ``dense``, ``budget``,
            ``unclear``, ``dominated``, ``removed``, ``estimate``, ``click``; where what a
            recipe adds to the zeros is to be told too, ``added``.
        methods: label of each method to draw, in the order of their colors; others are left out.
        limit: quality that a budget allows at most.
        limit_size: place on the axis of cost that a budget allows at most.
        selection: id of the run that is marked.
        intervals: draw error bars.
    """
    figure = go.Figure()
    scale = SCALES[frontier.cost]
    _front_line(figure, frontier, look, words, methods, scale)
    for index, (method, label) in enumerate(methods.items()):
        mine = [point for point in frontier.points if point.method == method]
        if mine:
            figure.add_trace(_method(mine, label, index, look, words, scale, intervals=intervals))
    if frontier.dense is not None:
        figure.add_trace(_dense_trace(frontier.dense, look, words, scale))
    points = [p for p in frontier.points if p.method in methods]
    _mark_runs(figure, frontier, points, look, words, scale, selection)
    style(
        figure,
        look,
        title=words["title"],
        height=500 + 21 * -(-(len(methods) + 1) // 3),
        x=words["x"],
        y=words["y"],
        legend=True,
    )
    _axes(figure, [*points, *([frontier.dense] if frontier.dense else [])], frontier.quality, limit)
    if limit is not None:
        _line(figure, look, words["budget"], y=limit)
    if limit_size is not None:
        _line(figure, look, words["budget"], x=limit_size / scale)
    figure.update_layout(
        hovermode="closest",
        # the legend takes a line for every three names
        margin={
            "t": round((62 + 21 * -(-(len(methods) + 1) // 3)) * look.scale),
            "r": round(16 * look.scale),
        },
        legend={"itemclick": False, "itemdoubleclick": False, "font": {"size": look.size(13)}},
    )
    return figure


def _method(
    points: Sequence[Point],
    label: str,
    index: int,
    look: Look,
    words: Mapping[str, str],
    scale: float,
    *,
    intervals: bool,
) -> go.Scatter:
    color = look.categories[index % len(look.categories)]
    symbol = SYMBOLS[index % len(SYMBOLS)]
    faint = [FAINT if point.state == DOMINATED else 1.0 for point in points]
    marker: dict[str, Any] = {
        "symbol": [f"{symbol}-open" if p.state == UNCLEAR else symbol for p in points],
        "size": look.size(10),
        "color": color,
        "opacity": faint,
        "line": {"width": look.size(1.5), "color": color},
    }
    bars: dict[str, Any] = {}
    if intervals:
        bars["error_y"] = _bars([p.quality for p in points], 1.0, color, look)
        if any(p.cost.low < p.cost.high for p in points):
            bars["error_x"] = _bars([p.cost for p in points], scale, color, look)
    return go.Scatter(
        x=[p.cost.value / scale for p in points],
        y=[p.quality.value for p in points],
        mode="markers",
        name=escape(label),
        marker=marker,
        customdata=[[p.run, *_hover(p, words, scale)] for p in points],
        hovertemplate=f"{escape(label)}<br>%{{customdata[1]}}<extra></extra>",
        selected={"marker": {"opacity": 1}},
        # Streamlit redraws with a selection: what was not clicked must look as before
        unselected={"marker": {"opacity": 0.85}},
        **bars,
    )


def _bars(values: Sequence[Value], scale: float, color: str, look: Look) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [(v.high - v.value) / scale for v in values],
        "arrayminus": [(v.value - v.low) / scale for v in values],
        "color": color,
        "thickness": look.size(1.2),
        "width": look.size(3),
    }


def _hover(point: Point, words: Mapping[str, str], scale: float) -> list[str]:
    """A point's hover text."""
    cost, quality = point.cost, point.quality
    error = error_in(quality.low, quality.high)
    ends = [measured(end, error, too_large="> 1e6") for end in (quality.low, quality.high)]
    interval = "" if error is None else f" ({ends[0]} – {ends[1]})"  # noqa: RUF001
    lines = [
        f"{words['removed']}: {counted_share(point.sparsity)}",
        f"{words['x']}: {measured(cost.value / scale)}"
        + (f" ({words['estimate']})" if cost.is_estimate else ""),
        f"{words['y']}: {measured(quality.value, error, too_large='> 1e6')}{interval}",
    ]
    if point.sparsity - point.added > 0 and "added" in words:
        lines.insert(1, f"{words['added']}: {counted_share(point.added)}")
    if point.state in (UNCLEAR, DOMINATED):
        lines.append(words[point.state])
    if point.run:
        lines.append(words["click"])
    return ["<br>".join(lines)]


def _front_line(
    figure: go.Figure,
    frontier: Frontier,
    look: Look,
    words: Mapping[str, str],
    methods: Mapping[tuple[str, ...], str],
    scale: float,
) -> None:
    front = [p for p in frontier.front if p.method in methods or not p.method]
    if len(front) < 2:
        return
    figure.add_scatter(
        x=[p.cost.value / scale for p in front],
        y=[p.quality.value for p in front],
        mode="lines",
        name=words["front"],
        line={"color": look.muted, "width": look.size(2), "dash": "dot"},
        hoverinfo="skip",
    )


def _dense_trace(point: Point, look: Look, words: Mapping[str, str], scale: float) -> go.Scatter:
    return go.Scatter(
        x=[point.cost.value / scale],
        y=[point.quality.value],
        mode="markers+text",
        name=words["dense"],
        text=[words["dense"]],
        textposition="top left",
        textfont={"color": look.text, "size": look.size(13)},
        marker={"symbol": "diamond-tall", "size": look.size(15), "color": look.text},
        customdata=[[point.run, *_hover(point, words, scale)]],
        hovertemplate=f"{words['dense']}<br>%{{customdata[1]}}<extra></extra>",
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
        showlegend=False,
    )


def _mark_runs(
    figure: go.Figure,
    frontier: Frontier,
    points: Sequence[Point],
    look: Look,
    words: Mapping[str, str],
    scale: float,
    selection: str,
) -> None:
    """Rings around the knee and around the chosen run; they let clicks through to the point."""
    marks = [(frontier.knee, words["knee"], 20, 2.5, look.text)] if frontier.knee in points else []
    marks += [(p, "", 26, 3.0, look.accent) for p in points if selection and p.run == selection]
    for point, label, size, width, color in marks:
        if point is None:
            continue
        figure.add_scatter(
            x=[point.cost.value / scale],
            y=[point.quality.value],
            mode="markers+text" if label else "markers",
            text=[label],
            textposition="bottom left",
            textfont={"color": look.text, "size": look.size(13)},
            marker={
                "symbol": "circle-open",
                "size": look.size(size),
                "color": color,
                "line": {"width": look.size(width), "color": color},
            },
            hoverinfo="skip",
            showlegend=False,
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
        )


def _line(
    figure: go.Figure, look: Look, label: str, *, x: float | None = None, y: float | None = None
) -> None:
    """The budget as a line through the whole picture."""
    line = {"color": look.accent, "width": look.size(1.5), "dash": "dash"}
    text = {
        "text": label,
        "font": {"color": look.accent if not look.dark else look.text, "size": look.size(12)},
    }
    if y is not None:
        figure.add_hline(y=y, line=line, label={**text, "textposition": "end"})
    if x is not None:
        figure.add_vline(x=x, line=line, label={**text, "textposition": "end"})


def _axes(figure: go.Figure, points: Sequence[Point], quality: str, limit: float | None) -> None:
    values = [p.quality.value for p in points] + ([limit] if limit is not None else [])
    least, most = min(values, default=1.0), max(values, default=1.0)
    metric = METRICS[quality]
    if metric.scale == "logarithmic" and least > 0 and most / least > LOG_FROM:
        figure.update_yaxes(
            type="log", dtick="D2" if most / least < 300 else 1, exponentformat="power"
        )
    if metric.percent or metric.more_is_better:
        figure.update_yaxes(tickformat=".0%" if metric.percent else ".3g")
