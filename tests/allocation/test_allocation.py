"""Allocation: exact totals, formulas by hand, clipped shares, convex curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from prune_core.allocation import (
    Part,
    by_hand,
    by_role,
    clipped,
    erk,
    exact_cuts,
    least_loss,
    owl,
)
from prune_core.allocation.sensitivity import convex, curve
from prune_core.patterns import Blocks, PerLayer, PerRow

PARTS = {
    "a": Part(6, 10, 0, "attn.q"),
    "b": Part(10, 6, 0, "mlp.down"),
    "c": Part(3, 7, 1, "attn.q"),
    "d": Part(20, 30, 2, "mlp.down"),
}
TOTAL = sum(p.numel for p in PARTS.values())


def removed(cuts: dict[str, int], pattern: PerLayer | PerRow | Blocks) -> int:
    return sum(pattern.removed(p.rows, p.columns, cuts[n]) for n, p in PARTS.items())


shares_of = {
    "role": lambda s: by_role({"attn.q": 3.0}, PARTS, s),
    "hand": lambda s: by_hand({"0": 0.0, "2": 0.5}, PARTS, s),
    "erk": lambda s: erk(PARTS, s),
    "owl": lambda s: owl([0.1, 0.4, 0.2], PARTS, s),
    "least": lambda s: least_loss([0.4, 0.8], [[1, 9], [0.1, 2], [0.2, 3]], PARTS, s),
}


@pytest.mark.parametrize("name", list(shares_of))
@settings(max_examples=60)
@given(target=some.floats(0, 1))
def test_the_whole_is_as_sparse_as_asked_to_one_weight(name: str, target: float) -> None:
    shares = shares_of[name](target)
    assert all(0 <= share <= 1 for share in shares.values())
    mean = sum(shares[n] * p.numel for n, p in PARTS.items()) / TOTAL
    assert mean == pytest.approx(target, abs=1e-9)
    cuts = exact_cuts(shares, PARTS, PerLayer(), target)
    assert abs(removed(cuts, PerLayer()) - target * TOTAL) <= 0.5 + 1e-9
    for n, part in PARTS.items():
        assert abs(cuts[n] - shares[n] * part.numel) < 1 + 1e-6


@given(target=some.floats(0, 1))
def test_rows_come_as_near_as_whole_rows_can(target: float) -> None:
    cuts = exact_cuts(erk(PARTS, target), PARTS, PerRow(), target)
    assert all(0 <= cuts[n] <= p.columns for n, p in PARTS.items())
    assert abs(removed(cuts, PerRow()) - target * TOTAL) <= 20  # one place of the tallest layer


def test_erk_by_hand() -> None:
    parts = {"small": Part(2, 2, 0, "x"), "large": Part(20, 20, 1, "x")}
    # density 1 : 0.1; the small one would need 2.02 and is full: the large one gives the rest
    shares = erk(parts, 0.5)
    assert shares["small"] == 0.0
    assert shares["large"] == pytest.approx(202 / 400)


def test_owl_by_hand_and_flat() -> None:
    parts = {str(b): Part(4, 5, b, "x") for b in range(3)}
    shares = owl([1.0, 3.0, 2.0], parts, 0.6, spread=0.1)
    # rescaled to 0, 0.2, 0.1; mean 0.1
    assert list(shares.values()) == pytest.approx([0.7, 0.5, 0.6])
    assert owl([2.0, 2.0, 2.0], parts, 0.6) == dict.fromkeys(parts, 0.6)


def test_a_share_above_one_is_clipped_and_said() -> None:
    shares = by_role({"attn.q": 100.0}, PARTS, 0.5)
    assert clipped(shares) == ("a", "c")
    assert shares["b"] == pytest.approx((0.5 * TOTAL - 81) / 660)
    everything = by_hand({"0": 1, "1": 0, "2": 0}, PARTS, 0.5)  # block 0 alone cannot give it
    assert clipped(everything) == ("a", "b")
    assert everything["c"] == everything["d"] > 0


def test_equal_marginal_loss_beats_every_other_split() -> None:
    parts = {"0": Part(10, 10, 0, "x"), "1": Part(10, 10, 1, "x")}
    measured = [[0.1, 0.3, 1.5], [0.02, 0.05, 0.2]]
    shares = least_loss([0.3, 0.5, 0.8], measured, parts, 0.5)
    curves = [curve([0.3, 0.5, 0.8], m) for m in measured]

    def total(first: float) -> float:
        at = np.linspace(0, 1, 401)
        second = 1.0 - first
        return float(np.interp(first, at, curves[0]) + np.interp(second, at, curves[1]))

    best = min(total(x) for x in np.linspace(0, 1, 401))
    assert total(shares["0"]) == pytest.approx(best, rel=1e-3)
    assert shares["0"] < shares["1"]


@given(values=some.lists(some.floats(0, 10), min_size=2, max_size=30))
def test_the_envelope_is_convex_and_below(values: list[float]) -> None:
    hull = convex(np.array(values))
    assert (hull <= np.array(values) + 1e-9).all()
    assert (np.diff(hull, 2) >= -1e-9).all()
    assert hull[0] == values[0] and hull[-1] == values[-1]
