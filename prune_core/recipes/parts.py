"""Heads, neurons and blocks that a recipe can drop: the fields, and a share of the neurons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prune_core.errors import RecipeError
from prune_core.recipes.checks import checked_sparsity
from prune_core.registry import Registry

NEURON_METHODS: Registry[Callable[..., Any]] = Registry(
    "neuron method", "prune_core.analysis.neurons.methods", ("title", "measures")
)
"""Scores of intermediate neurons; see ``prune_core.analysis.neurons.methods``.

Texts of an entry: ``title``, what it ``measures``.
"""

NEURON_METHOD = "mean-activation"
"""The one that is taken where none is named."""

NEURON_SCOPES = ("block", "global")

HEAD_FIELDS = {"self": "drop_heads", "cross": "drop_cross_heads"}
"""Field that names dropped heads, by kind of attention."""

PAIRED = (*HEAD_FIELDS.values(), "drop_neurons")
"""Fields that name parts of blocks, as (block, part) pairs."""

WHOLE = ("drop_blocks", "drop_attention", "drop_mlp")
"""Fields that name blocks."""

STRUCTURE = (*PAIRED, *WHOLE)
"""Fields of a recipe that remove whole parts."""


@dataclass(frozen=True, slots=True)
class NeuronShare:
    """A share of the intermediate neurons that goes, least important first on a calibration text.

    Attributes:
        fraction: 0 to 1; rounded to whole neurons, ties by position.
        method: one of :data:`NEURON_METHODS`.
        scope: ``block`` (the same share of each block) or ``global`` (all neurons compete,
            by scores standardized within their block).
    """

    fraction: float
    method: str = NEURON_METHOD
    scope: str = "block"

    def __post_init__(self) -> None:
        fraction = checked_sparsity(self.fraction, "the fraction of neurons")
        object.__setattr__(self, "fraction", fraction)
        if self.method not in NEURON_METHODS:
            raise RecipeError(
                "unknown neuron method {method!r}; use {known:list}.",
                method=self.method,
                known=NEURON_METHODS,
            )
        if self.scope not in NEURON_SCOPES:
            raise RecipeError(
                "unknown neuron scope {scope!r}; use {known:or}.",
                scope=self.scope,
                known=NEURON_SCOPES,
            )
