"""Jobs that hold recipes against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from prune_core.jobs.base import FIRST_RECIPE, Job
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class MaskOverlap(Job):
    """How far two recipes remove the same weights.

    Events: as in :class:`ScoreHistogram`, of the recipe that is being worked out.
    Result: ``layers``: list of dicts ``name``, ``block``, ``role``, ``numel``, ``ours`` and
    ``theirs`` (removed by either recipe), ``both``, ``either`` (counts) and ``jaccard`` (both /
    either, or None where neither removes anything); ``total``: the same fields over all layers;
    ``by_chance``: Jaccard that independent masks of the same counts would have, layer by layer.
    """

    recipe: Recipe = field(default_factory=Recipe)
    other: Recipe = field(default_factory=Recipe)
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class BlockDamage(Job):
    """What a recipe does to each block; formulas: ``prune_core.analysis.blocks.damage``.

    ``measure``: ``output`` (how far the blocks' outputs turn away from the dense model's) or
    ``loss`` (how much the loss rises when one block alone is pruned; about half a pass per block).
    Events: as in :class:`ScoreHistogram`, then ``stage`` ``blocks``, ``done``, ``total``.
    Result: ``measure``, ``tokens``, ``windows``, ``seconds``; with ``output``: ``own`` and
    ``accumulated``, with ``loss``: ``increase``; each a dict of ``mean`` and ``stderr``, lists over
    blocks (an error is None where there is but one part to take it over).
    """

    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 2
    measure: str = "output"
    deadline: ClassVar[float] = FIRST_RECIPE
