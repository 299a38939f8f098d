"""Surgery: a smaller model in which removed heads, neurons and blocks are physically gone.

Only what plain transformers can load from its configuration is made ("shippable"): every block
keeps as many heads and neurons as the others. Anything else is refused with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import RecipeError
from prune_core.exporting.bias import fill_biases
from prune_core.exporting.shippable import MASKED, Kept, Shape, kept_parts
from prune_core.models.families import FAMILIES
from prune_core.models.structure import Attention, Block, Structure
from prune_core.pruning.parts import structural_cuts
from prune_core.recipes.recipe import Recipe

Slices = dict[str, list[int]]
"""Layer name to rows or columns."""


@dataclass(frozen=True, slots=True)
class Surgery:
    """What is cut where, worked out before any weight is copied.

    Attributes:
        config: of the smaller model.
        blocks: that stay.
        rows: to keep, by layer; layers left whole are in neither.
        columns: likewise.
    """

    config: Any
    blocks: tuple[Block, ...]
    rows: Slices
    columns: Slices


def plan_surgery(model: nn.Module, structure: Structure, recipe: Recipe) -> Surgery:
    """Work out which rows, columns and blocks stay, and the configuration that says so.

    Args:
        model: gives the configuration; not changed.
        structure: of the model.
        recipe: what is dropped.

    Raises:
        RecipeError: plain transformers could not load the result; says why.
    """
    structural_cuts(recipe, structure)  # refuses parts that the model does not have
    source: Any = model
    shapes = [_shape(block) for block in structure.blocks]
    kept = kept_parts(recipe, shapes, structure.family, int(source.config.hidden_size))
    blocks = tuple(b for b in structure.blocks if b.index in kept.blocks)
    config = copy.deepcopy(source.config)
    moved = any(place != block.index for place, block in enumerate(blocks))
    switch = FAMILIES[structure.family].block_scale
    if moved and switch and getattr(config, switch, False):
        raise RecipeError(
            "this model scales attention by the index of a block ({switch}), so that no block can "
            "move up into the place of another; {advice}.",
            switch=switch,
            advice=MASKED,
        )
    _count_blocks(config, structure, blocks)
    _count_neurons(config, structure, blocks, kept.neurons)
    _count_heads(config, structure, blocks, kept.heads)
    if recipe.compensate and hasattr(config, "mlp_bias"):
        config.mlp_bias = True  # what dropped neurons gave on average needs a place
    rows, columns = _slices(structure, blocks, kept)
    return Surgery(config, blocks, rows, columns)


def _shape(block: Block) -> Shape:
    attention = block.attention
    heads = (attention.num_heads, attention.num_kv_heads) if attention is not None else (0, 0)
    cross = block.cross_attention.num_heads if block.cross_attention is not None else 0
    return Shape(block.index, block.stack, *heads, block.intermediate_size, cross)


def skeleton(model: nn.Module, structure: Structure, recipe: Recipe) -> nn.Module:
    """The smaller model without weights (``meta`` tensors): its shapes, in milliseconds.

    Raises:
        RecipeError: see :func:`plan_surgery`; or the family cannot be built this small.
    """
    surgery = plan_surgery(model, structure, recipe)
    with torch.device("meta"):
        built = _empty_model(model, structure, surgery)
    tie_alike(built, model)
    return built


def shrink(model: nn.Module, structure: Structure, recipe: Recipe) -> nn.Module:
    """A new model without the recipe's dropped parts; weights that stay are copied.

    Args:
        model: the pruned model (its weights may hold zeros); not changed.
        structure: of the model.
        recipe: what is dropped.

    Raises:
        RecipeError: plain transformers could not load the result; says why.
    """
    surgery = plan_surgery(model, structure, recipe)
    shrunk = _empty_model(model, structure, surgery)
    state = _state(model, structure, surgery.blocks, surgery.rows, surgery.columns)
    fill_biases(shrunk, state)
    try:
        # assigned, not copied: each tensor keeps its dtype (some of T5 stay float32 in a float16
        # model), and buffers that no file holds keep theirs
        shrunk.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise _unfit(structure, error) from error
    tie_alike(shrunk, model)
    source: Any = model
    shrunk.generation_config = copy.deepcopy(getattr(source, "generation_config", None))
    return shrunk.eval()


def tie_alike(model: Any, source: Any) -> None:
    """Tie the weights of a model that are tied in another one of its class, and no others.

    A checkpoint may hold a head of its own though its configuration says that it is tied.

    Args:
        model: its weights are set.
        source: of transformers' own class, or a clone of one.
    """
    model.all_tied_weights_keys = dict(source.all_tied_weights_keys)
    model.tie_weights(recompute_mapping=False)


def _empty_model(model: nn.Module, structure: Structure, surgery: Surgery) -> Any:
    try:
        return type(model)(surgery.config)
    except (ValueError, RuntimeError, TypeError) as error:
        raise _unfit(structure, error) from error


def _unfit(structure: Structure, error: Exception) -> RecipeError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return RecipeError(
        "a {family} model cannot be built without these parts ({reason}); {masked}.",
        family=structure.family,
        reason=reason,
        masked=MASKED,
    )


def _count_blocks(config: Any, structure: Structure, blocks: Sequence[Block]) -> None:
    if len(blocks) == len(structure.blocks):
        return
    stacks = FAMILIES[structure.family].stacks
    for stack in stacks:
        remaining = [b for b in blocks if b.stack == stack.name]
        whole = [b for b in structure.blocks if b.stack == stack.name]
        for name in stack.blocks:
            if hasattr(config, name):
                setattr(config, name, len(remaining))
        # lists with an entry for each block, as layer_types
        for name, value in list(vars(config).items()):
            is_listed = name in stack.lists or (len(stacks) == 1 and "layer" in name)
            if is_listed and isinstance(value, list) and len(value) == len(whole):
                setattr(config, name, [value[b.number] for b in remaining])
        repeated = FAMILIES[structure.family].repeated
        if repeated:
            pattern, kinds = repeated
            setattr(config, pattern, [[getattr(config, kinds), 1]])
        if len(stacks) == 1 and hasattr(config, "max_window_layers"):
            config.max_window_layers = min(config.max_window_layers, len(remaining))


def _count_neurons(
    config: Any, structure: Structure, blocks: Sequence[Block], kept: Mapping[int, Sequence[int]]
) -> None:
    if not kept:
        return
    for stack in FAMILIES[structure.family].stacks:
        for block in blocks:
            if block.stack == stack.name and block.index in kept and stack.neurons is not None:
                setattr(config, stack.neurons, len(kept[block.index]))


def _count_heads(
    config: Any,
    structure: Structure,
    blocks: Sequence[Block],
    kept: Mapping[int, tuple[Sequence[int], Sequence[int]]],
) -> None:
    if not kept:
        return
    stack = FAMILIES[structure.family].stacks[0]  # where there are two, they share the fields
    attention = next(b.attention for b in blocks if b.attention is not None)
    queries, keys = next(iter(kept.values()))
    setattr(config, stack.heads, len(queries))
    if stack.kv_heads:
        setattr(config, stack.kv_heads, len(keys))
    if stack.head_dim:
        setattr(config, stack.head_dim, attention.head_dim)


def _slices(structure: Structure, blocks: Sequence[Block], kept: Kept) -> tuple[Slices, Slices]:
    """Rows and columns to keep, by layer; layers left whole are in neither."""
    rows: Slices = {}
    columns: Slices = {}
    for block in blocks:
        neurons = list(kept.neurons.get(block.index, ()))
        if neurons and len(neurons) < block.intermediate_size:
            for name in block.layers:
                role = structure.layers[name].role
                if role in ("mlp.up", "mlp.gate"):
                    rows[name] = neurons
                elif role == "mlp.gate_up":
                    rows[name] = [*neurons, *(n + block.intermediate_size for n in neurons)]
                elif role == "mlp.down":
                    columns[name] = neurons
        for attention, heads in (
            (block.attention, kept.heads.get(block.index)),
            (block.cross_attention, kept.cross_heads.get(block.index)),
        ):
            if attention is not None and heads is not None:
                _head_slices(attention, *heads, rows, columns)
        bias = FAMILIES[structure.family].position_bias
        holder = block
        if bias == "first":
            holder = next(b for b in structure.blocks if b.stack == block.stack)
        if bias and holder.attention is not None and block.index in kept.heads:
            queries = list(kept.heads[block.index][0])
            columns[f"{holder.attention.module}.relative_attention_bias"] = queries
    return rows, columns


def _head_slices(
    attention: Attention,
    queries: Sequence[int],
    keys: Sequence[int],
    rows: Slices,
    columns: Slices,
) -> None:
    ranges: dict[str, list[tuple[int, int]]] = {}
    for projection, parts in ((attention.q, queries), (attention.k, keys), (attention.v, keys)):
        spans = ranges.setdefault(projection.layer, [])
        spans.extend(projection.rows[part] for part in parts)
    for name, spans in ranges.items():  # sorted: a fused projection keeps its layout
        rows[name] = [row for start, stop in sorted(spans) for row in range(start, stop)]
    columns[attention.o] = [
        column
        for head in queries
        for column in range(attention.columns(head).start, attention.columns(head).stop)
    ]


def _state(
    model: nn.Module,
    structure: Structure,
    blocks: Sequence[Block],
    rows: Slices,
    columns: Slices,
) -> dict[str, Tensor]:
    names: dict[str, str | None] = {}
    number: dict[str, int] = {}
    remaining = {block.index for block in blocks}
    for block in structure.blocks:
        container, _, _ = block.module.rpartition(".")
        place = number.get(container, 0)
        names[block.module] = f"{container}.{place}" if block.index in remaining else None
        number[container] = place + (block.index in remaining)
    family = FAMILIES[structure.family]
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        owner = next((m for m in names if key.startswith(f"{m}.")), None)
        moved = names[owner] if owner is not None else None
        if owner is not None and moved is None:
            if family.position_bias != "first" or not key.endswith(family.embeddings):
                continue
            # T5's bias by position: it serves all blocks and moves to the first one left
            moved = f"{owner.rpartition('.')[0]}.0"
        renamed = key if owner is None else f"{moved}{key[len(owner) :]}"
        state[renamed] = _sliced(key, value, structure, rows, columns).clone()
    return state


def _sliced(key: str, value: Tensor, structure: Structure, rows: Slices, columns: Slices) -> Tensor:
    name, _, kind = key.rpartition(".")
    if name not in rows and name not in columns:
        return value
    layer = structure.layers.get(name)
    index = torch.tensor(rows.get(name, columns.get(name)), device=value.device)
    if kind == "bias":
        return value[index] if name in rows else value
    axis = 0 if name in rows else 1
    return value.index_select(1 - axis if layer is not None and layer.transposed else axis, index)
