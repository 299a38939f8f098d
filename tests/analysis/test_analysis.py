"""Distributions and heads, each against its formula written out another way."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from prune_core.analysis.heads.scores import (
    all_sites,
    attention_pattern,
    gradient_scores,
    head_gates,
    weight_norm_scores,
)
from prune_core.analysis.weights.distributions import layer_row, magnitude_histograms
from prune_core.errors import RecipeError
from prune_core.evaluation.loss import mean_loss
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

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


def test_weight_norms_of_fused_and_cross_projections(handles: Mapping[str, ModelHandle]) -> None:
    """Where queries, keys and values lie in each family, written out from its own source."""
    gpt2, neox, t5 = (handles[f"tiny-{name}"] for name in ("gpt2", "neox", "t5"))
    rows = weight_norm_scores(gpt2.model, gpt2.structure)
    for block, row in zip(gpt2.model.transformer.h, rows, strict=True):
        width = block.attn.c_proj.weight.shape[0]
        d = width // len(row)
        for head, score in enumerate(row):
            value = block.attn.c_attn.weight[:, 2 * width + head * d : 2 * width + (head + 1) * d]
            output = block.attn.c_proj.weight[head * d : (head + 1) * d]
            assert score == pytest.approx(float(value.norm() * output.norm()), rel=1e-5)
    rows = weight_norm_scores(neox.model, neox.structure)
    for block, row in zip(neox.model.gpt_neox.layers, rows, strict=True):
        fused = block.attention.query_key_value.weight
        value = fused.view(len(row), 3, -1, fused.shape[1])[:, 2]
        output = block.attention.dense.weight.view(fused.shape[1], len(row), -1)
        for head, score in enumerate(row):
            expected = float(value[head].norm() * output[:, head].norm())
            assert score == pytest.approx(expected, rel=1e-5)
    rows = weight_norm_scores(t5.model, t5.structure)
    sites = [b.layer[0].SelfAttention for b in t5.model.encoder.block]
    sites += [b.layer[0].SelfAttention for b in t5.model.decoder.block]
    sites += [b.layer[1].EncDecAttention for b in t5.model.decoder.block]
    for site, row in zip(sites, rows, strict=True):
        value = site.v.weight.view(len(row), -1, site.v.weight.shape[1])
        output = site.o.weight.view(site.o.weight.shape[0], len(row), -1)
        for head, score in enumerate(row):
            expected = float(value[head].norm() * output[:, head].norm())
            assert score == pytest.approx(expected, rel=1e-5)


def test_a_removed_head_is_a_gate_at_zero(handles: Mapping[str, ModelHandle]) -> None:
    """Ties the gates of the scores to what dropping a head does to the weights."""
    for name in FAMILIES:
        handle = handles[name]
        loaded = LoadedModel(handle)
        loaded.copy.apply(work_out(loaded, Recipe(drop_heads=((1, 1),))))
        model, sites = clone_shared(handle.model), all_sites(handle.structure)
        site = next(i for i, (b, a) in enumerate(sites) if b.index == 1 and a.kind == "self")
        tokens = window()[None]
        with torch.no_grad():
            dropped = mean_loss(loaded.copy.model, handle.structure, tokens)
            dense = mean_loss(model, handle.structure, tokens)
            with head_gates(model, sites) as gates:
                gates[site][1] = 0
                gated = mean_loss(model, handle.structure, tokens)
        assert float(dropped) == pytest.approx(float(gated), rel=1e-6)
        assert float(dropped) != pytest.approx(float(dense), rel=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_the_derivative_by_scaling_the_weights(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    """A gate on a head scales its columns of ``o``: d loss / d gate = sum of weight x gradient."""
    handle = handles[name]
    tokens = window()
    rows = gradient_scores(handle.model, handle.structure, [tokens])
    model = clone_shared(handle.model)
    for row, (_block, attention) in zip(rows, all_sites(handle.structure), strict=True):
        layer = handle.structure.layers[attention.o]
        stored = layer.stored_weight(handle.model).clone().requires_grad_(True)
        module = model.get_submodule(attention.o)
        kept, module.weight = module.weight, torch.nn.Parameter(stored)
        with torch.enable_grad():
            loss = mean_loss(model, handle.structure, tokens[None])
        (gradient,) = torch.autograd.grad(loss, [module.weight])
        product = layer.from_stored(gradient * stored.detach())
        for head, score in enumerate(row):
            expected = abs(float(product[:, attention.columns(head)].sum()))
            assert score == pytest.approx(expected, rel=1e-3, abs=1e-6)
        module.weight = kept
