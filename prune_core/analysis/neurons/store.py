"""What a loaded model knows of its neurons: statistics of texts, shares worked out, biases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prune_core.analysis.neurons.details import block_activations
from prune_core.analysis.neurons.statistics import NeuronStatistics, mlp_layers, neuron_statistics
from prune_core.analysis.selection import lowest
from prune_core.errors import RecipeError
from prune_core.evaluation.reference import windows_fingerprint
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.structure import Block
from prune_core.progress import NONE, Progress
from prune_core.pruning.plan import CutPlan
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe

KEPT = 2
"""Texts whose statistics stay in memory: the one calibrated on, and one that is looked at."""


class NeuronStore:
    """Statistics of a model's neurons by text, and what follows from them.

    Args:
        handle: the dense model.
    """

    def __init__(self, handle: ModelHandle) -> None:
        self._handle = handle
        self._statistics: dict[str, NeuronStatistics] = {}
        self._last: tuple[str, tuple[Tensor, Tensor]] | None = None
        self._shares: dict[tuple[str, NeuronShare], tuple[tuple[int, int], ...]] = {}

    def statistics(
        self,
        windows: Tensor | Sequence[Tensor],
        *,
        progress: Progress = NONE,
    ) -> NeuronStatistics:
        """Of a text's token windows; the last few texts are remembered, all are kept on disk.

        Raises:
            RecipeError: a model without MLPs.
            ModelFileError, Cancelled: see
                ``prune_core.analysis.neurons.statistics.gather_neurons``.
        """
        tokens = windows if isinstance(windows, Tensor) else torch.stack(list(windows))
        key = windows_fingerprint(list(tokens))
        statistics = self._statistics.pop(key, None)
        if statistics is None:
            statistics = neuron_statistics(
                self._handle.model,
                self._handle.structure,
                self._handle.fingerprint,
                tokens,
                progress=progress,
            )
        self._statistics[key] = statistics
        while len(self._statistics) > KEPT:
            self._statistics.pop(next(iter(self._statistics)))
        return statistics

    def activations(
        self,
        block: Block,
        down: str,
        windows: Sequence[Tensor],
        *,
        progress: Progress = NONE,
    ) -> tuple[Tensor, Tensor]:
        """Of one block on a text, see ``analysis.neurons.details``; the last is remembered."""
        key = f"{block.index} {windows_fingerprint(list(windows))}"
        if self._last is None or self._last[0] != key:
            model, structure = clone_shared(self._handle.model), self._handle.structure
            result = block_activations(model, structure, block, down, windows, progress=progress)
            self._last = (key, result)
        return self._last[1]

    def check(self, recipe: Recipe) -> None:
        """Refuse what no calibration text can help, before one is read.

        Raises:
            RecipeError: neurons to remove but no MLP, or a mean to add but no place for it.
        """
        model, structure = self._handle.model, self._handle.structure
        downs = mlp_layers(structure, "mlp.down")
        if not downs:
            raise RecipeError("This model has no MLP, so it has no intermediate neurons.")
        if recipe.compensate and not has_bias_place(model, downs.values()):
            raise RecipeError(
                "a {family} model has no bias in its MLPs and its configuration has no place for "
                "one, so what dropped neurons gave on average cannot be added back; switch "
                "compensation off.",
                family=structure.family,
            )

    def resolved(self, recipe: Recipe, statistics: NeuronStatistics) -> Recipe:
        """The same recipe with its share of neurons as named ones, beside those it names."""
        if recipe.neurons is None:
            return recipe
        weakest = self.weakest(recipe.neurons, statistics)
        neurons = tuple(sorted({*recipe.drop_neurons, *weakest}))
        return replace(recipe, neurons=None, drop_neurons=neurons)

    def weakest(
        self, share: NeuronShare, statistics: NeuronStatistics
    ) -> tuple[tuple[int, int], ...]:
        """(block, neuron) pairs of a share; the last one is remembered."""
        key = (statistics.fingerprint, share)
        if key not in self._shares:
            rows = [row.numpy() for row in statistics.compared(share.method, share.scope).values()]
            neurons = lowest(statistics.blocks, rows, share.fraction, share.scope)
            self._shares = {key: neurons}
        return self._shares[key]

    def compensated(self, plan: CutPlan, statistics: NeuronStatistics) -> CutPlan:
        """The plan with what dropped neurons gave on average in the biases of ``mlp.down``.

        For each block W_down[:, dropped] @ mean(a_dropped), of the dense weights (FLAP, arXiv
        2312.11983). A block that loses its whole MLP loses its bias too and gets nothing.

        Args:
            plan: of a recipe that asks for it.
            statistics: of its calibration text.
        """
        model, structure = self._handle.model, self._handle.structure
        means = statistics.row("mean")
        cuts, biases = dict(plan.cuts), {}
        for block, name in mlp_layers(structure, "mlp.down").items():
            if not cuts[name].columns:
                continue
            dropped = torch.tensor(cuts[name].columns)
            columns = structure.layers[name].weight(model).cpu()[:, dropped].double()
            biases[name] = columns @ means[block][dropped]
            cuts[name] = replace(cuts[name], bias=statistics.fingerprint)
        return replace(plan, cuts=cuts, biases=biases)


def has_bias_place(model: Any, layers: Iterable[str]) -> bool:
    """True if the last layers of all MLPs have a bias, or the configuration can give them one.

    Llama and SmolLM3 have ``mlp_bias``, off by default; T5, Mistral, Qwen, Gemma and Phi-3 have
    no such switch.
    """
    own = all(getattr(model.get_submodule(name), "bias", None) is not None for name in layers)
    return own or hasattr(model.config, "mlp_bias")
