"""Paired statistics against independent oracles: enumeration, integration, the textbook."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from prune_core.errors import ProtocolError
from prune_core.evaluation import paired
from prune_core.evaluation.paired import (
    check_alike,
    compare_pairs,
    holm,
    paired_difference,
    student_quantile,
    student_within,
)

PROTOCOL = {
    "model": "tiny-llama",
    "model_fingerprint": "abc",
    "text": "grimm",
    "text_fingerprint": "def",
    "seq_len": 64,
    "windows": 4,
    "dtype": "float32",
    "device": "cpu",
}


def by_enumeration(changes: list[float]) -> float:
    """The sign-flip p by its definition, in exact arithmetic on scaled whole numbers."""
    whole = [round(change * 2**20) for change in changes]
    reached = abs(sum(whole))
    patterns = list(product((-1, 1), repeat=len(whole)))
    far = sum(abs(sum(s * w for s, w in zip(p, whole, strict=True))) >= reached for p in patterns)
    return far / len(patterns)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("seed", range(4))
def test_exact_p_is_the_share_of_sign_patterns(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    changes = [round(x * 256) / 256 for x in draw.normal(0.3, 1.0, count)]
    found = paired_difference(changes, [0.0] * count)
    assert found.exact
    assert found.p == by_enumeration(changes)
    assert found.least_p == 2 / 2**count <= found.p
    assert found.mean == pytest.approx(sum(changes) / count)


def test_ties_between_sign_patterns_count_whatever_the_order_of_additions() -> None:
    # 0.1 + 0.2 is not 0.3: every pattern of equal size must count as reached
    changes = [0.1, 0.2, 0.3, 0.1, 0.2, -0.3]
    assert paired_difference(changes, [0.0] * 6).p == by_enumeration(changes)


def test_equal_results_differ_by_nothing() -> None:
    losses = [3.1, 2.9, 3.3, 3.0]
    found = paired_difference(losses, losses)
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_one_window_gives_a_difference_and_no_verdict() -> None:
    found = paired_difference([3.0], [2.5])
    assert found.mean == 0.5
    assert (found.low, found.high, found.p, found.least_p) == (None, None, None, None)


def test_many_windows_are_drawn_and_agree_with_counting() -> None:
    changes = np.random.default_rng(1).normal(0.25, 1.0, 16)
    exact = paired_difference(list(changes), [0.0] * 16)
    drawn = paired._sampled_p(changes)
    error = math.sqrt(exact.p * (1 - exact.p) / paired.DRAWS)
    assert 0.01 < exact.p < 0.9
    assert abs(drawn - exact.p) < 4 * error
    many = paired_difference([1.0] * 40, [0.0] * 40)
    assert not many.exact
    assert many.p == many.least_p == 1 / (paired.DRAWS + 1)


def density(t: float, freedom: int) -> float:
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    log -= 0.5 * math.log(freedom * math.pi) + (freedom + 1) / 2 * math.log1p(t * t / freedom)
    return math.exp(log)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 15, 63])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5])
def test_student_is_the_integral_of_its_density(freedom: int, t: float) -> None:
    steps = 2000  # Simpson
    values = [density(t * i / steps, freedom) for i in range(steps + 1)]
    area = values[0] + values[-1] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2])
    assert student_within(t, freedom) == pytest.approx(2 * area * t / steps / 3, abs=1e-10)


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (2, 4.303), (7, 2.365), (30, 2.042)])
def test_quantiles_are_the_textbooks(freedom: int, t: float) -> None:
    assert student_quantile(0.95, freedom) == pytest.approx(t, abs=5e-4)


def test_the_interval_is_students() -> None:
    first, second = [3.0, 3.2, 2.9, 3.5], [2.8, 3.1, 2.9, 3.1]
    changes = [a - b for a, b in zip(first, second, strict=True)]
    mean = sum(changes) / 4
    spread = math.sqrt(sum((c - mean) ** 2 for c in changes) / 3 / 4)
    found = paired_difference(first, second)
    assert found.low == pytest.approx(mean - 3.182446 * spread, abs=1e-6)
    assert found.high == pytest.approx(mean + 3.182446 * spread, abs=1e-6)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_all_pairs_are_compared_and_corrected_together() -> None:
    draw = np.random.default_rng(2)
    named = {name: list(draw.normal(x, 0.1, 8)) for x, name in enumerate("ABCD")}
    pairs = compare_pairs(named)
    assert [(p.first, p.second) for p in pairs] == [
        *(("A", "B"), ("A", "C"), ("A", "D"), ("B", "C"), ("B", "D"), ("C", "D"))
    ]
    assert [p.p_holm for p in pairs] == holm([p.difference.p for p in pairs])
    assert pairs[0].difference == paired_difference(named["A"], named["B"])
    # eight windows can tell six pairs apart
    assert max(p.p_holm for p in pairs) < 0.05


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0, 2.0], [1.0], "same windows"),
        ([], [], "same windows"),
        ([1.0, math.inf], [1.0, 2.0], "not finite"),
        ([1.0, math.nan], [1.0, 2.0], "not finite"),
    ],
)
def test_what_cannot_be_paired_is_refused(
    first: list[float], second: list[float], message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        paired_difference(first, second)


def test_like_protocols_pass() -> None:
    check_alike({"A": PROTOCOL, "B": {**PROTOCOL, "threads": 7}})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("text_fingerprint", "xyz", "text: grimm def and grimm xyz"),
        ("seq_len", 128, "tokens per window: 64 and 128"),
        ("windows", 8, "windows: 4 and 8"),
        ("dtype", "bfloat16", "dtype: float32 and bfloat16"),
        ("model_fingerprint", "other", "model: tiny-llama abc and tiny-llama other"),
    ],
)
def test_unlike_protocols_are_refused_with_what_differs(
    field: str, value: object, said: str
) -> None:
    with pytest.raises(ProtocolError, match=said) as refused:
        check_alike({"A": PROTOCOL, "B": PROTOCOL, "C": {**PROTOCOL, field: value}})
    assert "A and C" in str(refused.value)
