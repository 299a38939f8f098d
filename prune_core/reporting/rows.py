"""What slides and the page share: rows of the table of runs, answers with what is new in them."""

from __future__ import annotations

from typing import Any

from prune_core.evaluation.metrics import METRICS, metrics_of
from prune_core.figures.theme import visible
from prune_core.models.weight_counts import headline_share
from prune_core.reporting.content import Content
from prune_core.sweeps.axes import smallest_file
from prune_core.sweeps.frontier import Point
from prune_core.sweeps.names import method_names
from prune_core.sweeps.records import Run
from prune_core.words.catalogue import Words
from prune_core.words.numbers import (
    DASH,
    NBSP,
    counted_share,
    error_in,
    measured,
)


def run_table(content: Content, words: Words) -> list[dict[str, Any]]:
    """``cells`` and ``chosen`` (it is an option) by row, the head first; sorted by method."""
    heads = [words.t("report.col_method"), words.t("report.col_removed")]
    heads += [
        METRICS[content.found.quality].phrase("column", words.language),
        words.t("report.col_interval"),
    ]
    heads += [row.phrase("column", words.language) for row in metrics_of("beside")]
    heads += [words.t("report.col_size"), words.t("report.col_state")]
    head = {"cells": heads, "chosen": False}
    runs = {run.id: run for run in content.runs}
    options = {option.run.id for option in content.options}
    points = sorted(content.found.points, key=lambda p: (p.method, p.sparsity))
    labels = method_names((p.method for p in points), words, plain=True)
    rows = [
        {"cells": _cells(p, runs[p.run], words, labels[p.method]), "chosen": p.run in options}
        for p in points
    ]
    return [head, *rows]


def _cells(point: Point, run: Run, words: Words, label: str) -> list[str]:
    numbers, quality = run.numbers, point.quality
    file = smallest_file(numbers)
    size = DASH
    if file is not None:
        size = f"{'≈ ' if file.is_estimate else ''}{file.value / 1e6:,.3g} MB"
    error = error_in(quality.low, quality.high)
    removed = counted_share(point.sparsity)
    if headline_share(point.sparsity, point.added) != point.sparsity:
        removed += f" (+{counted_share(point.added)})"
    return [
        visible(label, 60),
        removed,
        measured(quality.value, error),
        DASH
        if error is None
        else f"{measured(quality.low, error)} {DASH} {measured(quality.high, error)}",
        *(
            row.written(numbers.get(row.name), numbers.get(row.error), absent=DASH)
            for row in metrics_of("beside")
        ),
        size,
        words.t_or(f"report.place_{point.state}", point.state),
    ]


def one_line(text: str) -> str:
    """A model's words on one line, nothing hidden in them."""
    joined = " ".join(text.split()).replace(" …", f"{NBSP}…")
    return visible(joined, 600) or DASH


def marked(dense: str, pruned: str) -> tuple[str, str]:
    """An answer parted into what it shares with the dense one from its start, and the rest.

    Parted before a word: half a word in another color would be hard to read.
    """
    same = 0
    while same < min(len(dense), len(pruned)) and dense[same] == pruned[same]:
        same += 1
    if same < len(pruned) and " " in pruned:
        same = pruned.rfind(" ", 0, same) + 1
    return pruned[:same], pruned[same:]
