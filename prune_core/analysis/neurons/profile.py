"""The neurons of a whole model at a glance: binned scores, what a share takes, dead and rare."""

from __future__ import annotations

from typing import Any

import numpy as np

from prune_core.analysis.neurons.statistics import NeuronStatistics
from prune_core.analysis.selection import global_counts
from prune_core.errors import RecipeError
from prune_core.progress import NONE, Progress
from prune_core.recipes.parts import NEURON_METHODS

MAX_BINS = 256
PERCENTS = 100
ENDS = 5
"""Neurons named at either end of each block."""


def neuron_profile(
    statistics: NeuronStatistics, bins: int, progress: Progress = NONE
) -> dict[str, Any]:
    """What a page shows of all neurons, small enough for a browser.

    Args:
        statistics: of a text.
        bins: places along each block's sorted neurons, 2 to 256.
        progress: a cancel is seen between methods.

    Returns:
        ``blocks`` (flat indices), ``sizes``, ``dead``, ``rare`` (counts by block), ``tokens``
        (read) and for each method under ``methods``: ``scores`` and ``neurons``, (block x bins)
        nested lists of the score and the index of the neuron in the middle of each bin, lowest
        first; ``least`` and ``most``, (block x 5) indices; ``gone``: ``gone[p][b]`` neurons that
        block b loses where all compete for a share of p percent, p from 0 to 100.

    Raises:
        RecipeError: a number of bins out of range.
        Cancelled: by ``progress``.
    """
    if not 2 <= bins <= MAX_BINS:
        raise RecipeError(
            "the number of bins must lie between 2 and {most}, got {bins}.",
            most=MAX_BINS,
            bins=bins,
        )
    methods = {}
    for method in NEURON_METHODS:
        progress.check("Cancelled while neurons were sorted.")
        rows = [row.numpy() for row in statistics.scores(method).values()]
        orders = [np.argsort(row, kind="stable") for row in rows]
        competing = [row.numpy() for row in statistics.compared(method, "global").values()]
        places = [
            order[((np.arange(bins) + 0.5) / bins * len(order)).astype(np.int64)]
            for order in orders
        ]
        methods[method] = {
            "scores": [row[place].tolist() for row, place in zip(rows, places, strict=True)],
            "neurons": [place.tolist() for place in places],
            "least": [order[:ENDS].tolist() for order in orders],
            "most": [order[::-1][:ENDS].tolist() for order in orders],
            "gone": [
                global_counts(competing, orders, percent / PERCENTS)
                for percent in range(PERCENTS + 1)
            ],
        }
    return {
        "blocks": list(statistics.blocks),
        "sizes": [len(row) for row in statistics.norms.values()],
        "dead": [int(row.sum()) for row in statistics.dead.values()],
        "rare": [int(row.sum()) for row in statistics.rare.values()],
        "tokens": statistics.tokens,
        "methods": methods,
    }
