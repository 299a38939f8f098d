"""Jobs that measure a recipe or write with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from prune_core.jobs.base import FIRST_RECIPE, Job
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Evaluate(Job):
    """Apply a recipe and measure it on a text, window by window.

    Events and result: ``prune_core.evaluation.evaluation.Evaluation`` as plain data: what is known
    so far, and at the end that with strip, numbers of each window and protocol. While the recipe is
    worked out ``done`` and ``total`` say how far its present stage is.
    """

    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 8
    priority: ClassVar[int] = 0
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class Generate(Job):
    """Continue a prompt with the pruned model and, in step, with the dense one.

    Events while the recipe is worked out: as :class:`ScoreHistogram`.
    Events then, and result: ``prompt_tokens`` (count), ``pruned`` and ``dense`` (None unless asked
    for): each ``text`` so far, ``pieces`` (token texts), ``ids`` (tokens), ``finished`` (bool);
    ``divergence``: index of the first differing token, or None; ``tokens_per_second`` (of both
    together).
    """

    recipe: Recipe = field(default_factory=Recipe)
    prompt: str = ""
    max_new_tokens: int = 64
    greedy: bool = True
    seed: int = 0
    temperature: float = 0.8
    top_p: float = 0.95
    chat: bool = False
    with_dense: bool = True
    priority: ClassVar[int] = 2
    deadline: ClassVar[float] = FIRST_RECIPE
