"""What a criterion is: a pure function from a weight and its statistics to scores.

No torch is imported when this runs: the web process reads titles and summaries from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prune_core.errors import RecipeError
from prune_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What calibration learned of one layer; a field is None unless a criterion needs it.

    Attributes:
        input_norm: (in,) L2 norm of each input feature over all calibration tokens.
        obs_diagonal: (in,) diagonal of U, the upper Cholesky factor of the damped Hessian's
            inverse (arXiv 2301.00774).
        gradient: (out, in) what the criterion's loss gradients gave: the mean, the mean absolute
            value or the mean square over calibration windows, as the criterion needs.
    """

    input_norm: Tensor | None = None
    obs_diagonal: Tensor | None = None
    gradient: Tensor | None = None


class Criterion(Protocol):
    """(out, in) weight and statistics in, (out, in) float32 scores >= 0 out; higher means keep."""

    def __call__(self, weight: Tensor, stats: LayerStats) -> Tensor:
        """Score every weight."""
        ...


CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    "prune_core.criteria",
    ("title", "short", "measures", "cost", "fails"),
    pattern="per-layer",
)
"""Texts of an entry: ``title``, ``short`` name, what it ``measures``, its ``cost``, when it
``fails``; each argument's name, ``ARGUMENT_help``; ``how`` it chooses, for a report's readers."""


def required(value: Tensor | None, criterion: str, statistic: str) -> Tensor:
    """A statistic that a criterion cannot do without.

    Raises:
        RecipeError: it was not gathered.
    """
    if value is None:
        raise RecipeError(
            "{criterion} needs the statistic {statistic} of a calibration text; give one.",
            criterion=criterion,
            statistic=statistic,
        )
    return value
