"""How every number is written: a measurement by its error, a counted share by one rule.

Two digits of the error decide the digits of the value: 2.4961 with an error of 0.154 is
``2.50 ± 0.15``. What is counted has no error; a share of it has one decimal at most. No words here,
so that one home serves every language.
"""

from __future__ import annotations

import math
from datetime import datetime

DASH = "\u2013"
NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""

MOST_DECIMALS = 6
FIGURES = 4
"""Significant digits of a measurement whose error is not known."""

TOO_LARGE = 1e6
"""A perplexity above says only that the model is broken."""

LEAST_SHOWN = 0.0005
"""Smallest share that does not round to 0 %."""

INTERVAL = 2 * 1.96
"""Width of a 95 % interval in standard errors."""


def places(value: float | None, error: float | None) -> int:
    """Decimals that show two digits of the error, negative where it is 100 or more.

    Without an error (unknown, or 0 as of a model against itself): ``FIGURES`` significant digits.
    """
    if error is not None and error > 0 and math.isfinite(error):
        # two digits as they are printed: 0.0996 reads 0.10
        return min(MOST_DECIMALS, 1 - math.floor(math.log10(float(f"{error:.1e}"))))
    if not value or not math.isfinite(value):
        return 2
    shown = FIGURES - 1 - math.floor(math.log10(float(f"{abs(value):.{FIGURES - 1}e}")))
    return min(MOST_DECIMALS, max(0, shown))


def fixed(value: float, decimals: int, *, sign: bool = False) -> str:
    """A number with so many decimals and thousands apart; negative: rounded to tens, hundreds.

    Args:
        value: any.
        decimals: see :func:`places`.
        sign: write ``+`` before what is above zero.
    """
    text = f"{round(value, decimals):{'+' if sign else ''},.{max(0, decimals)}f}"
    return text.lstrip("+-") if not any(c in "123456789" for c in text) else text


def measured(
    value: float,
    error: float | None = None,
    *,
    too_large: str = "more than a million",
    sign: bool = False,
) -> str:
    """A measurement, with the digits that two digits of its error decide.

    Args:
        value: the best estimate.
        error: its standard error.
        too_large: words for what is above a million.
        sign: write ``+`` before what is above zero.
    """
    if value > TOO_LARGE or math.isnan(value):
        return too_large
    return fixed(value, places(value, error), sign=sign)


def with_error(
    value: float,
    error: float | None,
    *,
    too_large: str = "more than a million",
    most: int = MOST_DECIMALS,
) -> str:
    """``2.50 ± 0.15``; the error is left out where there is none that could be read.

    Args:
        value: the best estimate.
        error: of it.
        too_large: words for what is above a million.
        most: decimals at most.
    """
    if error is None or error < 10**-most or value > TOO_LARGE or math.isnan(value):
        return measured(value, error, too_large=too_large)
    decimals = min(most, places(value, error))
    return f"{fixed(value, decimals)} ± {fixed(error, decimals)}"


def error_of(value: float, error: float) -> str:
    """An error with its two digits, and the decimals of the value it belongs to."""
    return fixed(error, places(value, error))


def error_in(low: float | None, high: float | None) -> float | None:
    """The standard error that a 95 % interval was made of; None without one."""
    if low is None or high is None or not high > low:
        return None
    return (high - low) / INTERVAL


def percent_measured(
    share: float, error: float | None = None, *, sign: bool = False, most: int = MOST_DECIMALS
) -> str:
    """A measured share as percent: ``33.1 %``, with ``sign`` ``+1,220 %``.

    Args:
        share: of 1.
        error: its standard error, likewise.
        sign: write ``+`` before what is above zero.
        most: decimals at most, for a headline.
    """
    if error:
        decimals = min(most, places(100 * share, 100 * error))
        return f"{fixed(100 * share, decimals, sign=sign)} %"
    return f"{fixed(100 * share, 1 if abs(share) < 0.995 else 0, sign=sign)} %"


def percent_with_error(share: float, error: float | None) -> str:
    """``33.0 ± 1.2 %``."""
    if not error:
        return percent_measured(share)
    return f"{with_error(100 * share, 100 * error)} %"


def counted_share(share: float) -> str:
    """A counted share: ``40 %``, ``50.3 %``; never 0 % or 100 % of what is not quite that."""
    if 0 < share < LEAST_SHOWN:
        return "< 0.1 %"
    if 1 - LEAST_SHOWN < share < 1:
        return "> 99.9 %"
    return f"{fixed(100 * share, 1).removesuffix('.0')} %"


def count(number: float) -> str:
    """A large count, short: ``134.5 M``."""
    for unit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.4g} {suffix}"
    return f"{number:.0f}"


def size(num_bytes: float) -> str:
    """Bytes as kB, MB or GB."""
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.1f} kB"
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def percent(share: float, digits: int = 0) -> str:
    """``20 %``; never ``-0 %``."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.lstrip('-') if float(text) == 0 else text}{NBSP}%"


def signed(share: float, error: float | None = None) -> str:
    """``+3.1 %``, with the digits that its error decides."""
    return percent_measured(share, error, sign=True, most=1).replace(" ", NBSP)


def figures(value: float) -> str:
    """A number with four significant digits and thousands apart."""
    return f"{value:,.4g}" if abs(value) < 1e4 else measured(value)


def day(seconds: float) -> str:
    """A moment as the machine's date."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")


def finite(value: float | None) -> float | None:
    """JSON knows no infinity: 1e308 stands for it."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else 1e308
