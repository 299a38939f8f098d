"""Ranks: the integer path for very large layers, sorted scores on disk, caches that are full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from prune_core.errors import Cancelled
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.handle import ModelHandle
from prune_core.progress import Progress
from prune_core.pruning import ranks
from prune_core.pruning.ranks import RankStore
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

TEXT = TextSpec("inline", "The ant worked all summer while the grasshopper sang. " * 20)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))


def weights(loaded: LoadedModel, recipe: Recipe) -> dict[str, torch.Tensor]:
    loaded.copy.apply(work_out(loaded, recipe))
    layers = loaded.handle.structure.layers
    return {name: x.weight(loaded.copy.model).clone() for name, x in layers.items()}


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_layers_too_large_for_floats_are_cut_the_same(
    name: str,
    handles: Mapping[str, ModelHandle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe(sparsity=0.37)
    expected = weights(LoadedModel(handles[name]), recipe)
    monkeypatch.setattr(ranks, "EXACT_FLOAT", 1000)
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "other"))
    wide = LoadedModel(handles[name])
    plan = work_out(wide, recipe)
    assert plan.ranked is not None
    assert {r.dtype for r in plan.ranked.ranks.values()} == {torch.int32}
    for key, weight in weights(wide, recipe).items():
        assert torch.equal(weight, expected[key])


def test_sorted_scores_are_read_again_and_made_again_when_cut_short(
    handles: Mapping[str, ModelHandle], tmp_path: Path
) -> None:
    handle = handles["tiny-gpt2"]
    layers = handle.structure.layers

    def ordered() -> dict[str, np.ndarray]:
        store = RankStore(handle.model, layers, "print", tmp_path)
        found = store.ordered("magnitude", {})
        return {name: values.copy() for name, values in found.items()}

    first = ordered()
    for name, layer in layers.items():
        naive = layer.weight(handle.model).abs().reshape(-1).sort().values
        assert np.array_equal(first[name], naive.numpy())
    (path,) = tmp_path.glob("*.cache")
    stamp = path.stat().st_mtime_ns
    ordered()
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(path.read_bytes()[:100])
    for name, values in ordered().items():
        assert np.array_equal(values, first[name])


@pytest.mark.parametrize("moment", ["before_write", "write", "before_replace"])
def test_a_full_disk_gives_the_same_ranks(
    handles: Mapping[str, ModelHandle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    recipe = Recipe(sparsity=0.5, pattern="per-row")
    expected = weights(LoadedModel(handles["tiny-llama"]), recipe)
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "full"))
    monkeypatch.setenv("PRUNE_FAULTS", f"ranks.{moment}=disk-full")
    for key, weight in weights(LoadedModel(handles["tiny-llama"]), recipe).items():
        assert torch.equal(weight, expected[key])
    assert [p for p in (tmp_path / "full").rglob("*") if p.is_file()] == []


def test_a_cut_stopped_between_layers_is_finished_by_the_next(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-llama"]
    expected = weights(LoadedModel(handle), Recipe(sparsity=0.6))
    loaded = LoadedModel(handle)
    weights(loaded, Recipe(sparsity=0.2))
    polls = 0

    def cancelled() -> bool:
        nonlocal polls
        polls += 1
        return polls > 5

    with pytest.raises(Cancelled):
        loaded.copy.apply(work_out(loaded, Recipe(sparsity=0.6)), Progress(cancelled=cancelled))
    again = loaded.copy.apply(work_out(loaded, Recipe(sparsity=0.6)))
    assert len(again.changed) == len(handle.structure.layers) - 5
    for key, layer in handle.structure.layers.items():
        assert torch.equal(layer.weight(loaded.copy.model), expected[key])


def test_a_prefix_cache_with_room_for_some_windows_gives_equal_numbers(
    handles: Mapping[str, ModelHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbers(loaded: LoadedModel, sparsity: float) -> dict[str, object]:
        recipe = Recipe(sparsity=0.3, overrides={"block:2": sparsity})
        job = Evaluate("x", recipe, TEXT, 48, 4)
        return measure(loaded, job)

    handle = handles["tiny-llama"]
    roomy = LoadedModel(handle)
    numbers(roomy, 0.4)
    expected = numbers(roomy, 0.8)
    one_window = roomy.prefix.used // 4
    tight = LoadedModel(handle)
    tight.prefix.budget = 2 * one_window
    numbers(tight, 0.4)
    assert 0 < tight.prefix.used <= tight.prefix.budget
    start = tight.copy.runner.blocks_run
    got = numbers(tight, 0.8)
    blocks = len(handle.structure.blocks)
    # two windows from block 2 on, two in full
    assert tight.copy.runner.blocks_run - start == 2 * (blocks - 2) + 2 * blocks
    for key in ("window_nll", "nll", "kl", "top1"):
        assert got[key] == expected[key]
