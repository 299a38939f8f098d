"""Attention heads: how important each is, and what one looks at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from prune_core.figures.theme import Look, color_bar, escape, style

Head = tuple[int, int]
"""(flat block index, head)."""

LABELED_TOKENS = 48  # more than this many tokens: axis labels would overlap


def importance_map(
    site: Mapping[str, Any],
    look: Look,
    *,
    selected: Head | None,
    dropped: Collection[Head],
    words: Mapping[str, str],
    low_matters: bool = False,
) -> go.Figure:
    """Heat map of one kind of attention: block down, head across.

    Args:
        site: ``scores`` (blocks x heads; rows may differ in length), ``blocks`` (flat index of
            each row), ``group_size`` (query heads per key/value head).
        look: colors and scale.
        selected: outlined.
        dropped: crossed out.
        words: ``title``, ``x``, ``y``, ``block``, ``head``, ``group``, ``score``, ``bar``,
            ``dropped``.
        low_matters: the least scores are the important ones, and get their color.
    """
    scores: list[list[float | None]] = [list(row) for row in site["scores"]]
    heads = max((len(row) for row in scores), default=0)
    padded = [row + [None] * (heads - len(row)) for row in scores]
    blocks = list(site["blocks"])
    group = int(site["group_size"])
    figure = go.Figure(
        go.Heatmap(
            z=padded,
            x=list(range(heads)),
            y=list(range(len(blocks))),
            **_colors([x for row in scores for x in row if x is not None], look),
            reversescale=low_matters,
            xgap=1.5,
            ygap=1.5,
            hoverinfo="skip",
            colorbar=color_bar(words["bar"], look, exponentformat="e", nticks=5, len=1),
        )
    )
    row_height = 17 if len(blocks) > 12 else 30
    style(
        figure,
        look,
        title=words["title"],
        height=max(230, 110 + row_height * len(blocks)),
        x=words["x"],
        y=words["y"],
    )
    _cells(figure, scores, blocks, group, dropped, look, words, row_height)
    _marks(figure, blocks, selected, dropped, look, row_height)
    if group > 1:
        _groups(figure, heads, group, look, words)
    figure.update_xaxes(
        tickvals=list(range(heads)) if heads <= 24 else None,
        showgrid=False,
        range=[-0.5, heads - 0.5],
        constrain="domain",
    )
    first = blocks[0] if blocks else 0
    ticks = [row for row in range(len(blocks)) if len(blocks) <= 16 or row % 5 == 0]
    figure.update_yaxes(
        tickvals=ticks,
        ticktext=[str(blocks[row] - first) for row in ticks],
        showgrid=False,
        range=[len(blocks) - 0.5, -0.5],
    )
    figure.update_layout(hovermode="closest")
    return figure


SATURATED = 0.97
"""Share of the signed scores within the color scale: a few huge ones would leave no contrast."""


def _colors(scores: Sequence[float], look: Look) -> dict[str, Any]:
    """A scale from low to high; around zero where scores have signs."""
    if not any(score < 0 for score in scores):
        return {"colorscale": look.sequence}
    sizes = sorted(abs(score) for score in scores)
    most = sizes[min(len(sizes) - 1, int(SATURATED * len(sizes)))] or 1.0
    return {"colorscale": look.diverging, "zmin": -most, "zmax": most, "zmid": 0.0}


def _cells(
    figure: go.Figure,
    scores: Sequence[Sequence[float | None]],
    blocks: Sequence[int],
    group: int,
    dropped: Collection[Head],
    look: Look,
    words: Mapping[str, str],
    row_height: int,
) -> None:
    """Near-transparent squares over the cells: a click on a heat map fires nothing."""
    xs, ys, data, texts = [], [], [], []
    for row, line in enumerate(scores):
        for head, score in enumerate(line):
            xs.append(head)
            ys.append(row)
            data.append([blocks[row], head])
            text = f"<b>{words['block']} {row} · {words['head']} {head}</b>"
            text += f"<br>{words['score']} {'…' if score is None else f'{score:.4g}'}"
            if group > 1:
                text += f"<br>{words['group']} {head // group}"
            if (blocks[row], head) in dropped:
                text += f"<br>{words['dropped']}"
            texts.append(text)
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="markers",
        marker={
            "symbol": "square",
            "size": look.size(row_height),
            "color": look.text,
            "opacity": 0.01,
        },
        customdata=data,
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        selected={"marker": {"opacity": 0.01}},
        unselected={"marker": {"opacity": 0.01}},
        showlegend=False,
    )


def _marks(
    figure: go.Figure,
    blocks: Sequence[int],
    selected: Head | None,
    dropped: Collection[Head],
    look: Look,
    row_height: int,
) -> None:
    rows = {block: row for row, block in enumerate(blocks)}
    marks = [head for head in dropped if head[0] in rows]
    if marks:
        for width, color in ((4.0, "#FFFFFF"), (2.0, "#B00020")):
            figure.add_scatter(
                x=[head for _, head in marks],
                y=[rows[block] for block, _ in marks],
                mode="markers",
                marker={
                    "symbol": "x-thin",
                    "size": look.size(row_height * 0.55),
                    "line": {"width": width, "color": color},
                },
                hoverinfo="skip",
                showlegend=False,
            )
    if selected is not None and selected[0] in rows:
        row, head = rows[selected[0]], selected[1]
        for width, color in ((5.0, look.paper), (2.5, look.accent)):
            figure.add_shape(
                type="rect",
                x0=head - 0.5,
                x1=head + 0.5,
                y0=row - 0.5,
                y1=row + 0.5,
                line={"color": color, "width": width},
                fillcolor="rgba(0,0,0,0)",
            )


def _groups(
    figure: go.Figure, heads: int, group: int, look: Look, words: Mapping[str, str]
) -> None:
    """Grouped-query attention: lines between the heads that share keys and values, and names."""
    for start in range(0, heads, group):
        if start:
            figure.add_vline(x=start - 0.5, line={"color": look.paper, "width": 4})
        figure.add_annotation(
            x=start + (group - 1) / 2,
            y=1,
            yref="paper",
            yanchor="bottom",
            text=f"{words['group']} {start // group}",
            showarrow=False,
            font={"size": look.size(11), "color": look.muted},
        )


def pattern_grid(
    pattern: Sequence[Sequence[float]],
    tokens: Sequence[str],
    key_tokens: Sequence[str],
    look: Look,
    *,
    words: Mapping[str, str],
) -> go.Figure:
    """One head's attention: query tokens down, key tokens across; rows sum to 1.

    Args:
        pattern: queries x keys.
        tokens: texts of the queries; hostile, escaped here.
        key_tokens: texts of the keys.
        look: colors and scale.
        words: ``title``, ``x``, ``y``, ``share``.
    """
    queries = [escape(token, 16) for token in tokens]
    keys = [escape(token, 16) for token in key_tokens]
    figure = go.Figure(
        go.Heatmap(
            z=[[round(share, 4) for share in row] for row in pattern],
            x=list(range(len(keys))),
            y=list(range(len(queries))),
            zmin=0,
            zmax=max((share for row in pattern for share in row), default=1.0),
            colorscale=look.intensity,
            xgap=1,
            ygap=1,
            hovertext=[[f"<b>{q}</b> → <b>{k}</b>" for k in keys] for q in queries],
            hovertemplate=f"%{{hovertext}}<br>{words['share']} %{{z:.1%}}<extra></extra>",
            colorbar=color_bar("", look, tickformat=".0%", nticks=5),
        )
    )
    style(
        figure,
        look,
        title=words["title"],
        height=min(760, max(300, 130 + 22 * len(queries))),
        x=words["x"],
        y=words["y"],
    )
    step = max(1, -(-len(queries) // LABELED_TOKENS))
    figure.update_xaxes(
        tickvals=list(range(0, len(keys), step)),
        ticktext=keys[::step],
        tickangle=-50,
        showgrid=False,
    )
    figure.update_yaxes(
        tickvals=list(range(0, len(queries), step)),
        ticktext=queries[::step],
        showgrid=False,
        range=[len(queries) - 0.5, -0.5],
    )
    return figure


def agreement_map(
    correlations: Sequence[Sequence[float]],
    names: Sequence[str],
    look: Look,
    *,
    title: str,
    unit: str,
) -> go.Figure:
    """How far methods rank alike: rank correlations of every two, with their values.

    Args:
        correlations: (methods x methods), -1 to 1.
        names: of the methods.
        look: colors and scale.
        title: of the figure.
        unit: of the color scale.
    """
    labels = [escape(name) for name in names]
    figure = go.Figure(
        go.Heatmap(
            z=[list(row) for row in correlations],
            x=labels,
            y=labels,
            zmin=-1,
            zmax=1,
            colorscale=look.diverging,
            xgap=2,
            ygap=2,
            text=[[f"{value:.2f}" for value in row] for row in correlations],
            texttemplate="%{text}",
            textfont={"size": look.size(13)},
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
            colorbar=color_bar(unit, look),
        )
    )
    style(figure, look, title=title, height=130 + 46 * len(names), x="", y="")
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, autorange="reversed")
    return figure
