"""Distributions and heads, each against its formula written out another way."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from prune_core.analysis.distributions import layer_row, magnitude_histograms
from prune_core.analysis.heads import (
    all_sites,
    attention_pattern,
    gradient_scores,
    head_gates,
    mean_loss,
    weight_norm_scores,
)
from prune_core.errors import RecipeError
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ["tiny-gpt2", "tiny-llama", "tiny-neox", "tiny-opt", "tiny-t5"]


def window(length: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 250, (length,), generator=torch.Generator().manual_seed(seed))


def test_a_row_of_the_table(handles: Mapping[str, ModelHandle]) -> None:
    for handle in handles.values():
        for layer in list(handle.structure.layers.values())[:3]:
            weight = layer.weight(handle.model).double().numpy()
            row = layer_row(handle.model, handle.structure, layer)
            assert (row["rows"], row["columns"]) == weight.shape
            assert row["mean_abs"] == pytest.approx(np.abs(weight).mean())
            assert row["std"] == pytest.approx(weight.std())
            assert row["norm"] == pytest.approx(np.linalg.norm(weight))
            centered = weight - weight.mean()
            expected = (centered**4).mean() / (centered**2).mean() ** 2 - 3
            assert row["kurtosis"] == pytest.approx(expected)
            assert row["q50"] == pytest.approx(np.median(np.abs(weight)), rel=0.02)
            assert row["max_abs"] == pytest.approx(np.abs(weight).max())


def test_histograms_count_every_weight_once(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-gpt2"]
    layers = list(handle.structure.layers.values())[:2]
    weight = layers[0].weight(handle.model)
    mask = weight.abs() >= 0.1
    found = magnitude_histograms(handle.model, layers, {layers[0].name: mask}, 40)
    for layer, row in zip(layers, found["layers"], strict=True):
        counts, _ = np.histogram(layer.weight(handle.model).abs().numpy(), bins=found["edges"])
        assert sum(row["counts"]) == layer.numel
        assert np.abs(np.array(row["counts"]) - counts).sum() <= 4, "rounding at a bin's edge"
    first = found["layers"][0]
    assert first["removed"] == sum(first["removed_counts"]) == int((~mask).sum())
    assert first["cut"] == float(weight.abs()[~mask].max())
    assert found["layers"][1]["cut"] is None
    with pytest.raises(RecipeError):
        magnitude_histograms(handle.model, layers, {}, 0)


def test_weight_norms_by_hand(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    rows = weight_norm_scores(handle.model, handle.structure)
    attention = handle.structure.blocks[1].attention
    assert attention is not None
    module = handle.model.model.layers[1].self_attn
    for head in range(attention.num_heads):
        group = head // (attention.num_heads // attention.num_kv_heads)
        d = attention.head_dim
        output = module.o_proj.weight[:, head * d : (head + 1) * d].norm()
        value = module.v_proj.weight[group * d : (group + 1) * d].norm()
        assert rows[1][head] == pytest.approx(float(output * value), rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_finite_differences(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    windows = [window(seed=0), window(seed=1)]
    rows = gradient_scores(handle.model, handle.structure, windows)
    sites = all_sites(handle.structure)
    model = copy.deepcopy(handle.model).double()
    step = 1e-3  # T5 normalizes in float32 whatever the model's type: smaller steps drown in it
    for site, head in ((0, 0), (len(sites) - 1, 1)):
        slopes = []
        for tokens in windows:
            losses = []
            for sign in (1, -1):
                with head_gates(model, sites) as gates, torch.no_grad():
                    for gate in gates:
                        gate.data = gate.data.double()
                    gates[site].data[head] = 1 + sign * step
                    losses.append(float(mean_loss_double(model, handle, tokens)))
            slopes.append(abs(losses[0] - losses[1]) / (2 * step))
        assert rows[site][head] == pytest.approx(np.mean(slopes), rel=2e-2, abs=1e-5)


def mean_loss_double(
    model: torch.nn.Module, handle: ModelHandle, tokens: torch.Tensor
) -> torch.Tensor:
    """The loss in float64, by the model's own ``labels``: not the code under test."""
    if handle.structure.kind == "encoder-decoder":
        half = len(tokens) - len(tokens) // 2
        output = model(input_ids=tokens[None, :half], labels=tokens[None, half:])
    else:
        output = model(input_ids=tokens[None], labels=tokens[None])
    logits = output.logits.double()
    if handle.structure.kind == "encoder-decoder":
        half = len(tokens) - len(tokens) // 2
        return torch.nn.functional.cross_entropy(logits[0], tokens[half:])
    return torch.nn.functional.cross_entropy(logits[0, :-1], tokens[1:])


def test_normalized_rows_have_norm_one(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    for row in gradient_scores(handle.model, handle.structure, [window()], normalize=True):
        assert np.linalg.norm(row) == pytest.approx(1)


def test_gates_at_one_change_nothing_and_come_off(handles: Mapping[str, ModelHandle]) -> None:
    for name in FAMILIES:
        handle = handles[name]
        model = clone_shared(handle.model)
        sites = all_sites(handle.structure)
        with torch.no_grad():
            bare = mean_loss(model, handle.structure, window()[None])
            with head_gates(model, sites):
                gated = mean_loss(model, handle.structure, window()[None])
            with pytest.raises(ZeroDivisionError), head_gates(model, sites):
                raise ZeroDivisionError
        assert torch.equal(bare, gated)
        assert not any(m._forward_pre_hooks for m in model.modules())


def test_attention_is_softmax_of_scaled_products(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-gpt2"]
    tokens = window(12)[None]
    block = handle.model.transformer.h[1]
    seen: list[torch.Tensor] = []
    hook = block.attn.c_attn.register_forward_hook(lambda _m, _i, out: seen.append(out))
    try:
        found = attention_pattern(handle.model, handle.structure, tokens, 1, "self")
        with torch.no_grad():
            handle.model(tokens)
    finally:
        hook.remove()
    attention = handle.structure.blocks[1].attention
    assert attention is not None
    q, k, _ = seen[-1][0].split(attention.num_heads * attention.head_dim, dim=-1)
    for head in range(attention.num_heads):
        columns = attention.columns(head)
        products = q[:, columns] @ k[:, columns].T / attention.head_dim**0.5
        masked = products.masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf)
        assert torch.allclose(found[head], masked.softmax(-1), atol=1e-5)


@pytest.mark.parametrize("name", [*FAMILIES, "tiny-bert"])
def test_rows_of_attention_sum_to_one(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    before = handle.model.config._attn_implementation
    for block in handle.structure.blocks:
        for kind, site in (("self", block.attention), ("cross", block.cross_attention)):
            if site is None:
                continue
            tokens = window(9)[None]
            found = attention_pattern(handle.model, handle.structure, tokens, block.index, kind)
            assert found.shape == (site.num_heads, 9, 9)
            assert torch.allclose(found.sum(-1), torch.ones(()), atol=1e-4)
            if kind == "self" and block.stack == "decoder":
                assert float(found.triu(1).abs().max()) == 0
    assert handle.model.config._attn_implementation == before
    with pytest.raises(RecipeError, match="no self-attention"):
        attention_pattern(handle.model, handle.structure, window(4)[None], 99, "self")
