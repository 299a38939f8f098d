"""Jobs that measure a recipe on a question's text, or confirm it on text the question left out."""

from __future__ import annotations

from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.sweeps import MeasureCell
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.records import Cell


def measure_job(question: Cell, recipe: Recipe) -> Evaluate:
    """The question's text and windows, under another recipe."""
    size = (question.seq_len, question.windows)
    return Evaluate(question.source, recipe, question.text, *size)


def held_out_job(question: Cell, recipe: Recipe, text: TextSpec | None = None) -> MeasureCell:
    """What confirms a recipe: another text, or as many windows of the question's that follow."""
    size = (question.seq_len, question.windows)
    if text is not None and text != question.text:
        return MeasureCell(question.source, recipe, text, *size)
    return MeasureCell(question.source, recipe, question.text, *size, start=question.windows)
