"""Mean activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.recipes.parts import NEURON_METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from prune_core.analysis.neurons.statistics import NeuronStatistics


@NEURON_METHODS.register(
    "mean-activation",
    comparable=False,  # activations grow with depth
    place=0,
    texts={
        "en": {
            "title": "Mean |activation|",
            "measures": "Mean of |activation| over the calibration text.",
        },
        "zh": {
            "title": "平均 |激活|",
            "measures": "校准文本上 |激活| 的平均。",
        },
    },
)
def mean_activation(statistics: NeuronStatistics) -> dict[int, Tensor]:
    """Score each neuron by its mean absolute activation."""
    return statistics.row("absolute")
