"""Heads by every method, against naive computations on every tiny family."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from prune_core.analysis.heads.ablation import head_costs
from prune_core.analysis.heads.patterns import pattern_scores
from prune_core.analysis.heads.scores import all_sites, curvature_scores
from prune_core.engine.core import Core
from prune_core.errors import Cancelled, RecipeError, TextError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.heads import HeadImportance
from prune_core.models.handle import ModelHandle
from prune_core.models.tiny import TINY
from prune_core.progress import Progress

GRIMM = TextSpec("preset", "grimm")


def windows(count: int = 2, length: int = 24) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randint(5, 200, (length,), generator=draw) for _ in range(count)]


def naive_losses(handle: ModelHandle, tokens: Tensor) -> Tensor:
    """Plain transformers: each prediction's loss, or the sentence embedding."""
    model: Any = handle.model
    with torch.no_grad():
        if handle.structure.kind == "encoder-decoder":
            half = len(tokens) - len(tokens) // 2
            labels = tokens[None, half:]
            logits = model(input_ids=tokens[None, :half], labels=labels).logits[0]
            return torch.nn.functional.cross_entropy(logits, labels[0], reduction="none")
        if handle.info.has_language_head:
            logits = model(input_ids=tokens[None]).logits[0, :-1]
            return torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
        base = getattr(model, "base_model", model)
        return base(input_ids=tokens[None]).last_hidden_state[0].mean(0)


def naive_cost(
    handle: ModelHandle, place: int, heads: tuple[int, ...], text: list[Tensor]
) -> float:
    """One full pass per window with the head's columns of the output projection set to zero."""
    _, attention = all_sites(handle.structure)[place]
    layer = handle.structure.layers[attention.o]
    weight = layer.stored_weight(handle.model)
    before = weight.clone()
    dense = [naive_losses(handle, tokens) for tokens in text]
    with torch.no_grad():
        for head in heads:
            layer.from_stored(weight)[:, attention.columns(head)] = 0
    try:
        without = [naive_losses(handle, tokens) for tokens in text]
    finally:
        with torch.no_grad():
            weight.copy_(before)
    if handle.info.has_language_head:
        return float((torch.cat(without).double() - torch.cat(dense).double()).mean())
    cosine = [torch.cosine_similarity(a, b, dim=0) for a, b in zip(without, dense, strict=True)]
    return float(1 - torch.stack(cosine).double().mean())


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("name", sorted(TINY))
def test_ablation_is_a_pass_without_each_head(
    name: str, groups: bool, handles: Mapping[str, ModelHandle]
) -> None:
    handle, text = handles[name], windows()
    events: list[dict[str, Any]] = []
    found = head_costs(handle, text, Progress(events.append), groups=groups)
    sites = all_sites(handle.structure)
    assert len(found["mean"]) == len(sites)
    for place, (_, attention) in enumerate(sites):
        size = attention.group_size if groups else 1
        row = found["mean"][place]
        assert len(row) == attention.num_heads // size
        for part in range(len(row)):
            heads = tuple(range(part * size, (part + 1) * size))
            naive = naive_cost(handle, place, heads, text)
            assert row[part] == pytest.approx(naive, abs=3e-6)
            assert found["stderr"][place][part] is not None
    assert events[-1]["done"] == pytest.approx(events[-1]["total"])
    # the cheapest blocks come first, and what is not known yet is None
    first = [row[0] is not None for row in events[0]["mean"]]
    last = max(block.index for block, _ in sites)
    known = [block.index for (block, _), there in zip(sites, first, strict=True) if there]
    assert known == [last]


def test_ablation_is_cancelled_between_blocks(handles: Mapping[str, ModelHandle]) -> None:
    polls = 0

    def cancelled() -> bool:
        nonlocal polls
        polls += 1
        return polls > 6

    with pytest.raises(Cancelled):
        head_costs(handles["tiny-llama"], windows(), Progress(cancelled=cancelled))
    assert polls == 7


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.parametrize("method", ["confidence", "entropy"])
def test_patterns_are_those_of_plain_transformers(
    name: str, method: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle, text = handles[name], windows()
    rows = pattern_scores(handle.model, handle.structure, text, method)
    # of its own: transformers leaves hooks in a model that was asked for its maps
    model: Any = copy.deepcopy(handle.model)
    sums: list[Tensor] = [torch.zeros(len(row), dtype=torch.float64) for row in rows]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for tokens in text:
            if handle.structure.kind == "encoder-decoder":
                half = len(tokens) - len(tokens) // 2
                out = model(
                    input_ids=tokens[None, :half],
                    decoder_input_ids=tokens[None, half:],
                    output_attentions=True,
                )
                maps = [*out.encoder_attentions, *out.decoder_attentions, *out.cross_attentions]
            else:
                maps = list(model(input_ids=tokens[None], output_attentions=True).attentions)
            for total, weights in zip(sums, maps, strict=True):
                for head in range(weights.shape[1]):
                    scores = []
                    for row in weights[0, head, 1:].double():
                        entropy = -sum(float(p) * float(p.log()) for p in row if p > 0)
                        scores.append(entropy if method == "entropy" else float(row[1:].max()))
                    total[head] += sum(scores) / len(scores) / len(text)
    for row, total in zip(rows, sums, strict=True):
        assert row == pytest.approx(total.tolist(), abs=1e-6)


@pytest.mark.parametrize(("name", "least"), [("tiny-llama", 2), ("tiny-bert", 2), ("tiny-t5", 4)])
@pytest.mark.parametrize("method", ["confidence", "entropy"])
def test_patterns_need_two_tokens_of_each_stack(
    name: str, least: int, method: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    with pytest.raises(TextError, match=f"at least {least} tokens, got {least - 1}"):
        pattern_scores(handle.model, handle.structure, windows(1, least - 1), method)
    rows = pattern_scores(handle.model, handle.structure, windows(1, least), method)
    assert all(torch.isfinite(torch.tensor(row)).all() for row in rows)


def test_an_encoder_bends_as_small_steps_of_its_gates_say(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle, text = handles["tiny-bert"], windows(1)
    rows = curvature_scores(handle.model, handle.structure, text)
    exact = []
    for place, (_, attention) in enumerate(all_sites(handle.structure)):
        layer = handle.structure.layers[attention.o]
        weight = layer.stored_weight(handle.model)
        before, dense = weight.clone(), naive_losses(handle, text[0]).double()
        for head in range(attention.num_heads):
            step = 0.05
            with torch.no_grad():
                layer.from_stored(weight)[:, attention.columns(head)] *= 1 - step
            moved = naive_losses(handle, text[0]).double()
            with torch.no_grad():
                weight.copy_(before)
            distance = 1 - torch.cosine_similarity(moved, dense, dim=0)
            exact.append(float(distance) / step**2)
        assert place < len(rows)
    predicted = [score for row in rows for score in row]
    # 32 probes estimate a squared norm: right in size, and nearly right in order
    assert sum(predicted) == pytest.approx(sum(exact), rel=0.35)
    ours = torch.tensor(predicted).argsort().argsort().double()
    theirs = torch.tensor(exact).argsort().argsort().double()
    assert float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) > 0.7


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.parametrize("method", ["ablation", "gradient", "confidence", "entropy", "weight-norm"])
def test_the_job_gives_every_method(name: str, method: str) -> None:
    core, events = Core(), list[dict[str, Any]]()
    job = HeadImportance(name, method, GRIMM, 32, 2)
    found = core.run(job, Progress(events.append))
    assert found["method"] == method
    assert found["tokens"] == (0 if method == "weight-norm" else 64)
    kinds = {(site["kind"], site["stack"]) for site in found["sites"]}
    assert len(kinds) == (3 if name == "tiny-t5" else 1)
    for site in found["sites"]:
        scores = torch.tensor(site["scores"])
        assert torch.isfinite(scores).all()
        assert scores.shape[0] == len(site["blocks"])
        assert (site["stderr"] is None) == (method != "ablation")
    if method == "ablation":
        assert events[-1]["sites"] == [{**site, "stderr": None} for site in found["sites"]]


def test_unknown_methods_are_named() -> None:
    with pytest.raises(RecipeError, match="use weight-norm, gradient, ablation"):
        Core().run(HeadImportance("tiny-llama", "magic", GRIMM, 32, 2))
