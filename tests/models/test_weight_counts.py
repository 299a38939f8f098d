"""What is zero before a recipe, by it and after it: against naive counts of every weight."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prune_core.cli.main import main
from prune_core.engine.core import Core
from prune_core.exporting.cost import cost_numbers
from prune_core.figures.theme import Look
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Cost, Export
from prune_core.models.handle import ModelHandle, build_handle
from prune_core.models.weight_counts import (
    WeightCounts,
    added_share,
    counts_of,
    embedding_parameters,
    headline_share,
    removed_in_words,
    zeros_in_words,
)
from prune_core.pruning.plan import layer_mask
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.budget import FileSize
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out
from prune_core.ui.frame.weight_bar import parts_of

pytestmark = pytest.mark.usefixtures("own_cache")

TEXT = TextSpec("inline", "A fox once saw a crow fly off with a piece of cheese. " * 60)
FAMILIES = ["tiny-gpt2", "tiny-llama", "tiny-t5", "tiny-bert"]
DENSITIES = {"dense": 0.0, "few zeros": 0.01, "half pruned": 0.5}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(tmp_path))


def sparse(handle: ModelHandle, share: float) -> ModelHandle:
    """The model with so many of each layer's weights zero, wherever they lie."""
    model: Any = copy.deepcopy(handle.model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in handle.structure.layers.values():
            weight = layer.stored_weight(model)
            weight[torch.rand(weight.shape, generator=generator) < share] = 0
    name = f"{handle.fingerprint}-{share}"
    return build_handle(
        model, handle.tokenizer, source="x", title="x", fingerprint=name, warnings=()
    )


def recipes(handle: ModelHandle) -> dict[str, Recipe]:
    last = len(handle.structure.blocks) - 1
    return {
        "nothing": Recipe(),
        "magnitude": Recipe(sparsity=0.6),
        "at random": Recipe(criterion="random", sparsity=0.3),
        "2:4": Recipe(criterion="random", pattern="nm:2:4", sparsity=0.5),
        "a block": Recipe(drop_blocks=(last,)),
        "neurons and weights": Recipe(
            criterion="random", sparsity=0.2, drop_neurons=((0, 1), (0, 5))
        ),
        "heads": Recipe(drop_heads=((0, 0), (1, 1))),
    }


def naive(handle: ModelHandle, loaded: LoadedModel, recipe: Recipe) -> dict[str, int]:
    """Every weight looked at: dense, mask, and the working copy as it stands."""
    plan = work_out(loaded, recipe)
    found = dict.fromkeys(("zeros_before", "removed", "added", "zeros_after"), 0)
    for name, layer in handle.structure.layers.items():
        dense, mask = layer.weight(handle.model), layer_mask(plan, handle.structure, name)
        now = layer.weight(loaded.copy.model)
        for before, keep, after in zip(
            dense.flatten().tolist(), mask.flatten().tolist(), now.flatten().tolist(), strict=True
        ):
            found["zeros_before"] += before == 0
            found["removed"] += not keep
            found["added"] += before != 0 and not keep
            found["zeros_after"] += after == 0
    return found


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_every_weight(
    family: str, density: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = sparse(handles[family], DENSITIES[density])
    loaded = LoadedModel(handle)
    for name, recipe in recipes(handle).items():
        counts = loaded.copy.apply(work_out(loaded, recipe)).counts
        wanted = naive(handle, loaded, recipe)
        assert {key: getattr(counts, key) for key in wanted} == wanted, name
        # nothing changed: nothing rewritten
        again = loaded.copy.apply(work_out(loaded, recipe)).counts
        assert again == counts
    assert handle.info.zeros == handle.info.counts().zeros_before == wanted["zeros_before"]


def test_computed_weights_may_fill_zeros(handles: Mapping[str, ModelHandle]) -> None:
    handle = sparse(handles["tiny-llama"], 0.5)
    loaded = LoadedModel(handle)
    calibration = Calibration(TEXT, windows=4, seq_len=32)
    recipe = Recipe(
        criterion="random", sparsity=0.3, reconstruction="sparsegpt", calibration=calibration
    )
    counts = loaded.copy.apply(work_out(loaded, recipe)).counts
    before = after = added = 0
    for layer in handle.structure.layers.values():
        dense, now = layer.weight(handle.model), layer.weight(loaded.copy.model)
        before += int((dense == 0).sum())
        after += int((now == 0).sum())
        added += int(((now == 0) & (dense != 0)).sum())
    assert (counts.zeros_before, counts.zeros_after, counts.added) == (before, after, added)
    assert after < before + added  # the repair gave zeros a value


def test_embeddings_count_tied_tables_once(handles: Mapping[str, ModelHandle]) -> None:
    for name, handle in handles.items():
        model, found = handle.model, handle.info.counts()
        tables = {id(model.get_input_embeddings().weight): model.get_input_embeddings().weight}
        if handle.structure.head_module:
            head = model.get_submodule(handle.structure.head_module).weight
            tables[id(head)] = head
        assert found.embeddings >= sum(t.numel() for t in tables.values()), name
        assert found.parameters == sum(p.numel() for p in model.parameters())
        assert found.others >= 0 and found.kept == found.prunable - found.zeros_before
    tied = handles["tiny-gpt2"]
    table = tied.model.get_input_embeddings().weight
    assert tied.model.get_submodule(str(tied.structure.head_module)).weight is table
    positions = tied.model.transformer.wpe.weight.numel()
    assert embedding_parameters(tied.model, tied.structure) == table.numel() + positions


def test_cost_counts_the_zeros_of_the_dense_model(handles: Mapping[str, ModelHandle]) -> None:
    handle = sparse(handles["tiny-llama"], 0.5)
    loaded = LoadedModel(handle)
    recipe = Recipe(criterion="random", sparsity=0.5)
    counts = loaded.copy.apply(work_out(loaded, recipe)).counts
    numbers = cost_numbers(handle, loaded.copy.model, recipe)
    assert numbers["nonzero_dense"] - numbers["nonzero"] == counts.added
    assert numbers["nonzero_dense"] == sum(int((p != 0).sum()) for p in handle.model.parameters())
    assert numbers["bytes_sparse"] < numbers["bytes_sparse_dense"] < numbers["bytes_dense"]
    estimate = FileSize.from_numbers({**numbers, **counts.to_numbers()})
    assert estimate is not None and estimate.zeros == counts.zeros_before
    # nothing smaller than what the zeros of the loaded model give already, up to its own size
    assert estimate.at(0.0) == estimate.at(counts.of_prunable(counts.zeros_before))
    assert estimate.sparsity_for(estimate.at(0.0).value) == 0.0


def test_numbers_of_older_versions_are_read_as_far_as_they_go() -> None:
    assert added_share({"added": 0.1, "sparsity": 0.5}) == 0.1
    assert added_share({"sparsity": 0.5}) == 0.5
    old = {"sparsity": 0.5, "removed": {"a": 40, "b": 10}, "nonzero_dense": 150, "nonzero": 120}
    assert added_share(old) == pytest.approx(0.3)  # of 100 prunable weights
    assert counts_of({}) is None and counts_of({"counts": {"parameters": 3}}) is None
    counts = WeightCounts(134, 100, 30, 20, 50, 40, 60)
    assert counts_of(counts.to_numbers()) == counts


def test_a_share_says_of_what_it_is_one() -> None:
    counts = WeightCounts(125, 100, 20, 0, 40, 40, 40)
    assert removed_in_words(counts) == "40 % of the prunable weights = 32 % of the model"
    assert zeros_in_words(counts) == ""
    half = replace(counts, zeros_before=50, removed=60, added=10, zeros_after=60)
    assert zeros_in_words(half) == "50 % were zero before, 10 % are added, 60 % are zero now"
    assert headline_share(0.6, 0.1) == 0.1 and headline_share(0.4, 0.397) == 0.4
    numbers = half.to_numbers()
    assert (numbers["added"], numbers["added_of_model"]) == (0.1, 0.08)
    assert (numbers["zeros_before_of_model"], numbers["zeros_after_of_model"]) == (0.4, 0.48)


# ---- a half-pruned model, from the command line to the report ----------------------------------


@pytest.fixture
def half(tmp_path: Path, handles: Mapping[str, ModelHandle]) -> Path:
    """Tiny Llama with the smaller half of each layer's weights zero, as a folder."""
    handle, folder = handles["tiny-llama"], tmp_path / "half"
    model: Any = copy.deepcopy(handle.model)
    with torch.no_grad():
        for layer in handle.structure.layers.values():
            weight = layer.stored_weight(model)
            weight[weight.abs() <= weight.abs().median()] = 0
    model.save_pretrained(folder)
    handle.tokenizer.save_pretrained(folder)
    (tmp_path / "text.txt").write_text("A fox once saw a crow with a piece of cheese. " * 60)
    return folder


def ask(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_evaluate_tells_what_was_zero(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ["--text", half.parent / "text.txt", "--seq-len", "32", "--windows", "2"]
    shown = ask(capsys, "evaluate", half, *text)
    assert "removed       0 % of the prunable weights" in shown
    assert "50 % were zero before, 0 % are added, 50 % are zero now" in shown
    found = json.loads(ask(capsys, "evaluate", half, *text, "--sparsity", "0.6", "--json"))
    assert (found["zeros_before"], found["sparsity"]) == (0.5, pytest.approx(0.6, abs=1e-3))
    assert found["added"] == pytest.approx(0.1, abs=1e-3)
    assert found["zeros_after"] == found["sparsity"]
    assert found["added_of_model"] < found["added"]


def test_front_and_report_promise_nothing_that_was_gone_before(
    half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid, store = tmp_path / "grid.yaml", f"sqlite:///{tmp_path / 'runs.db'}"
    asked = {
        "models": [str(half)],
        "texts": [str(tmp_path / "text.txt")],
        "criteria": ["magnitude"],
        "sparsities": [0.3, 0.5],
        "seq_len": 32,
        "windows": 3,
    }
    grid.write_text(json.dumps(asked))
    ask(capsys, "sweep", grid, "--store", store)
    front = json.loads(ask(capsys, "frontier", "--store", store, "--json"))
    nonzero = {point["cost"] for point in front["points"]}
    assert nonzero == {front["dense"]["cost"]}  # the dense model has no more
    assert [point["added"] for point in front["points"]] == [0, 0]
    assert (
        front["dense"]["cost"]
        == json.loads(ask(capsys, "cost", half, "--repeats", "0", "--json"))["nonzero_dense"]
    )
    sizes = json.loads(ask(capsys, "frontier", "--store", store, "--cost", "bytes", "--json"))
    assert {p["cost"] for p in sizes["points"]} == {sizes["dense"]["cost"]}
    page = tmp_path / "report.html"
    assert main(["report", "--store", store, "--to", str(page)]) == 1
    assert "not zero before" in capsys.readouterr().err
    asked["sparsities"] = [0.3, 0.5, 0.55]
    grid.write_text(json.dumps(asked))
    ask(capsys, "sweep", grid, "--store", store)
    shown = ask(capsys, "report", "--store", store, "--to", page).replace("\u00a0", " ")
    assert shown.startswith("5 % of the prunable weights (") and "55 %" not in shown.split("\n")[0]
    assert "(5 % were not zero before)" in shown
    assert "50 % of its prunable weights" in page.read_text().replace("\u00a0", " ")


def test_an_export_and_a_budget_count_what_is_added(
    half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = Core()

    def run(job: Any) -> dict[str, Any]:
        return core.run(job)

    recipe, folder = Recipe(sparsity=0.6), tmp_path / "out"
    got = run(Export(str(half), recipe, str(folder), "masked", False, TEXT, 32, 2, 0))
    card = (folder / "README.md").read_text()
    assert "50 % were zero before, 10 % are added, 60 % are zero now" in card
    added = got["screen"]["counts"]["added"]
    assert got["dense"]["nonzero"] - got["exported"]["nonzero"] == added
    cost = run(Cost(str(half), recipe))
    evaluated = run(Evaluate(str(half), recipe, TEXT, 32, 2))
    assert cost["nonzero_dense"] - cost["nonzero"] == added == evaluated["counts"]["added"]
    text = ["--text", tmp_path / "text.txt", "--seq-len", "32", "--windows", "2"]
    least = cost["bytes_sparse_dense"]
    asked = ["frontier", half, *text, "--criteria", "magnitude", "--json"]
    kept = json.loads(ask(capsys, *asked, "--budget", f"{least * 1.01 / 1000:.3f}kB"))
    assert kept["answers"][0]["state"] == "dense" and "nothing has to go" in kept["sentence"]
    less = json.loads(ask(capsys, *asked, "--budget", f"{least * 0.97 / 1000:.3f}kB"))
    assert less["answers"][0]["added"] > 0
    assert "were not zero before" in less["sentence"]


def test_an_evaluation_knows_the_sizes_that_cost_counts(half: Path) -> None:
    core = Core()

    def run(job: Any) -> dict[str, Any]:
        return core.run(job)

    for recipe in (Recipe(), Recipe(sparsity=0.7), Recipe(sparsity=0.6, drop_blocks=(1,))):
        found, cost = run(Evaluate(str(half), recipe, TEXT, 32, 1)), run(Cost(str(half), recipe))
        for name in ("bytes_dense", "bytes_sparse"):
            assert found[name] == cost[name]
        assert found["bytes_shrunk"] == (cost["bytes_shrunk"] if recipe.drop_blocks else None)
        counts = counts_of(found)
        assert counts is not None and counts.nonzero == cost["nonzero"]


def test_the_bar_has_every_parameter_once() -> None:
    half = WeightCounts(1000, 800, 150, 400, 480, 80, 480)
    parts = parts_of(half, Look())
    assert {part["id"]: part["count"] for part in parts} == {
        "embeddings": 150,
        "others": 50,
        "kept": 320,
        "before": 400,
        "added": 80,
    }
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert "400 (40 %)" in parts[3]["text"]
    few = replace(half, parameters=10**6, prunable=999_800, zeros_before=300, zeros_after=380)
    assert "before" not in {part["id"] for part in parts_of(few, Look())}
    assert zeros_in_words(few) == ""
