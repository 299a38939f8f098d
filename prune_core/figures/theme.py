"""How every figure looks: colors that color-blind readers can tell apart, type, margins.

Okabe-Ito for categories, cividis for sequences, blue to orange for divergence. A figure takes a
:class:`Look` and asks it for colors; nothing here knows streamlit.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sequential

FONT = (
    '"Source Sans", "Source Sans 3", "Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", '
    '"Microsoft YaHei", sans-serif'
)

FEWEST_TICKS, MOST_TICKS = 3, 8  # of a logarithmic axis

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
CATEGORIES_DARK = ("#56B4E9", "#E69F00", "#2FBF93", "#E39BC4", "#F0E442", "#4C8FD6", "#F07B3F")

CIVIDIS = tuple((i / 9, color) for i, color in enumerate(sequential.Cividis))
"""Sequence from low (dark blue) to high (yellow); readable without color."""

DIVERGING = (
    (0.0, "#0B5FA5"),
    (0.25, "#7FB2DC"),
    (0.5, "#F3F1EC"),
    (0.75, "#F2B36B"),
    (1.0, "#C25500"),
)
DIVERGING_DARK = (
    (0.0, "#7CC4F5"),
    (0.25, "#2F6E9E"),
    (0.5, "#20262E"),
    (0.75, "#A65A1C"),
    (1.0, "#FFB25C"),
)
"""Below zero blue, zero the paper's gray, above zero orange."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a figure needs to know of the page it stands on.

    Attributes:
        dark: the page has a dark background.
        scale: factor on type and markers; above 1 in presentation mode.
    """

    dark: bool = False
    scale: float = 1.0

    @property
    def text(self) -> str:
        """Color of type."""
        return "#E8E6E1" if self.dark else "#24292E"

    @property
    def muted(self) -> str:
        """Color of secondary type; at least 4.5:1 on :attr:`paper`."""
        return "#A9AFB7" if self.dark else "#5C6168"

    @property
    def grid(self) -> str:
        """Color of grid lines."""
        return "#2B323B" if self.dark else "#E7E4DC"

    @property
    def paper(self) -> str:
        """The page's background."""
        return "#13171C" if self.dark else "#FDFCFA"

    @property
    def surface(self) -> str:
        """Background of cards, hover boxes and empty cells."""
        return "#1C222A" if self.dark else "#F4F2EC"

    @property
    def dense(self) -> str:
        """Color of what belongs to the dense model, everywhere."""
        return CATEGORIES_DARK[0] if self.dark else CATEGORIES[0]

    @property
    def pruned(self) -> str:
        """Color of what belongs to the pruned model, everywhere."""
        return CATEGORIES_DARK[6] if self.dark else CATEGORIES[1]

    @property
    def accent(self) -> str:
        """Color of what is selected."""
        return "#F0E442" if self.dark else "#D55E00"

    @property
    def categories(self) -> tuple[str, ...]:
        """Okabe-Ito, ordered by contrast with the paper."""
        return CATEGORIES_DARK if self.dark else CATEGORIES

    @property
    def sequence(self) -> list[list[Any]]:
        """Plotly color scale from low to high."""
        return [list(stop) for stop in CIVIDIS]

    @property
    def intensity(self) -> list[list[Any]]:
        """Plotly color scale from nothing (the paper) to much, for shares and attention."""
        if self.dark:
            stops = ((0, "#161B21"), (0.15, "#1F3A55"), (0.5, "#3F86BF"), (1, "#BFE3FF"))
        else:
            stops = ((0, "#FAF9F5"), (0.15, "#D6E6F2"), (0.5, "#5A9BCB"), (1, "#08375F"))
        return [list(stop) for stop in stops]

    @property
    def diverging(self) -> list[list[Any]]:
        """Plotly color scale around zero."""
        return [list(stop) for stop in (DIVERGING_DARK if self.dark else DIVERGING)]

    def size(self, pixels: float) -> float:
        """``pixels`` at this page's scale."""
        return round(pixels * self.scale, 1)


def visible(text: str, limit: int = 60) -> str:
    """A name or token with nothing hidden in it: control and bidirectional characters shown.

    Spaces become ``␣`` only where a token is nothing else; longer texts end with an ellipsis.
    """
    characters = "".join(_visible(c) for c in text[: limit + 1])
    if characters and not characters.strip(" "):
        characters = characters.replace(" ", "␣")
    return characters if len(text) <= limit else characters[:limit] + "…"


def escape(text: str, limit: int = 60) -> str:
    """:func:`visible`, with markup made harmless: fit for Plotly, which reads HTML-like tags."""
    return html.escape(visible(text, limit), quote=True)


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    if character == "\t":
        return "⇥"
    return "·" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character


def style(
    figure: go.Figure,
    look: Look,
    *,
    title: str,
    height: int,
    x: str = "",
    y: str = "",
    legend: bool = False,
) -> go.Figure:
    """Give a figure the shared layout; axis titles say what is shown and its unit.

    ``height`` is in pixels at scale 1.
    """
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 10, "l": 4},
            "font": {"size": look.size(15), "color": look.text, "family": FONT, "weight": 600},
        },
        font={"family": FONT, "size": look.size(13), "color": look.text},
        height=round(height * look.scale),
        margin={"l": 8, "r": 8, "t": round(44 * look.scale) if title else 10, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "title": {"text": ""}},
        hoverlabel={
            "bgcolor": look.surface,
            "bordercolor": look.grid,
            "font": {"family": FONT, "size": look.size(13), "color": look.text},
            "align": "left",
        },
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": look.muted, "activecolor": look.text},
        uirevision="keep",
        dragmode=False,
    )
    axis = {
        "automargin": True,
        "gridcolor": look.grid,
        "linecolor": look.grid,
        "zeroline": False,
        "ticks": "",
        "tickfont": {"color": look.muted, "size": look.size(12)},
    }
    for update, name in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
        update(
            **axis,
            title={
                "text": name,
                "font": {"color": look.muted, "size": look.size(13)},
                "standoff": 8,
            },
        )
    return figure


def hatched(look: Look, color: str, shape: str) -> dict[str, Any]:
    """A bar's marker: its color and, for readers who cannot tell colors apart, a pattern."""
    return {
        "color": color,
        "line": {"width": 0},
        "pattern": {
            "shape": shape,
            "fillmode": "overlay",
            "fgcolor": look.paper,
            "size": 6,
            "solidity": 0.15,
        },
    }


def legend_below_title(figure: go.Figure, look: Look) -> None:
    """Give the legend a row of its own under the title."""
    figure.update_layout(showlegend=True, margin_t=round(68 * look.scale))


def color_bar(title: str, look: Look, **more: Any) -> dict[str, Any]:
    """A heat map's scale, alike in all figures.

    Args:
        title: what the colors mean, with its unit; beside the bar.
        look: colors and scale.
        more: further properties of Plotly's ``colorbar``.
    """
    return {
        "title": {"text": title, "side": "right", "font": {"size": look.size(12)}},
        "thickness": 10,
        "outlinewidth": 0,
        "tickfont": {"size": look.size(11), "color": look.muted},
        **more,
    }


def log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Values and texts of a logarithmic axis from ``low`` to ``high``, both above zero.

    Decades where there are three of them; else 1, 2 and 5 of each; else even steps.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // MOST_TICKS + 1)
    decades = range(-(-first // every) * every, last + 1, every)
    for digits in ((1,), (1, 2, 5)):
        values = [float(f"{digit}e{power}") for power in decades for digit in digits]
        values = [value for value in values if low <= value <= high]
        if len(values) >= FEWEST_TICKS:
            return values, [_tick(value) for value in values]
    step = even_step((high - low) / FEWEST_TICKS)
    steps = range(math.ceil(low / step), int(high / step) + 1)
    values = [step * index for index in steps] or [low]
    return values, [_tick(value) for value in values]


def even_step(least: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is no larger than ``least``."""
    if least <= 0:
        return 1.0
    power = math.floor(math.log10(least))
    return max(x for d in (1, 2, 5) if (x := float(f"{d}e{power}")) <= least * (1 + 1e-9))


def _tick(value: float) -> str:
    """``0.02`` or, far from 1, a power of ten."""
    if 1e-4 <= value < 1e5:
        return f"{value:.6g}"
    digit, _, power = f"{value:.3e}".partition("e")
    factor = f"{float(digit):g}\u00d7" if float(digit) != 1 else ""
    return f"{factor}10<sup>{int(power)}</sup>"


def map_by_role(
    look: Look,
    *,
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    blocks: Sequence[int],
    roles: Sequence[str],
    legend: str,
    form: str,
) -> go.Heatmap:
    """The trace of a heat map of shares from 0 to 1: roles down, blocks across.

    Args:
        look: colors and scale.
        values: one row for each role; None where a block lacks it.
        texts: what a cell is called, in the same shape.
        blocks: flat indices.
        roles: their names.
        legend: title of the color bar.
        form: D3 format of a value in the color bar, and of the value that is hovered.
    """
    coarse, fine = form.split()
    return go.Heatmap(
        z=values,
        x=[str(block) for block in blocks],
        y=roles,
        customdata=texts,
        zmin=0,
        zmax=1,
        colorscale=look.intensity,
        xgap=1,
        ygap=1,
        colorbar=color_bar(legend, look, tickformat=coarse),
        hovertemplate=f"%{{customdata}}<br>%{{y}}, %{{x}}: %{{z:{fine}}}<extra></extra>",
        hoverongaps=False,
    )


def style_by_role(
    figure: go.Figure, look: Look, blocks: Sequence[int], roles: int, words: Mapping[str, str]
) -> go.Figure:
    """Layout of a figure with :func:`map_by_role`; ``words``: ``title``, ``x``, ``y``."""
    style(
        figure,
        look,
        title=words["title"],
        height=110 + max(130, 30 * roles),
        x=words["x"],
        y=words["y"],
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    step = max(1, len(blocks) // 15)
    figure.update_xaxes(
        type="category", showgrid=False, tickvals=[str(b) for b in blocks][::step], tickangle=0
    )
    return figure


CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "modeBarButtons": [["toImage"]],
    "scrollZoom": False,
}
"""Plotly configuration of every figure: the mode bar offers the PNG and nothing else."""
