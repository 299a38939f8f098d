"""Everything a user reads, by key, in every language; one catalogue file per section.

A key is ``section.name``: ``t("weights.title")`` reads ``assets/i18n/LANG/weights.json``.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from prune_core.evaluation.metrics import Metric
from prune_core.patterns import pattern_text
from prune_core.registry import Registry
from prune_core.words.catalogue import catalogue
from prune_core.words.translated_errors import translated

LANGUAGES = {"en": "English", "zh": "中文"}
"""Language code to its own name."""


def language() -> str:
    """The session's language: chosen, or in the link, or the browser's, or English."""
    chosen = st.session_state.get("lang") or st.query_params.get("lang")
    if chosen in LANGUAGES:
        return str(chosen)
    return browser()


def browser() -> str:
    """The language that the browser asks for, if there is a catalogue of it, or English."""
    return "zh" if (st.context.locale or "").lower().startswith("zh") else "en"


def t(key: str, /, **values: object) -> str:
    """The text called ``key`` in the session's language, with ``{placeholders}`` filled in.

    Values are inserted as they are: escape what comes from a model or a user first
    (``prune_core.figures.theme.escape`` for figures, ``components.plain`` for Markdown).

    Raises:
        KeyError: no catalogue has the key; a test keeps this from happening.
    """
    text = catalogue(language()).get(key) or catalogue("en")[key]
    return text.format(**values) if values else text


def t_or(key: str, fallback: str) -> str:
    """The text called ``key``, or ``fallback`` where no catalogue has it (a registry's names)."""
    return catalogue(language()).get(key) or catalogue("en").get(key, fallback)


def name_of(registry: Registry[Any], name: str, text: str = "title") -> str:
    """A text of a registry's entry in the session's language; the name where there is none."""
    return registry.text(name, language(), text)


def pattern_name(pattern: str, text: str = "title") -> str:
    """A text of a recipe's pattern in the session's language, with its values in it."""
    return pattern_text(pattern, language(), text)


def words(section: str, *names: str) -> dict[str, str]:
    """Several texts of a section by name, as figures take them."""
    return {name: t(f"{section}.{name}") for name in names}


def metric_text(row: Metric, place: str, *, classes: bool = False, **values: object) -> str:
    """What is said of a metric in the session's language; see ``Metric.phrase``."""
    return row.phrase(place, language(), classes=classes, **values)


def error_sentence(error: object, *, inside: bool = False) -> str:
    """What the library says of an error, in the session's language.

    Args:
        error: what the library raised, or its text; not escaped yet.
        inside: it goes on within another sentence.
    """
    return translated(error, language(), inside=inside)
