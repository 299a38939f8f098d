"""Jobs about weights: the table of layers and histograms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from prune_core.jobs.base import FIRST_RECIPE, Job
from prune_core.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class LayerTable(Job):
    """Statistics of every layer's dense weights, and what the recipe removes of each.

    Events: ``done``, ``total`` (layers read), then as :class:`ScoreHistogram`.
    Result: ``rows``: list of dicts with ``name``, ``block``, ``stack``, ``role``, ``rows``,
    ``columns``, ``numel``, ``mean_abs``, ``std``, ``kurtosis``, ``zeros`` (count), ``norm``
    (Frobenius), ``q01``, ``q25``, ``q50``, ``q75``, ``q99`` (quantiles of |w|), ``max_abs``,
    ``distinct_share`` (distinct |w| / numel: small = quantized source), ``removed`` (count under
    the recipe); ``left_dense``. With ``scored`` each row has in addition what the recipe's
    criterion gives in the dense model: ``score_mean``, ``score_std``, ``score_zeros`` (count),
    ``score_q01``, ``score_q25``, ``score_q50``, ``score_q75``, ``score_q99``, ``score_max``.
    """

    recipe: Recipe = field(default_factory=Recipe)
    scored: bool = False
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class Histograms(Job):
    """Histograms of |w| of chosen layers on common bins.

    Events: as :class:`ScoreHistogram`.
    Result: ``edges`` (bins + 1 values of |w|), ``layers``: list of dicts ``name``, ``block``,
    ``role``, ``counts`` (per bin), ``removed_counts`` (per bin, under the recipe),
    ``cut`` (|w| of the largest removed weight, or None), ``numel``, ``removed``.
    """

    layers: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    bins: int = 128
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class ScoreHistogram(Job):
    """Histogram of one layer's scores under the recipe's criterion, in the dense model.

    Events: ``stage`` (``statistics``, ``sensitivity``, ``ranks``, ``reconstruction``), ``done``,
    ``total``.
    Result: ``name``, ``block``, ``role``, ``criterion``; ``edges`` (bins + 1 scores, even in
    log10; the first bin takes in what is smaller), ``counts``, ``removed_counts`` (under the
    recipe), ``zeros`` and ``removed_zeros`` (scores of exactly 0), ``cut`` (largest score removed,
    or None), ``numel``, ``removed``.
    """

    layer: str = ""
    recipe: Recipe = field(default_factory=Recipe)
    bins: int = 128
    deadline: ClassVar[float] = FIRST_RECIPE
