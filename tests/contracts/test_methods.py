"""What every registered method of heads, neurons and blocks must do, and every export format."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from prune_core.analysis.blocks.methods import BlockRequest
from prune_core.analysis.neurons.statistics import NeuronStatistics, competing
from prune_core.analysis.selection import lowest_heads
from prune_core.errors import RecipeError
from prune_core.exporting.formats import FORMATS, format_problem
from prune_core.jobs.base import TextSpec
from prune_core.jobs.blocks import BLOCK_METHODS
from prune_core.jobs.heads import HEAD_METHODS, HeadImportance
from prune_core.models.handle import ModelHandle
from prune_core.recipes.parts import NEURON_METHODS, NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.answers import answer_to
from prune_core.tasks.loaded import LoadedModel
from prune_core.ui.session.keys import KEYS

STORY = TextSpec("inline", "The miller's daughter spun straw into gold by night. " * 20)
FAMILIES = ("tiny-llama", "tiny-t5", "tiny-bert")


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, handles: Mapping[str, ModelHandle]) -> LoadedModel:
    return LoadedModel(handles[request.param])


@pytest.fixture
def untouched(loaded: LoadedModel) -> Iterator[None]:
    """The dense model is the same afterwards, and nothing hangs on it."""
    before = {name: (p, p.clone()) for name, p in loaded.handle.model.named_parameters()}
    yield
    for name, parameter in loaded.handle.model.named_parameters():
        assert parameter is before[name][0] and torch.equal(parameter, before[name][1])
        assert parameter.grad is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.handle.model.modules())


def numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """All of a result but the time that it took."""
    return {name: value for name, value in result.items() if name != "seconds"}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("method", list(HEAD_METHODS))
def test_every_head_has_a_score(method: str, loaded: LoadedModel) -> None:
    job = HeadImportance("here", method, STORY, seq_len=32, windows=2)
    result = answer_to(job)(loaded, job)
    assert result["method"] == method and result["unit"]
    assert bool(result["tokens"]) == ("text" in HEAD_METHODS[method].needs)
    blocks = loaded.handle.structure.blocks
    for site in result["sites"]:
        for block, row in zip(site["blocks"], site["scores"], strict=True):
            attention = blocks[block].attention_of(site["kind"])
            assert attention is not None and len(row) == attention.num_heads
            assert all(math.isfinite(score) for score in row)
    assert numbers(answer_to(job)(loaded, job)) == numbers(result)


@pytest.mark.parametrize("method", list(HEAD_METHODS))
def test_a_falling_score_loses_its_highest(method: str) -> None:
    sites = [{"kind": "self", "blocks": [0], "scores": [[0.25, 0.5, 0.75, 1.0]]}]
    gone = 3 if HEAD_METHODS[method].falling else 0
    assert lowest_heads(sites, method, 0.25)["drop_heads"] == ((0, gone),)


def statistics() -> NeuronStatistics:
    """Of two blocks with 7 and 5 neurons."""
    draw = torch.Generator().manual_seed(4)
    rows = {b: torch.rand(5, n, generator=draw, dtype=torch.float64) for b, n in ((0, 7), (3, 5))}
    norms = {b: torch.rand(row.shape[1], generator=draw).double() for b, row in rows.items()}
    return NeuronStatistics("x", 64, (0, 3), rows, norms)


@pytest.mark.parametrize("method", list(NEURON_METHODS))
def test_every_neuron_has_a_score(method: str) -> None:
    known = statistics()
    copy = {block: rows.clone() for block, rows in known.values.items()}
    scores, again = known.scores(method), known.scores(method)
    assert list(scores) == [0, 3]
    for block, row in scores.items():
        assert row.shape == (known.values[block].shape[1],) and row.dtype == torch.float64
        assert bool(torch.isfinite(row).all()) and bool((row >= 0).all())
        assert torch.equal(row, again[block])
        assert torch.equal(known.values[block], copy[block])
    for block, row in competing(method, scores).items():
        if NEURON_METHODS[method].comparable:
            assert torch.equal(row, scores[block])
        else:  # standardised within its block
            assert float(row.mean()) == pytest.approx(0, abs=1e-12)
            assert float(row.std(correction=0)) == pytest.approx(1)
    assert NeuronShare(0.1, method).method == method


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("method", list(BLOCK_METHODS))
def test_every_block_has_a_score(method: str, loaded: LoadedModel) -> None:
    asked = BlockRequest("here", STORY, 32, 2, lambda job: answer_to(job)(loaded, job))
    count = len(loaded.handle.structure.blocks)
    for question in (asked, dataclasses.replace(asked, halves=True, ends=True)):
        try:
            result = BLOCK_METHODS[method].fn(question)
        except RecipeError as error:  # a stack of two has none but its ends
            assert "ends" in str(error) or "can be removed" in str(error)  # noqa: PT017
            assert not question.ends
            continue
        assert len(result["scores"]) == count
        measured = [score for score in result["scores"] if score is not None]
        assert measured and all(math.isfinite(score) for score in measured)
        assert set(result.get("suggested", ())) <= set(range(count))
        again = BLOCK_METHODS[method].fn(question)
        assert again["scores"] == result["scores"]


@pytest.mark.parametrize("form", list(FORMATS))
def test_what_stands_against_a_format_is_one_sentence(
    form: str, handles: Mapping[str, ModelHandle]
) -> None:
    plain = Recipe(sparsity=0.5)
    whole = Recipe(drop_blocks=(1,), drop_heads=((0, 1),))
    for family in FAMILIES:
        for recipe in (Recipe(), plain, whole):
            problem = format_problem(form, handles[family].info, recipe)
            assert problem is None or problem.endswith((".", ")"))
    llama = handles["tiny-llama"].info
    assert form == "compressed" or format_problem(form, llama, plain) is None
    uneven = format_problem(form, llama, Recipe(drop_heads=((0, 1),)))
    assert (uneven is not None) == (form == "shrunk") or form == "compressed"


def test_a_session_takes_every_method_and_format() -> None:
    for key, names in (
        *(("head_method", HEAD_METHODS), ("neuron_method", NEURON_METHODS)),
        *(("export_format", FORMATS), ("other", ["", "wanda"])),
    ):
        for name in names:
            assert KEYS[key].read(name) == name
        with pytest.raises(ValueError):
            KEYS[key].read("no-such-name")
    for name in BLOCK_METHODS:
        short = name.removeprefix("block-")
        assert KEYS["block_method"].read(short) == short
