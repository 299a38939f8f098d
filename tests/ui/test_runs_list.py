"""Runs on pages: what they are called, and choosing some of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import method_of
from prune_core.sweeps.records import Cell, Run
from prune_core.sweeps.store.journal import RunStore
from prune_core.ui.frame.runs import method_label, run_label


@pytest.fixture
def store(
    inline_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunStore]:
    monkeypatch.setenv("PRUNE_STORE", str(tmp_path / "runs.sqlite"))
    runs = RunStore()
    yield runs
    runs.close()


def saved(store: RunStore, sparsity: float, perplexity: float) -> str:
    cell = Cell("tiny-llama", Recipe(criterion="wanda", sparsity=sparsity))
    return store.save_run(cell, {"perplexity": perplexity, "sparsity": sparsity})


def picker() -> AppTest:
    def page() -> None:
        import streamlit as st

        from prune_core.ui.frame.runs import pick_runs

        runs = pick_runs("_picked", most=2, usual=lambda found: [run.id for run in found])
        st.text(" | ".join(run.id for run in runs))

    return AppTest.from_function(page, default_timeout=60)


def test_an_empty_store_says_what_to_do(store: RunStore) -> None:
    at = picker().run()
    assert not at.exception
    assert "Trade-off" in at.info[0].value


def test_runs_are_picked_and_a_deleted_one_leaves(store: RunStore) -> None:
    ids = [saved(store, s, 10 + 50 * s) for s in (0.1, 0.3, 0.5)]
    at = picker().run()
    assert not at.exception
    assert at.text[0].value == " | ".join(ids[:2])
    box = at.multiselect(key="_picked")
    assert box.options[2] == "Wanda · per row · 50 % removed · perplexity 35.00"
    box.set_value([ids[2], ids[0]]).run()
    assert at.text[0].value == f"{ids[2]} | {ids[0]}"
    store.delete([ids[2]])
    at.run()
    assert at.text[0].value == ids[0]
    store.delete(ids[:2])
    assert "Trade-off" in at.run().info[0].value


@pytest.mark.parametrize(
    ("recipe", "label"),
    [
        (Recipe(), "Dense model"),
        (Recipe(criterion="wanda").with_pattern("nm:2:4"), "Wanda · 2:4"),
        (Recipe(sparsity=0.5, pattern="block:4"), "Magnitude · 4 x 4 blocks"),
        (
            Recipe(criterion="sparsegpt", sparsity=0.5, reconstruction="sparsegpt"),
            "SparseGPT scores · per layer · repaired by SparseGPT",
        ),
        (Recipe(drop_blocks=(3,)), "blocks dropped"),
        (
            Recipe(
                criterion="wanda",
                sparsity=0.5,
                calibration=Calibration(TextSpec("file", "a_b*c"), 4, 64),
            ),
            "Wanda · per row · a_b*c 4x64",
        ),
    ],
)
def test_methods_have_names(recipe: Recipe, label: str) -> None:
    assert method_label(method_of(recipe)) == label


def test_a_run_that_found_nothing_has_a_name_too() -> None:
    run: Any = Run("x", "", Cell("m", Recipe(sparsity=0.25)), "failed")
    assert run_label(run) == "Magnitude · per layer · 25 % removed"
