"""The working copy: one pruned model at a time, rewritten in place where a recipe changed it.

It shares every tensor with the dense model except the prunable weights, which are its own buffers,
allocated once: a fresh allocation per step would cost several times the cut itself.

Where dropped heads or neurons take input columns of a layer, they are zero in its weights and left
out of its products: a sum of the same terms in the order that the smaller model sums them, so that
what the screen says is what the exported file answers, to the last bit (docs/decisions.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.errors import ModelFileError
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.runner import BlockRunner
from prune_core.models.structure import Layer
from prune_core.models.weight_counts import WeightCounts, bitmask_saving
from prune_core.progress import NONE, Progress
from prune_core.pruning.parts import LayerCut, remove_parts
from prune_core.pruning.plan import CutPlan, count_removed

DENSE = LayerCut()
UNKNOWN = LayerCut("?", -1)


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a plan did.

    Attributes:
        changed: layers that were rewritten.
        removed: layer name to removed weights, counted.
        sparsity: removed over all prunable weights.
        of_rest: removed over the weights that dropped parts leave; the same without any.
        counts: zeros before and after, and what was added.
        bytes_sparse: of a file that holds what is not zero and one bit a weight, in each layer
            where that is smaller: an estimate.
    """

    changed: tuple[str, ...]
    removed: dict[str, int]
    sparsity: float
    of_rest: float
    counts: WeightCounts
    bytes_sparse: int


class WorkingCopy:
    """One pruned view of a dense model. Not thread-safe: one worker owns it.

    Attributes:
        model: the pruned view; read it, never write it.
        runner: runs it block by block.
    """

    def __init__(self, handle: ModelHandle) -> None:
        self.structure = handle.structure
        self._dense = handle.model
        self.model = clone_shared(handle.model)
        self._buffers: dict[str, Tensor] = {}
        self._dense_zeros: dict[str, int | None] = {}
        for name, layer in self.structure.layers.items():
            buffer = layer.stored_weight(self._dense).clone(memory_format=torch.contiguous_format)
            self._buffers[name] = buffer
            self._dense_zeros[name] = count_zeros(buffer)
            module = self.model.get_submodule(name)
            module.weight = nn.Parameter(buffer, requires_grad=False)
        self._states: dict[str, LayerCut] = dict.fromkeys(self.structure.layers, DENSE)
        self._dense_counts, self._bytes = handle.info.counts(), handle.info.bytes_in_memory
        self._zeros = _Zeros({layer.name: layer.zeros for layer in handle.info.layers})
        self.runner = BlockRunner(self.model, self.structure)

    def apply(self, plan: CutPlan, progress: Progress = NONE) -> Applied:
        """Bring the working copy to a plan; only layers whose cut changed are touched.

        On a CPU the zeros of each rewritten layer are counted and compared with the plan.

        Raises:
            ModelFileError: a layer's zeros are not those that the plan removes.
            Cancelled: between layers; layers done so far are remembered as they are.
        """
        changed = []
        removed = count_removed(plan, self.structure)
        self.runner.skipped = frozenset(plan.dropped_blocks)
        with torch.no_grad():
            for name, cut in plan.cuts.items():
                if self._states[name] == cut:
                    continue
                progress.check("Cancelled while weights were removed.")
                # a layer half written must not pass for one that is done
                self._states[name] = UNKNOWN
                self._write(name, cut, plan)
                self._check(name, cut, plan, removed[name])
                self._count(name, cut, plan)
                self._states[name] = cut
                changed.append(name)
        layers, removed_total = self.structure.layers, sum(removed.values())
        total = sum(layer.numel for layer in layers.values())
        rest = sum(math.prod(plan.cuts[name].rest_shape(layer)) for name, layer in layers.items())
        of_rest = (removed_total - (total - rest)) / rest if rest else 0.0
        zeros = {name: self._zeros.after(name, count) for name, count in removed.items()}
        counts = replace(
            self._dense_counts,
            removed=removed_total,
            added=sum(self._zeros.added(name, count) for name, count in removed.items()),
            zeros_after=sum(zeros.values()),
        )
        sparsity = removed_total / total if total else 0.0
        sparse = self._bytes - sum(
            bitmask_saving(layers[name].numel, count, self._buffers[name].element_size())
            for name, count in zeros.items()
        )
        return Applied(tuple(changed), removed, sparsity, of_rest, counts, sparse)

    def _count(self, name: str, cut: LayerCut, plan: CutPlan) -> None:
        """Note the zeros of a layer that has just been written."""
        layer = self.structure.layers[name]
        dense, out = layer.stored_weight(self._dense), self._buffers[name]
        if cut.cut and plan.edits is not None:
            self._zeros.computed(name, dense, out)
        else:
            plain = cut.cut and plan.ranked is not None and not cut.structural
            self._zeros.cut(name, dense, out, plan.limit(layer) if plain else None)

    def _write(self, name: str, cut: LayerCut, plan: CutPlan) -> None:
        layer = self.structure.layers[name]
        dense, out = layer.stored_weight(self._dense), self._buffers[name]
        if cut.cut and plan.edits is not None:
            out.copy_(layer.to_stored(plan.edits.weights[name]))
        elif cut.cut and plan.ranked is not None:
            cut_into(dense, *plan.limit(layer), out)
        else:
            out.copy_(dense)
        if cut.structural:
            remove_parts(layer.from_stored(out), cut)
        self._write_bias(name, cut, plan)
        self._narrow(layer, cut)

    def _check(self, name: str, cut: LayerCut, plan: CutPlan, removed: int) -> None:
        """Refuse a layer that is not what the plan says: its ranks or weights were damaged."""
        zeros, before = count_zeros(self._buffers[name]), self._dense_zeros[name]
        if zeros is None or before is None:
            return
        # computed weights may happen to be 0; others are 0 only where the dense ones are
        most = removed + before if plan.edits is None or not cut.cut else zeros
        if not removed <= zeros <= most or (cut == DENSE and zeros != before):
            raise ModelFileError(
                "The layer {name} has {zeros} zeros after removing {removed} weights; its ranks "
                "or weights were damaged in memory, so start the app again.",
                name=name,
                zeros=zeros,
                removed=removed,
            )

    def _narrow(self, layer: Layer, cut: LayerCut) -> None:
        module = self.model.get_submodule(layer.name)
        module.__dict__.pop("forward", None)
        if cut.whole or not cut.columns:
            return
        mask = torch.ones(layer.in_features, dtype=torch.bool)
        mask[list(cut.columns)] = False
        places = mask.nonzero()[:, 0].to(self._buffers[layer.name].device)
        module.__dict__["forward"] = partial(narrow, module=module, layer=layer, places=places)

    def _write_bias(self, name: str, cut: LayerCut, plan: CutPlan) -> None:
        """Shared with the dense model, so never written: another stands in for it."""
        bias = self._dense.get_submodule(name).bias
        dense = bias if isinstance(bias, nn.Parameter) else None
        if cut.whole and dense is not None:
            dense = nn.Parameter(torch.zeros_like(dense), requires_grad=False)
        elif cut.bias:
            weight = self._buffers[name]
            added = plan.biases[name].cpu()  # MPS has no float64
            total = added if dense is None else dense.cpu().double() + added
            dense = nn.Parameter(total.to(weight.dtype).to(weight.device), requires_grad=False)
        self.model.get_submodule(name).bias = dense

    def block_states(self) -> tuple[tuple[object, ...], ...]:
        """For each block, the state of its layers: equal states compute equal outputs."""
        return tuple(
            (block.index in self.runner.skipped, *(self._states[name] for name in block.layers))
            for block in self.structure.blocks
        )


def pruned_module(handle: ModelHandle, plan: CutPlan, progress: Progress = NONE) -> nn.Module:
    """A pruned model of its own, which no later plan changes.

    Layers that the plan rewrites have weights of their own; all other tensors are the dense
    model's. Answers are those of a working copy at this plan, to the last bit.

    Args:
        handle: the dense model.
        plan: of it.
        progress: a cancel is seen between layers.

    Raises:
        ModelFileError: see :meth:`WorkingCopy.apply`.
        Cancelled: by ``progress``.
    """
    copy = WorkingCopy(handle)
    copy.apply(plan, progress)
    for name, cut in plan.cuts.items():
        if cut == DENSE:
            copy.model.get_submodule(name).weight = handle.model.get_submodule(name).weight
    for block in handle.structure.blocks:
        if block.index not in plan.dropped_blocks:  # nobody runs it block by block
            copy.model.get_submodule(block.module).__dict__.pop("forward", None)
    return copy.model


class _Zeros:
    """Zeros of layers as they are written, at a fraction of what writing them costs.

    A cut leaves a weight that it removes and one that was zero alike at zero, so a layer has as
    many zeros as it loses weights, and those that the cut spares. Most layers have few zeros or
    none: looking at their places alone costs next to nothing, counting all weights half a cut.
    """

    FEW = 0.02
    """Share of a layer's weights up to which the places of its zeros are kept (16 bytes each)."""

    def __init__(self, before: Mapping[str, int]) -> None:
        self._before = before
        self._places: dict[str, tuple[Tensor, ...]] = {}
        self._spared = dict(before)
        self._after: dict[str, int] = {}  # where all weights were counted
        self._added: dict[str, int] = {}  # where computed weights may have filled zeros

    def cut(
        self, name: str, dense: Tensor, out: Tensor, limit: tuple[Tensor, int | Tensor] | None
    ) -> None:
        """Weights were removed.

        Args:
            name: of the layer.
            dense: its weights before, in stored order.
            out: its weights now, likewise.
            limit: ranks, and the limit below which they went; None where parts went, or nothing.
        """
        self._after.pop(name, None)
        self._added.pop(name, None)
        zeros = self._before[name]
        if not zeros:
            return  # none can be spared
        if limit is None or isinstance(limit[1], Tensor) or zeros > self.FEW * dense.numel():
            self._after[name] = out.numel() - int(out.count_nonzero())
            return
        if name not in self._places:
            self._places[name] = (dense.cpu() == 0).nonzero(as_tuple=True)
        self._spared[name] = int((limit[0][self._places[name]] >= limit[1]).sum())

    def computed(self, name: str, dense: Tensor, out: Tensor) -> None:
        """Weights were put in place of those before: zeros may have come, and gone."""
        is_zero = out == 0
        self._after[name] = int(is_zero.sum())
        self._added[name] = int((is_zero & (dense != 0)).sum())

    def after(self, name: str, removed: int) -> int:
        """Zeros of a layer that lost so many weights."""
        return self._after.get(name, removed + self._spared[name])

    def added(self, name: str, removed: int) -> int:
        """Its zeros that were none before."""
        return self._added.get(name, self.after(name, removed) - self._before[name])


def narrow(inputs: Tensor, *, module: nn.Module, layer: Layer, places: Tensor) -> Tensor:
    """What a layer gives without the input columns that are gone.

    A single token, as in decoding, goes through the whole weight: picking columns would cost more
    than the product.

    Args:
        inputs: (..., seq, in).
        module: the layer's.
        layer: of the structure.
        places: (columns,) indices of the columns that stay.
    """
    if inputs.dim() < 2 or inputs.shape[-2] == 1:
        whole: Tensor = type(module).forward(module, inputs)
        return whole
    weight: Any = module.weight
    bias: Any = module.bias
    columns = layer.from_stored(weight).index_select(1, places)
    return F.linear(inputs.index_select(-1, places), columns, bias)


def count_zeros(weight: Tensor) -> int | None:
    """How many weights are 0 or -0; None where counting is not cheap.

    On the CPU NumPy counts at a quarter of the price of ``torch.count_nonzero``: 0.4 % of an
    evaluation of two windows (docs/decisions.md).
    """
    if weight.device.type != "cpu":
        return None
    if weight.dtype == torch.float32:
        return int(np.count_nonzero(weight.numpy() == 0))
    if weight.dtype in (torch.float16, torch.bfloat16):  # NumPy has no bfloat16
        bits = weight.view(torch.int16).numpy()
        return int(np.count_nonzero(bits == 0) + np.count_nonzero(bits == np.iinfo(np.int16).min))
    return None


def cut_into(dense: Tensor, ranks: Tensor, limit: int | Tensor, out: Tensor) -> None:
    """``out = dense`` where ``ranks >= limit``, else 0, in one pass where the kernel allows it.

    ``threshold_backward`` is a select against a threshold: on the 106 M weights of SmolLM2 1.4
    times the time of a copy, where comparing and multiplying takes 3.5 times (docs/benchmarks.md).

    Args:
        dense: weights in stored order.
        ranks: same shape, float32 or int32.
        limit: ranks below it go; one number, or one for each output row.
        out: same shape and dtype as ``dense``; written.
    """
    plain = dense.dtype == ranks.dtype == torch.float32 and dense.device.type == "cpu"
    if plain and isinstance(limit, int):
        # ranks are whole numbers; limit - 0.5 would be rounded above 2^23
        torch.ops.aten.threshold_backward.grad_input(dense, ranks, limit - 1, grad_input=out)
        return
    torch.mul(dense, (ranks >= limit).to(dense.device), out=out)
