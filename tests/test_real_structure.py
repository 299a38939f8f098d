"""Blocks, heads and neurons of SmolLM2-135M against plain transformers, without a line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from prune_core.analysis.blocks.ablation import Ablator
from prune_core.analysis.blocks.influence import block_influence
from prune_core.analysis.heads.ablation import _answers_without_heads, _nearby
from prune_core.analysis.heads.scores import all_sites
from prune_core.analysis.neurons.statistics import gather_neurons
from prune_core.engine.core import Core
from prune_core.models.clone import clone_shared
from prune_core.recipes.calibration import TextSpec
from prune_core.tasks.loaded import LoadedModel

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return Core().loaded("smollm2-135m")


@pytest.fixture(scope="module")
def window(loaded: LoadedModel) -> Tensor:
    return loaded.windows(TextSpec("preset", "grimm"), 64, 1)[0]


@pytest.fixture
def plain(loaded: LoadedModel) -> Iterator[Any]:
    """The dense model; whatever a test changes comes back."""
    model: Any = loaded.handle.model
    hooks: list[Any] = []
    yield model, hooks
    for hook in hooks:
        hook.remove()


def loss(model: Any, tokens: Tensor) -> float:
    with torch.no_grad():
        return float(model(tokens[None], labels=tokens[None], use_cache=False).loss)


def test_block_influence_of_every_block(
    loaded: LoadedModel, window: Tensor, plain: tuple[Any, list[Any]]
) -> None:
    model, hooks = plain
    ends: list[tuple[Tensor, Tensor]] = []
    for layer in model.model.layers:
        hooks.append(
            layer.register_forward_hook(
                lambda _m, args, out: ends.append(
                    (args[0], out[0] if isinstance(out, tuple) else out)
                )
            )
        )
    with torch.no_grad():
        model(window[None], use_cache=False)
    naive = [
        1 - float(torch.cosine_similarity(a.double(), b.double(), dim=-1).mean()) for a, b in ends
    ]
    assert len(naive) == 30
    found = block_influence(clone_shared(model), loaded.handle.structure, [window])
    assert found["influence"] == pytest.approx(naive, abs=1e-5)


@pytest.mark.parametrize("gone", [1, 17, 29])
def test_a_block_is_ablated_as_if_it_were_deleted(
    gone: int, loaded: LoadedModel, window: Tensor, plain: tuple[Any, list[Any]]
) -> None:
    model, _ = plain
    dense = loss(model, window)
    layers = model.model.layers
    model.model.layers = torch.nn.ModuleList(
        layer for place, layer in enumerate(layers) if place != gone
    )
    count, model.config.num_hidden_layers = model.config.num_hidden_layers, 29
    try:
        without = loss(model, window)
    finally:
        model.model.layers, model.config.num_hidden_layers = layers, count
    ablator = Ablator(loaded.handle)
    base = ablator.run(window)
    cost = ablator.cost(ablator.run(window, [gone], base, gone).answer, base.answer)
    assert float(cost.mean()) == pytest.approx(without - dense, abs=2e-5)


@pytest.mark.parametrize(("block", "head"), [(0, 4), (13, 8), (29, 0)])
def test_a_head_is_ablated_as_by_a_hook(
    block: int, head: int, loaded: LoadedModel, window: Tensor, plain: tuple[Any, list[Any]]
) -> None:
    model, hooks = plain
    ablator = Ablator(loaded.handle)  # a clone: made before anything hangs on the model
    dense = loss(model, window)

    def silence(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        inputs = args[0].clone()
        inputs[..., 64 * head : 64 * (head + 1)] = 0
        return (inputs,)

    hooks.append(model.model.layers[block].self_attn.o_proj.register_forward_pre_hook(silence))
    without = loss(model, window)
    base = ablator.run(window)
    site = all_sites(loaded.handle.structure)[block]
    # in one batch with the others of its block, as the heat map does it
    nearby = _nearby(ablator, base)
    assert nearby is not None and nearby.common is not None, "most words are left out"
    answers = _answers_without_heads(ablator, base, nearby, site, [(other,) for other in range(9)])
    known = nearby.losses_of(nearby.hidden[None])[0].cpu()
    cost = ablator.cost(answers[head], known)
    assert float(cost.mean()) == pytest.approx(without - dense, abs=4e-6)


@pytest.mark.parametrize("block", [0, 12, 29])
def test_neurons_as_a_hook_sees_them(
    block: int, loaded: LoadedModel, window: Tensor, plain: tuple[Any, list[Any]]
) -> None:
    model, hooks = plain
    seen: list[Tensor] = []
    mlp = model.model.layers[block].mlp
    hooks.append(mlp.down_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0][0])))
    with torch.no_grad():
        model(window[None], use_cache=False)
    activations = seen[0].double()
    found = gather_neurons(clone_shared(model), loaded.handle.structure, window[None])[block]
    expected = [
        activations.abs().mean(0),
        activations.mean(0),
        activations.var(0, unbiased=False),
        (activations > 0).double().mean(0),
    ]
    for row, wanted in zip(found[:4], expected, strict=True):
        assert torch.allclose(row.double(), wanted, rtol=1e-4, atol=1e-6)
