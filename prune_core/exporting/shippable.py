"""Which recipes can be cut out of a checkpoint that plain transformers loads, and why not others.

Numbers only, no torch: the page asks before a click what surgery asks before it cuts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prune_core.errors import RecipeError
from prune_core.models.families import FAMILIES
from prune_core.models.info import ModelInfo
from prune_core.recipe import Recipe

MASKED = "export it as masked instead"


@dataclass(frozen=True, slots=True)
class Shape:
    """One block: its place, heads, key/value heads and neurons (0 where there are none)."""

    index: int
    stack: str
    heads: int
    kv_heads: int
    neurons: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays.

    Attributes:
        blocks: indices.
        neurons: by block; empty where no neuron goes.
        heads: by block, query heads and key/value heads; empty where no head goes.
    """

    blocks: tuple[int, ...]
    neurons: Mapping[int, Sequence[int]]
    heads: Mapping[int, tuple[Sequence[int], Sequence[int]]]


def shapes_of(info: ModelInfo) -> list[Shape]:
    """The blocks of a model as the web process knows it."""
    return [Shape(b.index, b.stack, b.heads, b.kv_heads, b.intermediate_size) for b in info.blocks]


def kept_parts(recipe: Recipe, shapes: Sequence[Shape], family: str, hidden_size: int) -> Kept:
    """What stays of every block, where a configuration of the family can say so.

    Args:
        recipe: names parts that the model has.
        shapes: of all blocks.
        family: ``model_type``.
        hidden_size: of the model.

    Raises:
        RecipeError: it cannot; says why, and what to do instead.
    """
    if recipe.drop_attention or recipe.drop_mlp:
        raise RecipeError(
            "plain transformers has no block without its attention or its MLP; drop whole blocks, "
            f"or {MASKED}."
        )
    left = [s for s in shapes if s.index not in recipe.drop_blocks]
    for stack in sorted({s.stack for s in shapes}):
        if not any(s.stack == stack for s in left):
            where = f"the {stack}" if len({s.stack for s in shapes}) > 1 else "the model"
            raise RecipeError(f"no block of {where} would be left; keep at least one.")
    neurons = _kept_neurons(recipe, left, family)
    heads = _kept_heads(recipe, left, family, hidden_size)
    return Kept(tuple(s.index for s in left), neurons, heads)


def _gone(pairs: Sequence[tuple[int, int]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for block, part in pairs:
        found.setdefault(block, set()).add(part)
    return found


def _kept_neurons(recipe: Recipe, left: Sequence[Shape], family: str) -> dict[int, list[int]]:
    gone = _gone(recipe.drop_neurons)
    if not any(s.index in gone for s in left):
        return {}
    kept = {
        s.index: [n for n in range(s.neurons) if n not in gone.get(s.index, ())]
        for s in left
        if s.neurons
    }
    if any(not found for found in kept.values()):
        raise RecipeError(f"no neuron would be left in a block; {MASKED}.")
    # T5 has one number for both stacks
    for stack in sorted({s.stack for s in left}) if family != "t5" else [""]:
        chosen = [s.index for s in left if s.index in kept and stack in ("", s.stack)]
        _equal({index: len(kept[index]) for index in chosen}, "neurons")
    return kept


def _kept_heads(
    recipe: Recipe, left: Sequence[Shape], family: str, hidden_size: int
) -> dict[int, tuple[list[int], list[int]]]:
    gone = _gone(recipe.drop_heads)
    if not any(s.index in gone for s in left):
        return {}
    stacks = FAMILIES[family].stacks
    if len(stacks) > 1:
        raise RecipeError(
            f"a {family} model has one number of heads for self- and cross-attention, and "
            f"cross-attention keeps all of its own; {MASKED}."
        )
    if stacks[0].head_dim is None:
        raise RecipeError(
            f"the configuration of a {family} model has no place for the width of a head, so heads "
            f"cannot be cut out of it; {MASKED}."
        )
    kept = {s.index: _groups(s, gone.get(s.index, set())) for s in left if s.heads}
    _equal({index: len(found[0]) for index, found in kept.items()}, "heads")
    _equal({index: len(found[1]) for index, found in kept.items()}, "key/value heads")
    queries = len(next(iter(kept.values()))[0])
    if family in ("llama", "gemma2") and hidden_size % queries:
        raise RecipeError(
            f"a {family} model of hidden size {hidden_size} cannot have {queries} heads, which do "
            f"not divide it; {MASKED}."
        )
    return kept


def _groups(shape: Shape, gone: set[int]) -> tuple[list[int], list[int]]:
    """Heads left in each group of queries that share one key/value head."""
    if len(gone) >= shape.heads:
        raise RecipeError(f"no head would be left in block {shape.index}; {MASKED}.")
    size = shape.heads // shape.kv_heads
    groups = [
        [h for h in range(g * size, (g + 1) * size) if h not in gone] for g in range(shape.kv_heads)
    ]
    if len({len(group) for group in groups if group}) != 1:
        raise RecipeError(
            f"the query heads left in block {shape.index} are spread unequally over its key/value "
            f"heads; drop whole groups of {size}, or {MASKED}."
        )
    return [h for group in groups for h in group], [g for g, group in enumerate(groups) if group]


def _equal(counts: Mapping[int, int], what: str) -> None:
    if len(set(counts.values())) > 1:
        first, *others = counts
        other = next(index for index in others if counts[index] != counts[first])
        raise RecipeError(
            f"block {first} keeps {counts[first]} {what} and block {other} {counts[other]}; plain "
            f"transformers needs as many in every block: drop equally, or {MASKED}."
        )
