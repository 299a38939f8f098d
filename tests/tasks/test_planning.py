"""A recipe is prepared once: what it needs of a text is asked once and carried to its cuts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from prune_core.engine.core import Core
from prune_core.errors import RecipeError, TextError
from prune_core.jobs.base import LoadModel
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.sweeps import MeasureCell
from prune_core.jobs.weights import LayerTable
from prune_core.models.handle import ModelHandle
from prune_core.progress import Progress
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.choices import choices_read_calibration
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.tasks import loaded as loaded_file
from prune_core.tasks import planning
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import Prepared, named_neurons, plan, prepare

STORY = TextSpec("inline", "The miller's daughter spun straw into gold by night. " * 60)
OTHER = TextSpec("inline", "A fox ran over nine hills, and far away was a king of ice. " * 60)
READ = Calibration(STORY, 2, 32)
SHARE = NeuronShare(0.2)

WANDA: dict[str, Any] = {"criterion": "wanda", "sparsity": 0.5, "calibration": READ}
REPAIRED = Recipe(**WANDA, allocation="owl", reconstruction="sparsegpt")
MEASURED = Recipe(**WANDA, allocation="sensitivity", neurons=SHARE)

RECIPES: dict[str, Recipe] = {
    "dense": Recipe(calibration=READ),
    "heads": Recipe(drop_heads=((0, 1),), calibration=READ),
    "magnitude": Recipe(sparsity=0.5, calibration=READ),
    "threshold": Recipe(criterion="threshold", criterion_args={"value": 0.02}, calibration=READ),
    "erk": Recipe(sparsity=0.5, allocation="erk", calibration=READ),
    "owl of magnitudes": Recipe(sparsity=0.5, allocation="owl", calibration=READ),
    "wanda at 0": Recipe(criterion="wanda", calibration=READ),
    "wanda": Recipe(**WANDA),
    "wanda by override": Recipe(criterion="wanda", overrides={"block:1": 0.5}, calibration=READ),
    "sensitivity of magnitudes": Recipe(sparsity=0.5, allocation="sensitivity", calibration=READ),
    "sensitivity at 0": Recipe(
        allocation="sensitivity", overrides={"block:1": 0.5}, calibration=READ
    ),
    "magnitudes in sequence": Recipe(
        sparsity=0.5, calibration=Calibration(STORY, 2, 32, mode="sequential")
    ),
    "taylor in sequence": Recipe(
        criterion="taylor", sparsity=0.5, calibration=Calibration(STORY, 2, 32, mode="sequential")
    ),
    "repaired magnitudes": Recipe(sparsity=0.5, reconstruction="sparsegpt", calibration=READ),
    "repair of nothing": Recipe(reconstruction="sparsegpt", calibration=READ),
    "share": Recipe(neurons=SHARE, calibration=READ),
    "named neurons": Recipe(drop_neurons=((0, 3),), calibration=READ),
}


@pytest.fixture
def llama(
    handles: Mapping[str, ModelHandle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LoadedModel:
    """With a cache of its own: everything has to be worked out."""
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    return LoadedModel(handles["tiny-llama"])


def calls_of(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[tuple[Any, ...]]:
    """The arguments of each call that a module makes of a function it imported."""
    whole, calls = getattr(where, name), []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return whole(*arguments, **named)

    monkeypatch.setattr(where, name, counted)
    return calls


@pytest.mark.parametrize("recipe", [REPAIRED, MEASURED], ids=["repaired", "sensitivity and share"])
def test_statistics_are_asked_for_once(
    recipe: Recipe, llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = calls_of(monkeypatch, loaded_file, "statistics_of")
    texts = calls_of(monkeypatch, loaded_file, "calibration_windows")
    losses = calls_of(monkeypatch, planning, "block_increases")
    neurons = calls_of(monkeypatch, llama.neurons, "statistics")
    job = Evaluate("tiny-llama", recipe, OTHER, 32, 2)
    result = measure(llama, job)
    assert 0.3 < result["sparsity"] < 0.7
    assert [needs for *_, needs in statistics] == [{"input_norm"}]
    assert len(texts) == 1
    assert len(losses) == (recipe.allocation == "sensitivity")
    assert len(neurons) == (recipe.neurons is not None)


def test_a_table_with_scores_asks_once_too(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = Core()
    core.run(LoadModel("tiny-llama"))
    statistics = calls_of(monkeypatch, loaded_file, "statistics_of")
    core.run(LayerTable("tiny-llama", Recipe(**WANDA), scored=True))
    assert len(statistics) == 1
    # SparseGPT's own choice gathers on the way; the scores that are shown are the dense model's
    statistics.clear()
    chosen = Recipe(
        criterion="sparsegpt", sparsity=0.5, reconstruction="sparsegpt", calibration=READ
    )
    core.run(LayerTable("tiny-llama", chosen, scored=True))
    assert [needs for *_, needs in statistics] == [{"obs_diagonal"}]


@pytest.mark.parametrize("recipe", [REPAIRED, MEASURED], ids=["repaired", "sensitivity and share"])
def test_on_its_way_a_recipe_enters_no_file_more_than_three_times(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the worker's core to the number; see the list in docs/architecture.md."""
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    core, entered = Core(), Counter[str]()
    core.run(LoadModel("tiny-llama"))
    carriers = (Recipe, Evaluate, Prepared)

    def look(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        _, inside, place = code.co_filename.rpartition("prune_core/")
        before = frame.f_back.f_code.co_filename if frame.f_back is not None else ""
        # a recipe's own properties are the recipe, not a place that it is handed to
        if event != "call" or not inside or place.startswith("recipes/"):
            return
        if before != code.co_filename:
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            handed = [frame.f_locals.get(name) for name in names]
            entered[place] += any(isinstance(value, carriers) for value in handed)

    sys.setprofile(look)
    try:
        core.run(Evaluate("tiny-llama", recipe, OTHER, 32, 2))
    finally:
        sys.setprofile(None)
    assert entered["tasks/planning.py"] == 2, "prepare, then plan"
    assert max(entered.values()) <= 3, entered


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_a_text_exactly_where_something_comes_of_it(
    name: str, llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[name]
    texts = calls_of(monkeypatch, loaded_file, "calibration_windows")
    prepared = prepare(llama, recipe)
    cuts = plan(prepared)
    learned = (prepared.neurons, prepared.statistics, prepared.increases, cuts.edits)
    assert recipe.reads_calibration == any(part is not None for part in learned)
    assert recipe.reads_calibration == bool(texts)
    assert recipe.computes_weights == (cuts.edits is not None)
    # a form asks before it is known how much goes: it may not say no where the recipe says yes
    asked = choices_read_calibration(
        recipe.criterion,
        recipe.allocation,
        recipe.reconstruction,
        neurons=recipe.reads_neurons,
        criterion_args=recipe.criterion_args,
    )
    assert asked or not recipe.reads_calibration
    if recipe.sparsity:
        assert asked == recipe.reads_calibration


def test_the_share_that_goes_is_named(llama: LoadedModel) -> None:
    prepared = prepare(llama, RECIPES["share"])
    sizes = [x.in_features for x in llama.handle.structure.layers.values() if x.role == "mlp.down"]
    assert prepared.recipe.neurons == SHARE and prepared.named.neurons is None
    assert len(prepared.named.drop_neurons) == round(SHARE.fraction * sum(sizes))
    assert named_neurons(llama, RECIPES["share"]) == prepared.named
    plain = RECIPES["named neurons"]
    assert prepare(llama, plain).named is plain is named_neurons(llama, plain)


def test_a_cell_of_a_sweep_prepares_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    core = Core()
    core.run(LoadModel("tiny-llama"))
    neurons = calls_of(monkeypatch, core.loaded("tiny-llama").neurons, "statistics")
    cell = core.run(MeasureCell("tiny-llama", RECIPES["share"], OTHER, 32, 2))
    assert len(neurons) == 1
    assert cell["parameters_shrunk"] < cell["parameters"]


def test_what_is_wrong_is_said_before_a_text_is_read(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = calls_of(monkeypatch, loaded_file, "calibration_windows")
    with pytest.raises(RecipeError, match="no argument 'x'"):
        prepare(llama, Recipe(**WANDA, criterion_args={"x": 1}))
    assert not texts
    windows = llama.windows(STORY, 32, 2)
    with pytest.raises(TextError, match="are in the calibration text too"):
        prepare(llama, Recipe(**WANDA), apart_from=windows)
    assert (
        prepare(llama, Recipe(sparsity=0.5, calibration=READ), apart_from=windows).windows is None
    )


def test_stages_are_told_in_order(llama: LoadedModel) -> None:
    events: list[dict[str, Any]] = []
    progress = Progress(events.append)
    plan(prepare(llama, MEASURED, progress), progress)
    stages = list(dict.fromkeys(event["stage"] for event in events))
    assert stages == ["statistics", "sensitivity"], "it was ranked to be measured"
    events.clear()
    plan(
        prepare(llama, replace(MEASURED, pattern="per-layer", allocation="erk"), progress), progress
    )
    assert {event["stage"] for event in events} == {"ranks"}, "the text is known by now"
    events.clear()
    plan(prepare(llama, REPAIRED, progress), progress)
    assert {event["stage"] for event in events} == {"reconstruction"}
    blocks = len(llama.handle.structure.blocks)
    assert [(e["done"], e["total"]) for e in events] == [(n + 1, blocks) for n in range(blocks)]
