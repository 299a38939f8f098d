"""Firing frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.recipes.parts import NEURON_METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from prune_core.analysis.neurons.statistics import NeuronStatistics


@NEURON_METHODS.register(
    "firing",
    place=10,
    texts={
        "en": {
            "title": "Firing frequency",
            "measures": "Share of the tokens on which the neuron's activation is above zero. "
            "(With a gate, dead and rare neurons are counted by the gate: an activation can be "
            "above zero through a gate that is all but shut.)",
        },
        "zh": {
            "title": "激活频率",
            "measures": "神经元激活值大于零的词元比例。（有门时，死亡与稀有神经元按门计数：门几乎"
            "关闭时激活值仍可能大于零。）",
        },
    },
)
def firing(statistics: NeuronStatistics) -> dict[int, Tensor]:
    """Score each neuron by the share of tokens with an activation above 0."""
    return statistics.row("firing")
