"""The one picture: size against quality with the options named; as Plotly and as PNG."""

from __future__ import annotations

import concurrent.futures
import logging
import shutil
import threading
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import plotly.graph_objects as go

from prune_core.figures.theme import Look, escape
from prune_core.figures.tradeoff import SCALES, scatter
from prune_core.reporting.content import Content
from prune_core.reporting.drawn import draw, log_ticks
from prune_core.words.catalogue import Words

log = logging.getLogger(__name__)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0
"""Seconds that a browser may take for a picture before it is drawn without one."""

TYPE = 2.0
"""Scale of type in a picture 1440 wide: at least 14 points on a slide."""

WIDEST = 4.0
"""A stakeholder's picture ends at this multiple of the dense perplexity: beyond, nobody goes."""

_browser = threading.Lock()


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
        "y": words.t(f"report.axis_{quality}"),
    }


def plain(content: Content) -> bool:
    """Methods are called by their short names."""
    return content.audience == "stakeholder"


def shown(content: Content) -> Content:
    """The content with the points that its audience is shown."""
    found = replace(content.found, knee=None)  # the options say where it turns
    dense = found.dense
    if content.audience == "stakeholder" and dense is not None and found.quality == "perplexity":
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
    methods = words.labels((p.method for p in found.points), plain=plain(content))
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
        textposition="top right" if found.quality == "perplexity" else "bottom right",
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
        marks = log_ticks(0.7 * min(values), 1.3 * max(values))
        drawn.update_yaxes(tickvals=marks, ticktext=[f"{mark:,g}" for mark in marks])


def png(content: Content, words: Words, *, width: int = 1440, height: int = 700) -> bytes:
    """The picture as PNG at twice its size: by the machine's browser, else drawn without one."""
    found = figure(content, words, Look(scale=TYPE))
    return _by_browser(found, "png", width, height) or _drawn(content, words, 2 * width, 2 * height)


def svg(content: Content, words: Words, *, width: int = 1440, height: int = 700) -> bytes | None:
    """The picture as SVG; None where no browser can make it."""
    return _by_browser(figure(content, words, Look(scale=TYPE)), "svg", width, height)


def browser_path() -> str | None:
    """The browser that exports pictures, if the machine has one."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def _drawn(content: Content, words: Words, width: int, height: int) -> bytes:
    return draw(shown(content), words, width, height)


def _by_browser(drawn: go.Figure, format: str, width: int, height: int) -> bytes | None:
    path = browser_path()
    if path is None or find_spec("kaleido") is None:
        return None
    drawn = go.Figure(drawn).update_layout(paper_bgcolor="white", plot_bgcolor="white")
    options: dict[str, Any] = {"format": format, "width": width, "height": height}
    if format == "png":
        options["scale"] = 2
    with _browser, concurrent.futures.ThreadPoolExecutor(1, "prune-picture") as pool:
        try:
            return bytes(pool.submit(_kaleido, drawn, options, path).result())
        except Exception:  # whatever a browser does, there is another way
            log.exception("The browser %s made no picture; it is drawn without.", path)
            return None


def _kaleido(drawn: go.Figure, options: dict[str, Any], path: str) -> bytes:
    import kaleido

    # no mathjax: it would be fetched from the network
    settings = {"mathjax": False, "path": path, "timeout": PATIENCE}
    return bytes(kaleido.calc_fig_sync(drawn, options, kopts=settings))
