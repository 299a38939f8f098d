"""Jobs about blocks and layers: importance, ablation, greedy removal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prune_core.jobs.base import FIRST_RECIPE, Job
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.registry import Registry

BLOCK_METHODS: Registry[Callable[..., Any]] = Registry(
    "block method", "prune_core.analysis.blocks.methods", ("title", "measures")
)
"""Scores of blocks; see ``prune_core.analysis.blocks.methods``.

Needs: ``loss`` where many passes measure it. Texts of an entry: ``title``, what it ``measures``.
"""

COST_UNITS = {"loss": "nats per token", "classes": "nats per window", "distance": "1 - cosine"}
"""What the cost of a part is counted in, by the ``metric`` of its job."""


@dataclass(frozen=True, slots=True)
class BlockImportance(Job):
    """Block influence and angular distances; see ``prune_core.analysis.blocks.influence``.

    Events: ``done``, ``total`` windows.
    Result: ``influence``, ``angular``, ``tokens``, ``seconds``.
    """

    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 4
    priority: ClassVar[int] = 0  # as short as an evaluation, and what its page is about
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class BlockAblation(Job):
    """Loss without each block minus the dense loss, signed; see ``engine.block_ablation``.

    ``parts``: of ``block``, ``attention`` and ``mlp``: the whole block, or only that half of it.
    Events and result: ``stage``; ``metric`` (``loss`` in nats per token; ``classes``, the loss of
    the dense model's class in nats per window, for encoders with a classification head; or
    ``distance``: 1 - cosine of the sentence embeddings, for those without); for each part a dict
    of ``mean`` and ``stderr`` by block (None where nothing is known yet, or the block lacks that
    half);
    ``window`` (windows done), ``windows``, ``done``, ``total`` (units of work),
    ``seconds_left`` (or None), ``nll_dense``. The result has in addition ``tokens``, ``seconds``.
    """

    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 4
    parts: tuple[str, ...] = ("block",)
    deadline: ClassVar[float] = 3600.0


@dataclass(frozen=True, slots=True)
class GreedyBlocks(Job):
    """Blocks removed one at a time, the cheapest first, scored again after each.

    ``steps``: how many go. ``ends``: the first and the last block of a stack may go too.
    Events and result: ``stage``; ``metric`` (``perplexity``, or ``classes`` or ``distance`` as in
    :class:`BlockAblation`), ``dense`` (its value without removals), ``step`` (found so far),
    ``steps``; ``path``: list of dicts ``block`` (that went),
    ``blocks`` (all that are gone then), ``value``, ``low``, ``high`` (95 %, from the paired
    difference to dense; or None), ``delta``, ``delta_stderr`` (nats, or 1 - cosine),
    ``costs`` (by block: what each candidate would have cost, None for the others); ``trying``: the
    costs of the step that is being found; ``done``, ``total``, ``seconds_left``. The result has
    in addition ``tokens``, ``seconds``. What was found is kept: the same job with more steps, or
    after it was cancelled, goes on from there.
    """

    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 2
    steps: int = 4
    ends: bool = False
    deadline: ClassVar[float] = 3600.0


@dataclass(frozen=True, slots=True)
class LayerImportance(Job):
    """One number for each layer.

    ``method``: ``ablation`` (loss with the layer's output set to zero minus the dense loss) or
    ``score``: the mean score of the recipe's criterion over the layer's weights.
    Events: ``stage``, ``done``, ``total``, of ablation also ``seconds_left``.
    Result: ``layers`` (names in forward order), ``blocks``, ``roles``, ``scores``, ``stderr`` (None
    for ``score``), ``tokens`` (0 where no text was read), ``seconds``.
    """

    method: str = "score"
    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 4
    deadline: ClassVar[float] = 3600.0
