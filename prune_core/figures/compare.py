"""Recipes side by side: differences with intervals, overlap of masks, damage by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from prune_core.figures.theme import Look, color_bar, style

MINUS, NONE = "\u2212", "\u2013"

SHAPES = {
    "A": ("circle", "●"),
    "B": ("square", "■"),
    "C": ("triangle-up", "▲"),
    "D": ("diamond", "◆"),
}
"""Plotly's symbol and a character for each slot: color is never the only sign."""


def slot_color(name: str, look: Look) -> str:
    """A slot's color; the first category is the dense model's."""
    return look.categories[1 + "ABCD".index(name)]


def differences(
    pairs: Sequence[Mapping[str, Any]], look: Look, *, words: Mapping[str, str]
) -> go.Figure:
    """Mean difference of every pair with its 95 % interval; filled where it is significant.

    Args:
        pairs: from ``evaluation.paired.compare_results``.
        look: colors and scale.
        words: ``title``, ``x``, ``clear`` and ``open`` (legend), ``hover`` (with [mean], [low],
            [high], [p]).
    """
    figure = go.Figure()
    names = [f"{pair['first']} {MINUS} {pair['second']}" for pair in pairs]
    for clear, symbol in ((True, "circle"), (False, "circle-open")):
        group = [
            (name, pair)
            for name, pair in zip(names, pairs, strict=True)
            if (pair["p_holm"] is not None and pair["p_holm"] < 0.05) is clear
        ]
        if not group:
            continue
        up = [
            (p["high"] or p["mean"]) - p["mean"] if p["high"] is not None else 0 for _, p in group
        ]
        figure.add_scatter(
            x=[pair["mean"] for _, pair in group],
            y=[name for name, _ in group],
            error_x={"type": "data", "array": up, "thickness": 2, "width": 5},
            mode="markers",
            name=words["clear" if clear else "open"],
            marker={
                "symbol": symbol,
                "size": look.size(11),
                "color": look.text,
                "line": {"width": 2, "color": look.text},
            },
            customdata=[[_hover(pair, words["hover"])] for _, pair in group],
            hovertemplate="%{y}: %{customdata[0]}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": look.muted, "width": 1, "dash": "dot"})
    style(
        figure,
        look,
        title=words["title"],
        height=130 + 38 * len(pairs),
        x=words["x"],
        legend=True,
    )
    figure.update_layout(margin_t=round(66 * look.scale))
    figure.update_xaxes(rangemode="tozero", tickangle=0, nticks=6)
    figure.update_yaxes(
        categoryorder="array", categoryarray=names[::-1], range=[-0.6, len(names) - 0.4]
    )
    return figure


def _hover(pair: Mapping[str, Any], text: str) -> str:
    for field, digits in (("mean", "+.4f"), ("low", "+.4f"), ("high", "+.4f")):
        value = pair[field]
        text = text.replace(f"[{field}]", NONE if value is None else format(value, digits))
    return text.replace("[p]", NONE if pair["p_holm"] is None else f"{pair['p_holm']:.3g}")


def overlap_matrix(
    names: Sequence[str],
    cells: Mapping[tuple[str, str], tuple[float | None, float | None]],
    look: Look,
    *,
    words: Mapping[str, str],
) -> go.Figure:
    """Jaccard of what every two recipes remove, with what chance would give below it.

    Args:
        names: slots.
        cells: (slot, slot) to (Jaccard, by chance); a pair that is missing is still measured.
        look: colors and scale.
        words: ``title``, ``jaccard``, ``chance`` (with [share]), ``none``.
    """
    rows: list[list[float | None]] = []
    texts: list[list[str]] = []
    for first in names:
        values: list[float | None] = []
        labels = []
        for second in names:
            if first == second:
                values.append(1.0)
                labels.append("1")
                continue
            cell = cells.get((first, second)) or cells.get((second, first))
            jaccard, chance = cell or (None, None)
            values.append(jaccard)
            if cell is None:
                labels.append("…")
            elif jaccard is None:
                labels.append(words["none"])
            else:
                by = NONE if chance is None else f"{chance:.2f}"
                labels.append(f"<b>{jaccard:.2f}</b><br>" + words["chance"].replace("[share]", by))
        rows.append(values)
        texts.append(labels)
    figure = go.Figure(
        go.Heatmap(
            z=rows,
            x=list(names),
            y=list(names),
            zmin=0,
            zmax=1,
            colorscale=look.intensity,
            xgap=3,
            ygap=3,
            hovertemplate=f"%{{y}}, %{{x}}: %{{z:.3f}} {words['jaccard']}<extra></extra>",
            colorbar=color_bar(words["jaccard"], look),
        )
    )
    for y, row in enumerate(texts):
        for x, text in enumerate(row):
            value = rows[y][x]
            strong = value is not None and value > 0.45
            ink = ("#13171C" if look.dark else "#FFFFFF") if strong else look.text
            figure.add_annotation(
                x=names[x],
                y=names[y],
                text=text,
                showarrow=False,
                font={"size": look.size(13), "color": ink},
            )
    style(figure, look, title=words["title"], height=340)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed")
    return figure


def block_damage(
    series: Sequence[Mapping[str, Any]],
    look: Look,
    *,
    log: bool,
    words: Mapping[str, str],
) -> go.Figure:
    """Damage by block, one line per recipe, with one standard error.

    Args:
        series: dicts with ``name`` (slot), ``mean`` and ``stderr``, lists over blocks.
        look: colors and scale.
        log: logarithmic axis: damage is never negative and spans powers of ten.
        words: ``title``, ``x``, ``y``.
    """
    figure = go.Figure()
    for line in series:
        name, mean = str(line["name"]), [float(x) for x in line["mean"]]
        errors = [0.0 if e is None else float(e) for e in line["stderr"]]
        color = slot_color(name, look)
        # nothing happened: a logarithmic axis has no place for it
        heights = [x if x > 1e-9 else None for x in mean] if log else mean
        figure.add_scatter(
            x=list(range(len(mean))),
            y=heights,
            error_y={
                "type": "data",
                "array": errors,
                "thickness": 1,
                "width": 0,
                "color": color,
                "visible": any(errors),
            },
            mode="lines+markers",
            name=name,
            line={"color": color, "width": 2},
            marker={"symbol": SHAPES[name][0], "size": look.size(8), "color": color},
            hovertemplate=f"{name}, {words['x']} %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    style(figure, look, title=words["title"], height=380, x=words["x"], y=words["y"], legend=True)
    figure.update_layout(margin_t=round(66 * look.scale), hovermode="closest")
    figure.update_yaxes(type="log" if log else "linear", exponentformat="power")
    if log:
        figure.update_yaxes(dtick=1)
    count = max((len(line["mean"]) for line in series), default=1)
    figure.update_xaxes(tickvals=list(range(0, count, max(1, count // 15))), showgrid=False)
    return figure
