"""The largest removal whose loss keeps a limit, found with few measurements. Pure numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MOST = 0.95
"""Largest sparsity that is tried: beyond it no model answers, and no curve is smooth."""

FIRST = 0.4
CUBE = 3.0
"""Loss grows about as the cube of the sparsity while it is small: a guess, corrected at once."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where the limit is crossed.

    Attributes:
        low: largest sparsity measured to keep the limit with all measured below it; 0 is free.
        high: smallest one measured to break it; None where none did.
        measured: sparsity to loss, of the measurements made here, in their order.
    """

    low: float
    high: float | None
    measured: Mapping[float, float]


def bracket(
    loss: Callable[[float], float],
    limit: float,
    *,
    known_losses: Mapping[float, float] | None = None,
    tolerance: float,
    evaluations: int,
) -> Bracket:
    """Narrow down where ``loss`` crosses ``limit``.

    Each step interpolates a power law through the two ends, as loss grows between them, and then
    stays where bisection can still finish with the measurements that are left: the bracket ends no
    wider than ``tolerance`` for any monotone loss if ``MOST <= tolerance * 2 ** evaluations``.

    Args:
        loss: mean loss above dense, in nats, at a sparsity from 0 to ``MOST``; infinite is allowed.
        limit: above 0.
        known_losses: what is known already, for nothing.
        tolerance: width of the bracket to stop at.
        evaluations: most measurements.
    """
    points = {s: value for s, value in (known_losses or {}).items() if 0 < s <= MOST}
    measured: dict[float, float] = {}
    while True:
        low, high = _ends(points, limit)
        top = MOST if high is None else high
        if top - low <= tolerance + 1e-9 or len(measured) == evaluations:
            return Bracket(low, high, measured)
        reach = tolerance * 2.0 ** (evaluations - len(measured) - 1)
        guess = _guess(low, high, points, limit, tolerance)
        guess = min(max(guess, top - reach), low + reach)
        least = min(tolerance, top - low) / 4
        probe = round(min(max(guess, low + least), top if high is None else top - least), 4)
        points[probe] = measured[probe] = loss(probe)


def _ends(points: Mapping[float, float], limit: float) -> tuple[float, float | None]:
    """The first break, and the last that keeps the limit before it."""
    broken = [s for s, value in points.items() if not value <= limit]
    high = min(broken, default=None)
    fitting = [s for s, value in points.items() if value <= limit and (high is None or s < high)]
    return max(fitting, default=0.0), high


def _guess(
    low: float, high: float | None, points: Mapping[float, float], limit: float, tolerance: float
) -> float:
    """Where the loss may cross the limit; near an end, the place that closes the bracket."""
    if high is None:
        if not low:
            return FIRST
        rise = limit / points[low] if points[low] > 0 else 8.0
        return min(MOST, low * min(2.0, max(rise, 1.0) ** (1 / CUBE)) + tolerance / 2)
    over = points[high]
    if not math.isfinite(over):
        return (low + high) / 2
    under = points.get(low, 0.0)
    if low > 0 and under > 0:
        power = math.log(over / under) / math.log(high / low)
        guess = low * (limit / under) ** (1 / power)
    else:
        guess = low + (high - low) * (limit / over) ** (1 / CUBE)
    close = 0.9 * tolerance
    if guess - low < close:
        return low + close
    if high - guess < close:
        return high - close
    return guess - tolerance / 3  # more often kept than broken: the answer must be a measured one
