"""Running a model block by block: cancel between blocks, and skip blocks whose output is known.

The blocks keep their place in the model's own forward; only their ``forward`` is wrapped. So
embeddings, masks, rotary tables, final norm and head are the model's own, whatever the family,
and a skipped block answers with what it answered before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from prune_core.models.runner import output_bytes

BlockStates = tuple[Any, ...]


class PrefixCache:
    """Block outputs of the evaluation windows at the last recipe each was measured with.

    Windows beyond the memory budget are not kept: they cost a full pass again.

    Args:
        budget: bytes.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._windows: OrderedDict[str, tuple[BlockStates, list[Any], int]] = OrderedDict()

    def leading(self, window: str, states: BlockStates) -> list[Any]:
        """Outputs of the leading blocks whose states have not changed since ``window`` was kept."""
        if window not in self._windows:
            return []
        kept_states, outputs, _ = self._windows[window]
        same = 0
        while same < len(outputs) and kept_states[same] == states[same]:
            same += 1
        return outputs[:same]

    def keep(self, window: str, states: BlockStates, outputs: list[Any]) -> None:
        """Remember a window's block outputs, if they fit the budget."""
        self.forget(window)
        size = output_bytes(outputs)
        if self.used + size <= self.budget:
            self._windows[window] = (states, list(outputs), size)
            self.used += size

    def forget(self, window: str) -> None:
        """Drop one window."""
        if window in self._windows:
            self.used -= self._windows.pop(window)[2]

    def retain(self, windows: Iterable[str]) -> None:
        """Drop every window that is not among these."""
        names = set(windows)
        for window in [w for w in self._windows if w not in names]:
            self.forget(window)
