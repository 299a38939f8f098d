"""How far a pruned model answers as the dense one does: one function for each such metric.

A metric of ``prune_core/evaluation/metrics.py`` that is a mean over tokens (or over windows, of a
classifier) has a function of its name here; it is found by that name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prune_core.evaluation.metrics import METRICS


@dataclass(frozen=True)
class Answer:
    """What pruned and dense model say at some positions of a window, or of a classifier's window.

    Attributes:
        logits: (positions, vocab) float32 of the pruned model; (1, classes) log-probabilities.
        normalizer: (positions,) log-sum-exp of the logits; 0 for classes.
        dense_top1: (positions,) the dense model's most likely token or class, on the CPU.
        dense_ids: (positions, k) its most likely tokens, likeliest first; all classes in order.
        dense_logp: (positions, k) their log-probabilities.
    """

    logits: Tensor
    normalizer: Tensor
    dense_top1: Tensor
    dense_ids: Tensor
    dense_logp: Tensor

    @cached_property
    def logp(self) -> Tensor:
        """(positions, k) the pruned model's log-probabilities of the dense model's likeliest."""
        ids = self.dense_ids.to(self.logits.device)
        return (self.logits.gather(1, ids) - self.normalizer[:, None]).cpu()


Measure = Callable[[Answer], Tensor]
"""One value for each position, on the CPU."""

AGREEMENT: dict[str, Measure] = {}


def measures(name: str) -> Callable[[Measure], Measure]:
    """Decorator: the function measures the metric of this name.

    Raises:
        ValueError: no row, or no error field to write into, or measured already.
    """
    if name not in METRICS or not METRICS[name].error:
        raise ValueError(f"{name!r} needs a row in evaluation/metrics.py that names its error")
    if name in AGREEMENT:
        raise ValueError(f"{name!r} is measured already")

    def decorate(function: Measure) -> Measure:
        AGREEMENT[name] = function
        return function

    return decorate


def agreement(answer: Answer, kind: str) -> dict[str, Tensor]:
    """Every metric that a kind of model has, (positions,) float32 each.

    Args:
        answer: of both models.
        kind: of the model, see ``metrics.KINDS``.
    """
    return {
        name: function(answer).float()
        for name, function in AGREEMENT.items()
        if kind in METRICS[name].kinds
    }


def likeliest(logits: Tensor) -> Tensor:
    """The most likely token of each row; ``max`` takes a third of the time of ``argmax`` here."""
    return logits.max(dim=-1).indices


@measures("kl")
def kl(answer: Answer) -> Tensor:
    """KL(dense || pruned) in nats, over the dense model's likeliest tokens and a remainder."""
    return compact_kl(answer.dense_logp, answer.logp)


@measures("top1")
def top1(answer: Answer) -> Tensor:
    """1 where the most likely token or class is unchanged."""
    return likeliest(answer.logits).cpu() == answer.dense_top1


def compact_kl(dense_logp: Tensor, pruned_logp: Tensor) -> Tensor:
    """KL(dense || pruned) per token with the vocabulary's tail merged into one outcome.

    Merging outcomes can only lower a KL divergence (data processing inequality), so this is a
    lower bound; the evaluation measures by how much and says so.

    Args:
        dense_logp: (tokens, k) log-probabilities of the dense model's k likeliest tokens.
        pruned_logp: (tokens, k) the pruned model's, of the same tokens.

    Returns:
        (tokens,) nats, >= 0 up to rounding.
    """
    # terms in their own precision, sums in float64: the tail is 1 minus a sum close to 1
    probability = dense_logp.exp()
    wide = torch.float64
    top = (probability * (dense_logp - pruned_logp)).sum(-1, dtype=wide)
    rest_dense = (1 - probability.sum(-1, dtype=wide)).clamp_min(1e-12)
    rest_pruned = (1 - pruned_logp.exp().sum(-1, dtype=wide)).clamp_min(1e-12)
    return (top + rest_dense * (rest_dense.log() - rest_pruned.log())).float()
