"""The texts that a reader sees, by key, in every language."""

from __future__ import annotations

import json
from functools import cache

from prune_core.errors import ReportError
from prune_core.paths import ASSETS_FOLDER
from prune_core.words.numbers import NBSP

LANGUAGES = ("en", "zh")


@cache
def catalogue(language: str) -> dict[str, str]:
    """All texts of a language: ``section.name`` to text."""
    texts: dict[str, str] = {}
    for path in sorted((ASSETS_FOLDER / "i18n" / language).glob("*.json")):
        for name, text in json.loads(path.read_text(encoding="utf-8")).items():
            texts[f"{path.stem}.{name}"] = text
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
            raise ReportError(
                "a report is written in {known:or}, not {name!r}.", known=LANGUAGES, name=language
            )
        self.language = language
        self._texts = catalogue(language)

    def t(self, key: str, /, **values: object) -> str:
        """The text called ``section.name``, placeholders filled in as they are."""
        text = self._texts[key]
        return (text.format(**values) if values else text).replace(" %", f"{NBSP}%")

    def t_or(self, key: str, fallback: str) -> str:
        """The text called ``key``, or ``fallback`` where there is none (a registry's names)."""
        return self._texts.get(key, fallback)

    def interval(self, low: str, high: str) -> str:
        """``2.5 to 3.7``."""
        return self.t("report.interval", low=low, high=high)

    def megabytes(self, num_bytes: float, *, estimated: bool = False) -> str:
        """A size, labelled where it is an estimate."""
        large = num_bytes >= 1e10
        text = f"{num_bytes / 1e9:.1f} GB" if large else f"{num_bytes / 1e6:,.4g} MB"
        return self.t("report.estimated", size=text) if estimated else text
