"""Loss gradients of every prunable weight, one block at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prune_core.errors import ModelFileError
from prune_core.evaluation.loss import mean_loss
from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress

Take = Callable[[str, Tensor], None]


class _Recomputed(torch.autograd.Function):
    """A block that keeps its inputs only and is run again when its gradients are asked for.

    The gradients of its weights are handed to ``take`` and forgotten: none is ever stored, so the
    memory is that of one block, whatever the model.
    """

    # torch declares both with *args only; every function of one's own overrides them so
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, run: Callable[..., list[Any]], weights: Any, take: Take, *tensors: Any
    ) -> tuple[Any, ...]:
        ctx.run, ctx.weights, ctx.take = run, weights, take
        ctx.save_for_backward(*tensors)
        with torch.no_grad():
            return tuple(run(*tensors[1:]))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:  # type: ignore[override]
        _anchor, *inputs = ctx.saved_tensors
        needs = ctx.needs_input_grad[4:]
        fresh = [
            x.detach().requires_grad_(True) if isinstance(x, Tensor) and want else x
            for x, want in zip(inputs, needs, strict=True)
        ]
        weights = list(ctx.weights.values())
        for weight in weights:
            weight.requires_grad_(True)
        try:
            with torch.enable_grad():
                outputs = ctx.run(*fresh)
                pairs = [
                    (out, grad)
                    for out, grad in zip(outputs, gradients, strict=True)
                    if isinstance(out, Tensor) and out.requires_grad and grad is not None
                ]
                needed = [x for x, want in zip(fresh, needs, strict=True) if want]
                results = torch.autograd.grad(
                    [out for out, _ in pairs],
                    [*needed, *weights],
                    [grad for _, grad in pairs],
                    allow_unused=True,
                )
        finally:
            for weight in weights:
                weight.requires_grad_(False)
        for name, gradient in zip(ctx.weights, results[len(needed) :], strict=True):
            if gradient is not None:
                ctx.take(name, gradient)
        back = iter(results[: len(needed)])
        return (None, None, None, None, *(next(back) if want else None for want in needs))


def _wrapped(
    forward: Callable[..., Any],
    weights: dict[str, nn.Parameter],
    take: Take,
    anchor: Tensor,
    progress: Progress,
    *args: Any,
    **kwargs: Any,
) -> Any:
    progress.check("Cancelled while gradients were gathered.")
    leaves, layout = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    shape: list[Any] = []

    def run(*tensors: Any) -> list[Any]:
        values = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            values[place] = tensor
        inner_args, inner_kwargs = pytree.tree_unflatten(values, layout)
        outputs, shape[:] = pytree.tree_flatten(forward(*inner_args, **inner_kwargs)), []
        shape.append(outputs[1])
        return list(outputs[0])

    results = _Recomputed.apply(run, weights, take, anchor, *[leaves[i] for i in places])
    return pytree.tree_unflatten(list(results), shape[0])


def gather_gradients(
    model: nn.Module,
    structure: Structure,
    windows: Tensor,
    kind: str,
    *,
    has_language_head: bool = True,
    progress: Progress = NONE,
) -> Tensor:
    """Gradients of the mean loss of each window, averaged over windows.

    Blocks are recomputed in the backward pass and their weights' gradients added up at once:
    beside the model there is one number for each prunable weight and the memory of one block. An
    encoder without a language head has no loss; there it is the sentence embedding's projection
    on random signs (seeded), whose squared gradient estimates that of the whole embedding.

    Args:
        model: a clone of the dense model, its blocks' ``forward`` free to be wrapped.
        structure: of the model.
        windows: (windows, seq_len) int64.
        kind: ``gradient_mean``, ``gradient_abs`` (mean absolute value) or ``gradient_square``.
        has_language_head: False for an encoder that gives embeddings.
        progress: (windows done, windows); a cancel is seen between blocks.

    Returns:
        Flat float32 over all layers in order, each (out, in) row by row.

    Raises:
        ModelFileError: gradients that are not finite; the layer is named.
        Cancelled: by ``progress``.
    """
    flat = torch.zeros(sum(x.numel for x in structure.layers.values()))
    sizes = [x.numel for x in structure.layers.values()]
    totals = {
        name: part.view(layer.out_features, layer.in_features)
        for (name, layer), part in zip(structure.layers.items(), flat.split(sizes), strict=True)
    }

    def take(name: str, gradient: Tensor) -> None:
        gradient = structure.layers[name].from_stored(gradient).float().cpu()
        if kind == "gradient_square":
            totals[name].addcmul_(gradient, gradient)
        else:
            totals[name].add_(gradient.abs() if kind == "gradient_abs" else gradient)

    device = next(model.parameters()).device
    anchor = torch.zeros((), device=device, requires_grad=True)
    wrapped = []
    for block in structure.blocks:
        module = model.get_submodule(block.module)
        weights = {name: model.get_parameter(f"{name}.weight") for name in block.layers}
        wrapped.append(module)
        module.__dict__["forward"] = functools.partial(
            _wrapped, module.forward, weights, take, anchor, progress
        )
    try:
        with torch.enable_grad():
            for count, row in enumerate(windows, start=1):
                tokens = row[None].to(device)
                if has_language_head:
                    loss = mean_loss(model, structure, tokens)
                else:
                    loss = _projection(model, tokens, count)
                torch.autograd.grad(loss, [anchor], allow_unused=True)
                progress.step(count, len(windows))
    finally:
        for module in wrapped:
            del module.__dict__["forward"]
    flat /= len(windows)
    for name, total in totals.items():
        if not bool(torch.isfinite(total).all()):
            raise ModelFileError(
                "The gradients of the layer {name} are not finite on the calibration text; the "
                "model's weights hold NaN or Inf, or its dtype overflows.",
                name=name,
            )
    return flat


def _projection(model: nn.Module, tokens: Tensor, seed: int) -> Tensor:
    base: Any = getattr(model, "base_model", model)
    embedding = base(input_ids=tokens).last_hidden_state[0].float().mean(dim=0)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, embedding.shape, generator=generator) * 2 - 1
    return (embedding * signs.to(embedding.device)).sum()
