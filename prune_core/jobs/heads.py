"""Jobs about attention heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prune_core.jobs.base import FIRST_RECIPE, Job
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.registry import Registry

HEAD_METHODS: Registry[Callable[..., Any]] = Registry(
    "head method", "prune_core.analysis.heads.methods", ("title", "measures")
)
"""Scores of attention heads; see ``prune_core.analysis.heads.methods``.

Needs: ``text``, and ``loss`` where a classifier's own loss is meant. Texts of an entry: ``title``,
what it ``measures``.
"""


@dataclass(frozen=True, slots=True)
class HeadImportance(Job):
    """Importance of every attention head.

    ``method``: ``gradient`` (Michel et al. 2019, arXiv 1905.10650; for encoders without a head the
    second-order term of 1 - cosine), ``weight-norm``, ``ablation`` (loss without the head minus
    the dense loss, signed), ``confidence`` (arXiv 1905.09418) or ``entropy``. A classifier's loss
    is that of the class which the dense model gives.
    Events: ``done``, ``total``; of ablation also ``stage``, ``seconds_left``, ``unit`` and
    ``sites`` as far as they are known (scores are None where nothing is).
    Result: ``method``, ``sites``: list of dicts ``kind`` (``self`` or ``cross``), ``stack``,
    ``scores``: list over that stack's blocks of lists over heads, ``stderr`` likewise (of
    ablation, over windows; else None), ``blocks``: flat block index of each row, ``group_size``;
    ``unit``, ``seconds``, ``tokens``.
    """

    method: str = "weight-norm"
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 2
    normalize: bool = False
    deadline: ClassVar[float] = 7200.0


@dataclass(frozen=True, slots=True)
class AttentionPattern(Job):
    """The attention of one block on a sentence: softmax(QK^T / sqrt(d_k)), every head.

    Result: ``tokens`` (texts of the queries), ``key_tokens`` (same, but for cross-attention),
    ``heads``: list over heads of (query x key) nested lists, rows summing to 1; ``block``,
    ``kind``.
    """

    sentence: str = ""
    block: int = 0
    kind: str = "self"
    recipe: Recipe = field(default_factory=Recipe)
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class AttentionSteps(Job):
    """softmax(QK^T / sqrt(d_k)) V of one head for one token of a sentence, step by step.

    Result: see ``prune_core.analysis.heads.steps``; and ``tokens``, ``key_tokens`` (texts).
    """

    sentence: str = ""
    block: int = 0
    head: int = 0
    token: int = 0
    kind: str = "self"
    recipe: Recipe = field(default_factory=Recipe)
    deadline: ClassVar[float] = FIRST_RECIPE
