"""Ranks on disk, cuts, the working copy and the prefix cache, on every tiny family."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from prune_core.errors import Cancelled, ModelFileError, RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.paths import trim_folder
from prune_core.progress import Progress
from prune_core.pruning.parts import LayerCut
from prune_core.pruning.plan import CutPlan, count_removed, layer_mask
from prune_core.pruning.ranks import RankStore
from prune_core.pruning.working_copy import WorkingCopy, count_zeros, cut_into
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

FAMILIES = ["tiny-gpt2", "tiny-llama", "tiny-opt", "tiny-neox", "tiny-bert", "tiny-t5"]
SPEAKING = [name for name in FAMILIES if name != "tiny-bert"]
TEXT = TextSpec("inline", "A hare was one day making fun of a tortoise for being so slow. " * 20)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


@pytest.fixture(params=FAMILIES)
def loaded(request: pytest.FixtureRequest, handles: Mapping[str, ModelHandle]) -> LoadedModel:
    return LoadedModel(handles[request.param])


@pytest.fixture
def llama(handles: Mapping[str, ModelHandle]) -> LoadedModel:
    return LoadedModel(handles["tiny-llama"])


def run(loaded: LoadedModel, recipe: Recipe, **settings: int) -> dict[str, object]:
    job = Evaluate("x", recipe, TEXT, settings.get("seq_len", 48), settings.get("windows", 3))
    return measure(loaded, job)


def snapshot(model: torch.nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {n: (p, p.clone()) for n, p in model.state_dict(keep_vars=True).items()}


def assert_untouched(
    model: torch.nn.Module, before: dict[str, tuple[object, torch.Tensor]]
) -> None:
    for name, now in model.state_dict(keep_vars=True).items():
        assert now is before[name][0]
        assert torch.equal(now, before[name][1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


RECIPES = [
    Recipe(sparsity=0.29),
    Recipe(sparsity=0.5, pattern="per-row"),
    Recipe().with_pattern("nm:2:4"),
    Recipe(sparsity=0.6, allocation="global"),
    Recipe(sparsity=0.4, criterion="random", overrides={"block:0": 0.1}),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.pattern} {r.allocation}")
def test_weights_are_dense_times_mask_and_counted(loaded: LoadedModel, recipe: Recipe) -> None:
    dense = loaded.handle.model
    before = snapshot(dense)
    plan = work_out(loaded, recipe)
    applied = loaded.copy.apply(plan)
    assert applied.removed == count_removed(plan, loaded.handle.structure)
    for name, layer in loaded.handle.structure.layers.items():
        mask = layer_mask(plan, loaded.handle.structure, name)
        expected = layer.weight(dense) * mask
        assert torch.equal(layer.weight(loaded.copy.model), expected)
        assert int((~mask).sum()) == applied.removed[name], "arithmetic equals the count"
    total = sum(x.numel for x in loaded.handle.structure.layers.values())
    assert applied.sparsity == sum(applied.removed.values()) / total
    assert_untouched(dense, before)


def test_per_layer_masks_are_the_naive_ones(loaded: LoadedModel) -> None:
    plan = work_out(loaded, Recipe(sparsity=0.5))
    for name, layer in loaded.handle.structure.layers.items():
        magnitude = layer.weight(loaded.handle.model).abs().reshape(-1)
        keep = torch.ones(magnitude.numel(), dtype=torch.bool)
        keep[magnitude.argsort(stable=True)[: round(0.5 * magnitude.numel())]] = False
        mask = layer_mask(plan, loaded.handle.structure, name)
        assert torch.equal(mask.reshape(-1), keep)


def test_sparsity_zero_changes_no_bit(loaded: LoadedModel) -> None:
    loaded.copy.apply(work_out(loaded, Recipe(sparsity=0.7)))
    loaded.copy.apply(work_out(loaded, Recipe()))
    for name, value in loaded.handle.model.state_dict().items():
        assert torch.equal(loaded.copy.model.state_dict()[name], value)


def test_only_changed_layers_are_written(llama: LoadedModel) -> None:
    llama.copy.apply(work_out(llama, Recipe(sparsity=0.5)))
    again = llama.copy.apply(work_out(llama, Recipe(sparsity=0.5)))
    assert again.changed == ()
    one = llama.copy.apply(work_out(llama, Recipe(sparsity=0.5, overrides={"block:1": 0.2})))
    assert set(one.changed) == set(llama.handle.structure.blocks[1].layers)


def test_the_narrowest_override_wins(llama: LoadedModel) -> None:
    layers = llama.handle.structure.layers
    name = next(n for n, x in layers.items() if x.block == 1 and x.role == "mlp.up")
    recipe = Recipe(
        sparsity=0.5, overrides={"role:mlp.up": 0.1, "block:1": 0.2, f"layer:{name}": 0.75}
    )
    removed = llama.copy.apply(work_out(llama, recipe)).removed
    assert removed[name] == round(0.75 * layers[name].numel)
    for other, layer in layers.items():
        if other == name:
            continue
        share = 0.2 if layer.block == 1 else 0.1 if layer.role == "mlp.up" else 0.5
        assert removed[other] == round(share * layer.numel)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(overrides={"block:99": 0.5}),
        Recipe(overrides={"role:nothing": 0.5}),
        Recipe(drop_heads=((0, 99),)),
        Recipe(drop_heads=((99, 0),)),
    ],
)
def test_a_recipe_for_another_model_is_refused(llama: LoadedModel, recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="made for another one"):
        work_out(llama, recipe)


def test_dropped_heads_are_zeroed_columns_counted_once(loaded: LoadedModel) -> None:
    structure = loaded.handle.structure
    block = structure.blocks[0]
    assert block.attention is not None
    recipe = Recipe(sparsity=0.5, drop_heads=((0, 1),))
    plan = work_out(loaded, recipe)
    removed = loaded.copy.apply(plan).removed
    layer = structure.layers[block.attention.o]
    weight = layer.weight(loaded.copy.model)
    columns = list(range(layer.in_features))[block.attention.columns(1)]
    assert bool((weight[:, columns] == 0).all())
    assert torch.equal(
        weight, layer.weight(loaded.handle.model) * layer_mask(plan, structure, layer.name)
    )
    gone = layer.out_features * len(columns)
    assert removed[layer.name] == gone + round(0.5 * (layer.numel - gone))


def test_a_layer_that_does_not_divide_is_listed_and_left_dense(llama: LoadedModel) -> None:
    plan = work_out(llama, Recipe().with_pattern("nm:5:11"))
    widths = {n: x.in_features for n, x in llama.handle.structure.layers.items()}
    assert set(plan.left_dense) == {n for n, width in widths.items() if width % 11}
    removed = llama.copy.apply(plan).removed
    assert all(removed[n] == 0 for n in plan.left_dense)


def test_the_fast_kernel_is_a_mask() -> None:
    dense = torch.randn(13, 17, generator=torch.Generator().manual_seed(0))
    ranks = torch.randperm(13 * 17, generator=torch.Generator().manual_seed(1)).view(13, 17)
    for cut in (0, 1, 100, 221):
        out, wide = torch.full_like(dense, 7.0), torch.full_like(dense, 7.0)
        cut_into(dense, ranks.float(), cut, out)
        cut_into(dense, ranks.int(), cut, wide)
        assert torch.equal(out, torch.where(ranks >= cut, dense, torch.zeros(())))
        assert torch.equal(out, wide)
    half = torch.empty(13, 17, dtype=torch.bfloat16)
    cut_into(dense.bfloat16(), ranks.float(), 50, half)
    assert torch.equal(half != 0, (ranks >= 50) & (dense.bfloat16() != 0))


# ---- ranks on disk -----------------------------------------------------------------------------


def store(loaded: LoadedModel, folder: Path) -> RankStore:
    return RankStore(loaded.handle.model, loaded.handle.structure.layers, "print", folder)


def test_ranks_are_read_again_and_a_damaged_file_is_made_again(
    llama: LoadedModel, tmp_path: Path
) -> None:
    folder = tmp_path / "ranks"
    folder.mkdir()
    made = store(llama, folder).ranked("magnitude", {}, "per-layer")
    first = {name: ranks.clone() for name, ranks in made.ranks.items()}  # not the mapped file
    (path,) = folder.iterdir()
    stamp = path.stat().st_mtime_ns
    second = store(llama, folder).ranked("magnitude", {}, "per-layer")
    assert path.stat().st_mtime_ns == stamp
    again = {name: ranks.clone() for name, ranks in second.ranks.items()}
    path.write_bytes(path.read_bytes()[:-8])
    third = store(llama, folder).ranked("magnitude", {}, "per-layer")
    for name, ranks in first.items():
        assert torch.equal(ranks, again[name])
        assert torch.equal(ranks, third.ranks[name])


def test_a_full_disk_leaves_nothing_half_written(
    llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ranks"
    folder.mkdir()
    for place in ("ranks.before_write", "ranks.before_replace"):
        monkeypatch.setenv("PRUNE_FAULTS", f"{place}=disk-full")
        ranked = store(llama, folder).ranked("magnitude", {}, "per-row")
        assert list(folder.iterdir()) == []
        assert len(ranked.ranks) == len(llama.handle.structure.layers)


def test_old_rank_files_make_room(tmp_path: Path) -> None:
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    trim_folder(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "d"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zeros_of_either_sign_are_counted(dtype: torch.dtype) -> None:
    weight = torch.tensor([[0.0, -0.0, 1.0], [-1.0, float("nan"), 6e-8]]).to(dtype)
    assert count_zeros(weight) == 2
    assert count_zeros(weight.double()) is None


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_a_layer_that_is_not_what_the_plan_says_is_refused(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch, sparsity: float
) -> None:
    llama.copy.apply(work_out(llama, Recipe(sparsity=0.3)))
    plan = work_out(llama, Recipe(sparsity=sparsity))
    write = WorkingCopy._write

    def one_more(self: WorkingCopy, name: str, cut: LayerCut, plan: CutPlan) -> None:
        write(self, name, cut, plan)
        weight = self._buffers[name].view(-1)
        weight[weight.nonzero()[0]] = 0.0

    monkeypatch.setattr(WorkingCopy, "_write", one_more)
    with pytest.raises(ModelFileError, match="start the app again"):
        llama.copy.apply(plan)
    monkeypatch.undo()
    llama.copy.apply(plan)  # the layer is written again
    for name, layer in llama.handle.structure.layers.items():
        mask = layer_mask(plan, llama.handle.structure, name)
        expected = layer.weight(llama.handle.model) * mask
        assert torch.equal(layer.weight(llama.copy.model), expected)


def test_a_cancelled_ranking_leaves_nothing(llama: LoadedModel, tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    folder.mkdir()
    with pytest.raises(Cancelled):
        store(llama, folder).ranked(
            "magnitude", {}, "per-layer", progress=Progress(cancelled=lambda: True)
        )
    assert list(folder.iterdir()) == []


def test_weights_that_are_not_finite_are_named(llama: LoadedModel, tmp_path: Path) -> None:
    model = clone_shared(llama.handle.model)
    name = next(iter(llama.handle.structure.layers))
    broken = llama.handle.structure.layers[name].stored_weight(model).clone()
    broken[0, 0] = float("nan")
    model.get_submodule(name).weight = torch.nn.Parameter(broken, requires_grad=False)
    bad = RankStore(model, llama.handle.structure.layers, "bad", tmp_path)
    with pytest.raises(ModelFileError, match=name):
        bad.ranked("magnitude", {}, "per-layer")


# ---- the prefix cache --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPEAKING)
def test_the_prefix_cache_equals_a_full_pass(
    name: str, handles: Mapping[str, ModelHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = LoadedModel(handles[name])
    blocks = len(loaded.handle.structure.blocks)
    first = Recipe(sparsity=0.4)
    run(loaded, first)
    for block in range(blocks):
        changed = Recipe(sparsity=0.4, overrides={f"block:{block}": 0.8})
        run(loaded, first)
        start = loaded.copy.runner.blocks_run
        cached = run(loaded, changed)
        computed = loaded.copy.runner.blocks_run - start
        assert cached["first_block"] == block
        assert computed == 3 * (blocks - block)  # three windows from the changed block on
        monkeypatch.setenv("PRUNE_PREFIX_CACHE_MB", "0")
        full = run(LoadedModel(handles[name]), changed)
        monkeypatch.delenv("PRUNE_PREFIX_CACHE_MB")
        assert cached["nll"] == full["nll"]
        assert cached["window_nll"] == full["window_nll"]
        assert cached["kl"] == full["kl"]


def test_a_session_leaves_the_dense_model_alone(loaded: LoadedModel) -> None:
    from prune_core.tasks.generate import generate

    before = snapshot(loaded.handle.model)
    run(loaded, Recipe(sparsity=0.5, drop_heads=((0, 0),)))
    if loaded.handle.info.has_language_head:
        job = Generate("x", Recipe(sparsity=0.5), "Hello", 4)
        generate(loaded, job)
    assert_untouched(loaded.handle.model, before)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


DROPS = Recipe(
    sparsity=0.3, drop_heads=((0, 1),), drop_neurons=tuple((1, n) for n in range(0, 24, 5))
)


def zeros_and_all(loaded: LoadedModel) -> torch.nn.Module:
    """The working copy with its layers' own products, over all columns."""
    model = clone_shared(loaded.copy.model)
    for name in loaded.handle.structure.layers:
        model.get_submodule(name).__dict__.pop("forward", None)
    return model


def forward(loaded: LoadedModel, model: torch.nn.Module, length: int = 12) -> torch.Tensor:
    ids = torch.arange(5, 5 + length)[None]
    more = {"decoder_input_ids": ids} if loaded.handle.structure.kind == "encoder-decoder" else {}
    with torch.inference_mode():
        found = model(input_ids=ids, **more)
    values: torch.Tensor = found.logits if hasattr(found, "logits") else found.last_hidden_state
    return values


def test_columns_that_are_gone_are_not_multiplied(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded.copy.apply(work_out(loaded, DROPS))
    structure = loaded.handle.structure
    attention = structure.blocks[0].attention
    assert attention is not None
    down = next(n for n in structure.blocks[1].layers if structure.layers[n].role == "mlp.down")
    plain = zeros_and_all(loaded)
    seen: list[int] = []
    real = torch.nn.functional.linear

    def counted(inputs: torch.Tensor, weight: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(weight.shape[1])
        return real(inputs, weight, *rest)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    got = forward(loaded, loaded.copy.model)
    assert seen.count(structure.layers[attention.o].in_features - attention.head_dim) == 1
    assert seen.count(structure.layers[down].in_features - 5) == 1
    torch.testing.assert_close(got, forward(loaded, plain), atol=1e-5, rtol=1e-5)


def test_the_whole_weight_is_used_again_where_nothing_is_dropped(loaded: LoadedModel) -> None:
    loaded.copy.apply(work_out(loaded, DROPS))
    loaded.copy.apply(work_out(loaded, Recipe()))
    layers = [loaded.copy.model.get_submodule(name) for name in loaded.handle.structure.layers]
    assert not any("forward" in layer.__dict__ for layer in layers)
    assert torch.equal(forward(loaded, loaded.copy.model), forward(loaded, loaded.handle.model))


def test_one_token_and_many_answer_alike(llama: LoadedModel) -> None:
    llama.copy.apply(work_out(llama, DROPS))
    whole = forward(llama, llama.copy.model, 8)[:, :1]
    torch.testing.assert_close(forward(llama, llama.copy.model, 1), whole, atol=1e-5, rtol=1e-5)


def test_a_clone_reads_its_own_weights(llama: LoadedModel) -> None:
    llama.copy.apply(work_out(llama, DROPS))
    before = forward(llama, llama.copy.model)
    clone = clone_shared(llama.copy.model)
    for name, layer in llama.handle.structure.layers.items():
        zero = torch.zeros_like(layer.stored_weight(clone))
        clone.get_submodule(name).weight = torch.nn.Parameter(zero, requires_grad=False)
    assert not torch.equal(forward(llama, clone), before)
    assert torch.equal(forward(llama, llama.copy.model), before)


def test_a_layer_without_any_column_gives_its_bias(loaded: LoadedModel) -> None:
    size = loaded.handle.structure.blocks[1].intermediate_size
    recipe = Recipe(drop_neurons=tuple((1, neuron) for neuron in range(size)))
    loaded.copy.apply(work_out(loaded, recipe))
    plain = zeros_and_all(loaded)
    got = forward(loaded, loaded.copy.model)
    torch.testing.assert_close(got, forward(loaded, plain), atol=1e-5, rtol=1e-5)
