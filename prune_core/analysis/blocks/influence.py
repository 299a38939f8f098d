"""How much blocks do to what passes through them on a text: one dense pass, nothing is removed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.analysis.passes import run_windows
from prune_core.errors import ModelFileError
from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress


def block_influence(
    model: nn.Module,
    structure: Structure,
    windows: Sequence[Tensor],
    *,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Block influence and angular distances, on all windows.

    Block influence is 1 - mean over tokens of cos(input, output) (ShortGPT, arXiv 2403.03853).
    The angular distance of a run of n blocks from block l on is arccos(cos) / pi between the input
    of block l and the output of block l + n - 1 at the last token, averaged over windows
    (arXiv 2403.17887).

    Args:
        model: a clone of the dense model, free to hang hooks on.
        structure: of the model.
        windows: (seq,) each.
        progress: (windows done, windows); a cancel is seen between windows.

    Returns:
        ``influence``: by block; ``angular``: for each stack ``stack``, ``blocks`` (flat indices)
        and ``distance[n - 1][l]``, None past the end.

    Raises:
        Cancelled: by ``progress``.
        ModelFileError: activations that are not finite.
    """
    count = len(structure.blocks)
    cosines, tokens = [0.0] * count, [0] * count
    ends: dict[int, tuple[Tensor, Tensor]] = {}
    angles: dict[tuple[int, int], float] = {}

    def hook(index: int) -> Callable[..., None]:
        def see(
            module: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any], output: Any
        ) -> None:
            hidden = arguments[0] if arguments else keywords["hidden_states"]
            output = output if isinstance(output, Tensor) else output[0]
            before, after = hidden.cpu().double(), output.cpu().double()  # MPS has no float64
            cosine = torch.cosine_similarity(before, after, dim=-1)
            cosines[index] += float(cosine.sum())
            tokens[index] += cosine.numel()
            ends[index] = (before[0, -1], after[0, -1])

        return see

    handles = [
        model.get_submodule(b.module).register_forward_hook(hook(b.index), with_kwargs=True)
        for b in structure.blocks
    ]
    stacks: dict[str, list[int]] = {}
    for block in structure.blocks:
        stacks.setdefault(block.stack, []).append(block.index)
    try:
        run_windows(model, structure, windows, progress, lambda: _angles(ends, stacks, angles))
    finally:
        for handle in handles:
            handle.remove()
    influence = [1 - c / max(n, 1) for c, n in zip(cosines, tokens, strict=True)]
    if not all(math.isfinite(x) for x in influence):
        bad = next(i for i, x in enumerate(influence) if not math.isfinite(x))
        raise ModelFileError(
            "Block {block} gives values that are not finite on this text.", block=bad
        )
    by_stack = []
    for stack, blocks in stacks.items():
        size = len(blocks)
        distance = [
            [angles[blocks[x], n] / len(windows) if x + n <= size else None for x in range(size)]
            for n in range(1, size + 1)
        ]
        by_stack.append({"stack": stack, "blocks": blocks, "distance": distance})
    return {"influence": influence, "angular": by_stack}


def _angles(
    ends: Mapping[int, tuple[Tensor, Tensor]],
    stacks: Mapping[str, Sequence[int]],
    angles: dict[tuple[int, int], float],
) -> None:
    for blocks in stacks.values():
        for place, first in enumerate(blocks):
            for n, last in enumerate(blocks[place:], start=1):
                cosine = torch.cosine_similarity(ends[first][0], ends[last][1], dim=0)
                angle = float(torch.arccos(cosine.clamp(-1, 1)) / math.pi)
                angles[first, n] = angles.get((first, n), 0.0) + angle
