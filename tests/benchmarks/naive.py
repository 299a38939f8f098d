"""Wanda and SparseGPT as published, written out naively: the yardstick of ``methods.py``.

Sequential, sample by sample: the calibration windows pass a block one at a time with hooks on its
linear layers, each layer is pruned, and the windows pass the block again for the next one. Wanda:
arXiv 2306.11695. SparseGPT: arXiv 2301.00774, columns left to right in blocks of 128.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Prune = Callable[[nn.Linear, Any], None]


class _StopError(Exception):
    pass


def first_inputs(model: Any, windows: Tensor) -> tuple[list[Tensor], dict[str, Any]]:
    """What the first block is given, for each window, and its other arguments."""
    inputs: list[Tensor] = []
    others: dict[str, Any] = {}

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(args[0] if args else kwargs["hidden_states"])
        others.update({k: v for k, v in kwargs.items() if k != "hidden_states"})
        raise _StopError

    handle = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for window in windows:
        with contextlib.suppress(_StopError):
            model(input_ids=window[None], use_cache=False)
    handle.remove()
    return inputs, others


def prune(
    model: Any,
    windows: Tensor,
    start: Callable[[nn.Linear], Any],
    add: Callable[[Any, Tensor], None],
    cut: Prune,
) -> None:
    """Prune ``model`` in place, block after block.

    Args:
        model: a Llama-like causal language model.
        windows: (windows, seq_len) token ids.
        start: makes an empty statistic for a layer.
        add: adds one window's inputs, (seq, in), to a statistic.
        cut: prunes a layer by its statistic.
    """
    with torch.no_grad():
        states, others = first_inputs(model, windows)
        for block in model.model.layers:
            linear = [m for m in block.modules() if isinstance(m, nn.Linear)]
            known = {m: start(m) for m in linear}
            hooks = [m.register_forward_hook(_adder(known[m], add)) for m in linear]
            for state in states:
                block(state, **others)
            for hook in hooks:
                hook.remove()
            for module in linear:
                cut(module, known[module])
            for index, state in enumerate(states):
                output = block(state, **others)
                states[index] = output[0] if isinstance(output, tuple) else output


def _adder(known: Any, add: Callable[[Any, Tensor], None]) -> Callable[..., None]:
    return lambda module, args, output: add(known, args[0][0])


def wanda(model: Any, windows: Tensor, sparsity: float) -> None:
    """Per output row, by |w| times the root mean square of the input."""

    def start(module: nn.Linear) -> dict[str, Any]:
        return {"mean": torch.zeros(module.in_features), "samples": 0}

    def add(known: dict[str, Any], inputs: Tensor) -> None:
        known["mean"] *= known["samples"] / (known["samples"] + 1)
        known["samples"] += 1
        known["mean"] += inputs.float().t().norm(p=2, dim=1) ** 2 / known["samples"]

    def cut(module: nn.Linear, known: dict[str, Any]) -> None:
        scores = module.weight.abs() * known["mean"].sqrt()
        order = torch.sort(scores, dim=-1, stable=True)[1]
        gone = order[:, : round(sparsity * scores.shape[1])]
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, gone, True)
        module.weight[mask] = 0

    prune(model, windows, start, add, cut)


def sparsegpt(model: Any, windows: Tensor, sparsity: float) -> None:
    """Columns in blocks of 128, each column's error spread over those to its right."""

    def start(module: nn.Linear) -> dict[str, Any]:
        return {"hessian": torch.zeros(module.in_features, module.in_features), "samples": 0}

    def add(known: dict[str, Any], inputs: Tensor) -> None:
        known["hessian"] *= known["samples"] / (known["samples"] + 1)
        known["samples"] += 1
        scaled = (2 / known["samples"]) ** 0.5 * inputs.float().t()
        known["hessian"] += scaled @ scaled.t()

    def cut(module: nn.Linear, known: dict[str, Any]) -> None:
        weight, hessian = module.weight.clone().float(), known["hessian"]
        dead = hessian.diagonal() == 0
        hessian[dead, dead] = 1
        weight[:, dead] = 0
        hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        factor = torch.linalg.cholesky(inverse, upper=True)
        for left in range(0, weight.shape[1], 128):
            right = min(left + 128, weight.shape[1])
            part, upper = weight[:, left:right].clone(), factor[left:right, left:right]
            scores = part**2 / upper.diagonal() ** 2
            limit = scores.flatten().sort()[0][int(scores.numel() * sparsity)]
            gone, new, errors = scores <= limit, torch.zeros_like(part), torch.zeros_like(part)
            for column in range(right - left):
                old = part[:, column]
                kept = old.clone()
                kept[gone[:, column]] = 0
                new[:, column] = kept
                error = (old - kept) / upper[column, column]
                part[:, column:] -= error[:, None] @ upper[column, column:][None]
                errors[:, column] = error
            weight[:, left:right] = new
            weight[:, right:] -= errors @ factor[left:right, right:]
        module.weight.copy_(weight)

    prune(model, windows, start, add, cut)
