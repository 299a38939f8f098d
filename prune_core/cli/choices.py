"""README's table of what can be chosen, made from the registries.

After an entry was added or changed: ``python -m prune_core.cli.choices README.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prune_core.allocation import ALLOCATIONS
from prune_core.criteria import CRITERIA
from prune_core.exporting.formats import FORMATS
from prune_core.jobs.blocks import BLOCK_METHODS
from prune_core.jobs.heads import HEAD_METHODS
from prune_core.patterns import PATTERNS
from prune_core.recipes.choices import RECONSTRUCTIONS
from prune_core.recipes.parts import NEURON_METHODS
from prune_core.registry import Entry, Registry

REGISTRIES: tuple[Registry[Any], ...] = (
    *(CRITERIA, PATTERNS, ALLOCATIONS, RECONSTRUCTIONS),
    *(HEAD_METHODS, NEURON_METHODS, BLOCK_METHODS, FORMATS),
)
"""Every list of choices."""

BEGIN = "<!-- choices: written by python -m prune_core.cli.choices README.md -->"
END = "<!-- end of choices -->"


def choices_table() -> str:
    """A Markdown table with a row for each entry of each registry."""
    rows = ["| Part | Name | Meaning |", "|---|---|---|"]
    for registry in REGISTRIES:
        for entry in registry.values():
            kind = registry.kind.capitalize()
            rows.append(f"| {kind} | `{entry.spelling}` | {_meaning(entry)} |")
    return "\n".join(rows)


def with_choices(page: str) -> str:
    """A page with the table as it is now between its two marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{choices_table()}\n\n{END}{after}"


def _meaning(entry: Entry[Any]) -> str:
    text = entry.text("en", "measures").replace("|", "\\|").rstrip(".")
    if entry.reference and entry.reference.rpartition("/")[2] not in text:
        _, arxiv, number = entry.reference.partition("arxiv.org/abs/")
        text += f" ([{f'arXiv {number}' if arxiv else 'paper'}]({entry.reference}))"
    if entry.kind == CRITERIA.kind and entry.needs:
        passes = any(need.startswith("gradient") for need in entry.needs)
        text += f"; reads a calibration text{', forwards and backwards' if passes else ''}"
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_choices(path.read_text(encoding="utf-8")), encoding="utf-8")
