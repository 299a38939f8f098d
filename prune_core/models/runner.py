"""Runs a model block by block, so that leading blocks need not be computed again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress

TOKENS = 1024
"""Tokens of several windows that go through a block together; more no longer fit the cache."""


class BlockRunner:
    """Wraps the blocks of one module tree (a clone of its own, never the dense model).

    Attributes:
        blocks_run: how many blocks were computed since the runner was made.
        skipped: blocks that pass on what they are given, having run all the same.
        bypassed: block to an output of its own on the same tokens, dense or pruned: such a block
            passes on what it is given and does not run. What else its output holds (T5's position
            bias) is taken from that output: it does not depend on what the block is given.
    """

    def __init__(self, model: nn.Module, structure: Structure) -> None:
        self.blocks_run = 0
        self.skipped: frozenset[int] = frozenset()
        self.bypassed: Mapping[int, Any] = {}
        self._progress = NONE
        self._leading: list[Any] = []
        self._record: list[Any] | None = None
        self._handed_on: list[Any] = []
        for block in structure.blocks:
            module = model.get_submodule(block.module)
            # bypass nn.Module.__setattr__: the wrapper is a plain attribute of this instance
            module.__dict__["forward"] = functools.partial(self._run, block.index, module.forward)

    def _run(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if index < len(self._leading):
            output = self._leading[index]
        elif index in self.bypassed:
            output = _as_output(args, kwargs, self.bypassed[index])
        else:
            self._progress.check("Cancelled between two blocks.")
            output = forward(*args, **kwargs)
            if index in self.skipped:
                # it ran all the same: caches, and what some families' first block computes for
                # all others (T5's position bias), must be there
                output = _as_output(args, kwargs, output)
            self.blocks_run += 1
        if self._record is not None:
            self._record.append(output)
        return self._handed_on[index] if index < len(self._handed_on) else output

    @contextmanager
    def session(
        self,
        *,
        leading: list[Any] | None = None,
        record: list[Any] | None = None,
        handed_on: list[Any] | None = None,
        progress: Progress = NONE,
    ) -> Iterator[None]:
        """While open: the first blocks answer from ``leading``, all go to ``record``.

        With ``handed_on`` (outputs of all blocks of another run on the same tokens) each block is
        computed and recorded, and the next is given that other run's output in its place.

        Raises:
            Cancelled: from inside the model's forward, when ``progress`` says so.
        """
        self._leading, self._record, self._progress = leading or [], record, progress
        self._handed_on = handed_on or []
        try:
            yield
        finally:
            self._leading, self._record, self._progress = [], None, NONE
            self._handed_on = []


def _as_output(args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    """What a block is given, in the form of an output of its own."""
    hidden = args[0] if args else kwargs["hidden_states"]
    return hidden if isinstance(output, Tensor) else (hidden, *output[1:])


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
