"""Words of a report in one language: catalogue texts, names of methods, numbers. No Streamlit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache

from prune_core.errors import PruneCoreError
from prune_core.paths import ASSETS_FOLDER
from prune_core.sweeps.axes import Value
from prune_core.words.numbers import measured, percent_measured

LANGUAGES = ("en", "zh")
DASH = "\u2013"
NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""

AUDIENCES = ("stakeholder", "technical")
_CALIBRATION = re.compile(r" \d+x\d+$")


class ReportError(PruneCoreError):
    """A report cannot be made of what was chosen, or not be written where it was asked for."""


@cache
def _catalogue(language: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for section in ("report", "runs"):
        path = ASSETS_FOLDER / "i18n" / language / f"{section}.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        texts |= {f"{section}.{name}": text for name, text in found.items()}
    return texts


class Words:
    """The texts of a language.

    Args:
        language: one of :data:`LANGUAGES`.

    Raises:
        ReportError: another language.
    """

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise ReportError(f"a report is written in {' or '.join(LANGUAGES)}, not {language!r}.")
        self.language = language
        self._texts = _catalogue(language)

    def t(self, key: str, /, **values: object) -> str:
        """The text called ``section.name``, placeholders filled in as they are."""
        text = self._texts[key]
        return (text.format(**values) if values else text).replace(" %", f"{NBSP}%")

    def t_or(self, key: str, fallback: str) -> str:
        """The text called ``key``, or ``fallback`` where there is none (a registry's names)."""
        return self._texts.get(key, fallback)

    def method(self, method: tuple[str, ...], *, plain: bool = False) -> str:
        """A method (see ``sweeps.axes.method_of``) as people call it.

        Args:
            method: its names.
            plain: leave out the calibration text, which means nothing to a stakeholder.
        """
        parts = [part for part in method if not (plain and _CALIBRATION.search(part))]
        return " · ".join(self._part(part) for part in parts) or self.t("runs.dense")

    def labels(
        self, methods: Iterable[tuple[str, ...]], *, plain: bool = False
    ) -> dict[tuple[str, ...], str]:
        """A label for each of several methods; the full one where plain ones would be equal."""
        methods = list(dict.fromkeys(methods))
        short = {method: self.method(method, plain=plain) for method in methods}
        told = list(short.values())
        return {
            method: label if told.count(label) == 1 else self.method(method)
            for method, label in short.items()
        }

    def _part(self, part: str) -> str:
        kind, _, rest = part.partition(":")
        if kind == "nm":
            kept, _, of = rest.partition(":")
            return self.t("runs.short_nm", n=kept, m=of)
        if kind == "block":
            return self.t("runs.short_block", size=rest.partition(":")[0])
        if part == "+sparsegpt":
            return self.t("runs.short_repaired")
        return self.t_or(f"runs.short_{part}", self.t_or(f"runs.part_{part}", part))

    def interval(self, low: str, high: str) -> str:
        """``2.5 to 3.7``."""
        return self.t("report.interval", low=low, high=high)

    def megabytes(self, value: Value) -> str:
        """A size, labelled where it is an estimate."""
        large = value.value >= 1e10
        text = f"{value.value / 1e9:.1f} GB" if large else f"{value.value / 1e6:,.4g} MB"
        return self.t("report.estimated", size=text) if value.is_estimate else text


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
