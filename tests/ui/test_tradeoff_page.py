"""The Trade-off page by Streamlit's own test runner: empty, filled, sweeping, failing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.engine.core import Core
from prune_core.jobs.sweeps import MeasureCell
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.frontier import frontier
from prune_core.sweeps.options import three_options
from prune_core.sweeps.records import Cell, Run
from prune_core.sweeps.store.journal import RunStore
from prune_core.ui.tradeoff.sweep import background
from tests.ui.apps import app, charts, fine

GRIMM = TextSpec("preset", "grimm")
RECIPES = [
    Recipe(),
    *(Recipe(sparsity=share) for share in (0.1, 0.3, 0.6)),
    *(Recipe(criterion="random", sparsity=share) for share in (0.1, 0.3, 0.6)),
]

tradeoff = partial(app, "tradeoff")


@pytest.fixture(scope="module")
def measured() -> list[tuple[Cell, dict[str, Any]]]:
    core, found = Core(), []
    for recipe in RECIPES:
        job = MeasureCell("tiny-llama", recipe, GRIMM, 64, 4)
        cell = Cell("tiny-llama", recipe, GRIMM, 64, 4)
        found.append((cell, core.run(job)))
    return found


@pytest.fixture(autouse=True)
def place(inline_engine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("PRUNE_STORE", str(tmp_path / "runs.sqlite"))
    yield tmp_path / "runs.sqlite"
    background().close()


@pytest.fixture
def filled(place: Path, measured: list[tuple[Cell, dict[str, Any]]]) -> RunStore:
    store = RunStore(str(place))
    for cell, numbers in measured:
        store.save_run(cell, numbers)
    return store


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_without_runs_it_says_how_to_get_some(lang: str) -> None:
    at = fine(tradeoff(lang=lang))
    assert charts(at) == 0
    assert len(at.info) == 1
    assert at.button(key="_grid_start")


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("axes", [("nonzero", "perplexity"), ("bytes", "kl"), ("decode", "top1")])
def test_runs_are_drawn(filled: RunStore, lang: str, axes: tuple[str, str]) -> None:
    at = fine(tradeoff(lang=lang, cost=axes[0], quality=axes[1]))
    assert charts(at) == 1
    # speed was not measured: another axis stands in
    assert at.session_state["cost"] == ("nonzero" if axes[0] == "decode" else axes[0])
    assert at.session_state["quality"] == axes[1]
    assert any("4" in caption.value and "64" in caption.value for caption in at.caption)


def test_a_click_opens_the_studio(filled: RunStore) -> None:
    run = next(run for run in filled.runs() if run.cell.recipe.criterion == "random")

    # the test runner cannot click a figure: what the click's callback does is done here
    def page() -> None:
        import streamlit as st

        from prune_core.ui.session.keys import value
        from prune_core.ui.session.recipe_state import recipe_from_state
        from prune_core.ui.tradeoff.front import open_in_studio

        open_in_studio(st.session_state["run"])
        st.text(recipe_from_state().fingerprint)
        st.text(f"{value('model')} {value('seq_len')} {value('windows')} {value('text')}")
        st.text(st.session_state["_to_studio"])

    alone = AppTest.from_function(page)
    alone.session_state["run"] = run.id
    alone.run()
    assert not alone.exception
    said = [text.value for text in alone.text]
    assert said == [run.cell.recipe.fingerprint, "tiny-llama 64 4 grimm", "True"]


def test_presenting_steps_through_the_options(filled: RunStore) -> None:
    runs = filled.runs()
    options = three_options(runs)
    assert len(options) >= 1
    at = fine(tradeoff(present="1"))
    assert charts(at) == 1
    assert {metric.label for metric in at.metric} == {"Removed", "Perplexity against dense"}
    at.button(key="_option_Right").click().run()
    assert fine(at).session_state["option"] == options[1 % len(options)].name


def test_a_promise_is_solved_from_the_measured_curve(filled: RunStore) -> None:
    at = fine(tradeoff(budget="10%"))
    at.button(key="_budget_solve").click().run()
    fine(at)
    table = next(frame.value for frame in at.dataframe if "Answer" in frame.value.columns)
    assert len(table) == 2
    assert (table["Measurements"] <= 8).all()
    boxes = [*at.success, *at.warning, *at.info]
    assert any("keeps" in box.value or "No recipe" in box.value for box in boxes)


@pytest.mark.parametrize("budget", ["nonsense", "0%"])
def test_a_promise_that_cannot_be_read_is_one_sentence(filled: RunStore, budget: str) -> None:
    at = tradeoff(budget=budget)
    assert not at.exception
    assert len(at.error) == 1
    assert "budget" in at.error[0].value


def test_a_sweep_is_started_watched_and_cancelled(place: Path) -> None:
    at = fine(tradeoff())
    at.slider(key="_grid_range").set_value((0.1, 0.3)).run()
    at.multiselect(key="_grid_criteria").set_value(["magnitude"]).run()
    assert any("3 cells" in caption.value for caption in fine(at).caption)
    at.button(key="_grid_start").click().run()
    fine(at)
    store = RunStore(str(place))
    (sweep,) = store.sweeps()
    assert (sweep.cells, sweep.origin) == (3, "app")
    end = time.monotonic() + 300
    while not store.sweep(sweep.id).ended:
        assert time.monotonic() < end
        time.sleep(0.1)
    at = fine(tradeoff(sweep=sweep.id))
    assert charts(at) == 1
    store.close()


def test_a_grid_that_cannot_be_says_why() -> None:
    at = tradeoff()
    at.multiselect(key="_grid_criteria").set_value([]).run()
    assert not at.exception
    assert len(at.error) == 1
    assert "criteria lists nothing" in at.error[0].value


def test_runs_are_searched(filled: RunStore) -> None:
    at = fine(tradeoff())
    at.text_input(key="_runs_search").set_value("random 30%").run()
    table = fine(at).dataframe[-1].value
    assert len(table) == 1
    at.text_input(key="_runs_search").set_value("no such words").run()
    assert any("No run" in caption.value for caption in fine(at).caption)


def test_a_store_that_is_no_store_is_one_sentence(place: Path) -> None:
    place.write_bytes(b"this is no database at all" * 100)
    at = tradeoff()
    assert not at.exception
    assert len(at.error) == 1
    assert "is damaged" in at.error[0].value


def test_the_three_options_keep_their_bounds(
    measured: list[tuple[Cell, dict[str, Any]]],
) -> None:
    runs = [
        Run(str(place), "", cell, "done", numbers) for place, (cell, numbers) in enumerate(measured)
    ]
    front = {point.run: point for point in frontier(runs).front}
    options = three_options(runs)
    for option in options:
        assert option.lost <= option.bound
        assert option.low <= option.lost <= option.high
        assert option.run.id in front
        better = [
            point
            for point in front.values()
            if point.run and point.sparsity > option.point.sparsity
            and point.quality.value / runs[0].numbers["perplexity"] - 1 <= option.bound
        ]  # fmt: skip
        assert better == []
    assert len({option.run.id for option in options}) == len(options)


def test_a_measurement_of_the_studio_is_kept_as_a_run(place: Path) -> None:
    at = fine(app("studio", sparsity="0.4", seq_len="64", windows="2"))
    at.button(key="_save_run").click().run()
    at.run()  # once kept it is not kept again
    fine(at)
    store = RunStore(str(place))
    (run,) = store.runs()
    assert (run.sweep, run.state, run.cell.recipe.sparsity) == ("", "done", 0.4)
    assert run.numbers["nonzero"] < run.numbers["parameters"]
    shown = float(next(m for m in run.numbers["window_nll"]))
    assert shown > 0
    assert any(box.value == "Kept among the runs." for box in at.success)
    store.close()
