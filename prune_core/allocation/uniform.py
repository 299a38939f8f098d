"""The same share everywhere."""

from __future__ import annotations

from collections.abc import Iterable


def uniform(names: Iterable[str], sparsity: float) -> dict[str, float]:
    """The same sparsity for every layer."""
    return dict.fromkeys(names, sparsity)
