"""Building blocks of slides: text that fits its box, cards, tables, charts. python-pptx below.

All measures are in points (a slide is 960 x 540). Type is never smaller than ``LEAST``: what does
not fit even so is cut at a word with an ellipsis.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.shapes import MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.oxml.ns import qn
from pptx.util import Pt

from prune_core.reporting.fonts import lines

WIDTH, HEIGHT = 960, 540
MARGIN = 48
LEAST = 14.0
LINE = 1.2
"""Height of a line over the type's size."""

LATIN, CHINESE = "Arial", "Microsoft YaHei"
INK, MUTED, PAPER, SURFACE, RULE = "24292E", "5C6168", "FFFFFF", "F4F2EC", "D9D5CA"
BLUE, ORANGE, ORANGE_DARK = "0072B2", "D55E00", "B54D00"


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text of one look."""

    text: str
    color: str = INK
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """A place on a slide, in points."""

    x: float
    y: float
    w: float
    h: float


def fitted(
    text: str, box: Box, size: float, *, bold: bool = False, gap: float = 0.0
) -> tuple[str, float]:
    """The largest type up to ``size`` in which a text fits a box, and the text, cut if need be."""
    paragraphs = text.count("\n")
    while True:
        room = box.h - paragraphs * gap * size
        broken = lines(text, size, box.w, bold=bold)
        if len(broken) * size * LINE <= room + 0.01:
            return text, size
        if size <= LEAST:
            break
        size = max(LEAST, size - 1)
    most = max(1, int((room + 0.01) // (size * LINE)))
    cut = text
    while len(lines(f"{cut}…", size, box.w, bold=bold)) > most and cut:
        shorter = cut.rstrip().rsplit(" ", 1)[0] if " " in cut.strip() else cut[:-1]
        cut = shorter if len(cut) - len(shorter) < 30 else cut[:-1]
    return f"{cut.rstrip()}…", size


def type_of(font: Any, size: float, color: str, *, bold: bool = False) -> None:
    """Set a python-pptx font: its size in points, its color, the faces of both languages."""
    font.size, font.bold, font.name = Pt(size), bold, LATIN
    font.color.rgb = RGBColor.from_string(color)
    font._element.append(font._element.makeelement(qn("a:ea"), {"typeface": CHINESE}))


class Deck:
    """A presentation that is being written.

    Args:
        language: ``en`` or ``zh``: decides the font of Chinese text and the language tag.
        title: of the document.
    """

    def __init__(self, language: str, title: str) -> None:
        self.language = language
        self.file = Presentation()
        self.file.slide_width, self.file.slide_height = Pt(WIDTH), Pt(HEIGHT)
        properties = self.file.core_properties
        properties.title, properties.author, properties.subject = title[:250], "Prunescope", ""
        properties.language = "zh-CN" if language == "zh" else "en-US"

    def slide(self, title: str = "", foot: str = "") -> Slide:
        """A new slide with its title as the outline's title, and a foot line with the number."""
        layout = self.file.slide_layouts[5]  # title only
        slide = Slide(self, self.file.slides.add_slide(layout))
        slide.head(title)
        if foot:
            slide.foot(foot, len(self.file.slides))
        return slide

    def saved(self) -> bytes:
        """The file."""
        out = io.BytesIO()
        self.file.save(out)
        return out.getvalue()


class Slide:
    """One slide; see :meth:`Deck.slide`."""

    def __init__(self, deck: Deck, slide: Any) -> None:
        self.deck, self.slide = deck, slide

    def head(self, title: str, box: Box | None = None, size: float = 30, color: str = INK) -> None:
        """The title, in the layout's own placeholder, so that outlines and readers find it."""
        box = box or Box(MARGIN, 30, WIDTH - 2 * MARGIN, 44)
        shape = self.slide.shapes.title
        shape.left, shape.top, shape.width, shape.height = map(Pt, (box.x, box.y, box.w, box.h))
        self._fill(shape.text_frame, [[Piece(title, color, bold=True)]], box, size, anchor="middle")

    def foot(self, text: str, number: int) -> None:
        """A quiet line below."""
        self.text(Box(MARGIN, 504, 780, 20), text, size=14, color=MUTED)
        box = Box(WIDTH - MARGIN - 60, 504, 60, 20)
        self.text(box, str(number), size=14, color=MUTED, align="right")

    def text(
        self,
        box: Box,
        text: str | Sequence[Piece],
        *,
        size: float = 18,
        color: str = INK,
        bold: bool = False,
        align: str = "left",
        anchor: str = "top",
        gap: float = 0.0,
    ) -> float:
        """A text box; ``\\n`` parts paragraphs, ``gap`` lines apart. Returns the size it has."""
        shape = self.slide.shapes.add_textbox(*map(Pt, (box.x, box.y, box.w, box.h)))
        pieces = [Piece(text, color, bold)] if isinstance(text, str) else list(text)
        paragraphs: list[list[Piece]] = [[]]
        for piece in pieces:
            for place, part in enumerate(piece.text.split("\n")):
                if place:
                    paragraphs.append([])
                if part:
                    paragraphs[-1].append(Piece(part, piece.color, piece.bold))
        return self._fill(
            shape.text_frame, paragraphs, box, size, align=align, anchor=anchor, gap=gap
        )

    def _fill(
        self,
        frame: Any,
        paragraphs: Sequence[Sequence[Piece]],
        box: Box,
        size: float,
        *,
        align: str = "left",
        anchor: str = "top",
        gap: float = 0.0,
    ) -> float:
        whole = "\n".join("".join(piece.text for piece in part) for part in paragraphs)
        bold = any(piece.bold for part in paragraphs for piece in part)
        text, size = fitted(whole, box, size, bold=bold, gap=gap)
        frame.word_wrap = True
        frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = 0
        places = {"top": MSO_ANCHOR.TOP, "middle": MSO_ANCHOR.MIDDLE, "bottom": MSO_ANCHOR.BOTTOM}
        frame.vertical_anchor = places[anchor]
        sides = {"left": PP_ALIGN.LEFT, "center": PP_ALIGN.CENTER, "right": PP_ALIGN.RIGHT}
        left = len(text) - (text != whole)  # characters that are kept of the whole
        for place, pieces in enumerate(paragraphs):
            if place and left <= 0:
                break
            paragraph = frame.paragraphs[0] if place == 0 else frame.add_paragraph()
            paragraph.alignment = sides[align]
            paragraph.line_spacing = 1.0
            if place:
                paragraph.space_before = Pt(gap * size)
                left -= 1
            for piece in pieces:
                kept, left = piece.text[: max(0, left)], left - len(piece.text)
                if kept:
                    self._run(paragraph, kept + ("…" if left < 0 else ""), piece, size)
                if left <= 0 and text != whole:
                    break
        return size

    def _run(self, paragraph: Any, text: str, piece: Piece, size: float) -> None:
        run = paragraph.add_run()
        run.text = text
        type_of(run.font, size, piece.color, bold=piece.bold)
        run._r.get_or_add_rPr().set("lang", "zh-CN" if self.deck.language == "zh" else "en-US")

    def panel(self, box: Box, *, fill: str = SURFACE, bar: str = "") -> None:
        """A plain card, with a colored bar on its top edge."""
        shape = self.slide.shapes.add_shape(
            MSO_SHAPE.RECTANGLE, *map(Pt, (box.x, box.y, box.w, box.h))
        )
        self._plain(shape, fill)
        if bar:
            top = self.slide.shapes.add_shape(
                MSO_SHAPE.RECTANGLE, *map(Pt, (box.x, box.y, box.w, 5))
            )
            self._plain(top, bar)

    @staticmethod
    def _plain(shape: Any, fill: str) -> None:
        shape.fill.solid()
        shape.fill.fore_color.rgb = RGBColor.from_string(fill)
        shape.line.fill.background()
        style = shape._element.find(qn("p:style"))
        if style is not None:  # a theme's outline and shadow
            shape._element.remove(style)

    def chart(self, kind: Any, data: Any, box: Box, description: str) -> Any:
        """A chart of PowerPoint's own with its workbook; gives python-pptx's chart to style."""
        place = map(Pt, (box.x, box.y, box.w, box.h))
        frame = self.slide.shapes.add_chart(kind, *place, data)
        frame._element.nvGraphicFramePr.cNvPr.set("descr", description)
        return frame.chart

    def table(
        self,
        box: Box,
        rows: Sequence[Sequence[str]],
        widths: Sequence[float],
        *,
        numbers_from: int = 1,
        bold: Sequence[int] = (),
    ) -> None:
        """A table as text in columns: the first row is the head, columns from ``numbers_from``
        on are set to the right."""
        height = box.h / len(rows)
        x = box.x
        rule = Box(box.x, box.y + height - 2, box.w, 1.2)
        self.panel(rule, fill=RULE)
        for column, share in enumerate(widths):
            room = share * box.w
            for place, row in enumerate(rows):
                cell = Box(x, box.y + place * height, room - 10, height)
                self.text(
                    cell,
                    row[column],
                    size=14,
                    color=MUTED if place == 0 else INK,
                    bold=place in bold,
                    align="right" if column >= numbers_from else "left",
                    anchor="middle",
                )
            x += room

    def notes(self, text: str) -> None:
        """What only the presenter sees."""
        self.slide.notes_slide.notes_text_frame.text = text
