"""The one picture: size against quality with the options named, by Plotly in a browser."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go

from prune_core.evaluation.metrics import METRICS
from prune_core.figures.theme import Look, escape, log_ticks
from prune_core.figures.tradeoff import SCALES, scatter
from prune_core.reporting.content import Content
from prune_core.sweeps.names import method_names
from prune_core.words.catalogue import Words

WIDEST = 4.0
"""A stakeholder's picture ends at this multiple of the dense perplexity: beyond, nobody goes."""


def words_of(words: Words, cost: str, quality: str) -> dict[str, str]:
    """What ``figures.tradeoff.scatter`` writes."""
    names = ("front", "knee", "dense", "budget", "unclear", "dominated", "removed")
    found = {name: words.t(f"report.fig_{name}") for name in names}
    return {
        **found,
        "title": "",
        "click": "",
        "estimate": words.t("report.estimate"),
        "x": words.t(f"report.axis_{cost}"),
        "y": METRICS[quality].phrase("report_axis", words.language),
    }


def plain(content: Content) -> bool:
    """Methods are called by their short names."""
    return content.audience == "stakeholder"


def shown(content: Content) -> Content:
    """The content with the points that its audience is shown."""
    found = replace(content.found, knee=None)  # the options say where it turns
    dense = found.dense
    widens = METRICS[found.quality].scale == "logarithmic"
    if content.audience == "stakeholder" and dense is not None and widens:
        most = WIDEST * dense.quality.value
        kept = {o.run.id for o in content.options}
        points = tuple(p for p in found.points if p.quality.value <= most or p.run in kept)
        ids = {p.run for p in points} | {dense.run}
        front = tuple(p for p in found.front if p.run in ids)
        found = replace(found, points=points, front=front)
    return replace(content, found=found)


def figure(content: Content, words: Words, look: Look) -> go.Figure:
    """Size against quality; the options are ringed and named."""
    content = shown(content)
    found = content.found
    methods = method_names((p.method for p in found.points), words, plain=plain(content))
    drawn = scatter(found, look, words=words_of(words, found.cost, found.quality), methods=methods)
    scale = SCALES[found.cost]
    for trace in drawn.data:  # a report's points cannot be clicked
        if trace.customdata is not None:
            trace.customdata = [[a, str(b).removesuffix("<br>")] for a, b in trace.customdata]
    drawn.add_scatter(
        x=[o.point.cost.value / scale for o in content.options],
        y=[o.point.quality.value for o in content.options],
        mode="markers+text",
        text=[f"<b>{escape(words.t(f'report.mark_{o.name}'))}</b>" for o in content.options],
        textposition="bottom right" if METRICS[found.quality].more_is_better else "top right",
        textfont={"color": look.accent if not look.dark else look.text, "size": look.size(15)},
        marker={
            "symbol": "circle-open",
            "size": look.size(22),
            "color": look.accent,
            "line": {"width": look.size(2.5), "color": look.accent},
        },
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )
    _ticks(drawn, content)
    drawn.update_yaxes(title_standoff=round(16 * look.scale))
    drawn.update_layout(margin={"t": round(48 * look.scale), "r": round(64 * look.scale)})
    return drawn


def _ticks(drawn: go.Figure, content: Content) -> None:
    """Plain numbers on a logarithmic axis: powers of ten are not everyone's."""
    if drawn.layout.yaxis.type == "log":
        found = content.found
        values = [p.quality.value for p in (*found.points, *([found.dense] if found.dense else []))]
        marks, texts = log_ticks(0.7 * min(values), 1.3 * max(values))
        drawn.update_yaxes(tickvals=marks, ticktext=texts)
