"""One neuron: which tokens it writes towards, and where in a text it fires most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ModelFileError
from prune_core.evaluation.loss import decoder_inputs
from prune_core.evaluation.scoring import run_window
from prune_core.models.structure import Block, Structure
from prune_core.progress import NONE, Progress

WRITTEN = 10
"""Tokens named in either direction."""
PASSAGES = 6
BEFORE, AFTER = 14, 8
"""Tokens shown around the one that fires."""
APART = 16
"""Tokens between two passages of one window."""
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


class _SeenError(Exception):
    """The block's activations are known: the rest of the model need not run."""


def what_it_writes(
    model: nn.Module, structure: Structure, block: Block, down: str, neuron: int
) -> dict[str, Any]:
    """Tokens whose logits a neuron raises and lowers, read straight through the output head.

    W_U (g * W_down[:, k]): the neuron's column, times the weight of the final norm (centered
    first where the norm centers), times the output head: the change of each logit per unit of
    activation, up to one positive factor for all tokens (the norm's division by the size of the
    stream). What later blocks make of it, biases and soft caps are left out.

    Args:
        model: dense; only read.
        structure: of the model.
        block: the neuron's.
        down: name of its ``mlp.down``.
        neuron: index.

    Returns:
        ``raised`` and ``lowered``: lists of (token id, change), strongest first; ``reason``: empty,
        or why there are none: ``no-head``, ``encoder`` (its stack never meets the head),
        ``transform`` (layers lie between stream and head).
    """
    head = model.get_submodule(structure.head_module) if structure.head_module else None
    if structure.kind == "encoder-decoder" and block.stack == "encoder":
        return {"raised": [], "lowered": [], "reason": "encoder"}
    if head is None:
        return {"raised": [], "lowered": [], "reason": "no-head"}
    table: Any = head.weight
    column = structure.layers[down].weight(model)[:, neuron].float()
    if structure.kind == "encoder" or table.shape[1] != column.shape[0]:
        return {"raised": [], "lowered": [], "reason": "transform"}
    own = getattr(model.get_submodule(block.module), "post_feedforward_layernorm", None)  # Gemma 2
    for norm in (own, _final_norm(model, structure)):
        if norm is None:
            continue
        if isinstance(norm, nn.LayerNorm):
            column = column - column.mean()
        weight = norm.get_parameter("weight").float()
        column = column * (1 + weight if type(norm).__name__.startswith("Gemma") else weight)
    with torch.inference_mode():
        change = table.float() @ column
    count = min(WRITTEN, len(change))
    high, low = change.topk(count), (-change).topk(count)
    return {
        "raised": list(zip(high.indices.tolist(), high.values.tolist(), strict=True)),
        "lowered": list(zip(low.indices.tolist(), (-low.values).tolist(), strict=True)),
        "reason": "",
    }


def _final_norm(model: nn.Module, structure: Structure) -> nn.Module | None:
    """The norm before the head; in post-norm families the last one of the last block."""
    last = structure.blocks[-1].module
    stack = last.rpartition(".")[0].rpartition(".")[0]
    for parent in (stack, last):
        owner = model.get_submodule(parent) if parent else model
        for name in _FINAL_NORMS:
            module = getattr(owner, name, None)
            if isinstance(module, nn.Module) and "weight" in dict(module.named_parameters()):
                return module
    return None


def block_activations(
    model: nn.Module,
    structure: Structure,
    block: Block,
    down: str,
    windows: Sequence[Tensor],
    *,
    progress: Progress = NONE,
) -> tuple[Tensor, Tensor]:
    """Activations of a block's neurons on every token; later blocks are not run.

    Args:
        model: a clone of the dense model, free to hang hooks on.
        structure: of the model.
        block: whose neurons.
        down: name of its ``mlp.down``.
        windows: (seq,) each, of one length.
        progress: (windows done, windows); a cancel is seen before each window.

    Returns:
        Tokens (windows, read) int64 that the block's stack reads, and (windows, read, neurons)
        float32, both on the CPU.

    Raises:
        ModelFileError: activations that are not finite; the block is named.
        Cancelled: by ``progress``.
    """
    inputs: list[Tensor] = []

    def see(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        hidden = arguments[0]
        inputs.append(hidden.reshape(-1, hidden.shape[-1]).float().cpu())
        raise _SeenError

    handle = model.get_submodule(down).register_forward_pre_hook(see)
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            for done, window in enumerate(windows, start=1):
                progress.check("Cancelled while the text was read.")
                with suppress(_SeenError):
                    run_window(model, structure, window[None].to(device))
                progress.step(done, len(windows))
    finally:
        handle.remove()
    values = torch.stack(inputs)
    if not bool(torch.isfinite(values).all()):
        raise ModelFileError(
            "The activations of the neurons of block {block} are not finite on this text; the "
            "model's weights hold NaN or Inf, or its dtype overflows.",
            block=block.index,
        )
    return torch.stack([_tokens_read(model, structure, block, w) for w in windows]), values


def _tokens_read(model: nn.Module, structure: Structure, block: Block, window: Tensor) -> Tensor:
    """The tokens of a window that a block's stack reads; see ``evaluation.scoring``."""
    if structure.kind != "encoder-decoder":
        return window
    half = len(window) - len(window) // 2
    if block.stack == "encoder":
        return window[:half]
    return decoder_inputs(model, window[None, half:])[0]


def strongest(values: Tensor, count: int = PASSAGES, apart: int = APART) -> list[tuple[int, int]]:
    """(window, position) of the largest |activation|s, no two of one window close together.

    Args:
        values: (windows, read).
        count: at most.
        apart: positions between two of one window.
    """
    width = values.shape[1]
    order = values.abs().flatten().argsort(descending=True, stable=True).tolist()
    places: list[tuple[int, int]] = []
    for place in order:
        window, position = divmod(place, width)
        if values[window, position] == 0 or len(places) == count:
            break
        if all(w != window or abs(p - position) >= apart for w, p in places):
            places.append((window, position))
    return places


def passages(
    tokens: Tensor, values: Tensor, text: Callable[[int], str], count: int = PASSAGES
) -> list[dict[str, Any]]:
    """The passages in which a neuron fires most.

    Args:
        tokens: (windows, read) int64.
        values: (windows, read) activations of the neuron.
        text: one token as text.
        count: passages at most.

    Returns:
        Dicts with ``window``, ``position``, ``activation``, ``tokens`` (texts), ``activations``
        (of each) and ``at`` (index of the one that fires), strongest first.
    """
    excerpts = []
    for window, position in strongest(values, count):
        start, stop = max(0, position - BEFORE), position + AFTER + 1
        excerpts.append(
            {
                "window": window,
                "position": position,
                "activation": float(values[window, position]),
                "tokens": [text(int(token)) for token in tokens[window, start:stop]],
                "activations": values[window, start:stop].tolist(),
                "at": position - start,
            }
        )
    return excerpts
