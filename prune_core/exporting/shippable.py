"""Which recipes can be cut out of a checkpoint that plain transformers loads, and why not others.

Numbers only, no torch: the page asks before a click what surgery asks before it cuts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prune_core.errors import RecipeError
from prune_core.models.families import FAMILIES
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence

MASKED = Sentence("export it as masked instead")

_STACKS = {"encoder": "the encoder", "decoder": "the decoder"}

KeptHeads = Mapping[int, tuple[Sequence[int], Sequence[int]]]
"""By block: query heads and key/value heads."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One block: its place, heads, key/value heads, neurons and heads of cross-attention (0 where
    there are none)."""

    index: int
    stack: str
    heads: int
    kv_heads: int
    neurons: int
    cross_heads: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays.

    Attributes:
        blocks: indices.
        neurons: by block; empty where no neuron goes.
        heads: by block, query heads and key/value heads; empty where no head goes.
        cross_heads: the same of cross-attention.
    """

    blocks: tuple[int, ...]
    neurons: Mapping[int, Sequence[int]]
    heads: KeptHeads
    cross_heads: KeptHeads


def shapes_of(info: ModelInfo) -> list[Shape]:
    """The blocks of a model as the web process knows it."""
    return [
        Shape(b.index, b.stack, b.heads, b.kv_heads, b.intermediate_size, b.cross_heads)
        for b in info.blocks
    ]


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
            "or {masked}.",
            masked=MASKED,
        )
    if FAMILIES[family].first_block and 0 in recipe.drop_blocks:
        raise RecipeError(
            "the first block of a {family} model has no norm before its attention, so that no "
            "other can take its place; keep it, or {masked}.",
            family=family,
            masked=MASKED,
        )
    remaining = [s for s in shapes if s.index not in recipe.drop_blocks]
    for stack in sorted({s.stack for s in shapes}):
        if not any(s.stack == stack for s in remaining):
            where = _STACKS[stack] if len({s.stack for s in shapes}) > 1 else "the model"
            raise RecipeError(
                "no block of {where} would be left; keep at least one.", where=Sentence(where)
            )
    if not FAMILIES[family].longer_decoder and _writes(shapes) and not _writes(remaining):
        encoder, decoder = _per_stack(remaining)
        raise RecipeError(
            "transformers writes no text with a {family} model of {encoder} encoder and {decoder} "
            "decoder blocks (its cache counts the former); drop as many of both, or {masked}.",
            family=family,
            encoder=encoder,
            decoder=decoder,
            masked=MASKED,
        )
    neurons = _kept_neurons(recipe, remaining, family)
    heads, cross = _kept_heads(recipe, remaining, family, hidden_size)
    return Kept(tuple(s.index for s in remaining), neurons, heads, cross)


def _per_stack(shapes: Sequence[Shape]) -> tuple[int, int]:
    encoder = sum(s.stack == "encoder" for s in shapes)
    return encoder, len(shapes) - encoder


def _writes(shapes: Sequence[Shape]) -> bool:
    """A cache as long as the encoder, as transformers 5.23 makes it of T5, serves the decoder."""
    encoder, decoder = _per_stack(shapes)
    return encoder >= decoder


def _by_block(pairs: Sequence[tuple[int, int]]) -> dict[int, set[int]]:
    parts: dict[int, set[int]] = {}
    for block, part in pairs:
        parts.setdefault(block, set()).add(part)
    return parts


def _kept_neurons(recipe: Recipe, remaining: Sequence[Shape], family: str) -> dict[int, list[int]]:
    dropped = _by_block(recipe.drop_neurons)
    if not any(s.index in dropped for s in remaining):
        return {}
    if any(stack.neurons is None for stack in FAMILIES[family].stacks):
        raise RecipeError(
            "the configuration of a {family} model does not name its neurons; {masked}.",
            family=family,
            masked=MASKED,
        )
    kept = {
        s.index: [n for n in range(s.neurons) if n not in dropped.get(s.index, ())]
        for s in remaining
        if s.neurons
    }
    if any(not indices for indices in kept.values()):
        raise RecipeError("no neuron would be left in a block; {masked}.", masked=MASKED)
    # T5 has one number for both stacks
    fields = {stack.name: stack.neurons for stack in FAMILIES[family].stacks}
    for field in sorted({fields[s.stack] or "" for s in remaining}):
        members = [
            s.index for s in remaining if s.index in kept and (fields[s.stack] or "") == field
        ]
        _check_equal({index: len(kept[index]) for index in members}, "neurons")
    return kept


def _kept_heads(
    recipe: Recipe, remaining: Sequence[Shape], family: str, hidden_size: int
) -> tuple[KeptHeads, KeptHeads]:
    """What stays of self- and of cross-attention; both empty where no head goes."""
    dropped, dropped_cross = _by_block(recipe.drop_heads), _by_block(recipe.drop_cross_heads)
    if not any(s.index in dropped or s.index in dropped_cross for s in remaining):
        return {}, {}
    stacks = FAMILIES[family].stacks
    if any(stack.head_dim is None for stack in stacks):
        raise RecipeError(
            "the configuration of a {family} model has no place for the width of a head, so heads "
            "cannot be cut out of it; {masked}.",
            family=family,
            masked=MASKED,
        )
    if any(stack.attention.joint_norm for stack in stacks):
        raise RecipeError(
            "a {family} model normalizes the queries and keys of all heads together, so heads "
            "cannot be cut out of it; {masked}.",
            family=family,
            masked=MASKED,
        )
    kept = {
        s.index: _groups(s.index, s.heads, s.kv_heads, dropped.get(s.index, set()))
        for s in remaining
        if s.heads
    }
    cross = {
        s.index: _groups(s.index, s.cross_heads, s.cross_heads, dropped_cross.get(s.index, set()))
        for s in remaining
        if s.cross_heads
    }
    if len(stacks) > 1:
        _check_same_heads(kept, cross, remaining, family)
    _check_equal({index: len(heads[0]) for index, heads in kept.items()}, "heads")
    _check_equal({index: len(heads[1]) for index, heads in kept.items()}, "key/value heads")
    queries = len(next(iter(kept.values()))[0])
    if FAMILIES[family].heads_divide and hidden_size % queries:
        raise RecipeError(
            "a {family} model of hidden size {hidden_size} cannot have {heads} heads, which do "
            "not divide it; {masked}.",
            family=family,
            hidden_size=hidden_size,
            heads=queries,
            masked=MASKED,
        )
    return kept, cross


def _check_same_heads(
    kept: KeptHeads, cross: KeptHeads, remaining: Sequence[Shape], family: str
) -> None:
    """One number of heads for all attention, and where one bias by position serves each stack the
    same heads."""
    shared = FAMILIES[family].position_bias == "first"
    for stack in sorted({s.stack for s in remaining}) if shared else ():
        if len({tuple(kept[s.index][0]) for s in remaining if s.stack == stack}) > 1:
            raise RecipeError(
                "the blocks of a {family} {stack} share one position bias for each head; drop the "
                "same heads in all of them, or {masked}.",
                family=family,
                stack=Sentence(stack),
                masked=MASKED,
            )
    if len({len(heads[0]) for heads in (*kept.values(), *cross.values())}) > 1:
        raise RecipeError(
            "a {family} model has one number of heads for self- and cross-attention; drop as many "
            "of both in every block of encoder and decoder, or {masked}.",
            family=family,
            masked=MASKED,
        )


def _groups(
    block: int, heads: int, kv_heads: int, dropped: set[int]
) -> tuple[list[int], list[int]]:
    """Heads left in each group of queries that share one key/value head."""
    if len(dropped) >= heads:
        raise RecipeError(
            "no head would be left in block {block}; {masked}.", block=block, masked=MASKED
        )
    size = heads // kv_heads
    groups = [
        [h for h in range(g * size, (g + 1) * size) if h not in dropped] for g in range(kv_heads)
    ]
    if len({len(group) for group in groups if group}) != 1:
        raise RecipeError(
            "the query heads left in block {block} are spread unequally over its key/value heads; "
            "drop whole groups of {size}, or {masked}.",
            block=block,
            size=size,
            masked=MASKED,
        )
    return [h for group in groups for h in group], [g for g, group in enumerate(groups) if group]


def _check_equal(counts: Mapping[int, int], what: str) -> None:
    if len(set(counts.values())) > 1:
        first, *others = counts
        other = next(index for index in others if counts[index] != counts[first])
        raise RecipeError(
            "block {first} keeps {one} {what} and block {other} {two}; plain transformers needs "
            "as many in every block: drop equally, or {masked}.",
            first=first,
            one=counts[first],
            what=Sentence(what),
            other=other,
            two=counts[other],
            masked=MASKED,
        )
