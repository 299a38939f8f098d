"""SparseGPT and block-by-block pruning against the procedure written out naively."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from prune_core.calibration.gradients import gather_gradients
from prune_core.calibration.hessian import inverse_factor
from prune_core.calibration.windows import calibration_windows
from prune_core.errors import Cancelled, RecipeError
from prune_core.evaluation.loss import mean_loss
from prune_core.jobs.base import TextSpec
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.patterns import NM, PerLayer
from prune_core.progress import Progress
from prune_core.pruning.edits import read_edits
from prune_core.pruning.plan import count_removed, layer_mask
from prune_core.pruning.sparsegpt import prune_together
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import prepare, work_out

READ = TextSpec("inline", "Once upon a time there lived a fox in the deep green forest. " * 20)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


def problem(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * columns)
    mix = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(4 * columns, columns, generator=generator) @ mix
    weight = torch.randn(rows, columns, generator=generator)
    return weight, inputs, inputs.T @ inputs * (2 / len(inputs))


def naive(weight: torch.Tensor, hessian: torch.Tensor, share: float) -> torch.Tensor:
    """One slab, column by column, in float64."""
    w, h = weight.double().clone(), hessian.double().clone()
    h += 0.01 * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(h)).mH
    scores = (w / upper.diagonal()) ** 2
    gone = torch.zeros(w.numel(), dtype=torch.bool)
    gone[scores.reshape(-1).argsort(stable=True)[: round(share * w.numel())]] = True
    gone = gone.view(w.shape)
    for j in range(w.shape[1]):
        error = torch.where(gone[:, j], w[:, j], 0.0) / upper[j, j]
        w[:, j:] -= error[:, None] * upper[j, j:]
        w[:, j][gone[:, j]] = 0
    return w


def test_one_slab_is_the_published_procedure() -> None:
    weight, _, hessian = problem(6, 40)
    (new,), (keep,), raised = prune_together([weight], hessian, PerLayer(), [120], [None])
    assert not raised and int((~keep).sum()) == 120
    torch.testing.assert_close(new.double(), naive(weight, hessian, 0.5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("columns", [40, 300])
def test_repair_lowers_the_error_and_sharing_changes_nothing(columns: int) -> None:
    weight, inputs, hessian = problem(6, columns)
    other = weight.flip(0)[:4] * 0.5
    cuts = [3 * columns, 2 * columns]
    both, masks, _ = prune_together([weight, other], hessian, PerLayer(), cuts, [None, None])
    (alone,), _, _ = prune_together([weight], hessian, PerLayer(), cuts[:1], [None])
    torch.testing.assert_close(both[0], alone, rtol=1e-4, atol=1e-4)
    assert [int((~m).sum()) for m in masks] == cuts

    def error(new: torch.Tensor) -> float:
        return float(((new - weight) @ inputs.T).norm())

    assert error(alone) < error(weight * masks[0])
    fixed, kept, _ = prune_together([weight], hessian, PerLayer(), cuts[:1], [masks[0]])
    assert torch.equal(kept[0], masks[0]) and error(fixed[0]) < error(weight * masks[0])


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4)])
def test_nm_groups_are_whole(n: int, m: int) -> None:
    weight, _, hessian = problem(5, 24)
    (new,), (keep,), _ = prune_together([weight], hessian, NM(n, m), [m - n], [None])
    assert (keep.view(5, -1, m).sum(-1) == n).all()
    assert bool((new[~keep] == 0).all())


def test_dead_inputs_and_singular_hessians() -> None:
    weight, inputs, _ = problem(4, 12)
    inputs[:, 3] = 0
    inputs[:, 5] = inputs[:, 4]
    hessian = inputs.T @ inputs * (2 / len(inputs))
    (new,), _, _ = prune_together([weight], hessian, PerLayer(), [24], [None])
    assert bool((new[:, 3] == 0).all()) and bool(torch.isfinite(new).all())
    upper, dead, raised = inverse_factor(torch.zeros(5, 5))
    assert bool(dead.all()) and bool(torch.isfinite(upper).all()) and not raised
    indefinite = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    upper, _, raised = inverse_factor(indefinite)
    assert raised and bool(torch.isfinite(upper).all())


def test_sequential_wanda_is_the_loop_over_blocks(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    chosen = Calibration(READ, 3, 16, mode="sequential")
    recipe = Recipe(criterion="wanda", pattern="per-row", sparsity=0.5, calibration=chosen)
    loaded = LoadedModel(handle)
    plan = work_out(loaded, recipe)
    windows = calibration_windows(handle.tokenizer, chosen, handle.info.context)
    model = clone_shared(handle.model)
    for block in handle.structure.blocks:
        seen: dict[str, list[torch.Tensor]] = {name: [] for name in block.layers}
        hooks = [
            model.get_submodule(name).register_forward_pre_hook(
                lambda _m, a, name=name, seen=seen: seen[name].append(a[0].detach().double())
            )
            for name in block.layers
        ]
        with torch.no_grad():
            for row in windows:
                model(input_ids=row[None])
        for hook in hooks:
            hook.remove()
        for name in block.layers:
            inputs = torch.cat([x.reshape(-1, x.shape[-1]) for x in seen[name]])
            weight = handle.structure.layers[name].weight(handle.model)
            scores = weight.abs().double() * inputs.pow(2).sum(0).sqrt()
            keep = torch.ones_like(weight, dtype=torch.bool)
            order = scores.argsort(dim=1, stable=True)
            keep.scatter_(1, order[:, : round(0.5 * weight.shape[1])], False)
            assert torch.equal(layer_mask(plan, handle.structure, name), keep)
            pruned = torch.nn.Parameter(weight * keep, requires_grad=False)
            model.get_submodule(name).weight = pruned
    loaded.copy.apply(plan)
    for name in handle.structure.layers:
        expected = model.get_submodule(name).weight
        assert torch.equal(loaded.copy.model.get_submodule(name).weight, expected)


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-t5", "tiny-bert"])
def test_edits_are_exact_and_come_back_from_disk(
    family: str, handles: Mapping[str, ModelHandle], tmp_path: Path
) -> None:
    handle = handles[family]
    recipe = Recipe(
        criterion="sparsegpt",
        reconstruction="sparsegpt",
        sparsity=0.3,
        calibration=Calibration(READ, 3, 16),
    )
    plan = work_out(LoadedModel(handle), recipe)
    assert plan.edits is not None
    removed = count_removed(plan, handle.structure)
    for name, layer in handle.structure.layers.items():
        mask = layer_mask(plan, handle.structure, name)
        assert removed[name] == round(0.3 * layer.numel) == int((~mask).sum())
        assert bool((plan.edits.weights[name][~mask] == 0).all())
    again = read_edits(plan.edits.fingerprint)
    assert again is not None and again.removed == plan.edits.removed
    for name, weight in plan.edits.weights.items():
        assert torch.equal(weight, again.weights[name])
    (file,) = (tmp_path / "edits").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert read_edits(plan.edits.fingerprint) is None


def test_a_full_disk_and_a_cancel_leave_nothing(
    handles: Mapping[str, ModelHandle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Calibration(READ, 3, 16)
    recipe = Recipe(reconstruction="sparsegpt", sparsity=0.3, calibration=chosen)
    polls = iter([False] * 4)
    with pytest.raises(Cancelled):
        work_out(
            LoadedModel(handles["tiny-llama"]),
            recipe,
            progress=Progress(cancelled=lambda: next(polls, True)),
        )
    monkeypatch.setenv("PRUNE_FAULTS", "edits.before_write=disk-full")
    assert work_out(LoadedModel(handles["tiny-llama"]), recipe).edits is not None
    assert not list((tmp_path / "edits").iterdir())


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-t5", "tiny-opt", "tiny-neox"])
def test_gradients_are_those_of_plain_autograd(
    family: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[family]
    windows = calibration_windows(handle.tokenizer, Calibration(READ, 2, 16), handle.info.context)
    plain = clone_shared(handle.model)
    weights = {}
    for name, layer in handle.structure.layers.items():
        own = torch.nn.Parameter(layer.stored_weight(handle.model).clone())
        plain.get_submodule(name).weight = weights[name] = own
    expected = {name: torch.zeros(()) for name in weights}
    for row in windows:
        loss = mean_loss(plain, handle.structure, row[None])
        for name, found in zip(
            weights, torch.autograd.grad(loss, list(weights.values())), strict=True
        ):
            stored = handle.structure.layers[name].from_stored(found)
            expected[name] = expected[name] + stored.abs() / len(windows)
    flat = gather_gradients(clone_shared(handle.model), handle.structure, windows, "gradient_abs")
    sizes = [x.numel for x in handle.structure.layers.values()]
    for name, part in zip(weights, flat.split(sizes), strict=True):
        torch.testing.assert_close(
            part.view(expected[name].shape), expected[name], rtol=1e-3, atol=1e-5
        )
    assert not any(p.requires_grad for p in handle.model.parameters())


def test_increases_are_those_of_one_block_pruned_alone(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-llama"]
    chosen = Calibration(READ, 2, 16)
    recipe = Recipe(sparsity=0.5, allocation="sensitivity", calibration=chosen)
    found = prepare(LoadedModel(handle), recipe).increases
    assert found is not None
    windows = calibration_windows(handle.tokenizer, chosen, handle.info.context)

    def loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            losses = [mean_loss(model, handle.structure, row[None]) for row in windows]
        return float(torch.stack(losses).double().mean())

    sparsities, increases = found
    for block in handle.structure.blocks:
        for share, increase in zip(sparsities, increases[block.index], strict=True):
            model = clone_shared(handle.model)
            for name in block.layers:
                weight = handle.structure.layers[name].weight(handle.model).clone()
                order = weight.abs().reshape(-1).argsort(stable=True)
                weight.view(-1)[order[: round(share * weight.numel())]] = 0
                model.get_submodule(name).weight = torch.nn.Parameter(weight, requires_grad=False)
            assert increase == pytest.approx(loss(model) - loss(handle.model), abs=1e-5)


def test_outliers_are_counted_over_the_whole_block(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-gpt2"]
    found = LoadedModel(handle).ranks.outliers("magnitude", {}, 2.0)
    for block, share in zip(handle.structure.blocks, found, strict=True):
        layers = [handle.structure.layers[name] for name in block.layers]
        scores = torch.cat([x.weight(handle.model).abs().reshape(-1) for x in layers]).double()
        assert share == pytest.approx(float((scores > 2 * scores.mean()).double().mean()), abs=1e-5)


def test_what_cannot_be_is_one_sentence() -> None:
    with pytest.raises(RecipeError, match="another allocation"):
        Recipe(allocation="global", reconstruction="sparsegpt", sparsity=0.5)
    with pytest.raises(RecipeError, match="cuts by value"):
        Recipe(criterion="threshold", criterion_args={"value": 0.1}, sparsity=0.5)
    with pytest.raises(RecipeError, match="takes a block's index"):
        Recipe(allocation="manual", allocation_args={"mlp": 1.0})
