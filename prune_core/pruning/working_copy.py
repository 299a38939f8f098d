"""The working copy: one pruned model at a time, rewritten in place where a recipe changed it.

It shares every tensor with the dense model except the prunable weights, which are its own buffers,
allocated once: a fresh allocation per step would cost several times the cut itself.

Where dropped heads or neurons take input columns of a layer, they are zero in its weights and left
out of its products: a sum of the same terms in the order that the smaller model sums them, so that
what the screen says is what the exported file answers, to the last bit (docs/decisions.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.runner import BlockRunner
from prune_core.models.structure import Layer
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
    """

    changed: tuple[str, ...]
    removed: dict[str, int]
    sparsity: float
    of_rest: float


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
        for name, layer in self.structure.layers.items():
            buffer = layer.stored_weight(self._dense).clone(memory_format=torch.contiguous_format)
            self._buffers[name] = buffer
            module = self.model.get_submodule(name)
            module.weight = nn.Parameter(buffer, requires_grad=False)
        self._states: dict[str, LayerCut] = dict.fromkeys(self.structure.layers, DENSE)
        self.runner = BlockRunner(self.model, self.structure)

    def apply(self, plan: CutPlan, progress: Progress = NONE) -> Applied:
        """Bring the working copy to a plan; only layers whose cut changed are touched.

        Raises:
            Cancelled: between layers; layers done so far are remembered as they are.
        """
        changed = []
        self.runner.skipped = frozenset(plan.dropped_blocks)
        with torch.no_grad():
            for name, cut in plan.cuts.items():
                if self._states[name] == cut:
                    continue
                progress.check("Cancelled while weights were removed.")
                # a layer half written must not pass for one that is done
                self._states[name] = UNKNOWN
                self._write(name, cut, plan)
                self._states[name] = cut
                changed.append(name)
        removed = count_removed(plan, self.structure)
        layers, gone = self.structure.layers, sum(removed.values())
        total = sum(layer.numel for layer in layers.values())
        rest = sum(math.prod(plan.cuts[name].left(layer)) for name, layer in layers.items())
        of_rest = (gone - (total - rest)) / rest if rest else 0.0
        return Applied(tuple(changed), removed, gone / total if total else 0.0, of_rest)

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

    def _narrow(self, layer: Layer, cut: LayerCut) -> None:
        module = self.model.get_submodule(layer.name)
        module.__dict__.pop("forward", None)
        if cut.whole or not cut.columns:
            return
        kept = torch.ones(layer.in_features, dtype=torch.bool)
        kept[list(cut.columns)] = False
        places = kept.nonzero()[:, 0].to(self._buffers[layer.name].device)
        module.__dict__["forward"] = partial(narrow, module=module, layer=layer, kept=places)

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


def narrow(inputs: Tensor, *, module: nn.Module, layer: Layer, kept: Tensor) -> Tensor:
    """What a layer gives without the input columns that are gone.

    A single token, as in decoding, goes through the whole weight: picking columns would cost more
    than the product.

    Args:
        inputs: (..., seq, in).
        module: the layer's.
        layer: of the structure.
        kept: (columns,) places of the columns that stay.
    """
    if inputs.dim() < 2 or inputs.shape[-2] == 1:
        whole: Tensor = type(module).forward(module, inputs)
        return whole
    weight: Any = module.weight
    bias: Any = module.bias
    columns = layer.from_stored(weight).index_select(1, kept)
    return F.linear(inputs.index_select(-1, kept), columns, bias)


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
