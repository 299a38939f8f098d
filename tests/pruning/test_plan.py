"""Masks of whole models against sorts written out naively; ties, empty layers, all heads gone."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prune_core.errors import RecipeError
from prune_core.evaluation.scoring import dense_window, score_window
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.load import load_model
from prune_core.models.tiny import TINY
from prune_core.patterns import NM, Pattern, PerLayer, PerRow
from prune_core.pruning.parts import structural_cuts
from prune_core.pruning.plan import count_removed, layer_mask, plan_cuts
from prune_core.pruning.ranks import RankStore
from prune_core.pruning.working_copy import cut_into
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

FAMILIES = ["tiny-gpt2", "tiny-llama", "tiny-opt", "tiny-neox", "tiny-bert", "tiny-t5"]
SPEAKING = [name for name in FAMILIES if name != "tiny-bert"]
TEXT = TextSpec("inline", "A crow was sitting on a branch with a piece of cheese. " * 20)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


def coarse(handle: ModelHandle) -> torch.nn.Module:
    """The model with weights on a coarse grid, as a quantized source has them: ties everywhere."""
    model = clone_shared(handle.model)
    for name, layer in handle.structure.layers.items():
        rounded = (layer.stored_weight(handle.model) * 4).round() / 4
        model.get_submodule(name).weight = torch.nn.Parameter(rounded, requires_grad=False)
    return model


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_global_masks_are_one_stable_sort_of_all_weights(
    name: str, share: float, handles: Mapping[str, ModelHandle], tmp_path: Path
) -> None:
    handle = handles[name]
    layers, model = handle.structure.layers, coarse(handle)
    scores = [x.weight(model).abs().reshape(-1) for x in layers.values()]
    everything = torch.cat(scores)
    keep = torch.ones(everything.numel(), dtype=torch.bool)
    keep[everything.argsort(stable=True)[: round(share * everything.numel())]] = False
    store = RankStore(model, layers, f"coarse {name}", tmp_path)
    plan = plan_cuts(store, handle.structure, Recipe(sparsity=share, allocation="global"))
    parts = keep.split([x.numel for x in layers.values()])
    for (key, layer), part in zip(layers.items(), parts, strict=True):
        expected = part.view(layer.out_features, layer.in_features)
        assert torch.equal(layer_mask(plan, handle.structure, key), expected)
    removed = count_removed(plan, handle.structure)
    assert sum(removed.values()) == round(share * everything.numel())


@pytest.mark.parametrize("pattern", [PerLayer(), PerRow(), NM(2, 4)])
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_a_layer_without_weights_has_no_ranks(pattern: Pattern, shape: tuple[int, int]) -> None:
    assert pattern.rank(np.empty(shape, dtype=np.float32)).shape == shape
    assert pattern.removed(*shape, pattern.cut(*shape, 0.5)) == 0


@pytest.mark.parametrize("pattern", [PerLayer(), PerRow()])
def test_a_single_weight_is_kept_or_removed(pattern: Pattern) -> None:
    ranks = pattern.rank(np.array([[-2.0]], dtype=np.float32))
    assert ranks.tolist() == [[0]]
    assert int((ranks < pattern.cut(1, 1, 0.0)).sum()) == 0
    assert int((ranks < pattern.cut(1, 1, 1.0)).sum()) == 1


def test_zeros_of_either_sign_survive_the_cut() -> None:
    dense = torch.tensor([[0.0, -0.0, 1.0], [-1.0, -0.0, 2.0]])
    ranks = torch.arange(6).view(2, 3)
    kept = ranks >= 2
    for kind in (torch.float32, torch.int32):
        out = torch.full_like(dense, 9.0)
        cut_into(dense, ranks.to(kind), 2, out)
        assert torch.equal(out, dense * kept)
        assert torch.equal(out.signbit()[kept], dense.signbit()[kept])


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_bfloat16_models_are_cut_by_the_same_rule(name: str) -> None:
    loaded = LoadedModel(load_model(name, dtype="bfloat16"))
    plan = work_out(loaded, Recipe(sparsity=0.5))
    loaded.copy.apply(plan)
    for layer in loaded.handle.structure.layers.values():
        dense, pruned = layer.weight(loaded.handle.model), layer.weight(loaded.copy.model)
        assert pruned.dtype == torch.bfloat16
        magnitude = dense.float().abs().reshape(-1)
        keep = torch.ones(magnitude.numel(), dtype=torch.bool)
        keep[magnitude.argsort(stable=True)[: round(0.5 * magnitude.numel())]] = False
        assert torch.equal(pruned, dense * keep.view(dense.shape))
    job = Evaluate("x", Recipe(sparsity=0.5), TEXT, 48, 2)
    result = measure(loaded, job)
    assert math.isfinite(result["nll"])


@pytest.mark.parametrize("name", SPEAKING)
def test_without_any_head_the_numbers_stay_finite(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    loaded = LoadedModel(handles[name])
    structure = loaded.handle.structure
    heads = [
        (block.index, head)
        for block in structure.blocks
        if block.attention is not None
        for head in range(block.attention.num_heads)
    ]
    job = Evaluate("x", Recipe(drop_heads=tuple(heads)), TEXT, 48, 2)
    result = measure(loaded, job)
    for key, layer in structure.layers.items():
        # what surgery would take with the heads: all of self-attention
        gone = layer.numel if layer.role.startswith("attn.") else 0
        assert result["removed"][key] == gone
    assert all(math.isfinite(result[k]) for k in ("nll", "kl", "top1", "perplexity"))
    assert result["kl"] > 0


def test_cross_attention_heads_go_as_if_they_were_silent(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-t5"]
    structure = handle.structure
    crossed = [block for block in structure.blocks if block.cross_attention is not None]
    first, last = crossed[0], crossed[-1]
    pairs = ((first.index, 1), (last.index, 0), (last.index, 2))
    loaded = LoadedModel(handle)
    loaded.copy.apply(work_out(loaded, Recipe(drop_cross_heads=pairs)))

    naive, hooks = copy.deepcopy(handle.model), []
    for block, heads in ((first, (1,)), (last, (0, 2))):
        attention = block.cross_attention
        assert attention is not None

        def silence(_m: Any, args: Any, heads: Any = heads, width: int = attention.head_dim) -> Any:
            values = args[0].clone()
            for head in heads:
                values[..., head * width : (head + 1) * width] = 0
            return (values,)

        hooks.append(naive.get_submodule(attention.o).register_forward_pre_hook(silence))
        for head in heads:  # what a dropped head read is gone too, as surgery would take it
            rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
            for projection in (attention.q, attention.k, attention.v):
                weight = loaded.copy.model.get_submodule(projection.layer).weight
                assert not torch.as_tensor(weight)[rows].any()
    assert hooks
    tokens = torch.arange(2, 22)[None]
    with torch.inference_mode():
        wanted = naive(input_ids=tokens, decoder_input_ids=tokens).logits
        got = loaded.copy.model(input_ids=tokens, decoder_input_ids=tokens).logits
        dense = handle.model(input_ids=tokens, decoder_input_ids=tokens).logits
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert (got - dense).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(TINY))
def test_cross_attention_that_is_not_there_is_refused(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    structure = handles[name].structure
    absent = next(block.index for block in structure.blocks if block.cross_attention is None)
    with pytest.raises(RecipeError, match=f"no cross-attention head 0 in block {absent}"):
        structural_cuts(Recipe(drop_cross_heads=((absent, 0),)), structure)


@pytest.mark.parametrize("name", SPEAKING)
def test_without_any_matrix_every_family_guesses(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    model = LoadedModel(handle).copy.model
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() == 2:
            module.weight = torch.nn.Parameter(torch.zeros_like(weight), requires_grad=False)
    for buffer in model.buffers():
        assert bool(torch.isfinite(buffer.float()).all())
    tokens = torch.randint(4, 200, (1, 64), generator=torch.Generator().manual_seed(0))
    dense = dense_window(
        clone_shared(handle.model), handle.structure, tokens, has_language_head=True
    )
    score = score_window(model, handle.structure, tokens, dense)
    assert float(score.losses.mean().exp()) == pytest.approx(handle.info.vocabulary, rel=1e-5)
    assert bool(torch.isfinite(score.agreement["kl"]).all())
