"""Damage by block against plain transformers: copies pruned by hand, hooks on their blocks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prune_core.engine.core import Core
from prune_core.errors import Cancelled, RecipeError
from prune_core.jobs.compare import BlockDamage
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.handle import ModelHandle
from prune_core.models.tiny import TINY
from prune_core.progress import Progress
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe

TEXT = TextSpec("inline", "The fox went out into the wood and met a wolf. " * 40)
HALF = Recipe(sparsity=0.5)
LANGUAGE = [name for name in TINY if name != "tiny-bert"]


def run(job: BlockDamage | Evaluate, core: Core | None = None) -> dict[str, Any]:
    return (core or Core()).run(job)


def pruned(handle: ModelHandle, blocks: list[int]) -> nn.Module:
    """A deep copy with half of every layer's weights of these blocks at zero, smallest first."""
    model = copy.deepcopy(handle.model)
    for layer in handle.structure.layers.values():
        if layer.block in blocks:
            weight = layer.weight(model)
            order = weight.abs().reshape(-1).argsort(stable=True)
            gone = order[: round(layer.numel / 2)]
            weight[gone // layer.in_features, gone % layer.in_features] = 0
    return model


def outputs(model: nn.Module, handle: ModelHandle, tokens: Tensor) -> tuple[list[Tensor], float]:
    """Every block's output and the loss, by hooks and by hand."""
    found: list[Tensor] = []

    def see(module: nn.Module, given: Any, output: Any) -> None:
        found.append((output if isinstance(output, Tensor) else output[0]).double())

    hooks = [
        model.get_submodule(b.module).register_forward_hook(see) for b in handle.structure.blocks
    ]
    loss = 0.0
    with torch.inference_mode():
        if handle.structure.kind == "encoder":
            model(input_ids=tokens)
        elif handle.structure.kind == "encoder-decoder":
            half = tokens.shape[1] - tokens.shape[1] // 2
            loss = float(model(input_ids=tokens[:, :half], labels=tokens[:, half:]).loss)
        else:
            loss = float(model(input_ids=tokens, labels=tokens).loss)
    for hook in hooks:
        hook.remove()
    return found, loss


def turned(dense: Tensor, other: Tensor) -> float:
    dots = (dense * other).sum(-1)
    return float((1 - dots / dense.norm(dim=-1) / other.norm(dim=-1)).mean())


@pytest.mark.parametrize("name", list(TINY))
def test_outputs_turn_as_in_copies_pruned_by_hand(
    handles: Mapping[str, ModelHandle], name: str
) -> None:
    handle, core = handles[name], Core()
    result = run(BlockDamage(name, HALF, TEXT, 32, 2), core)
    windows = core.loaded(name).windows(TEXT, 32, 2)
    assert result["windows"] == 2 and result["tokens"] == 64
    count = len(handle.structure.blocks)
    own, accumulated = [[0.0] * count for _ in range(2)]
    for window in windows:
        dense, _ = outputs(handle.model, handle, window[None])
        whole, _ = outputs(pruned(handle, list(range(count))), handle, window[None])
        for block in range(count):
            alone, _ = outputs(pruned(handle, [block]), handle, window[None])
            own[block] += turned(dense[block], alone[block]) / 2
            accumulated[block] += turned(dense[block], whole[block]) / 2
    assert result["own"]["mean"] == pytest.approx(own, rel=1e-4, abs=1e-7)
    assert result["accumulated"]["mean"] == pytest.approx(accumulated, rel=1e-4, abs=1e-7)
    assert all(value > 0 for value in own)
    assert all(error is not None and error >= 0 for error in result["own"]["stderr"])


@pytest.mark.parametrize("name", LANGUAGE)
def test_loss_rises_as_in_copies_with_one_block_pruned(
    handles: Mapping[str, ModelHandle], name: str
) -> None:
    handle, core = handles[name], Core()
    result = run(BlockDamage(name, HALF, TEXT, 32, 2, "loss"), core)
    windows = core.loaded(name).windows(TEXT, 32, 2)
    for block in range(len(handle.structure.blocks)):
        model, expected = pruned(handle, [block]), 0.0
        for window in windows:
            dense = outputs(handle.model, handle, window[None])[1]
            expected += (outputs(model, handle, window[None])[1] - dense) / 2
        assert result["increase"]["mean"][block] == pytest.approx(expected, abs=2e-5)


def test_a_dense_recipe_does_no_damage() -> None:
    result = run(BlockDamage("tiny-llama", Recipe(), TEXT, 32, 2))
    assert max(result["own"]["mean"] + result["accumulated"]["mean"]) < 1e-12
    loss = run(BlockDamage("tiny-llama", Recipe(), TEXT, 32, 2, "loss"))
    assert set(loss["increase"]["mean"]) == {0.0}


def test_a_dropped_block_alone_counts_and_spares_the_others() -> None:
    core = Core()
    recipe = Recipe(drop_blocks=(1,))
    found = run(BlockDamage("tiny-llama", recipe, TEXT, 32, 2), core)
    assert found["own"]["mean"][1] > 1e-4
    assert found["own"]["mean"][0] < 1e-12
    assert found["accumulated"]["mean"][0] < 1e-12
    increase = run(BlockDamage("tiny-llama", recipe, TEXT, 32, 2, "loss"), core)["increase"]
    assert [value != 0 for value in increase["mean"]] == [
        block == 1 for block in range(len(increase["mean"]))
    ]
    # a single damaged block: its increase is the whole recipe's
    whole = run(Evaluate("tiny-llama", recipe, TEXT, 32, 2), core)
    assert increase["mean"][1] == pytest.approx(whole["delta_nll"], abs=1e-5)


def test_measurements_after_it_are_as_before() -> None:
    core = Core()
    job = Evaluate("tiny-llama", HALF, TEXT, 32, 2)
    before = run(job, core)["window_nll"]
    run(BlockDamage("tiny-llama", HALF, TEXT, 32, 2, "loss"), core)
    run(BlockDamage("tiny-llama", HALF, TEXT, 32, 2), core)
    assert run(job, core)["window_nll"] == before


def test_one_window_has_an_error_only_over_its_tokens() -> None:
    one = run(BlockDamage("tiny-llama", HALF, TEXT, 64, 1))
    assert set(one["own"]["stderr"]) == {None}
    loss = run(BlockDamage("tiny-llama", HALF, TEXT, 128, 1, "loss"))
    assert all(error is not None for error in loss["increase"]["stderr"])


def test_bad_input() -> None:
    with pytest.raises(RecipeError, match="use output or loss"):
        run(BlockDamage("tiny-llama", HALF, TEXT, 32, 2, "guess"))
    with pytest.raises(RecipeError, match="encoder without a loss"):
        run(BlockDamage("tiny-bert", HALF, TEXT, 32, 2, "loss"))
    with pytest.raises(RecipeError, match="block"):
        run(BlockDamage("tiny-llama", Recipe(drop_blocks=(77,)), TEXT, 32, 2))


def test_it_reports_and_stops() -> None:
    events: list[dict[str, Any]] = []
    core = Core()
    core.run(BlockDamage("tiny-llama", HALF, TEXT, 32, 2), Progress(events.append))
    steps = [(e["done"], e["total"]) for e in events if e.get("stage") == "blocks"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(Cancelled):
        core.run(
            BlockDamage("tiny-llama", HALF, TEXT, 32, 2, "loss"),
            Progress(
                events.append,
                lambda: events[-1].get("stage") == "blocks" and events[-1]["done"] == 1,
            ),
        )
