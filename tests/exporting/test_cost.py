"""What a recipe costs: counted numbers against files, measured ones in turn, by job and by verb."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prune_core.cli.main import main
from prune_core.engine.core import Core
from prune_core.errors import Cancelled, RecipeError
from prune_core.exporting.cost import cost_numbers
from prune_core.exporting.shrink import shrink
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.exports import Cost, Export
from prune_core.models.handle import ModelHandle
from prune_core.models.reading import quiet
from prune_core.models.tiny import TINY
from prune_core.paths import cache_folder
from prune_core.progress import Progress
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def run() -> Callable[..., dict[str, Any]]:
    core = Core()
    return lambda job: core.run(job)


def masked(handle: ModelHandle, recipe: Recipe) -> LoadedModel:
    loaded = LoadedModel(handle)
    loaded.copy.apply(work_out(loaded, recipe))
    return loaded


@pytest.mark.parametrize("name", sorted(TINY))
def test_the_cost_is_what_the_file_has(
    name: str, handles: Mapping[str, ModelHandle], tmp_path: Path
) -> None:
    handle = handles[name]
    last = len(handle.structure.blocks) - 1
    recipe = Recipe(sparsity=0.5, drop_blocks=(last,))
    loaded = masked(handle, recipe)
    numbers = cost_numbers(handle, loaded.copy.model, recipe)
    assert numbers["parameters"] == handle.info.parameters
    by_hand = sum(int((p != 0).sum()) for p in loaded.copy.model.parameters())
    assert numbers["nonzero"] == by_hand
    with quiet():
        handle.model.save_pretrained(tmp_path / "dense")
        shrink(loaded.copy.model, handle.structure, recipe).save_pretrained(tmp_path / "small")
    for folder, key in (("dense", "bytes_dense"), ("small", "bytes_shrunk")):
        on_disk = (tmp_path / folder / "model.safetensors").stat().st_size
        assert numbers[key] == pytest.approx(on_disk, abs=20_000)  # the file's header
    assert numbers["bytes_half"] * 2 == numbers["bytes_dense"]
    assert by_hand * 4 < numbers["bytes_sparse"] < by_hand * 4 + handle.info.parameters / 8 + 100
    assert numbers["flops_shrunk"] < numbers["flops_dense"]
    assert numbers["prefill"] is None and numbers["shrunk_refused"] is None


def test_a_cost_without_surgery_says_why(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    recipe = Recipe(drop_mlp=(1,))
    numbers = cost_numbers(handle, masked(handle, recipe).copy.model, recipe)
    assert numbers["bytes_shrunk"] is numbers["parameters_shrunk"] is None
    assert "without its attention or its MLP" in numbers["shrunk_refused"]


def test_a_count_without_repeats_measures_nothing(run: Callable[..., dict[str, Any]]) -> None:
    got = run(Cost("tiny-llama", Recipe(sparsity=0.5, drop_blocks=(0,))))
    assert got["prefill"] is got["dense_decode"] is got["zeros_peak_memory"] is None
    assert got["parts"] == {"head": 0, "neuron": 0, "block": 1} and got["repeats"] == 0
    assert got["parameters_shrunk"] < got["parameters"] and got["item"] == 4


@pytest.mark.parametrize("cut", [True, False])
def test_three_models_take_turns(cut: bool, run: Callable[..., dict[str, Any]]) -> None:
    recipe = Recipe(sparsity=0.5, drop_blocks=(0,) if cut else ())
    got = run(Cost("tiny-llama", recipe, 3))
    for name in ("prefill", "decode"):
        for one in ("", "dense_", "zeros_"):
            found = got[f"{one}{name}"]
            assert len(found["values"]) == 3
            assert 0 < found["low"] <= found["median"] <= found["high"]
    # with nothing to cut out there is one pruned model; else there are two
    assert (got["zeros_decode"] == got["decode"]) is not cut
    if Path("/proc/self/status").exists():
        assert got["peak_memory"] > 0 and got["zeros_peak_memory"] > 0
    assert not list(cache_folder("speed").iterdir())


def test_an_encoder_only_reads(run: Callable[..., dict[str, Any]]) -> None:
    got = run(Cost("tiny-bert", Recipe(sparsity=0.5), 1))
    assert got["prefill"]["median"] > 0 and got["decode"] is None


@pytest.mark.parametrize("repeats", [-1, 101])
def test_no_number_of_repeats(repeats: int, run: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(RecipeError, match=f"0 .* to 100 times, got {repeats}"):
        run(Cost("tiny-llama", Recipe(), repeats))
    with pytest.raises(RecipeError, match="100 times"):
        run(replace(Export("tiny-llama", folder="nowhere"), repeats=repeats))


def test_a_cancel_leaves_no_files() -> None:
    stages: list[str] = []
    with pytest.raises(Cancelled):
        Core().run(
            Cost("tiny-llama", Recipe(sparsity=0.5), 1),
            Progress(
                lambda event: stages.append(str(event.get("stage"))),
                lambda: "measure" in stages,
            ),
        )
    assert "write" in stages and not list(cache_folder("speed").iterdir())


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cost", "tiny-llama", "--sparsity", "0.5", "--drop-blocks", "1"]
    assert main([*words, "--repeats", "1", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["parameters_shrunk"] < got["parameters"] and got["decode"]["median"] > 0
    assert main([*words, "--repeats", "0"]) == 0
    shown = capsys.readouterr().out
    assert "parts cut out" in shown and f"{got['bytes_shrunk']:,}" in shown
    assert "not faster" in shown and "tokens per second" not in shown
    assert main(["cost", "tiny-llama", "--drop-mlp", "0", "--repeats", "0"]) == 0
    assert "cannot be cut out" in capsys.readouterr().out
    assert main(["cost", "tiny-llama", "--repeats", "500"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    said = command_line(Cost("tiny-llama", Recipe(drop_blocks=(1,)), 3))
    assert "cost tiny-llama" in said and "--drop-blocks 1" in said and "--repeats 3" in said
