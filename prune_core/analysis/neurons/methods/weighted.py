"""Activation times the norm of what it is written with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.recipes.parts import NEURON_METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from prune_core.analysis.neurons.statistics import NeuronStatistics


@NEURON_METHODS.register(
    "weighted",
    comparable=False,  # activations grow with depth
    place=20,
    texts={
        "en": {
            "title": "|activation| × column norm",
            "measures": "Mean of |activation| times the norm of the neuron's output column: how "
            "much it writes.",
        },
        "zh": {
            "title": "|激活| × 列范数",
            "measures": "|激活| 的平均乘以该神经元输出列的范数：它写出多少。",
        },
    },
)
def weighted(statistics: NeuronStatistics) -> dict[int, Tensor]:
    """Score by the mean absolute activation times the norm of the column of ``down``."""
    size = statistics.row("absolute")
    return {block: size[block] * statistics.norms[block] for block in statistics.blocks}
