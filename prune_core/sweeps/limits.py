"""Promises about a pruned model, as a user states them: a perplexity or a size. Plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prune_core.errors import PruneCoreError
from prune_core.evaluation.estimate import Z95, safe_exp

_FORM = re.compile(
    r"^\s*(?:at most\s+)?(\d+(?:[.,]\d+)?)\s*(%|kb|mb|gb|kib|mib|gib)(?:\s[a-z ]*)?$", re.IGNORECASE
)
_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class BudgetError(PruneCoreError, ValueError):
    """A promise is not readable or cannot be kept by anything."""


@dataclass(frozen=True, slots=True)
class Promise:
    """At most so much.

    Attributes:
        kind: ``worse`` (perplexity over dense, minus 1) or ``size`` (bytes of weights on disk).
        limit: 0.05 for "5 % worse", or bytes.
    """

    kind: str
    limit: float

    @property
    def loss(self) -> float:
        """Largest rise of the mean loss, in nats, where ``kind`` is ``worse``."""
        return math.log1p(self.limit)


def parse_promise(text: str) -> Promise:
    """``5%``, ``5 % worse``, ``60MB``, ``at most 0.06 GB``.

    Raises:
        BudgetError: not of that form, or nothing.
    """
    match = _FORM.match(text[:60])
    if match is None:
        raise BudgetError(
            "a budget reads like 5% (worse perplexity) or 60MB (bytes on disk), got {text!r}.",
            text=text[:60],
        )
    amount, unit = float(match.group(1).replace(",", ".")), match.group(2).lower()
    if not amount > 0:
        raise BudgetError("a budget is above zero: nothing may be lost at 0 %, the dense model.")
    if unit == "%":
        if amount > 100_000:
            raise BudgetError("a budget above 100,000 % worse promises nothing; name a lower one.")
        return Promise("worse", amount / 100)
    return Promise("size", amount * _UNITS[unit])


@dataclass(frozen=True, slots=True)
class Worse:
    """How much worse than dense, paired on the same tokens: 0.05 is 5 % more perplexity.

    ``low`` and ``high`` bound the 95 % interval; None where a single window gave none.
    """

    share: float
    low: float | None
    high: float | None
    tokens: int = 0

    def state(self, limit: float) -> str:
        """``kept`` or ``broken`` where the whole interval says so, else ``unclear``."""
        if self.low is None or self.high is None:
            return "unclear"
        if self.high <= limit:
            return "kept"
        return "broken" if self.low > limit else "unclear"


def worse_of(numbers: Mapping[str, Any]) -> Worse:
    """From the numbers of an evaluation.

    Raises:
        BudgetError: the model has no perplexity.
    """
    delta, error = numbers.get("delta_nll"), numbers.get("delta_nll_stderr")
    if delta is None:
        raise BudgetError(
            "this model has no perplexity to keep (it is an encoder); choose a size as the budget."
        )
    low, high = (
        (None, None)
        if error is None
        else (safe_exp(delta - Z95 * error) - 1, safe_exp(delta + Z95 * error) - 1)
    )
    return Worse(safe_exp(delta) - 1, low, high, int(numbers.get("tokens") or 0))
