"""Fluctuation: what a neuron's mean could not replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.recipes.parts import NEURON_METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from prune_core.analysis.neurons.statistics import NeuronStatistics


@NEURON_METHODS.register(
    "fluctuation",
    reference="https://arxiv.org/abs/2312.11983",
    comparable=False,  # activations grow with depth
    place=30,
    texts={
        "en": {
            "title": "Fluctuation",
            "measures": "Variance of the activation times the squared norm of its output column: "
            "what its mean could not replace (FLAP).",
        },
        "zh": {
            "title": "波动",
            "measures": "激活的方差乘以输出列范数的平方：其平均值无法替代的部分（FLAP）。",
        },
    },
)
def fluctuation(statistics: NeuronStatistics) -> dict[int, Tensor]:
    """Score by the activation's variance times the squared norm: FLAP's WIFV, arXiv 2312.11983."""
    variance = statistics.row("variance")
    norms = statistics.norms
    return {block: variance[block] * norms[block].square() for block in statistics.blocks}
