"""How numbers, counts, sizes and days are written."""

from __future__ import annotations

import math
from datetime import datetime

DASH = "\u2013"

NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""


def percent(share: float, digits: int = 0) -> str:
    """``20 %``; never ``-0 %``."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.lstrip('-') if float(text) == 0 else text}{NBSP}%"


def signed(share: float) -> str:
    """``+3.1 %``, with fewer digits the larger it is."""
    size = abs(100 * share)
    text = f"{100 * share:+,.{1 if size < 99.5 else 0}f}"
    return f"{text.lstrip('+-') if float(text.replace(',', '')) == 0 else text}{NBSP}%"


def figures(value: float) -> str:
    """A number with four significant digits and thousands apart."""
    if abs(value) < 1e4:
        return f"{value:,.4g}"
    return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.2e}"


def day(seconds: float) -> str:
    """A moment as the machine's date."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")


def number(content: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, zeros at its end too, or a dash.

    Without separators: a measurement reads alike on all pages; counts of things have them.
    """
    if content is None:
        return DASH
    if content == 0:
        return "0"
    return f"{content:#.{digits}g}".rstrip(".") if abs(content) < 1000 else f"{content:.0f}"


def count(content: float) -> str:
    """A large count, short: ``134.5 M``."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(content) >= size:
            return f"{content / size:.4g} {suffix}"
    return f"{content:.0f}"


def size(num_bytes: float) -> str:
    """Bytes as MB or GB."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def finite(value: float | None) -> float | None:
    """JSON knows no infinity: 1e308 stands for it, and is shown as ``> 1e6``."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else 1e308


def digits(value: float | None, error: float | None) -> int:
    """Decimals worth showing of a number known to within ``error``: two digits of the error."""
    if value is None or not math.isfinite(value):
        return 2
    if error is None or error <= 0 or not math.isfinite(error):
        return max(0, 3 - math.floor(math.log10(abs(value) + 1e-12)) - 1) if value else 2
    return min(4, max(0, 1 - math.floor(math.log10(error))))
