"""The picture where no browser can make it: drawn by Pillow, in the same colors and words."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from prune_core.figures.theme import Look, visible
from prune_core.figures.tradeoff import FAINT, LOG_FROM, SCALES
from prune_core.reporting.content import Content
from prune_core.reporting.fonts import font, font_file
from prune_core.sweeps.frontier import DOMINATED, Point
from prune_core.words.catalogue import Words


def draw(content: Content, words: Words, width: int, height: int) -> bytes:
    """Size against quality as PNG.

    Args:
        content: with the points to draw.
        words: of its language; English where the machine has no Chinese font.
        width: pixels.
        height: pixels.
    """
    if words.language == "zh" and font_file("zh") is None:
        words = Words("en")
    return _Drawing(content, words, width, height).png()


class _Drawing:
    def __init__(self, content: Content, words: Words, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.content, self.words, self.look = content, words, Look()
        self.image = Image.new("RGB", (width, height), "white")
        self.ink = ImageDraw.Draw(self.image)
        self.unit = height / 700  # a pixel of the picture as it is laid out
        self.left, self.right = 130 * self.unit, width - 170 * self.unit
        self.top, self.bottom = 120 * self.unit, height - 110 * self.unit
        self.width = width
        found = content.found
        self.scale = SCALES[found.cost]
        points = [*found.points, *([found.dense] if found.dense else [])]
        xs = [p.cost.value / self.scale for p in points]
        ys = [v for p in points for v in (p.quality.low, p.quality.value, p.quality.high)]
        ys = [y for y in ys if math.isfinite(y)]
        values = [p.quality.value for p in points]
        self.log = min(values) > 0 and max(values) / min(values) > LOG_FROM
        pad = 0.06 * (max(xs) - min(xs) or 1.0)
        self.x_range = (min(xs) - pad, max(xs) + pad)
        low, high = self._y(max(min(ys), 1e-9) if self.log else min(ys)), self._y(max(ys))
        pad = 0.07 * (high - low or 1.0)
        self.y_range = (low - pad, high + pad)

    def _y(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.log else value

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A value's place."""
        across = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        up = (self._y(y) - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        return (
            self.left + across * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )

    def text(self, x: float, y: float, text: str, size: float, color: str, anchor: str) -> None:
        self.ink.text(
            (x, y),
            text,
            fill=color,
            anchor=anchor,
            font=font(self.words.language, round(size * self.unit)),
        )

    def png(self) -> bytes:
        """Draw everything."""
        self._axes()
        self._front()
        colors: dict[tuple[str, ...], str] = {}
        for point in self.content.found.points:
            colors.setdefault(point.method, self.look.categories[len(colors) % 7])
        for point in self.content.found.points:
            self._point(point, colors[point.method])
        if self.content.found.dense is not None:
            self._dense(self.content.found.dense)
        self._options()
        self._legend(colors)
        out = io.BytesIO()
        self.image.save(out, "PNG")
        return out.getvalue()

    def _axes(self) -> None:
        found, unit = self.content.found, self.unit
        for x in ticks(*self.x_range):
            place, _ = self.at(x, 1.0)
            self.ink.line([(place, self.top), (place, self.bottom)], self.look.grid, round(unit))
            self.text(place, self.bottom + 10 * unit, f"{x:g}", 26, self.look.muted, "mt")
        low, high = self.y_range
        marks = log_ticks(10**low, 10**high) if self.log else ticks(low, high)
        for y in marks:
            _, place = self.at(self.x_range[0], y)
            self.ink.line([(self.left, place), (self.right, place)], self.look.grid, round(unit))
            self.text(self.left - 12 * unit, place, f"{y:,g}", 26, self.look.muted, "rm")
        middle = (self.left + self.right) / 2
        title = self.words.t(f"report.axis_{found.cost}")
        self.text(middle, self.bottom + 54 * unit, title, 26, self.look.muted, "mt")
        title = self.words.t(f"report.axis_{found.quality}")
        self.text(24 * unit, self.top - 16 * unit, title, 26, self.look.muted, "lb")

    def _front(self) -> None:
        places = [
            self.at(p.cost.value / self.scale, p.quality.value) for p in self.content.found.front
        ]
        if len(places) > 1:
            self.ink.line(places, self.look.muted, round(2 * self.unit), joint="curve")

    def _point(self, point: Point, color: str) -> None:
        shade = _mixed(color, FAINT) if point.state == DOMINATED else color
        x, y = self.at(point.cost.value / self.scale, point.quality.value)
        if point.quality.low < point.quality.high < math.inf:
            ends = [
                self.at(point.cost.value / self.scale, v)
                for v in (point.quality.low, point.quality.high)
            ]
            self.ink.line(ends, shade, round(2 * self.unit))
        self._disc(x, y, 8, fill=shade)

    def _disc(self, x: float, y: float, radius: float, **given: Any) -> None:
        r = radius * self.unit
        self.ink.ellipse([x - r, y - r, x + r, y + r], **given)

    def _dense(self, point: Point) -> None:
        x, y = self.at(point.cost.value / self.scale, point.quality.value)
        r = 11 * self.unit
        self.ink.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=self.look.text)
        label = self.words.t("report.fig_dense")
        self.text(x, y - 18 * self.unit, label, 26, self.look.text, "mb")

    def _options(self) -> None:
        for option in self.content.options:
            point = option.point
            x, y = self.at(point.cost.value / self.scale, point.quality.value)
            self._disc(x, y, 17, outline=self.look.accent, width=round(4 * self.unit))
            label = self.words.t(f"report.mark_{option.name}")
            self.text(x + 20 * self.unit, y - 20 * self.unit, label, 30, self.look.accent, "lb")

    def _legend(self, colors: dict[tuple[str, ...], str]) -> None:
        x, y = self.left, 34 * self.unit
        plain = self.content.audience == "stakeholder"
        labels = self.words.labels(colors, plain=plain)
        for method, color in colors.items():
            label = visible(labels[method], 40)
            end = (
                x
                + 24 * self.unit
                + self.ink.textlength(label, font=font(self.words.language, round(26 * self.unit)))
            )
            if end > self.right and x > self.left:
                return  # the table names them all
            self._disc(x + 8 * self.unit, y, 8, fill=color)
            self.text(x + 24 * self.unit, y, label, 26, self.look.text, "lm")
            x = end + 36 * self.unit


def _mixed(color: str, share: float) -> str:
    """A color over white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (part - 255) * share):02x}" for part in parts)


def ticks(low: float, high: float, about: int = 7) -> Sequence[float]:
    """Round values between two, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> Sequence[float]:
    """1, 2 and 5 times powers of ten between two values; powers alone over four decades."""
    steps = (1, 2, 5) if high / low < 1e4 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
