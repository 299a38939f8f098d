"""One vocabulary for what is zero: before a recipe, by it, after it; of which total each share is.

A *prunable weight* lies in one of the layers of a model's blocks. Embeddings, output head, norms
and biases are parameters too, and are never pruned. A recipe *removes* weights; only those that
were not zero before are *added* zeros: of a model that is sparse already the others are no gain.

This module only counts: it imports no torch, and asks tensors for nothing but their zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from prune_core.words.numbers import LEAST_SHOWN, counted_share

if TYPE_CHECKING:
    from torch import nn

    from prune_core.models.structure import Structure


SPARSE = 0.01
"""Share of a removal from which the zeros among it are left out of a headline's number; few models
have no zero at all, and a quantized one has some."""


@dataclass(frozen=True, slots=True)
class WeightCounts:
    """How many weights of a model are zero, and since when.

    Attributes:
        parameters: all of the model, tied ones once.
        prunable: weights in its layers.
        embeddings: parameters of embedding tables and of the output head, tied ones once.
        zeros_before: prunable weights that are zero in the loaded model.
        removed: prunable weights that the recipe chose to go, zero before or not.
        added: prunable weights that are zero now and were not before.
        zeros_after: prunable weights that are zero now. A reconstruction may have given zeros a
            value again, else this is ``zeros_before + added``.
        zeros_elsewhere: parameters that are zero as loaded and not prunable.
    """

    parameters: int
    prunable: int
    embeddings: int
    zeros_before: int
    removed: int
    added: int
    zeros_after: int
    zeros_elsewhere: int = 0

    @property
    def nonzero(self) -> int:
        """Parameters of the model that are not zero, the prunable weights as they are now."""
        return self.parameters - self.zeros_elsewhere - self.zeros_after

    @property
    def was_sparse(self) -> bool:
        """Enough was zero before to be worth a word: it does not round to 0 %."""
        return self.of_prunable(self.zeros_before) >= LEAST_SHOWN

    @property
    def kept(self) -> int:
        """Prunable weights that are not zero now."""
        return self.prunable - self.zeros_after

    @property
    def others(self) -> int:
        """Parameters that are neither prunable nor embeddings: norms, biases, small heads."""
        return self.parameters - self.prunable - self.embeddings

    def of_prunable(self, count: int) -> float:
        """A count as a share of the prunable weights, 0 to 1."""
        return count / self.prunable if self.prunable else 0.0

    def of_model(self, count: int) -> float:
        """A count as a share of all parameters of the model, 0 to 1."""
        return count / self.parameters if self.parameters else 0.0

    def to_numbers(self) -> dict[str, Any]:
        """The fields of a result: shares of the prunable weights and of the model, and counts.

        ``sparsity`` is ``removed``; ``zeros_before``, ``added`` and ``zeros_after`` are called as
        the counts; each stands a second time with ``_of_model``. ``counts`` holds the counts.
        """
        counts = {
            "sparsity": self.removed,
            "zeros_before": self.zeros_before,
            "added": self.added,
            "zeros_after": self.zeros_after,
        }
        shares = {name: self.of_prunable(count) for name, count in counts.items()}
        shares |= {f"{name}_of_model": self.of_model(count) for name, count in counts.items()}
        return {**shares, "counts": asdict(self)}


def counts_of(numbers: Mapping[str, Any]) -> WeightCounts | None:
    """The counts in a result; None where a version that did not count them wrote it."""
    counts = numbers.get("counts")
    names = [field.name for field in fields(WeightCounts)]
    if isinstance(counts, Mapping):
        counts = {"zeros_elsewhere": 0, **counts}
    if not isinstance(counts, Mapping) or any(type(counts.get(n)) is not int for n in names):
        return None  # a run may come from a file that somebody wrote
    return WeightCounts(**{name: counts[name] for name in names})


def added_share(numbers: Mapping[str, Any]) -> float:
    """What a result adds to the zeros, as a share of the prunable weights.

    Results of versions that did not count it: from their non-zero parameters, where they hold both
    those of the dense and those of the pruned model, else all that was removed.
    """
    if numbers.get("added") is not None:
        return float(numbers["added"])
    sparsity = float(numbers.get("sparsity") or 0.0)
    dense, nonzero = numbers.get("nonzero_dense"), numbers.get("nonzero")
    removed = sum((numbers.get("removed") or {}).values())
    if not sparsity or not removed or dense is None or nonzero is None:
        return sparsity
    return max(0.0, (dense - nonzero) * sparsity / removed)


def headline_share(sparsity: float, added: float) -> float:
    """The share a headline names: what is removed, or where much of that was zero, what is added.

    Args:
        sparsity: removed, over all prunable weights.
        added: of the prunable weights, those that are zero by the recipe alone.
    """
    return added if sparsity - added >= SPARSE else sparsity


def removed_in_words(counts: WeightCounts) -> str:
    """``40 % of the prunable weights = 31.6 % of the model``."""
    prunable = counted_share(counts.of_prunable(counts.removed))
    model = counted_share(counts.of_model(counts.removed))
    return f"{prunable} of the prunable weights = {model} of the model"


def zeros_in_words(counts: WeightCounts) -> str:
    """What was zero, what is added and what is zero now; empty where hardly any was before."""
    if not counts.was_sparse:
        return ""
    shares = (counts.zeros_before, counts.added, counts.zeros_after)
    before, added, after = (counted_share(counts.of_prunable(count)) for count in shares)
    return f"{before} were zero before, {added} are added, {after} are zero now"


def bitmask_saving(numel: int, zeros: int, item: int) -> int:
    """Bytes that a layer saves where its zeros are left out and one bit says which: 0 if none.

    Args:
        numel: its weights.
        zeros: of them.
        item: bytes of one weight.
    """
    return max(0, zeros * item - -(-numel // 8))


def zeros_in_layers(model: nn.Module, structure: Structure) -> dict[str, int]:
    """Weights of each layer that are exactly zero in a model, by the layer's name."""
    return {
        name: layer.numel - int(layer.stored_weight(model).count_nonzero())
        for name, layer in structure.layers.items()
    }


def zeros_elsewhere(model: nn.Module, structure: Structure) -> int:
    """Parameters that are zero and lie in no layer; tied ones count once."""
    prunable = {id(model.get_parameter(f"{name}.weight")) for name in structure.layers}
    others = [p for p in model.parameters() if id(p) not in prunable]
    return sum(p.numel() - int(p.count_nonzero()) for p in others)


def embedding_parameters(model: nn.Module, structure: Structure) -> int:
    """Parameters of a model's embedding tables and of its output head; tied ones count once."""
    prunable = {id(model.get_parameter(f"{name}.weight")) for name in structure.layers}
    tables: dict[int, int] = {}
    for name, module in model.named_modules():
        if name == structure.head_module or type(module).__name__.endswith("Embedding"):
            own = module.parameters(recurse=False)
            tables |= {id(p): p.numel() for p in own if id(p) not in prunable}
    return sum(tables.values())
