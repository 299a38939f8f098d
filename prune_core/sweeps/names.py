"""What methods are called: names of the registries, and of parts that a recipe removes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from prune_core.allocation import ALLOCATIONS
from prune_core.criteria import CRITERIA
from prune_core.patterns import PATTERNS, pattern_text
from prune_core.recipes.choices import RECONSTRUCTIONS
from prune_core.words.catalogue import Words

Method = tuple[str, ...]
"""See ``prune_core.sweeps.axes.method_of``."""

_CALIBRATION = re.compile(r" \d+x\d+$")


def method_name(method: Method, words: Words, *, plain: bool = False) -> str:
    """A method as people call it.

    Args:
        method: its names.
        words: of the reader's language.
        plain: leave out the calibration text, which means nothing to a stakeholder.
    """
    parts = [part for part in method if not (plain and _CALIBRATION.search(part))]
    return " · ".join(part_name(part, words) for part in parts) or words.t("runs.dense")


def method_names(
    methods: Iterable[Method], words: Words, *, plain: bool = False
) -> dict[Method, str]:
    """A name for each of several methods; the full one where plain ones would be equal."""
    methods = list(dict.fromkeys(methods))
    short = {method: method_name(method, words, plain=plain) for method in methods}
    names = list(short.values())
    return {
        method: name if names.count(name) == 1 else method_name(method, words)
        for method, name in short.items()
    }


def part_name(part: str, words: Words) -> str:
    """One name of a method as people call it; what no registry and no catalogue has stays."""
    if part.startswith("+"):
        return RECONSTRUCTIONS.text(part[1:], words.language, "short")
    if part.partition(":")[0] in PATTERNS:
        return pattern_text(part, words.language, "short")
    for registry in (CRITERIA, ALLOCATIONS):
        if part in registry:
            return registry[part].text(words.language, "short", part)
    return words.t_or(f"runs.part_{part}", part)
