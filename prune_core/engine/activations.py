"""Running a model block by block: cancel between blocks, and skip blocks whose output is known.

The blocks keep their place in the model's own forward; only their ``forward`` is wrapped. So
embeddings, masks, rotary tables, final norm and head are the model's own, whatever the family,
and a skipped block answers with what it answered before.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from prune_core.errors import Cancelled
from prune_core.models.structure import Structure

BlockStates = tuple[Any, ...]


class BlockRunner:
    """Wraps the blocks of one module tree (a clone of its own, never the dense model).

    Attributes:
        blocks_run: how many blocks were computed since the runner was made.
    """

    def __init__(self, model: nn.Module, structure: Structure) -> None:
        self.blocks_run = 0
        self._cancelled: Callable[[], bool] | None = None
        self._known: list[Any] = []
        self._record: list[Any] | None = None
        for block in structure.blocks:
            module = model.get_submodule(block.module)
            # bypass nn.Module.__setattr__: the wrapper is a plain attribute of this instance
            module.__dict__["forward"] = functools.partial(self._run, block.index, module.forward)

    def _run(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if index < len(self._known):
            output = self._known[index]
        else:
            if self._cancelled is not None and self._cancelled():
                raise Cancelled("Cancelled between two blocks.")
            output = forward(*args, **kwargs)
            self.blocks_run += 1
        if self._record is not None:
            self._record.append(output)
        return output

    @contextmanager
    def session(
        self,
        *,
        known: list[Any] | None = None,
        record: list[Any] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[None]:
        """While open: the first ``len(known)`` blocks answer from ``known``, all go to ``record``.

        Raises:
            Cancelled: from inside the model's forward, when ``cancelled`` says so.
        """
        self._known, self._record, self._cancelled = known or [], record, cancelled
        try:
            yield
        finally:
            self._known, self._record, self._cancelled = [], None, None


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def output_bytes(outputs: Iterable[Any]) -> int:
    """Memory of block outputs; a tensor that several blocks pass on counts once."""
    sizes = {t.data_ptr(): t.numel() * t.element_size() for out in outputs for t in _tensors(out)}
    return sum(sizes.values())


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

    def known(self, window: str, states: BlockStates) -> list[Any]:
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
        wanted = set(windows)
        for window in [w for w in self._windows if w not in wanted]:
            self.forget(window)
