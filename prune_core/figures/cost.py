"""Where the savings went: sizes by format, and speed and memory as measured, with their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from prune_core.figures.theme import Look, style

SYMBOLS = {"dense": "circle", "zeros": "square", "shrunk": "diamond"}
"""Color is never the only sign."""


def model_color(name: str, look: Look) -> str:
    """The color of ``dense``, ``zeros`` or ``shrunk``, in both figures."""
    return {"dense": look.dense, "zeros": look.pruned}.get(name, look.categories[2])


def short(value: float) -> str:
    """Four digits or so, never in powers of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def sizes(
    rows: Sequence[tuple[str, str, float, bool]], look: Look, *, words: Mapping[str, str]
) -> go.Figure:
    """Bytes of the weight file by format, as bars; estimates hatched.

    Args:
        rows: name of the format, which model (see :func:`model_color`), bytes, and whether it is
            an estimate; from top to bottom.
        look: colors and scale.
        words: ``title``, ``x``, ``exact`` and ``estimate`` (legend).
    """
    figure = go.Figure()
    for estimate in (False, True):
        group = [row for row in rows if row[3] is estimate]
        if not group:
            continue
        figure.add_bar(
            y=[name for name, _, _, _ in group],
            x=[value / 1e6 for _, _, value, _ in group],
            orientation="h",
            name=words["estimate" if estimate else "exact"],
            marker={
                "color": [model_color(model, look) for _, model, _, _ in group],
                "pattern": {
                    "shape": "/" if estimate else "",
                    "fgcolor": look.paper,
                    "size": look.size(7),
                    "solidity": 0.35,
                },
            },
            text=[short(value / 1e6) for _, _, value, _ in group],
            textposition="outside",
            textfont={"color": look.text, "size": look.size(13)},
            cliponaxis=False,
            hovertemplate="%{y}: %{text} MB<extra></extra>",
        )
    style(figure, look, title=words["title"], height=110 + 38 * len(rows), x=words["x"])
    figure.update_layout(bargap=0.35, margin_r=round(60 * look.scale))
    figure.update_xaxes(rangemode="tozero", nticks=6)
    figure.update_yaxes(
        categoryorder="array", categoryarray=[row[0] for row in rows][::-1], showgrid=False
    )
    return figure


def speeds(
    measures: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]],
    look: Look,
    *,
    title: str,
    models: Mapping[str, str],
) -> go.Figure:
    """Repeats as points, the median large with the range as a line; one panel for each measure.

    Args:
        measures: name with its unit, and by model (see :func:`model_color`) ``median``, ``low``,
            ``high``, ``values``.
        look: colors and scale.
        title: of the figure.
        models: model to its name, from top to bottom.
    """
    figure = make_subplots(
        rows=1,
        cols=len(measures),
        shared_yaxes=True,
        horizontal_spacing=0.06,
        subplot_titles=[name for name, _ in measures],
    )
    for column, (_, by_model) in enumerate(measures, start=1):
        for model, values in by_model.items():
            color, name = model_color(model, look), models[model]
            figure.add_scatter(
                x=values["values"],
                y=[name] * len(values["values"]),
                mode="markers",
                marker={"size": look.size(6), "color": color, "opacity": 0.45},
                hoverinfo="skip",
                row=1,
                col=column,
            )
            figure.add_scatter(
                x=[values["median"]],
                y=[name],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [values["high"] - values["median"]],
                    "arrayminus": [values["median"] - values["low"]],
                    "color": color,
                    "thickness": 2,
                    "width": 5,
                },
                mode="markers+text",
                marker={
                    "symbol": SYMBOLS[model],
                    "size": look.size(12),
                    "color": color,
                    "line": {"width": 1.5, "color": look.paper},
                },
                text=[short(values["median"])],
                textposition="top center",
                textfont={"color": look.text, "size": look.size(13)},
                cliponaxis=False,
                customdata=[[short(values["low"]), short(values["high"])]],
                hovertemplate="%{text} [%{customdata[0]}, %{customdata[1]}]<extra></extra>",
                row=1,
                col=column,
            )
    style(figure, look, title=title, height=140 + 52 * len(models))
    figure.update_annotations(font={"size": look.size(13), "color": look.muted})
    figure.update_layout(margin_t=round(78 * look.scale), margin_r=round(28 * look.scale))
    figure.update_xaxes(rangemode="tozero", nticks=5)
    names = list(models.values())[::-1]
    figure.update_yaxes(
        categoryorder="array", categoryarray=names, range=[-0.6, len(names) - 0.3], showgrid=False
    )
    return figure
