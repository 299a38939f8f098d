"""Block by block over a calibration text: only what one block needs is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ModelFileError
from prune_core.evaluation.scoring import run_window
from prune_core.models.runner import TOKENS, BlockRunner
from prune_core.models.structure import Block, Structure
from prune_core.progress import NONE, Progress


class _BlockDoneError(Exception):
    """The block asked for has run: the rest of the model need not."""


class BlockStream:
    """Runs a model's blocks one after the other on all windows.

    Args:
        runner: of ``model``; the stream has it to itself.
        model: a clone whose weights may change between two calls.
        structure: of the model.
        windows: (windows, seq_len) int64.
        progress: a cancel is seen between batches.
    """

    def __init__(
        self,
        runner: BlockRunner,
        model: nn.Module,
        structure: Structure,
        windows: Tensor,
        progress: Progress = NONE,
    ) -> None:
        self._runner, self._model, self._structure = runner, model, structure
        self._progress = progress
        device = next(model.parameters()).device
        count = max(1, TOKENS // windows.shape[1])
        self._batches = [part.to(device) for part in windows.split(count)]
        # what stands in for the blocks before: the last output of each stack
        self._before: list[dict[str, Any]] = [{} for _ in self._batches]

    def run(self, block: Block, keep: bool) -> None:
        """Run one block on all windows; hooks on its layers see their inputs.

        Args:
            block: the one after the last that was kept.
            keep: its outputs are what the next block reads.
        """
        stop = self._model.get_submodule(block.module).register_forward_hook(_stop)
        try:
            with torch.inference_mode():
                for index, batch in enumerate(self._batches):
                    self._progress.check("Cancelled while the calibration text was read.")
                    leading = [self._before[index][b.stack] for b in self._blocks_before(block)]
                    record: list[Any] = []
                    with (
                        self._runner.session(leading=leading, record=record),
                        suppress(_BlockDoneError),
                    ):
                        run_window(self._model, self._structure, batch)
                    if keep:
                        self._before[index][block.stack] = record[-1]
        finally:
            stop.remove()

    def _blocks_before(self, block: Block) -> Iterator[Block]:
        return (b for b in self._structure.blocks if b.index < block.index)

    def see(self, block: Block, visit: Callable[[tuple[str, ...], Tensor], None]) -> None:
        """Run one block and show the inputs of its layers; nothing is kept.

        Args:
            block: see :meth:`run`.
            visit: given the names of the layers that read one and the same tensor, and it as
                (tokens, in) float32.

        Raises:
            ModelFileError: an input is not finite; the layer is named.
        """
        groups: list[tuple[Tensor, list[str]]] = []

        def flush() -> None:
            for inputs, names in groups:
                flat = inputs.reshape(-1, inputs.shape[-1]).float()
                if not bool(torch.isfinite(flat).all()):
                    raise ModelFileError(
                        "The inputs of the layer {name} are not finite on the calibration text; "
                        "the model's weights hold NaN or Inf, or its dtype overflows.",
                        name=names[0],
                    )
                visit(tuple(names), flat)
            groups.clear()

        def hook(name: str) -> Callable[..., None]:
            def look(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
                for inputs, names in groups:
                    if inputs is arguments[0]:
                        names.append(name)
                        return
                groups.append((arguments[0], [name]))

            return look

        handles = [
            self._model.get_submodule(name).register_forward_pre_hook(hook(name))
            for name in block.layers
        ]
        end = self._model.get_submodule(block.module)
        handles.append(end.register_forward_hook(lambda *_: flush(), prepend=True))
        try:
            self.run(block, keep=False)
        finally:
            for handle in handles:
                handle.remove()


def _stop(_module: nn.Module, _arguments: Any, _output: Any) -> None:
    raise _BlockDoneError
