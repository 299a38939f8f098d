"""Sweeps of a page: worked off beside the slider, paused and cancelled through the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prune_core.engine.background import Background
from prune_core.engine.client import Engine
from prune_core.engine.sweep_worker import measure_cell
from prune_core.jobs.evaluate import Evaluate
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.rounds import next_refinement
from prune_core.sweeps.run import run_sweep
from prune_core.sweeps.store.journal import RunStore

TEXT = "Once upon a time there was a king who had three daughters and a garden of apples. "


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text"
    path.write_text(TEXT * 200, encoding="utf-8")
    return str(path)


def grid(text: str, cells: int = 4, **more: object) -> Grid:
    shares = [round(0.1 + 0.6 * n / cells, 4) for n in range(cells)]
    content = {"model": "tiny-llama", "text": text, "sparsities": shares, "seq_len": 32}
    return Grid.from_dict({**content, "windows": 4, **more})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    found = RunStore(str(tmp_path / "runs.sqlite"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine("process")
    yield found
    found.close()


@pytest.fixture
def work(engine: Engine, tmp_path: Path) -> Iterator[Background]:
    found = Background(engine, str(tmp_path / "runs.sqlite"))
    yield found
    found.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_grid_of_a_page_is_worked_off(store: RunStore, work: Background, text: str) -> None:
    asked = grid(text)
    sweep = work.start(store, asked)
    assert work.start(store, asked) == sweep
    until(lambda: store.sweep(sweep).ended)
    runs = store.runs(sweep=sweep)
    assert [run.state for run in runs] == ["done"] * 4
    assert [run.attempts for run in runs] == [1] * 4
    left = work.seconds_left(store.sweep(sweep))
    assert left == 0


def test_it_gives_way_to_who_drags(
    store: RunStore, work: Background, engine: Engine, text: str
) -> None:
    sweep = work.start(store, grid(text, cells=60))
    until(lambda: store.sweep(sweep).counts.get("done", 0) >= 2)
    for step in range(5):  # each is served while the sweep goes on
        job = Evaluate("tiny-llama", Recipe(sparsity=step / 10), TextSpec("file", text), 32, 2)
        assert engine.submit(job, session="someone", panel="gauges").wait(300)
    store.set_state(sweep, "paused")
    until(lambda: store.sweep(sweep).counts.get("running", 0) == 0)
    done = store.sweep(sweep).counts["done"]
    time.sleep(1.5)
    assert store.sweep(sweep).counts["done"] == done
    assert 0 < done < 60
    assert max(run.attempts for run in store.runs(sweep=sweep)) <= 1
    store.set_state(sweep, "active")
    work.wake()
    until(lambda: store.sweep(sweep).counts["done"] > done)
    store.set_state(sweep, "cancelled")
    until(lambda: store.sweep(sweep).counts.get("running", 0) == 0)


def test_refinements_are_those_of_the_command_line(
    store: RunStore, work: Background, text: str, tmp_path: Path
) -> None:
    asked = grid(text, criteria=["magnitude", "random"], interval=0.001, windows=8)
    sweep = work.start(store, asked)

    def over() -> bool:
        return store.sweep(sweep).ended and next_refinement(asked, store.runs(sweep=sweep)) is None

    until(over)
    other = RunStore(str(tmp_path / "other.sqlite"))
    again = other.add_sweep(asked)
    assert run_sweep(other, again, parse_where("inline", 1), measure_cell) == "ended"
    ours = [run.numbers["windows"] for run in store.runs(sweep=sweep)]
    assert ours == [run.numbers["windows"] for run in other.runs(sweep=again)]
    assert max(ours) == 8
    other.close()


def test_what_goes_wrong_is_kept(store: RunStore, work: Background, text: str) -> None:
    sweep = work.start(store, grid(text, cells=1, heads=["77:0"]))
    until(lambda: store.sweep(sweep).ended)
    (run,) = store.runs(sweep=sweep)
    assert run.state == "failed"
    assert "77" in (run.error or "")
