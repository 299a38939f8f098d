"""Two digits of the error decide the digits of the value."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_core.words.numbers import (
    counted_share,
    error_in,
    fixed,
    measured,
    percent_measured,
    percent_with_error,
    places,
    with_error,
)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (2.4961, 0.154, "2.50 ± 0.15"),
        (0.0, 0.0, "0.00"),
        (466.3897, None, "466.4"),
        (89504.2, None, "89,504"),
        (1220.1, 273.0, "1,220 ± 270"),
        (24.16, 0.0996, "24.16 ± 0.10"),
        (59.24, 6.7, "59.2 ± 6.7"),
        (-0.0001, 0.12, "0.00 ± 0.12"),
        (3.2e9, 1e7, "more than a million"),
        (math.inf, None, "more than a million"),
        (math.nan, 1.0, "more than a million"),
        (999_999.0, None, "999,999"),
        (0.0123456, None, "0.01235"),
    ],
)
def test_values_with_their_errors(value: float, error: float | None, shown: str) -> None:
    assert with_error(value, error) == shown
    assert measured(value, error) == shown.split(" ±")[0]


@given(
    st.floats(-9e5, 9e5, allow_nan=False),
    st.floats(1e-4, 9e5, allow_nan=False, allow_infinity=False),
)
def test_the_last_digit_is_the_second_of_the_error(value: float, error: float) -> None:
    decimals = places(value, error)
    second = Decimal(f"{error:.1e}").normalize()
    exponent = Decimal(f"{error:.1e}").as_tuple().exponent
    assert decimals == -int(exponent), second
    text = fixed(value, decimals).replace(",", "")
    assert abs(float(text) - value) <= 0.5000001 * 10.0**-decimals
    assert len(text.partition(".")[2]) == max(0, decimals)


def test_shares_measured_and_counted() -> None:
    assert percent_measured(12.201, 2.73, sign=True) == "+1,220 %"
    assert percent_measured(0.0414, 0.0023, sign=True) == "+4.14 %"
    assert percent_measured(0.0414, 0.0023, sign=True, most=1) == "+4.1 %"
    assert percent_measured(-0.00001) == "0.0 %"
    assert percent_with_error(0.33, 0.0123) == "33.0 ± 1.2 %"
    shares = (0, 0.4, 0.5035, 0.0003, 0.9999, 1)
    assert [counted_share(x) for x in shares] == [
        "0 %",
        "40 %",
        "50.3 %",
        "< 0.1 %",
        "> 99.9 %",
        "100 %",
    ]


def test_an_interval_knows_its_error() -> None:
    assert error_in(1.0, 1.0) is None and error_in(None, 2.0) is None
    found = error_in(10 - 1.96 * 0.5, 10 + 1.96 * 0.5)
    assert found is not None and math.isclose(found, 0.5)
