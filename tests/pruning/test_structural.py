"""Weights among what structure leaves: against the shrunk layers pruned on their own, naively."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prune_core.allocation import global_counts
from prune_core.errors import RecipeError
from prune_core.exporting.shrink import shrink
from prune_core.models.handle import ModelHandle
from prune_core.models.layers import describe
from prune_core.models.structure import Layer, Structure
from prune_core.models.tiny import TINY
from prune_core.patterns import NM, Blocks, Pattern, PerLayer, PerRow
from prune_core.pruning.parts import LayerCut, Remaining, left_shape
from prune_core.pruning.plan import count_removed, layer_mask
from prune_core.pruning.working_copy import cut_into
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

pytestmark = pytest.mark.usefixtures("own_cache")
FAMILIES = sorted(TINY)
TEXT = TextSpec("inline", "A mouse once ran over the nose of a sleeping lion. " * 60)
SHARE = 0.37


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


def parts(structure: Structure, what: str) -> dict[str, Any]:
    """A removal that surgery can make."""
    blocks = structure.blocks
    if what == "block":
        return {"drop_blocks": (len(blocks) - 1,)}
    if what == "neurons":
        return {"drop_neurons": tuple((b.index, n) for b in blocks for n in (0, 3, 9))}
    attention = blocks[0].attention
    assert attention is not None
    group = range(attention.group_size)
    heads = tuple((b.index, head) for b in blocks for head in group)
    return {"drop_heads": heads, "drop_blocks": (1,)}


def lowest(scores: Tensor, count: int) -> Tensor:
    """Keep-mask without the ``count`` lowest of a flat tensor; ties by position."""
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[scores.argsort(stable=True)[:count]] = False
    return keep


def pruned_naively(layers: Mapping[str, Layer], model: Any, recipe: Recipe) -> dict[str, Tensor]:
    weights = {name: layer.weight(model) for name, layer in layers.items()}
    if recipe.allocation == "global":
        flat = torch.cat([w.abs().reshape(-1) for w in weights.values()])
        keep = lowest(flat, round(recipe.sparsity * flat.numel()))
        masks = keep.split([w.numel() for w in weights.values()])
        return {n: w * m.view(w.shape) for (n, w), m in zip(weights.items(), masks, strict=True)}
    if recipe.pattern == "per-row":
        return {
            n: torch.stack([r * lowest(r.abs(), round(recipe.sparsity * r.numel())) for r in w])
            for n, w in weights.items()
        }
    return {
        n: w * lowest(w.abs().reshape(-1), round(recipe.sparsity * w.numel())).view(w.shape)
        for n, w in weights.items()
    }


@pytest.mark.parametrize("how", ["per-layer", "per-row", "global"])
@pytest.mark.parametrize("what", ["block", "neurons", "heads"])
@pytest.mark.parametrize("name", FAMILIES)
def test_masking_among_what_is_left_is_pruning_the_shrunk_model(
    name: str, what: str, how: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    if what == "heads" and name != "tiny-llama":
        what = "neurons"  # no checkpoint of this family has fewer heads: see the next test
    chosen = parts(handle.structure, what)
    allocation = "global" if how == "global" else "uniform"
    pattern = "per-layer" if how == "global" else how
    recipe = Recipe(sparsity=SHARE, pattern=pattern, allocation=allocation, **chosen)
    loaded = LoadedModel(handle)
    plan = work_out(loaded, recipe)
    removed = loaded.copy.apply(plan).removed
    ours = shrink(loaded.copy.model, handle.structure, recipe)
    bare = shrink(handle.model, handle.structure, Recipe(**chosen))
    layers = describe(bare).layers
    expected = pruned_naively(layers, bare, recipe)
    for key, layer in layers.items():
        assert torch.equal(layer.weight(ours), expected[key]), key
    for key, layer in handle.structure.layers.items():
        mask = layer_mask(plan, handle.structure, key)
        assert torch.equal(layer.weight(loaded.copy.model), layer.weight(handle.model) * mask)
        assert removed[key] == int((~mask).sum()), "arithmetic equals the count"
    left = sum(x.numel for x in layers.values())
    gone = sum(x.numel for x in handle.structure.layers.values()) - left
    if how == "global":
        assert sum(removed.values()) == gone + round(SHARE * left)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_head_takes_its_queries_and_a_group_its_keys_and_values(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    attention = handle.structure.blocks[0].attention
    assert attention is not None
    group, width = range(attention.group_size), attention.head_dim
    heads = (*group, attention.num_heads - 1)  # a whole group, and one head of another
    recipe = Recipe(sparsity=SHARE, drop_heads=tuple((0, h) for h in heads))
    loaded = LoadedModel(handle)
    plan = work_out(loaded, recipe)
    alone = attention.group_size == 1
    rows: dict[str, set[int]] = {}
    for projection, gone in (
        (attention.q, heads),
        (attention.k, (0, attention.num_kv_heads - 1) if alone else (0,)),
        (attention.v, (0, attention.num_kv_heads - 1) if alone else (0,)),
    ):
        for part in gone:
            rows.setdefault(projection.layer, set()).update(range(*projection.rows[part]))
    columns = {attention.o: {h * width + i for h in heads for i in range(width)}}
    for key in handle.structure.blocks[0].layers:
        layer = handle.structure.layers[key]
        away, across = rows.get(key, set()), columns.get(key, set())
        kept_rows = [r for r in range(layer.out_features) if r not in away]
        kept_columns = [c for c in range(layer.in_features) if c not in across]
        weight = layer.weight(handle.model)[kept_rows][:, kept_columns]
        keep = lowest(weight.abs().reshape(-1), round(SHARE * weight.numel()))
        mask = layer_mask(plan, handle.structure, key)
        assert torch.equal(mask[kept_rows][:, kept_columns].reshape(-1), keep)
        assert int(mask.sum()) == int(keep.sum())


@pytest.mark.parametrize("allocation", ["erk", "owl", "per-role", "manual"])
def test_other_allocations_share_what_is_left(
    allocation: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles["tiny-llama"]
    chosen = parts(handle.structure, "neurons") | {"drop_attention": (1,), "drop_heads": ((0, 1),)}
    args = {"per-role": {"mlp.up": 0.5}, "manual": {"0": 0.5}}.get(allocation, {})
    loaded = LoadedModel(handle)
    bare = sum(count_removed(work_out(loaded, Recipe(**chosen)), handle.structure).values())
    recipe = Recipe(sparsity=SHARE, allocation=allocation, allocation_args=args, **chosen)
    applied = loaded.copy.apply(work_out(loaded, recipe))
    total = sum(layer.numel for layer in handle.structure.layers.values())
    assert sum(applied.removed.values()) == bare + round(SHARE * (total - bare))


@pytest.mark.parametrize("name", FAMILIES)
def test_two_of_four_holds_on_the_whole_layout(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    recipe = Recipe(sparsity=0.5, pattern="nm:2:4", **parts(handle.structure, "neurons"))
    loaded = LoadedModel(handle)
    plan = work_out(loaded, recipe)
    removed = loaded.copy.apply(plan).removed
    for key, layer in handle.structure.layers.items():
        mask = layer_mask(plan, handle.structure, key)
        assert removed[key] == int((~mask).sum())
        if layer.in_features % 4:
            continue
        groups = mask.view(layer.out_features, -1, 4).sum(-1)
        gone = plan.cuts[key].columns
        # neurons 0, 3 and 9: two are left of the first four and both stay
        expected = torch.full_like(groups, 2)
        expected[list(plan.cuts[key].rows)] = 0
        assert torch.equal(groups, expected), (key, gone)
        scores = layer.weight(handle.model).abs().view(layer.out_features, -1, 4).clone()
        scores.view(layer.out_features, -1)[:, list(gone)] = -1
        best = torch.zeros_like(scores, dtype=torch.bool)
        best.scatter_(-1, scores.topk(2, dim=-1).indices, True)
        best[list(plan.cuts[key].rows)] = False
        assert torch.equal(mask, best.view(mask.shape))


def test_squares_that_are_gone_do_not_compete(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    size = handle.structure.blocks[0].intermediate_size
    # whole squares of 4 and one that is cut through
    neurons = tuple((0, n) for n in (0, 1, 2, 3, 5))
    loaded = LoadedModel(handle)
    plan = work_out(loaded, Recipe(sparsity=0.5, pattern="block:4", drop_neurons=neurons))
    removed = loaded.copy.apply(plan).removed
    for key, layer in handle.structure.layers.items():
        if layer.block or not layer.role.startswith("mlp."):
            continue
        mask = layer_mask(plan, handle.structure, key)
        assert removed[key] == int((~mask).sum())
        across = mask if layer.role != "mlp.down" else mask.T
        assert not across[[0, 1, 2, 3, 5]].any()
        squares = across[4:].reshape(size // 4 - 1, 4, -1, 4).any(dim=3).any(dim=1)
        assert int((~squares).sum()) == round(0.5 * squares.numel())


@settings(max_examples=150)
@given(data=st.data())
def test_limits_are_those_of_a_sort_of_what_is_left(data: st.DataObject) -> None:
    pattern: Pattern = data.draw(st.sampled_from([PerLayer(), PerRow(), NM(2, 4), Blocks(2)]))
    rows, columns = (2 * data.draw(st.integers(1, 4)), 4 * data.draw(st.integers(1, 3)))
    places = st.sets(st.integers(0, 99))
    gone_rows = tuple(sorted(r for r in data.draw(places) if r < rows))
    gone_columns = tuple(sorted(c for c in data.draw(places) if c < columns))
    seed = data.draw(st.integers(0, 2**16))
    scores = np.random.default_rng(seed).integers(0, 6, (rows, columns)).astype(np.float32)
    ranks = torch.from_numpy(pattern.rank(scores))
    cut = LayerCut(rows=gone_rows, columns=gone_columns)
    layer = Layer("x", 0, "mlp.up", rows, columns, False)
    shape = left_shape(layer, pattern, cut)
    share = 0.5 if isinstance(pattern, NM) else data.draw(st.floats(0, 1))
    k = pattern.cut(*shape, share) if all(shape) else 0
    rest = Remaining(ranks, pattern, cut)
    mine = (ranks if rest.ranks is None else rest.ranks) >= rest.limit(k)
    kept_rows = [r for r in range(rows) if r not in gone_rows]
    kept_columns = [c for c in range(columns) if c not in gone_columns]
    mine = mine[kept_rows][:, kept_columns]
    if isinstance(pattern, NM):
        groups = torch.zeros(rows, columns)
        groups[:, kept_columns] = 1
        for row in range(len(kept_rows)):
            for group in range(columns // 4):
                inside = [i for i, c in enumerate(kept_columns) if c // 4 == group]
                assert int(mine[row, inside].sum()) == min(len(inside), 4 - k)
                order = sorted(inside, key=lambda i: float(ranks[kept_rows[row], kept_columns[i]]))
                assert bool(mine[row, order[-2:]].all())
        return
    if isinstance(pattern, Blocks):
        left = {(r // 2, c // 2) for r in kept_rows for c in kept_columns}
        order = sorted(left, key=lambda s: int(ranks[2 * s[0], 2 * s[1]]))
        away = set(order[:k])
        for i, r in enumerate(kept_rows):
            for j, c in enumerate(kept_columns):
                assert bool(mine[i, j]) == ((r // 2, c // 2) not in away)
        return
    if kept_rows and kept_columns:  # the shrunk layer, ranked on its own
        own = pattern.rank(np.ascontiguousarray(scores[kept_rows][:, kept_columns]))
        assert torch.equal(mine, torch.from_numpy(own >= k))


def test_a_limit_for_each_row_cuts_as_one_for_all_does() -> None:
    dense = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    ranks = torch.arange(7.0).repeat(5, 1)
    limits = torch.tensor([[0], [1], [7], [3], [2]], dtype=torch.int32)
    out = torch.full_like(dense, 9.0)
    cut_into(dense, ranks, limits, out)
    for row, limit in enumerate(limits[:, 0].tolist()):
        expected = torch.full((1, 7), 9.0)
        cut_into(dense[row : row + 1], ranks[row : row + 1], limit, expected)
        assert torch.equal(out[row], expected[0])


def test_global_counts_leave_out_what_is_gone() -> None:
    ordered = {"a": np.float32([1, 2, 2, 3]), "b": np.float32([0, 2, 5])}
    gone = {"a": np.float32([2, 3])}
    # left: a 1 2, b 0 2 5; ties by layer order
    assert global_counts(ordered, 0.6, gone) == {"a": 2, "b": 1}
    assert global_counts(ordered, 1.0, gone) == {"a": 2, "b": 3}
    assert global_counts(ordered, 0.0, gone) == {"a": 0, "b": 0}


def test_a_slider_step_sorts_nothing_twice(
    handles: Mapping[str, ModelHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = handles["tiny-llama"]
    loaded, chosen = LoadedModel(handle), parts(handle.structure, "neurons")
    first = work_out(loaded, Recipe(sparsity=0.3, pattern="per-row", **chosen))
    monkeypatch.setattr(np, "sort", lambda *_a, **_k: pytest.fail("sorted again"))
    second = work_out(loaded, Recipe(sparsity=0.6, pattern="per-row", **chosen))
    assert all(second.remaining[n] is rest for n, rest in first.remaining.items())
    assert len(first.remaining) == 3 * len(handle.structure.blocks)
    assert work_out(loaded, Recipe(sparsity=0.6)).remaining == {}


def test_the_value_of_a_threshold_cuts_what_is_left(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    args = {"value": 0.1}
    chosen = parts(handle.structure, "neurons")
    recipe = Recipe(criterion="threshold", criterion_args=args, **chosen)
    loaded = LoadedModel(handle)
    plan = work_out(loaded, recipe)
    loaded.copy.apply(plan)
    for key, layer in handle.structure.layers.items():
        dense = layer.weight(handle.model)
        expected = dense * (dense.abs() >= 0.1)
        expected[list(plan.cuts[key].rows)] = 0
        expected[:, list(plan.cuts[key].columns)] = 0
        assert torch.equal(layer.weight(loaded.copy.model), expected)


# ---- computed weights --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["block", "neurons", "heads"])
@pytest.mark.parametrize(
    "given", [{"reconstruction": "sparsegpt"}, {"criterion": "wanda", "pattern": "per-row"}]
)
def test_repair_among_what_is_left_is_repair_of_the_shrunk_model(
    given: dict[str, Any], what: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles["tiny-llama"]
    calibration = Calibration(TEXT, windows=4, seq_len=32, mode="sequential")
    chosen = parts(handle.structure, what)
    recipe = Recipe(sparsity=0.5, calibration=calibration, **given, **chosen)
    loaded = LoadedModel(handle)
    plan = work_out(loaded, recipe)
    removed = loaded.copy.apply(plan).removed
    ours: Any = shrink(loaded.copy.model, handle.structure, recipe)
    bare: Any = shrink(handle.model, handle.structure, Recipe(**chosen))
    alone = LoadedModel(handle_of(handle, bare))
    alone.copy.apply(work_out(alone, Recipe(sparsity=0.5, calibration=calibration, **given)))
    for layer in describe(bare).layers.values():
        expected = layer.weight(alone.copy.model)
        torch.testing.assert_close(layer.weight(ours), expected, atol=2e-5, rtol=1e-4)
    for key in handle.structure.layers:
        assert removed[key] == int((~layer_mask(plan, handle.structure, key)).sum())


def handle_of(handle: ModelHandle, model: Any) -> ModelHandle:
    from dataclasses import replace

    info = replace(handle.info, fingerprint="shrunk")
    return replace(handle, model=model, structure=describe(model), info=info)


def test_groups_that_are_cut_through_are_refused_with_repair(
    handles: Mapping[str, ModelHandle],
) -> None:
    loaded = LoadedModel(handles["tiny-llama"])
    calibration = Calibration(TEXT, windows=2, seq_len=32)
    recipe = Recipe(
        sparsity=0.5,
        pattern="nm:2:4",
        reconstruction="sparsegpt",
        calibration=calibration,
        drop_neurons=((0, 1),),
    )
    with pytest.raises(RecipeError, match="runs of 4"):
        work_out(loaded, recipe)
