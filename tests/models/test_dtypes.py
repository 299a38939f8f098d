"""Half precision: what is exported, counted and cut is what is on screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prune_core.engine.core import Core
from prune_core.errors import ModelFileError
from prune_core.exporting.formats import library_problem
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Cost, Export
from prune_core.models.load import load_model
from prune_core.models.tiny import TINY
from prune_core.pruning.working_copy import cut_into
from prune_core.recipes.recipe import Recipe

TEXT = TextSpec("inline", "The wolf went to the well, and the stones fell in. " * 12)
PRESETS = ("tiny-llama", "tiny-gpt2", "tiny-neox", "tiny-t5", "tiny-bert")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))


def run(core: Core, job: Any) -> dict[str, Any]:
    return core.run(job)


def recipe_for(form: str, preset: str, core: Core) -> Recipe:
    blocks = core.loaded(preset).handle.structure.blocks
    if form == "compressed":
        return Recipe(sparsity=0.6)
    neurons = tuple((b.index, n) for b in blocks for n in (1, 7, 30))
    heads = tuple((b.index, 1) for b in blocks) if form == "masked" else ()
    return Recipe(sparsity=0.2, drop_heads=heads, drop_neurons=neurons)


@pytest.mark.parametrize("form", ["masked", "shrunk", "compressed"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_format_is_written(preset: str, dtype: str, form: str, tmp_path: Path) -> None:
    if form == "compressed" and library_problem():
        pytest.skip("compressed-tensors is not here.")
    core = Core(dtype=dtype)
    job = Export(
        preset,
        recipe_for(form, preset, core),
        str(tmp_path / "out"),
        form,
        text=TEXT,
        seq_len=32,
        windows=2,
        repeats=0,
    )
    found = run(core, job)
    assert found["difference"] < 0.05
    if form == "masked":
        assert found["exported"]["bytes"] == pytest.approx(found["dense"]["bytes"], rel=0.1)


def test_sizes_count_each_tensor_in_its_own_dtype() -> None:
    """T5's second MLP layers stay float32 in float16."""
    core = Core(dtype="float16")
    model = core.loaded("tiny-t5").handle.model
    assert {p.dtype for p in model.parameters()} == {torch.float16}  # made on the spot: all of them
    for name, parameter in model.named_parameters():
        if name.endswith("wo.weight"):
            parameter.data = parameter.data.float()
    found = run(core, Cost("tiny-t5", Recipe()))
    dense = sum(p.numel() * p.element_size() for p in model.parameters())
    assert found["bytes_dense"] == found["bytes_shrunk"] == dense


@pytest.mark.parametrize("form", ["masked", "shrunk"])
def test_a_t5_from_a_file_keeps_its_float32_layers(form: str, tmp_path: Path) -> None:
    """transformers loads their weights wider than the rest; what is written is loaded so again."""
    model, tokenizer = TINY["tiny-t5"]()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    core, source = Core(dtype="float16"), str(tmp_path / "model")
    handle = core.loaded(source).handle
    assert {p.dtype for p in handle.model.parameters()} == {torch.float16, torch.float32}
    neurons = tuple((b.index, n) for b in handle.structure.blocks for n in (1, 7))
    job = Export(
        source,
        Recipe(sparsity=0.2, drop_neurons=neurons),
        str(tmp_path / "out"),
        form,
        text=TEXT,
        seq_len=32,
        windows=2,
        repeats=0,
    )
    assert run(core, job)["difference"] < 0.01


def test_rotary_frequencies_stay_float32() -> None:
    model = load_model("tiny-llama", dtype="bfloat16").model
    buffers = dict(model.named_buffers())
    assert any("inv_freq" in name for name in buffers)
    assert all(b.dtype == torch.float32 for n, b in buffers.items() if "inv_freq" in n)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_value_is_not_rounded_before_it_cuts(dtype: str) -> None:
    core = Core(dtype=dtype)
    recipe = Recipe(criterion="threshold", criterion_args={"value": 0.301})
    found = run(core, Evaluate("tiny-llama", recipe, TEXT, 32, 2))
    loaded = core.loaded("tiny-llama")
    layers = loaded.handle.structure.layers.values()
    weights = torch.cat([x.weight(loaded.handle.model).float().flatten() for x in layers])
    assert sum(found["removed"].values()) == int((weights.abs() < 0.301).sum())


def test_ranks_above_eight_million_are_not_rounded() -> None:
    count = 2**23 + 16
    dense, out = torch.ones(count), torch.empty(count)
    ranks = torch.arange(count, dtype=torch.float32)
    for limit in range(2**23 - 2, 2**23 + 8):
        cut_into(dense, ranks, limit, out)
        assert int((out == 0).sum()) == limit


def test_an_overflow_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from prune_core.tasks import evaluate as measure

    real = measure.score_window

    def broken(*arguments: Any, **more: Any) -> Any:
        score = real(*arguments, **more)
        return replace(score, losses=score.losses * float("nan"))

    monkeypatch.setattr(measure, "score_window", broken)
    with pytest.raises(ModelFileError, match="not finite"):
        run(Core(), Evaluate("tiny-llama", Recipe(sparsity=0.5), TEXT, 32, 2))
