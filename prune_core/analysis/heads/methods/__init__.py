"""Scores of attention heads, a file for each; one that is added here is in every list by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prune_core.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from prune_core.models.handle import ModelHandle


@dataclass(frozen=True, slots=True)
class HeadRequest:
    """What a method is asked.

    Attributes:
        handle: the dense model; not changed.
        windows: (seq,) token windows of a text; none for a method that does not need one.
        normalize: divide each block's scores by their L2 norm, where they are gradients.
        progress: a cancel is seen between windows.
        sites: from rows of scores to what a result calls ``sites``, for rows that come in turn.
    """

    handle: ModelHandle
    windows: list[Tensor]
    normalize: bool
    progress: Progress
    sites: Callable[[Sequence[Any]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class HeadScores:
    """What a method answers.

    Attributes:
        rows: for each attention of ``prune_core.analysis.heads.scores.all_sites`` a score by head.
        unit: of the scores, in words.
        stderr: of each score, over windows; None where there is none.
    """

    rows: Sequence[Any]
    unit: str
    stderr: Sequence[Sequence[float | None]] | None = None
