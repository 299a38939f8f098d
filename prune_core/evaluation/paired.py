"""Is one recipe better than another? Paired statistics over windows of text, numpy only.

Two recipes measured on the same windows are compared window by window: hard and easy windows
cancel, and what is left is the difference of the recipes. The windows are the independent units,
never the tokens inside them, whose losses go together.

**Test.** Exact sign-flip permutation test (Fisher 1935), two-sided: were the recipes equally good,
each window's difference could as well have had the other sign. p is the share of all 2^n sign
patterns whose mean is at least as far from 0 as the one found. It assumes no distribution, and
with n windows can be no smaller than 2 / 2^n: six windows are the fewest that can reach 0.05.

**Interval.** 95 % by Student's t with n - 1 degrees of freedom.

**Several pairs.** Holm's step-down correction (Scand. J. Statist. 6, 1979, 65-70) over all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from prune_core.errors import ProtocolError
from prune_core.evaluation.metrics import LANGUAGE, METRICS, headline_of
from prune_core.sentences import Sentence

EXACT_WINDOWS = 20
"""Up to so many windows all sign patterns are counted (2^19 by symmetry); beyond, drawn ones."""

DRAWS = 99_999

ALIKE = ("model_fingerprint", "text_fingerprint", "seq_len", "windows", "dtype", "device")
"""Fields of an evaluation's protocol that must agree before two results are compared."""

_NAMES = {"model_fingerprint": "model", "text_fingerprint": "text", "seq_len": "tokens per window"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean difference of two measurements on the same windows.

    Attributes:
        mean: first minus second, in the unit of what was measured.
        low: lower end of the 95 % interval; None with fewer than two windows.
        high: its upper end.
        p: two-sided, of the sign-flip test; None with fewer than two windows.
        least_p: the smallest p that so many windows can give.
        windows: how many.
        exact: all sign patterns were counted (else drawn at random with a fixed seed).
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    least_p: float | None
    windows: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two named measurements compared, and p corrected for all the pairs compared with it."""

    first: str
    second: str
    difference: Difference
    p_holm: float | None


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two measurements of the same windows.

    Args:
        first: one number per window (mean loss in nats per token, or similarity).
        second: the same windows under the other recipe.

    Raises:
        ProtocolError: not the same number of windows, none, or numbers that are not finite.
    """
    if len(first) != len(second) or not len(first):
        raise ProtocolError(
            "Only results on the same windows can be compared, got {count} and {count2}; measure "
            "both on the same text.",
            count=len(first),
            count2=len(second),
        )
    change = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not np.isfinite(change).all():
        raise ProtocolError("A result that is not finite cannot be compared; remove less.")
    count, mean = int(change.size), float(change.mean())
    if count < 2:
        return Difference(mean, None, None, None, None, count, exact=True)
    half = student_quantile(0.95, count - 1) * float(change.std(ddof=1)) / math.sqrt(count)
    exact = count <= EXACT_WINDOWS
    p = _exact_p(change) if exact else _sampled_p(change)
    least = 2.0 ** (1 - count) if exact else 1 / (DRAWS + 1)
    return Difference(mean, mean - half, mean + half, p, least, count, exact)


def compare_pairs(measurements: Mapping[str, Sequence[float]]) -> list[Pair]:
    """All pairs of named measurements of the same windows, p corrected by Holm over them all.

    Raises:
        ProtocolError: see :func:`paired_difference`.
    """
    pairs = [
        (first, second, paired_difference(measurements[first], measurements[second]))
        for first, second in combinations(measurements, 2)
    ]
    corrected = iter(holm([d.p for _, _, d in pairs if d.p is not None]))
    return [
        Pair(first, second, d, None if d.p is None else next(corrected))
        for first, second, d in pairs
    ]


def compare_results(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compare results of ``prune_core.jobs.evaluate.Evaluate`` that were measured alike, all pairs.

    Args:
        results: two or more, by name.

    Returns:
        ``metric``: ``nll`` (nats per token, lower is better) or ``similarity`` (higher is better);
        ``pairs``: dicts with ``first``, ``second``, ``p_holm`` and the fields of
        :class:`Difference`.

    Raises:
        ProtocolError: measured differently; see :func:`check_alike`.
    """
    check_alike({name: result["protocol"] for name, result in results.items()})
    names = {str(result["metric"]) for result in results.values()}
    plain = headline_of(LANGUAGE).name
    metric = METRICS[next(iter(sorted(names - {plain})), plain)].paired
    pairs = compare_pairs({name: result[f"window_{metric}"] for name, result in results.items()})
    return {
        "metric": metric,
        "pairs": [
            {"first": p.first, "second": p.second, "p_holm": p.p_holm, **asdict(p.difference)}
            for p in pairs
        ],
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given.

    Each sorted p is multiplied by the number of hypotheses not yet rejected, never falls below
    the one before it and never exceeds 1.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def check_alike(protocols: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to compare what was not measured alike.

    Args:
        protocols: ``protocol`` of each result, by name.

    Raises:
        ProtocolError: the first field in which two differ, with both values.
    """
    for (first, ours), (second, theirs) in combinations(protocols.items(), 2):
        for field in ALIKE:
            if ours.get(field) != theirs.get(field):
                texts = [_field_text(protocol, field) for protocol in (ours, theirs)]
                raise ProtocolError(
                    "{first} and {second} were not measured alike ({field}: {one} and {other}); "
                    "measure both in the same way.",
                    first=first,
                    second=second,
                    field=Sentence(_NAMES.get(field, field)),
                    one=texts[0],
                    other=texts[1],
                )


def _field_text(protocol: Mapping[str, Any], field: str) -> str:
    """A field's value for people: a text's name stands before its fingerprint."""
    name = protocol.get(field.removesuffix("_fingerprint"))
    value = protocol.get(field)
    return f"{name} {str(value)[:8]}" if field.endswith("_fingerprint") and name else str(value)


def _exact_p(change: npt.NDArray[np.float64]) -> float:
    sums = np.zeros(1)
    for value in change[1:]:  # the first keeps its sign: patterns come in mirrored pairs
        sums = np.concatenate([sums + value, sums - value])
    sums = np.abs(sums + change[0])
    return float(np.count_nonzero(sums >= _least_sum(change)) / sums.size)


def _sampled_p(change: npt.NDArray[np.float64]) -> float:
    draw = np.random.default_rng(0)
    reached, hits = _least_sum(change), 0
    for start in range(0, DRAWS, 10_000):
        rows = min(10_000, DRAWS - start)
        signs = draw.integers(0, 2, (rows, change.size)) * 2.0 - 1.0
        hits += int(np.count_nonzero(np.abs(signs @ change) >= reached))
    return (1 + hits) / (DRAWS + 1)


def _least_sum(change: npt.NDArray[np.float64]) -> float:
    """The sum found; patterns that tie with it must not be lost to the order of additions."""
    return float(abs(change.sum()) - 1e-12 * np.abs(change).sum())


def student_within(t: float, freedom: int) -> float:
    """P(|T| < t) of Student's t, in closed form (Abramowitz and Stegun 26.7.3 and 26.7.4).

    Args:
        t: at least 0.
        freedom: degrees of freedom, at least 1.
    """
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def student_quantile(share: float, freedom: int) -> float:
    """The t with P(|T| < t) = ``share``, by bisection."""
    low, high = 0.0, 1.0
    while student_within(high, freedom) < share:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_within(middle, freedom) < share else (low, middle)
    return high
