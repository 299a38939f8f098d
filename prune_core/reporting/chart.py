"""Size against quality as PowerPoint's own chart, with numbers and labels its reader can edit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pptx.chart.data import XyChartData
from pptx.dml.color import RGBColor
from pptx.enum.chart import (
    XL_AXIS_CROSSES,
    XL_CHART_TYPE,
    XL_LABEL_POSITION,
    XL_LEGEND_POSITION,
    XL_MARKER_STYLE,
    XL_TICK_MARK,
)
from pptx.enum.dml import MSO_LINE
from pptx.oxml import parse_xml
from pptx.oxml.ns import nsdecls, qn
from pptx.util import Pt

from prune_core.evaluation.metrics import METRICS
from prune_core.figures.theme import Look, even_step, visible
from prune_core.figures.tradeoff import FAINT, LOG_FROM, SCALES
from prune_core.reporting.content import Content
from prune_core.reporting.picture import plain, shown
from prune_core.reporting.slides import LEAST, Box, Slide, type_of
from prune_core.sweeps.axes import Value
from prune_core.sweeps.frontier import DOMINATED, UNCLEAR, Frontier, Point
from prune_core.sweeps.names import method_names
from prune_core.words.catalogue import Words

MARKERS = (
    XL_MARKER_STYLE.CIRCLE,
    XL_MARKER_STYLE.SQUARE,
    XL_MARKER_STYLE.TRIANGLE,
    XL_MARKER_STYLE.DIAMOND,
)
"""Shapes that can be filled or hollow: with seven colors, 28 methods before two look alike."""

SIZE = 9
"""Points of a marker; LibreOffice heeds a point's own colors only where its size is another."""

RAISED = 0.055
"""How far an option's name stands above its ring, as a share of the chart's height."""

MOST_DOUBLINGS = 8
"""A logarithmic axis is marked at powers of two, over a wider range at powers of ten."""


def tradeoff(slide: Slide, box: Box, content: Content, words: Words) -> None:
    """Put the chart on a slide: each method with its 95 % intervals, the front, the options named.

    Args:
        slide: where.
        box: its place.
        content: with the runs.
        words: of its language.
    """
    content = shown(content)
    found, look = content.found, Look()
    scale = SCALES[found.cost]
    falls = not METRICS[found.quality].more_is_better  # the larger the model
    methods = method_names((p.method for p in found.points), words, plain=plain(content))
    drawn: list[_Series] = []
    for place, (method, label) in enumerate(methods.items()):
        points = [point for point in found.points if point.method == method]
        color = look.categories[place % len(look.categories)]
        shape = MARKERS[place % len(MARKERS)]
        style = partial(_method, points=points, shape=shape, color=color, scale=scale)
        drawn.append(_Series(label, points, style))
    if len(found.front) > 1:
        name = words.t("report.fig_front")
        drawn.append(_Series(name, found.front, partial(_line, color=look.muted)))
    # LibreOffice leaves out a series that comes before a longer one
    drawn.sort(key=lambda one: -len(one.points))
    entries = len(drawn)
    if found.dense is not None:
        style = partial(_dense, look=look, above=falls)
        drawn.append(_Series(words.t("report.fig_dense"), [found.dense], style))
    for option in content.options:
        name = words.t(f"report.mark_{option.name}")
        drawn.append(_Series(name, [option.point], partial(_ring, look=look, above=falls)))
    data = XyChartData()
    for one in drawn:
        series = data.add_series(visible(one.name, 60))
        for point in one.points:
            series.add_data_point(point.cost.value / scale, point.quality.value)
    chart = slide.chart(XL_CHART_TYPE.XY_SCATTER, data, box, words.t("report.picture_alt"))
    type_of(chart.font, LEAST, look.text.lstrip("#"))
    chart.has_title = False
    for series, one in zip(chart.plots[0].series, drawn, strict=True):
        one.style(series)
    _axes(chart, found, words, look)
    _legend(chart, range(entries, len(drawn)))


@dataclass(frozen=True, slots=True)
class _Series:
    """A series of the chart: its name, its points and what gives it its look."""

    name: str
    points: Sequence[Point]
    style: Callable[[Any], None]


# ---- series ------------------------------------------------------------------------------------


def _line(series: Any, *, color: str) -> None:
    series.marker.style = XL_MARKER_STYLE.NONE
    _stroke(series.format.line, color, 2)
    series.format.line.dash_style = MSO_LINE.ROUND_DOT


def _method(series: Any, *, points: Sequence[Point], shape: Any, color: str, scale: float) -> None:
    """What is surely beaten is faint, what may be is hollow, as in ``figures.tradeoff``."""
    _marker(series.marker, shape, SIZE, color)
    for place, point in enumerate(points):
        if point.state == DOMINATED:
            _marker(series.points[place].marker, shape, SIZE - 1, _mixed(color, FAINT))
        elif point.state == UNCLEAR:
            _marker(series.points[place].marker, shape, SIZE - 1, color, filled=False)
    _error_bars(series, "y", [point.quality for point in points], 1.0, color)
    _error_bars(series, "x", [point.cost for point in points], scale, color)


def _dense(series: Any, *, look: Look, above: bool) -> None:
    _marker(series.marker, XL_MARKER_STYLE.DIAMOND, 13, look.text)
    _named(series, look.text, LEAST, XL_LABEL_POSITION.ABOVE if above else XL_LABEL_POSITION.BELOW)


def _ring(series: Any, *, look: Look, above: bool) -> None:
    _marker(series.marker, XL_MARKER_STYLE.CIRCLE, 20, look.accent, width=2.5)
    # a veil that the point is seen through; LibreOffice cannot, and puts it below the point
    series.marker.format.fill.fore_color.rgb = RGBColor.from_string(_mixed(look.accent, 0.3)[1:])
    fill = series._element.find(f".//{qn('c:marker')}//{qn('a:srgbClr')}")
    fill.append(fill.makeelement(qn("a:alpha"), {"val": "25000"}))
    label = _named(series, look.accent, LEAST + 2, XL_LABEL_POSITION.RIGHT, bold=True)
    # beside the front's line, not on it: a share of the chart's height from where it would stand
    label.idx.addnext(
        parse_xml(
            f'<c:layout {nsdecls("c")}><c:manualLayout><c:x val="0"/>'
            f'<c:y val="{-RAISED if above else RAISED}"/></c:manualLayout></c:layout>'
        )
    )


def _named(series: Any, color: str, size: float, place: Any, *, bold: bool = False) -> Any:
    """Write a series' name beside its only point; gives the label's element."""
    label = series.points[0].data_label
    type_of(label.font, size, color.lstrip("#"), bold=bold)
    label.position = place
    element = label._get_or_add_dLbl()
    for what, value in (("c:showVal", "0"), ("c:showSerName", "1")):
        element.find(qn(what)).set("val", value)
    element.getparent().find(qn("c:showLeaderLines")).set("val", "0")
    return element


def _marker(
    marker: Any, shape: Any, size: int, color: str, *, filled: bool = True, width: float = 1.5
) -> None:
    marker.style, marker.size = shape, size
    if filled:
        marker.format.fill.solid()
        marker.format.fill.fore_color.rgb = RGBColor.from_string(color.lstrip("#"))
    else:
        marker.format.fill.background()
    _stroke(marker.format.line, color, width)


def _stroke(line: Any, color: str, width: float) -> None:
    line.color.rgb, line.width = RGBColor.from_string(color.lstrip("#")), Pt(width)


def _mixed(color: str, share: float) -> str:
    """A color over white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (part - 255) * share):02X}" for part in parts)


def _error_bars(series: Any, axis: str, values: Sequence[Value], scale: float, color: str) -> None:
    """Intervals of a series, which python-pptx has no call for; an endless one has no bar."""
    if not any(value.low < value.high < math.inf for value in values):
        return

    def literal(side: str, lengths: Sequence[float]) -> str:
        cells = "".join(
            f'<c:pt idx="{place}"><c:v>{length if math.isfinite(length) else 0.0!r}</c:v></c:pt>'
            for place, length in enumerate(lengths)
        )
        return (
            f"<c:{side}><c:numLit><c:formatCode>General</c:formatCode>"
            f'<c:ptCount val="{len(lengths)}"/>{cells}</c:numLit></c:{side}>'
        )

    plus = literal("plus", [(value.high - value.value) / scale for value in values])
    minus = literal("minus", [(value.value - value.low) / scale for value in values])
    bars = parse_xml(
        f'<c:errBars {nsdecls("c", "a")}><c:errDir val="{axis}"/><c:errBarType val="both"/>'
        f'<c:errValType val="cust"/><c:noEndCap val="0"/>{plus}{minus}'
        f'<c:spPr><a:ln w="{Pt(1.25)}"><a:solidFill><a:srgbClr val="{color.lstrip("#")}"/>'
        "</a:solidFill></a:ln></c:spPr></c:errBars>"
    )
    series._element.find(qn("c:xVal")).addprevious(bars)


# ---- axes and legend ---------------------------------------------------------------------------


def _axes(chart: Any, found: Frontier, words: Words, look: Look) -> None:
    points = [*found.points, *([found.dense] if found.dense else [])]
    scale = SCALES[found.cost]
    xs = [point.cost.value / scale for point in points]
    values = [point.quality.value for point in points]
    # an interval that ends far beyond every value is cut off: it would press them all together
    least, most = min(values), max(values)
    room = 3 * ((most - least) or abs(most) or 1.0)
    ends = [x for p in points for x in (p.quality.low, p.quality.high)]
    ends = [x for x in ends if least - room <= x <= most + room]
    quality = METRICS[found.quality].phrase("report_axis", words.language)
    titled = (
        (chart.category_axis, words.t(f"report.axis_{found.cost}")),
        (chart.value_axis, quality),
    )
    for axis, title in titled:
        axis.has_title = True
        frame = axis.axis_title.text_frame
        frame.text = title
        type_of(frame.paragraphs[0].runs[0].font, LEAST, look.muted.lstrip("#"))
        type_of(axis.tick_labels.font, LEAST, look.muted.lstrip("#"))
        axis.major_tick_mark = XL_TICK_MARK.NONE
        axis.crosses = XL_AXIS_CROSSES.MINIMUM
        axis.has_major_gridlines = True
        for line in (axis.format.line, axis.major_gridlines.format.line):
            _stroke(line, look.grid, 1)
    _even(chart.category_axis, xs, share=False)
    if METRICS[found.quality].scale == "logarithmic" and most / least > LOG_FROM:
        _logarithmic(chart.value_axis, [*values, *(max(end, least / 8) for end in ends)])
    else:
        _even(chart.value_axis, [*values, *ends], share=METRICS[found.quality].percent)


def _even(axis: Any, values: Sequence[float], *, share: bool) -> None:
    """Whole steps around the values; ``share``: written in percent."""
    low, high = min(values), max(values)
    room = 0.04 * ((high - low) or abs(high) or 1.0)
    step = even_step((high - low + 2 * room) / 4)
    axis.major_unit = step
    axis.minimum_scale = round(step * math.floor((low - room) / step), 12)
    axis.maximum_scale = round(step * math.ceil((high + room) / step), 12)
    digits = max(0, -math.floor(math.log10(100 * step if share else step) + 1e-9))
    axis.tick_labels.number_format = f"#,##0{'.' + '0' * digits if digits else ''}{'%' * share}"
    axis.tick_labels.number_format_is_linked = False


def _logarithmic(axis: Any, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    base, power = (2.0, math.log2) if high / low < 2**MOST_DOUBLINGS else (10.0, math.log10)
    axis.major_unit = base
    axis.minimum_scale = base ** math.floor(power(low))
    axis.maximum_scale = base ** math.ceil(power(high))
    scaling = axis._element.find(qn("c:scaling"))
    scaling.insert(0, parse_xml(f'<c:logBase {nsdecls("c")} val="{base:g}"/>'))
    axis.tick_labels.number_format = "#,##0" if low >= 1 else "General"
    axis.tick_labels.number_format_is_linked = False


def _legend(chart: Any, unnamed: Sequence[int]) -> None:
    """Above the plot, without the ``unnamed`` series: their names stand beside their points."""
    chart.has_legend = True
    legend = chart.legend
    legend.position, legend.include_in_layout = XL_LEGEND_POSITION.TOP, False
    place = legend._element.find(qn("c:legendPos"))
    for index in reversed(unnamed):
        place.addnext(
            parse_xml(
                f'<c:legendEntry {nsdecls("c")}><c:idx val="{index}"/><c:delete val="1"/>'
                "</c:legendEntry>"
            )
        )
