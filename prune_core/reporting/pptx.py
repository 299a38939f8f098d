"""The slides: title, the one picture, the options, example answers, method and limits, recipes."""

from __future__ import annotations

from prune_core.figures.theme import visible
from prune_core.reporting.chart import tradeoff
from prune_core.reporting.content import Content, Example
from prune_core.reporting.rows import marked, one_line, run_table
from prune_core.reporting.slides import (
    BLUE,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    ORANGE_DARK,
    WIDTH,
    Box,
    Deck,
    Piece,
    Slide,
)
from prune_core.reporting.telling import Story, removed_label, tell
from prune_core.words.catalogue import Words
from prune_core.words.numbers import day

ROOM = WIDTH - 2 * MARGIN
ROWS = 16
"""Runs on one slide of the table."""

MOST_RUNS = 4 * ROWS
"""Of more runs the table shows the first: all are in the CSV."""


def presentation(content: Content) -> bytes:
    """The report as PPTX."""
    words = Words(content.language)
    story = tell(content, words)
    deck = Deck(content.language, story.title)
    _title(deck, content, story, words)
    _picture(deck, content, story, words)
    _options(deck, story)
    for example in content.examples:
        _example(deck, content, example, story, words)
    _method(deck, story, words)
    if content.audience == "technical":
        _conditions(deck, story, words)
        _runs(deck, content, story, words)
    _recipes(deck, content, story, words)
    return deck.saved()


def _title(deck: Deck, content: Content, story: Story, words: Words) -> None:
    slide = deck.slide()
    slide.panel(Box(0, 0, 16, 540), fill=BLUE)
    slide.panel(Box(16, 0, 5, 540), fill=ORANGE)
    slide.head(story.title, Box(84, 166, ROOM - 40, 60), 44)
    slide.text(Box(84, 246, ROOM - 40, 32), words.t("report.about"), size=22, color=MUTED)
    slide.text(Box(84, 312, ROOM - 60, 90), story.summary, size=26, color=ORANGE_DARK, bold=True)
    slide.text(
        Box(84, 482, ROOM - 40, 22),
        words.t("report.made_by", date=day(content.made)),
        size=14,
        color=MUTED,
    )


def _foot(story: Story) -> str:
    return story.title


def _picture(deck: Deck, content: Content, story: Story, words: Words) -> None:
    slide = deck.slide(story.picture, _foot(story))
    tradeoff(slide, Box(MARGIN, 82, ROOM, 380), content, words)
    slide.text(Box(MARGIN, 466, ROOM, 34), story.conditions_line, size=14, color=MUTED)
    slide.notes("\n".join([story.summary, story.conditions_line, *story.notices]))


def _options(deck: Deck, story: Story) -> None:
    slide = deck.slide(story.options_title, _foot(story))
    gap = 20.0
    width = (ROOM - 2 * gap) / 3
    start = MARGIN + (ROOM - len(story.cards) * (width + gap) + gap) / 2
    for place, card in enumerate(story.cards):
        x = start + place * (width + gap)
        slide.panel(Box(x, 92, width, 358), bar=(BLUE, ORANGE, ORANGE_DARK)[place])
        inner = width - 36
        x += 18
        slide.text(Box(x, 110, inner, 22), card.label, size=16, color=MUTED, bold=True)
        slide.text(Box(x, 134, inner, 40), card.removed, size=30, bold=True, anchor="middle")
        slide.text(Box(x, 178, inner, 38), card.method, size=14, color=MUTED)
        y = 214.0 if len(card.facts) > 3 else 226.0
        room = (382 - y) / len(card.facts)
        for label, value in card.facts:
            slide.text(Box(x, y, inner, 18), label, size=14, color=MUTED)
            slide.text(Box(x, y + 18, inner, room - 18), value, size=15, bold=True)
            y += room
        slide.text(Box(x, 384, inner, 56), card.verdict, size=15, color=ORANGE_DARK)
    slide.text(Box(MARGIN, 466, ROOM, 34), story.conditions_line, size=14, color=MUTED)


def _example(deck: Deck, content: Content, example: Example, story: Story, words: Words) -> None:
    slide = deck.slide(words.t("report.examples_title"), _foot(story))
    slide.text(
        Box(MARGIN, 80, ROOM, 40),
        [
            Piece(f"{words.t('report.prompt')}: ", MUTED),
            Piece(one_line(example.prompt), INK, bold=True),
        ],
        size=17,
        anchor="middle",
    )
    answers = [(words.t("report.dense_answer"), "", example.dense, BLUE)]
    colors = (BLUE, ORANGE, ORANGE_DARK)
    for place, (option, card) in enumerate(zip(content.options, story.cards, strict=True)):
        label = removed_label(option, words)
        answers.append((card.label, label, example.pruned[option.name], colors[place]))
    gap = 18.0
    width, height = (ROOM - gap) / 2, 166.0
    for place, (name, label, text, color) in enumerate(answers):
        x, y = MARGIN + (place % 2) * (width + gap), 126 + (place // 2) * (height + gap)
        slide.panel(Box(x, y, width, height), bar=color)
        head = [Piece(name, INK, bold=True)] + ([Piece(f"   {label}", MUTED)] if label else [])
        slide.text(Box(x + 16, y + 14, width - 32, 20), head, size=15)
        pieces = _pieces(example.dense, text) if place else [Piece(one_line(text))]
        slide.text(Box(x + 16, y + 40, width - 32, height - 50), pieces, size=17)
    slide.text(Box(MARGIN, 480, ROOM, 20), words.t("report.examples_note"), size=14, color=MUTED)


def _pieces(dense: str, pruned: str) -> list[Piece]:
    same, new = marked(one_line(dense), one_line(pruned))
    return [piece for piece in (Piece(same), Piece(new, ORANGE_DARK)) if piece.text]


def _method(deck: Deck, story: Story, words: Words) -> None:
    how, limits = words.t("report.how_title"), words.t("report.limits_title")
    slide = deck.slide(words.t("report.method_title"), _foot(story))
    gap = 36.0
    width = (ROOM - gap) / 2
    for x, title, told, color in (
        (MARGIN, how, story.how, BLUE),
        (MARGIN + width + gap, limits, story.limits, ORANGE_DARK),
    ):
        slide.text(Box(x, 92, width, 26), title, size=18, color=color, bold=True)
        slide.text(Box(x, 126, width, 330), "\n".join(told), size=19, gap=0.5)
    if story.notices:
        slide.text(Box(MARGIN, 462, ROOM, 36), " ".join(story.notices), size=14, color=MUTED)


def _conditions(deck: Deck, story: Story, words: Words) -> None:
    slide = deck.slide(words.t("report.conditions_title"), _foot(story))
    height = min(32.0, 330 / len(story.conditions))
    for place, (label, value) in enumerate(story.conditions):
        y = 92 + place * height
        slide.text(Box(MARGIN, y, 220, height - 4), label, size=16, color=MUTED, anchor="middle")
        slide.text(Box(MARGIN + 236, y, ROOM - 236, height - 4), value, size=16, anchor="middle")
    if story.notices:
        box = Box(MARGIN, 430, ROOM, 66)
        slide.text(box, "\n".join(story.notices), size=14, color=MUTED)


def _runs(deck: Deck, content: Content, story: Story, words: Words) -> None:
    t = words.t
    head, *body = run_table(content, words)
    body = body[:MOST_RUNS]
    pages = [body[i : i + ROWS] for i in range(0, len(body), ROWS)]
    for number, page in enumerate(pages, 1):
        title = t("report.all_runs")
        if len(pages) > 1:
            title = t("report.page_of", title=title, page=number, pages=len(pages))
        slide = deck.slide(title, _foot(story))
        rows = [head["cells"], *(row["cells"] for row in page)]
        marked_rows = [i for i, row in enumerate(page, 1) if row["chosen"]]
        widths = (0.26, 0.085, 0.105, 0.165, 0.07, 0.105, 0.125, 0.085)
        box = Box(MARGIN, 88, ROOM + 10, min(30.0, 396 / len(rows)) * len(rows))
        slide.table(box, rows, widths, bold=marked_rows)


def _recipes(deck: Deck, content: Content, story: Story, words: Words) -> None:
    slide = deck.slide(words.t("report.appendix"), _foot(story))
    height = 110.0
    y = 88.0
    for card in story.cards:
        _recipe(slide, Box(MARGIN, y, ROOM, height), card.label, card.removed, card.command)
        y += height + 10
    slide.text(Box(MARGIN, 478, ROOM, 20), words.t("report.recipes_note"), size=14, color=MUTED)
    slide.notes(
        "\n\n".join(f"{o.name}: {o.point.recipe.to_json()}" for o in content.options)[:20_000]
    )


def _recipe(slide: Slide, box: Box, label: str, removed: str, command: str) -> None:
    slide.panel(box)
    head = [Piece(label, INK, bold=True), Piece(f"   {removed}", MUTED)]
    slide.text(Box(box.x + 16, box.y + 10, box.w - 32, 20), head, size=15)
    told = Box(box.x + 16, box.y + 36, box.w - 32, box.h - 44)
    slide.text(told, visible(command, 2000), size=14)
