"""What whole parts take of each layer, and how weights are cut among what is left.

Dropped heads, neurons, blocks and halves of blocks take rows and columns of layers, so what is
left of a layer is a rectangle of its weights: the layer that surgery would make. A weight share is
a share of that rectangle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_core.errors import RecipeError
from prune_core.models.structure import Attention, Layer, Structure
from prune_core.patterns import Pattern
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence

Places = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class LayerCut:
    """What happens to one layer.

    Attributes:
        ranks: fingerprint of the ranks that are cut; empty where nothing is.
        cut: how many places go within each group of weights that structure leaves, lowest first.
        rows: output rows that dropped parts take.
        columns: input columns that dropped parts take.
        whole: all of it is removed, its bias too.
        bias: fingerprint of the statistics that give the dropped neurons' mean; empty where their
            mean is not added to the bias.
    """

    ranks: str = ""
    cut: int = 0
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    whole: bool = False
    bias: str = ""

    @property
    def touched(self) -> bool:
        """Anything of the layer is removed."""
        return bool(self.cut or self.structural)

    @property
    def structural(self) -> bool:
        """Whole parts of the layer are removed."""
        return bool(self.whole or self.rows or self.columns)

    @property
    def dropped(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Rows and columns that dropped parts take."""
        return self.rows, self.columns

    def rest_shape(self, layer: Layer) -> tuple[int, int]:
        """Rows and columns of the layer that stay."""
        if self.whole:
            return 0, 0
        return layer.out_features - len(self.rows), layer.in_features - len(self.columns)


# ---- from a recipe's parts to rows and columns -------------------------------------------------


def structural_cuts(recipe: Recipe, structure: Structure) -> dict[str, LayerCut]:
    """What a recipe's dropped heads, neurons and blocks take of each layer that they touch.

    A dropped head takes what surgery would: its columns of the output projection, its rows of the
    queries, and the rows of its keys and values where no other head reads them.

    Raises:
        RecipeError: a part that the model does not have, nothing would be left of it, or a share
            of neurons that a calibration text has not turned into named ones.
    """
    if recipe.neurons is not None:
        raise RecipeError("a share of neurons needs a calibration text; give one.")
    targets = {f"role:{x.role}" for x in structure.layers.values()}
    targets |= {f"block:{b.index}" for b in structure.blocks}
    targets |= {f"layer:{name}" for name in structure.layers}
    missing = sorted(set(recipe.overrides) - targets)
    if missing:
        raise RecipeError(
            "this model has no {missing}; the recipe was made for another one.", missing=missing[0]
        )
    whole = _whole_layers(recipe, structure)
    if structure.blocks and len(recipe.drop_blocks) >= len(structure.blocks):
        raise RecipeError("this recipe removes every block of the model; keep at least one.")
    rows: dict[str, set[int]] = {}
    columns: dict[str, set[int]] = {}
    _take_heads(recipe, structure, rows, columns)
    _take_neurons(recipe, structure, rows, columns)
    return {
        name: LayerCut(whole=True)
        if name in whole
        else LayerCut(
            rows=tuple(sorted(rows.get(name, ()))), columns=tuple(sorted(columns.get(name, ())))
        )
        for name in {**dict.fromkeys(whole), **rows, **columns}
    }


def _by_block(
    pairs: Sequence[tuple[int, int]], what: str, structure: Structure, count: Callable[[int], int]
) -> dict[int, list[int]]:
    by_block: dict[int, list[int]] = {}
    for index, part in pairs:
        if index not in by_block:
            by_block[index] = []
        if part >= (count(index) if index < len(structure.blocks) else 0):
            raise RecipeError(
                "this model has no {what} {part} in block {block}; the recipe was made for "
                "another one.",
                what=Sentence(what),
                part=part,
                block=index,
            )
        by_block[index].append(part)
    return by_block


def _take_heads(
    recipe: Recipe,
    structure: Structure,
    rows: dict[str, set[int]],
    columns: dict[str, set[int]],
) -> None:
    for pairs, kind, what in (
        (recipe.drop_heads, "self", "head"),
        (recipe.drop_cross_heads, "cross", "cross-attention head"),
    ):
        attentions = [block.attention_of(kind) for block in structure.blocks]
        counts = [0 if one is None else one.num_heads for one in attentions]
        for index, heads in _by_block(pairs, what, structure, counts.__getitem__).items():
            attention = attentions[index]
            if attention is None:
                continue
            for head in heads:
                indices = columns.setdefault(attention.o, set())
                indices.update(range(*attention.columns(head).indices(1 << 30)))
            for name, head_rows in _head_rows(attention, set(heads)).items():
                rows.setdefault(name, set()).update(head_rows)


def _head_rows(attention: Attention, heads: set[int]) -> dict[str, set[int]]:
    """Rows of queries, and of keys and values that only dropped heads read; only the values where
    a norm over all heads reads the others."""
    size = attention.group_size
    groups = [
        group
        for group in range(attention.num_kv_heads)
        if heads.issuperset(range(group * size, (group + 1) * size))
    ]
    rows: dict[str, set[int]] = {}
    takes = [(attention.v, groups)]
    if not attention.joint_norm:
        takes = [(attention.q, sorted(heads)), (attention.k, groups), *takes]
    for projection, indices in takes:
        for part in indices:
            rows.setdefault(projection.layer, set()).update(range(*projection.rows[part]))
    return rows


def _take_neurons(
    recipe: Recipe,
    structure: Structure,
    rows: dict[str, set[int]],
    columns: dict[str, set[int]],
) -> None:
    def mlp(index: int) -> list[Layer]:
        layers = [structure.layers[name] for name in structure.blocks[index].layers]
        return [layer for layer in layers if layer.role.startswith("mlp.")]

    def count(index: int) -> int:
        return structure.blocks[index].intermediate_size if mlp(index) else 0

    for index, neurons in _by_block(recipe.drop_neurons, "neuron", structure, count).items():
        size = structure.blocks[index].intermediate_size
        for layer in mlp(index):
            if layer.role == "mlp.down":
                columns.setdefault(layer.name, set()).update(neurons)
                continue
            indices = rows.setdefault(layer.name, set())
            indices.update(neurons)
            if layer.role == "mlp.gate_up":  # gates first, then what they let through
                indices.update(neuron + size for neuron in neurons)


def _whole_layers(recipe: Recipe, structure: Structure) -> set[str]:
    """Layers of dropped blocks, and of blocks that lose their attention or MLP."""
    whole = set()
    for blocks, what, prefix in (
        (recipe.drop_blocks, "block", ""),
        (recipe.drop_attention, "attention in block", "attn."),
        (recipe.drop_mlp, "MLP in block", "mlp."),
    ):
        for index in blocks:
            names = structure.blocks[index].layers if index < len(structure.blocks) else ()
            matches = [n for n in names if structure.layers[n].role.startswith(prefix)]
            if not matches:
                raise RecipeError(
                    "this model has no {what} {block}; the recipe was made for another one.",
                    what=Sentence(what),
                    block=index,
                )
            whole.update(matches)
    return whole


def remove_parts(weight: Tensor, cut: LayerCut, value: float | bool = 0) -> None:
    """Set what structure takes of a layer to ``value``, in place.

    Args:
        weight: (out, in).
        cut: what goes.
        value: 0 for weights, False for a mask.
    """
    if cut.whole:
        weight[:] = value
        return
    if cut.rows:
        weight[list(cut.rows)] = value
    if cut.columns:
        weight[:, list(cut.columns)] = value


# ---- weights among what is left ----------------------------------------------------------------


def left_shape(layer: Layer, pattern: Pattern, cut: LayerCut) -> tuple[int, int]:
    """Rows and columns over which a pattern counts its places in what is left of a layer."""
    if not all(cut.rest_shape(layer)):
        return 0, 0
    return pattern.left_shape(layer.out_features, layer.in_features, cut.dropped)


def counts_by_hand(pattern: Pattern, layer: Layer, cut: LayerCut) -> bool:
    """The mask must be counted: dropped columns run through N:M groups or squares of weights."""
    if cut.whole or not cut.cut:
        return False
    return pattern.counts_by_hand(layer.out_features, layer.in_features, cut.dropped)


class Remaining:
    """Limits of one layer's ranks, so that a share of what is left goes; ranks stay as they are.

    The ranks that dropped parts take leave gaps. With them sorted, the rank of the k-th place left
    is k plus the gaps below it: one bisection for a layer, so a slider step sorts nothing.

    Args:
        ranks: (out, in) ranks of the whole layer.
        pattern: they were made under.
        cut: what structure takes; its ``cut`` is not read.
    """

    def __init__(self, ranks: Tensor, pattern: Pattern, cut: LayerCut) -> None:
        self._gaps: Places | None = None
        self._lifted: Tensor | None = None
        if cut.whole or not cut.structural:
            return
        values = ranks.numpy()
        gaps, lifted = pattern.gaps(values, cut.dropped), pattern.lifted(values, cut.dropped)
        self._gaps = None if gaps is None else _gaps(gaps)
        self._lifted = None if lifted is None else torch.from_numpy(lifted)

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        size = self._gaps.nbytes if self._gaps is not None else 0
        return size + (self._lifted.nbytes if self._lifted is not None else 0)

    @property
    def dropped_ranks(self) -> Places:
        """Ranks that dropped parts take, ascending; for ranks over the whole layer."""
        if self._gaps is None:
            return np.empty(0, dtype=np.int32)
        return np.add(self._gaps, np.arange(self._gaps.size), dtype=np.int32)

    @property
    def ranks(self) -> Tensor | None:
        """(out, in) ranks to cut in place of the layer's; None where its own serve."""
        return self._lifted

    def limit(self, places: int) -> int | Tensor:
        """Ranks below it go: one number, or one for each row as (out, 1) int32.

        Args:
            places: of each group of what is left, lowest first.
        """
        if self._gaps is None:
            return places
        if self._gaps.ndim == 2:  # rows compete
            below = (self._gaps <= places).sum(axis=1, dtype=np.int32)
            return torch.from_numpy(below + np.int32(places))[:, None]
        return places + int(np.searchsorted(self._gaps, places, side="right"))


def _gaps(ranks: npt.NDArray[Any]) -> Places:
    """For each rank that is gone, ascending along the last axis, how many that stay lie below."""
    dropped_ranks = np.sort(ranks.astype(np.int32), axis=-1)
    return np.subtract(dropped_ranks, np.arange(dropped_ranks.shape[-1]), dtype=np.int32)
