"""Numbers against plain transformers and formulas written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from prune_core.errors import PruneCoreError
from prune_core.evaluation.agreement import compact_kl
from prune_core.evaluation.estimate import estimate, safe_exp
from prune_core.evaluation.scoring import (
    TILE,
    dense_window,
    score_window,
    tiled_losses,
)
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.progress import Progress
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel

pytestmark = pytest.mark.usefixtures("own_cache")

TEXT = TextSpec(
    "inline", "The fox who longed for grapes beholds with pain the tempting vine. " * 40
)
DECODERS = ["tiny-gpt2", "tiny-llama", "tiny-opt", "tiny-neox"]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


def run(
    loaded: LoadedModel, recipe: Recipe, seq_len: int = 200, windows: int = 3
) -> tuple[dict[str, object], list[dict[str, object]]]:
    events: list[dict[str, object]] = []
    job = Evaluate("x", recipe, TEXT, seq_len, windows)
    return measure(loaded, job, Progress(events.append)), events


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("words", [7, TILE, 2 * TILE + 5])
def test_losses_by_tiles_are_those_of_all_logits(words: int, bias: bool) -> None:
    draw = torch.Generator().manual_seed(words)
    head = torch.nn.Linear(6, words, bias=bias)
    with torch.inference_mode():
        hidden = 2 * torch.randn(11, 6, generator=draw)
        targets = torch.randint(0, words, (11,), generator=draw)
        expected = F.cross_entropy(head(hidden).double(), targets, reduction="none")
        for off in (-20.0, 0.0, 60.0):  # what is near need not be very near
            near = expected.float() + off
            found = tiled_losses(hidden, head, targets, near)
            assert found is not None
            assert found.double() == pytest.approx(expected, abs=1e-5)
        # too far for float32: said, not wrong
        assert tiled_losses(hidden, head, targets, expected.float() - 200) is None
        assert tiled_losses(hidden, head, targets, expected.float() + 200) is None


@pytest.mark.parametrize("name", DECODERS)
def test_perplexity_is_that_of_plain_transformers(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    loaded = LoadedModel(handles[name])
    result, _ = run(loaded, Recipe(sparsity=0.4))
    losses = {"dense": [], "pruned": []}
    with torch.no_grad():
        for tokens in loaded.windows(TEXT, 200, 3):
            for which, model in (("dense", handles[name].model), ("pruned", loaded.copy.model)):
                losses[which].append(float(model(tokens[None], labels=tokens[None]).loss))
    assert result["nll"] == pytest.approx(np.mean(losses["pruned"]), rel=1e-5)
    assert result["nll_dense"] == pytest.approx(np.mean(losses["dense"]), rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(np.mean(losses["pruned"])), rel=1e-4)
    assert result["tokens"] == 3 * 199
    difference = np.subtract(losses["pruned"], losses["dense"])
    expected = difference.std(ddof=1) / math.sqrt(3)
    assert result["delta_nll_stderr"] == pytest.approx(expected, rel=1e-3)


def test_an_encoder_decoder_reads_the_first_half_and_is_scored_on_the_second(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-t5"]
    loaded = LoadedModel(handle)
    result, _ = run(loaded, Recipe(), seq_len=64)
    with torch.no_grad():
        losses = [
            float(handle.model(input_ids=w[None, :32], labels=w[None, 32:]).loss)
            for w in loaded.windows(TEXT, 64, 3)
        ]
    assert result["nll"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert result["tokens"] == 3 * 32


def test_divergence_is_exact_where_the_vocabulary_is_small(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-llama"]
    loaded = LoadedModel(handle)
    result, _ = run(loaded, Recipe(sparsity=0.5))
    kl, same = [], []
    with torch.no_grad():
        for tokens in loaded.windows(TEXT, 200, 3):
            dense = F.log_softmax(handle.model(tokens[None]).logits[0, :-1].double(), -1)
            mine = F.log_softmax(loaded.copy.model(tokens[None]).logits[0, :-1].double(), -1)
            kl.append(F.kl_div(mine, dense, log_target=True, reduction="none").sum(-1))
            same.append((dense.argmax(-1) == mine.argmax(-1)).double())
    assert result["kl"] == pytest.approx(float(torch.cat(kl).mean()), rel=1e-4)
    assert result["top1"] == pytest.approx(float(torch.cat(same).mean()), abs=1e-9)
    assert result["kl_error"] == pytest.approx(0, abs=1e-6)


def test_the_merged_tail_only_hides() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = F.log_softmax(3 * torch.randn(50, 400, generator=generator), -1)
    other = F.log_softmax(3 * torch.randn(50, 400, generator=generator), -1)
    exact = (dense.exp() * (dense - other)).sum(-1)
    last = torch.zeros(50)
    for k in (1, 10, 100, 399):
        top, ids = dense.topk(k)
        compact = compact_kl(top, other.gather(1, ids))
        assert bool((compact <= exact + 1e-4).all())
        assert bool((compact >= last - 1e-4).all()), "more tokens hide less"
        last = compact
    assert torch.allclose(last, exact, atol=1e-3)


def test_dense_against_dense_is_neutral(handles: Mapping[str, ModelHandle]) -> None:
    for name in [*DECODERS, "tiny-t5"]:
        result, _ = run(LoadedModel(handles[name]), Recipe(), seq_len=64)
        assert result["delta_nll"] == 0
        assert result["kl"] == pytest.approx(0, abs=1e-7)
        assert result["top1"] == 1
        assert result["sparsity"] == 0
        assert result["perplexity"] == result["perplexity_dense"]


def test_an_encoder_is_measured_by_its_embeddings(handles: Mapping[str, ModelHandle]) -> None:
    loaded = LoadedModel(handles["tiny-bert"])
    dense, _ = run(loaded, Recipe(), seq_len=32)
    assert dense["similarity"] == pytest.approx(1, abs=1e-6)
    pruned, _ = run(loaded, Recipe(sparsity=0.8), seq_len=32)
    cosines = []
    with torch.no_grad():
        for tokens in loaded.windows(TEXT, 32, 3):
            mine = loaded.copy.model(tokens[None]).last_hidden_state[0].mean(0)
            base = handles["tiny-bert"].model(tokens[None]).last_hidden_state[0].mean(0)
            cosines.append(float(F.cosine_similarity(mine, base, dim=0)))
    assert pruned["similarity"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert pruned["perplexity"] is None


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_a_model_of_zeros_is_as_good_as_guessing(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    model = clone_shared(handle.model)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2:
            module.weight = torch.nn.Parameter(torch.zeros_like(weight), requires_grad=False)
    tokens = torch.randint(0, 200, (1, 64), generator=torch.Generator().manual_seed(0))
    dense = dense_window(
        clone_shared(handle.model), handle.structure, tokens, has_language_head=True
    )
    score = score_window(model, handle.structure, tokens, dense)
    assert float(score.losses.mean().exp()) == pytest.approx(handle.info.vocabulary, rel=1e-5)
    assert bool(torch.isfinite(score.agreement["kl"]).all())


def test_events_refine_towards_the_result(handles: Mapping[str, ModelHandle]) -> None:
    loaded = LoadedModel(handles["tiny-llama"])
    run(loaded, Recipe(), seq_len=256)  # the dense reference is known from here on
    result, events = run(loaded, Recipe(sparsity=0.5), seq_len=256)
    measured = [e for e in events if e["stage"] == "evaluate" and e["tokens"]]
    assert measured[0]["tokens"] == 127, "the first look: 128 tokens"
    assert measured[0]["window"] == 0
    assert [e["window"] for e in measured[1:]] == [1, 2]
    for event in measured:
        assert event["perplexity_low"] < event["perplexity"] < event["perplexity_high"]
        assert event["perplexity_dense"] == result["perplexity_dense"]
    assert result["tokens"] == result["total_tokens"] == 3 * 255
    assert len(result["strip"]) == 512
    assert "".join(row[0] for row in result["strip"][:40]) in TEXT.value


def test_standard_errors_by_hand() -> None:
    windows = [np.array([1.0, 3.0]), np.array([2.0, 6.0]), np.array([0.0, 0.0])]
    got = estimate([w.astype(np.float32) for w in windows])
    means = [2.0, 4.0, 0.0]
    assert got.mean == pytest.approx(2.0)
    assert got.stderr == pytest.approx(np.std(means, ddof=1) / math.sqrt(3))
    assert estimate([np.ones(8, np.float32)]).stderr is None
    assert estimate([np.arange(96, dtype=np.float32)]).stderr is not None
    assert math.isnan(estimate([np.empty(0, np.float32)]).mean)
    assert safe_exp(1e4) == math.inf


@pytest.mark.parametrize(
    ("seq_len", "windows", "text"),
    [(1, 2, "abc"), (64, 0, "abc"), (64, 2, ""), (64, 2, "a"), (64, 5000, "abc"), (99999, 1, "ab")],
)
def test_what_cannot_be_measured_is_refused(
    handles: Mapping[str, ModelHandle], seq_len: int, windows: int, text: str
) -> None:
    job = Evaluate("x", Recipe(), TextSpec("inline", text), seq_len, windows)
    with pytest.raises(PruneCoreError) as caught:
        measure(LoadedModel(handles["tiny-llama"]), job)
    assert "\n" not in str(caught.value)
