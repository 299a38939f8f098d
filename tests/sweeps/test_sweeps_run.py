"""Sweeps worked off: equal on every executor, nothing lost to a kill, refined where unclear."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from prune_core.cli.main import main
from prune_core.engine.sweep_worker import measure_cell
from prune_core.paths import PROJECT_ROOT
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps import run as runner
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.records import Cell, Run
from prune_core.sweeps.rounds import as_of, to_refine, window_rounds
from prune_core.sweeps.run import Progress, run_sweep
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.store.portable import cell_to_dict

TEXT = "Once upon a time there was a king who had three daughters and a garden of apples. "
OTHER = "The lighthouse keeper wrote a letter to his sister about the long winter at sea. "


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("texts")
    for name, content in (("evaluation", TEXT), ("calibration", OTHER)):
        (folder / name).write_text(content * 200, encoding="utf-8")
    return str(folder / "evaluation"), str(folder / "calibration")


def small_grid(texts: tuple[str, str], **more: Any) -> Grid:
    content = {
        "model": "tiny-llama",
        "text": texts[0],
        "criteria": ["magnitude", "wanda"],
        "sparsities": [0.2, 0.5, 0.7],
        "calibration": {"text": texts[1], "windows": 4, "seq_len": 32},
        "seq_len": 32,
        "windows": 4,
    }
    return Grid.from_dict({**content, **more})


def measured(run: Run) -> dict[str, Any]:
    """All of a run that does not tell when and how fast it was measured."""
    return {key: value for key, value in run.numbers.items() if key != "seconds"}


def contents(store: RunStore, sweep: str) -> dict[str, Any]:
    return {
        run.cell.key: (run.state, json.dumps(measured(run), sort_keys=True))
        for run in store.runs(sweep=sweep)
    }


def swept(folder: Path, grid: Grid, where: str = "inline") -> dict[str, Any]:
    store = RunStore(str(folder / f"{where.replace(':', '')}.sqlite"))
    sweep = store.add_sweep(grid)
    assert run_sweep(store, sweep, parse_where(where, 1), measure_cell) == "ended"
    found = contents(store, sweep)
    store.close()
    return found


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, texts: tuple[str, str]
) -> Mapping[str, Any]:
    return swept(tmp_path_factory.mktemp("undisturbed"), small_grid(texts))


def test_inline_measures_every_cell(undisturbed: Mapping[str, Any]) -> None:
    assert len(undisturbed) == 6
    for state, numbers in undisturbed.values():
        found = json.loads(numbers)
        assert state == "done"
        assert found["windows"] == 4
        assert found["perplexity_low"] < found["perplexity"] < found["perplexity_high"]
        assert found["nonzero"] < found["parameters"]
        assert found["bytes_dense"] == 4 * found["parameters"]
        assert "strip" not in found


def test_processes_give_the_same_table(
    undisturbed: Mapping[str, Any], tmp_path: Path, texts: tuple[str, str]
) -> None:
    assert swept(tmp_path, small_grid(texts), "processes:2") == undisturbed


def test_dask_gives_the_same_table(
    undisturbed: Mapping[str, Any], tmp_path: Path, texts: tuple[str, str]
) -> None:
    pytest.importorskip("distributed")
    # in a process of its own: Dask's threads warn when they are ended with the interpreter
    grid = tmp_path / "grid.yaml"
    grid.write_text(json.dumps(small_grid(texts).to_dict()), encoding="utf-8")
    store = str(tmp_path / "dask.sqlite")
    command = ["sweep", str(grid), "--executor", "dask:2", "--threads", "1", "--store", store]
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    sweep = json.loads(done.stdout)["sweep"]
    assert contents(RunStore(store), sweep) == undisturbed


def test_a_killed_worker_loses_nothing(
    undisturbed: Mapping[str, Any],
    tmp_path: Path,
    texts: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[int] = []
    real = ProcessPoolExecutor.submit

    def submit(self: ProcessPoolExecutor, *args: Any, **kwargs: Any) -> Any:
        future = real(self, *args, **kwargs)
        if not killed:
            (victim, *_) = self._processes or {}
            killed.append(victim)
            os.kill(victim, signal.SIGKILL)
        return future

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    assert swept(tmp_path, small_grid(texts), "processes:2") == undisturbed
    assert killed
    store = RunStore(str(tmp_path / "processes2.sqlite"))
    errors = [error for run in store.runs() for error in store.errors(run.id)]
    assert errors
    assert all("ended by the system" in error["error"] for error in errors)


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prune_core", *words],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


_WORK = """
import sys
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.run import run_sweep
from prune_core.engine.sweep_worker import measure_cell
print(run_sweep(RunStore(sys.argv[1]), sys.argv[2], parse_where("inline", 1), measure_cell))
"""

_KILLED = """
# children of a process that has imported everything: killed while they work, not while they start
import os, random, signal, sys, time
import torch, transformers
from prune_core.engine import core
from prune_core.exporting import cost
from prune_core.models import load
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.run import run_sweep
from prune_core.engine.sweep_worker import measure_cell
core.all_answers()
torch.set_num_threads(1)
draw, kills, times, longest = random.Random(7), 0, int(sys.argv[3]), float(sys.argv[4])
for _ in range(times):
    child = os.fork()
    if child == 0:
        run_sweep(RunStore(sys.argv[1]), sys.argv[2], parse_where("inline", 1), measure_cell)
        os._exit(0)
    time.sleep(draw.uniform(0.1, 1) * longest)
    os.kill(child, signal.SIGKILL)
    kills += os.waitpid(child, 0)[1] == signal.SIGKILL
print(kills)
"""


def test_twenty_kills_at_random_moments(tmp_path: Path, texts: tuple[str, str]) -> None:
    grid = small_grid(texts, sparsities={"from": 0.01, "to": 0.6, "step": 0.01}, windows=16)
    began = time.monotonic()
    whole = swept(tmp_path, grid)
    longest = (time.monotonic() - began) / 20  # so that all kills come before the end
    url = str(tmp_path / "killed.sqlite")
    store = RunStore(url)
    sweep = store.add_sweep(grid)
    words = [sys.executable, "-c", _KILLED, url, sweep, "20", str(longest)]
    done = subprocess.run(words, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 15, "the sweep ended before it could be killed often enough"
    assert run_sweep(store, sweep, parse_where("inline", 1), measure_cell) == "ended"
    assert contents(store, sweep) == whole
    assert all(run.finished is not None for run in store.runs(sweep=sweep))


def test_two_processes_on_one_store_measure_each_cell_once(
    undisturbed: Mapping[str, Any], tmp_path: Path, texts: tuple[str, str]
) -> None:
    url = str(tmp_path / "shared.sqlite")
    store = RunStore(url)
    sweep = store.add_sweep(small_grid(texts))
    words = [sys.executable, "-c", _WORK, url, sweep]
    both = [subprocess.Popen(words, cwd=PROJECT_ROOT) for _ in range(2)]
    assert [one.wait(300) for one in both] == [0, 0]
    assert contents(store, sweep) == undisturbed
    assert [run.attempts for run in store.runs(sweep=sweep)] == [1] * 6


def test_pause_cancel_and_going_on(
    undisturbed: Mapping[str, Any], tmp_path: Path, texts: tuple[str, str]
) -> None:
    store = RunStore(str(tmp_path / "paused.sqlite"))
    sweep = store.add_sweep(small_grid(texts))
    where = parse_where("inline", 1)

    def pause(progress: Progress) -> None:
        if progress.done == 2:
            store.set_state(sweep, "paused")

    assert run_sweep(store, sweep, where, measure_cell, listener=pause) == "paused"
    assert store.sweep(sweep).counts == {"done": 2, "pending": 4}
    assert (
        run_sweep(store, sweep, where, measure_cell) == "paused"
    )  # stays so until someone goes on
    store.set_state(sweep, "active")
    stop = threading.Event()
    said: list[Progress] = []

    def halt(progress: Progress) -> None:
        said.append(progress)
        if progress.done == 4:
            stop.set()

    assert run_sweep(store, sweep, where, measure_cell, listener=halt, stop=stop) == "stopped"
    assert said[-1].done == 4
    store.set_state(sweep, "cancelled")
    assert run_sweep(store, sweep, where, measure_cell) == "cancelled"
    store.set_state(sweep, "active")
    assert run_sweep(store, sweep, where, measure_cell, listener=said.append) == "ended"
    assert (said[-1].done, said[-1].cells, said[-1].state) == (6, 6, "ended")
    assert contents(store, sweep) == undisturbed


def test_a_cell_that_cannot_be_measured_keeps_its_error(
    tmp_path: Path, texts: tuple[str, str]
) -> None:
    store = RunStore(str(tmp_path / "failing.sqlite"))
    grid = small_grid(texts, heads=["none", "99:1"], criteria=["magnitude"], sparsities=[0.5])
    sweep = store.add_sweep(grid)
    assert run_sweep(store, sweep, parse_where("inline", 1), measure_cell) == "ended"
    states = {run.cell.recipe.drop_heads: run for run in store.runs(sweep=sweep)}
    assert states[()].state == "done"
    failed = states[((99, 1),)]
    assert failed.state == "failed"
    assert "99" in (failed.error or "")
    assert failed.attempts == 1  # the cell is at fault: trying again would change nothing


def test_statistics_and_ranks_are_made_once(
    tmp_path: Path, texts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prune_core.calibration import statistics
    from prune_core.pruning.ranks import RankStore

    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("prune_core.engine.sweep_worker._core", None)
    passes, sorts = [], []
    gather, store_them = statistics.gather_input_norms, RankStore._stored

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return gather(*args, **kwargs)

    def stored(self: RankStore, key: str, *rest: Any) -> Any:
        sorts.append(key)
        return store_them(self, key, *rest)

    monkeypatch.setattr(statistics, "gather_input_norms", counted)
    monkeypatch.setattr(RankStore, "_stored", stored)
    swept(tmp_path, small_grid(texts, criteria=["magnitude", "wanda", "ria"]))
    assert len(passes) == 1  # wanda and ria read the same
    assert len(sorts) == len(set(sorts)) == 3


def test_cells_that_share_a_preparation_wait_for_it(
    tmp_path: Path, texts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[set[str]] = []
    real = runner._Runner._submit

    def submit(self: Any, run: Run, windows: int, flying: dict[Any, Run]) -> None:
        real(self, run, windows, flying)
        together.append({one.cell.recipe.criterion for one in flying.values()})

    monkeypatch.setattr(runner._Runner, "_submit", submit)
    swept(tmp_path, small_grid(texts, criteria=["wanda", "ria", "magnitude"]), "processes:2")
    # the first two started are not wanda and ria: the second of them finds the statistics there
    assert together[1] == {"wanda", "magnitude"}


# ---- more windows where it is not clear -----------------------------------------------------


def fake(id: str, criterion: str, sparsity: float, losses: list[float]) -> Run:
    dense = [3.0, 3.4, 2.8, 3.1][: len(losses)]
    numbers = {
        "metric": "perplexity", "windows": len(losses), "sparsity": sparsity,
        "nonzero": round(1000 * (1 - sparsity)), "parameters": 1000,
        "window_nll": [d + loss for d, loss in zip(dense, losses, strict=True)],
        "window_nll_dense": dense,
    }  # fmt: skip
    cell = Cell("tiny-llama", Recipe(criterion=criterion, sparsity=sparsity), windows=4)
    return Run(id, "s", cell, "done", as_of(Run(id, "s", cell, "done", numbers), 4).numbers)


def test_only_what_may_be_on_the_front_is_refined() -> None:
    clear = [0.1, 0.1001, 0.1, 0.1]
    runs = [
        fake("best", "wanda", 0.5, [0.10, 0.16, 0.13, 0.12]),
        fake("rival", "magnitude", 0.5, [0.11, 0.16, 0.11, 0.13]),
        fake("beaten", "random", 0.5, [2.0, 2.4, 2.2, 2.1]),
        fake("narrow", "wanda", 0.3, [x / 10 for x in clear]),
    ]
    assert to_refine(runs, 2, 0.01) == ["best", "rival"]
    # decided from the first two windows alone: what came later changes nothing
    later = [fake(r.id, r.cell.recipe.criterion, r.cell.recipe.sparsity,
                  list(map(float.__sub__, r.numbers["window_nll"][:2],
                           r.numbers["window_nll_dense"][:2]))) for r in runs]  # fmt: skip
    assert to_refine([later[0], runs[1], later[2], runs[3]], 2, 0.01) == ["best", "rival"]
    assert to_refine(runs, 2, 0.9) == []


def test_rounds_double() -> None:
    base = {"model": "tiny-llama", "windows": 12}
    assert window_rounds(Grid.from_dict(base)) == [12]
    assert window_rounds(Grid.from_dict({**base, "interval": 0.01})) == [2, 4, 8, 12]


def test_refinement_is_the_same_after_a_stop(tmp_path: Path, texts: tuple[str, str]) -> None:
    grid = small_grid(texts, interval=0.002, windows=8)
    whole = swept(tmp_path, grid)
    windows = [json.loads(numbers)["windows"] for _, numbers in whole.values()]
    assert max(windows) > 2
    store = RunStore(str(tmp_path / "stopped.sqlite"))
    sweep = store.add_sweep(grid)
    for moment in (3, 7, 9):
        stop, seen = threading.Event(), []

        def halt(progress: Progress, stop: Any = stop, seen: Any = seen, at: int = moment) -> None:
            seen.append(progress)
            if len(seen) == at:
                stop.set()

        run_sweep(store, sweep, parse_where("inline", 1), measure_cell, listener=halt, stop=stop)
    assert run_sweep(store, sweep, parse_where("inline", 1), measure_cell) == "ended"
    assert contents(store, sweep) == whole


# ---- on the command line --------------------------------------------------------------------


def test_sweep_and_runs_on_the_command_line(
    tmp_path: Path, texts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = tmp_path / "grid.yaml", str(tmp_path / "runs.sqlite")
    path.write_text(json.dumps(small_grid(texts, criteria=["magnitude"]).to_dict()))
    assert main(["sweep", str(path), "--store", store, "--threads", "1", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["state"], len(first["runs"])) == ("ended", 3)
    assert main(["sweep", str(path), "--store", store]) == 0  # all there: nothing is measured
    assert f"sweep {first['sweep']} ended" in capsys.readouterr().out
    id = first["runs"][0]["id"]
    assert main(["runs", "--store", store, "--note", id, "the good one"]) == 0
    assert "# the good one" in capsys.readouterr().out
    assert main(["runs", "good", "--store", store, "--json"]) == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)["runs"]] == [id]
    file = str(tmp_path / "run.json")
    assert main(["runs", "--store", store, "--export", id, file, "--delete", id]) == 0
    assert "2 runs in" in capsys.readouterr().out
    assert main(["runs", "--store", store, "--restore", id]) == 0
    assert "3 runs in" in capsys.readouterr().out
    assert main(["runs", "--store", str(tmp_path / "other.sqlite"), "--import", file]) == 0
    assert "1 runs in" in capsys.readouterr().out
    assert main(["runs", "--store", store, "--export", id, file]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "cluster"], "unknown executor 'cluster'"),
        (["--executor", "inline:2"], "unknown executor"),
        (["--executor", "processes:0"], "unknown executor"),
        (["--threads", "0"], "number of threads must lie between"),
        (["--shard", "3/2"], "a shard is I/N"),
        (["--executor", "dask://127.0.0.1:1"], "does not answer"),
    ],
)
def test_wrong_options_are_one_sentence(
    words: list[str], said: str, tmp_path: Path, texts: tuple[str, str]
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps(small_grid(texts).to_dict()))
    done = cli("sweep", str(path), "--store", str(tmp_path / "s.sqlite"), *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_shards_part_the_cells(
    undisturbed: Mapping[str, Any], tmp_path: Path, texts: tuple[str, str]
) -> None:
    store = RunStore(str(tmp_path / "shards.sqlite"))
    sweep = store.add_sweep(small_grid(texts))
    where = parse_where("inline", 1)
    assert run_sweep(store, sweep, where, measure_cell, shard=(2, 2)) == "ended"
    assert [run.state for run in store.runs(sweep=sweep)] == ["pending"] * 3 + ["done"] * 3
    assert run_sweep(store, sweep, where, measure_cell, shard=(1, 2)) == "ended"
    assert contents(store, sweep) == undisturbed


def test_work_leaves_the_thread_count_as_it_was(texts: tuple[str, str]) -> None:
    import torch

    before = torch.get_num_threads()
    cell = small_grid(texts).cells()[0]
    assert "numbers" in measure_cell(cell_to_dict(cell), 1, before + 1)
    assert torch.get_num_threads() == before


def test_workers_end_with_who_asked_for_them(tmp_path: Path, texts: tuple[str, str]) -> None:
    path = tmp_path / "grid.yaml"
    grid = small_grid(texts, sparsities=[n / 100 for n in range(1, 90)])
    path.write_text(json.dumps(grid.to_dict()))
    words = ["sweep", str(path), "--store", str(tmp_path / "s.sqlite")]
    asking = subprocess.Popen(
        [sys.executable, "-m", "prune_core", *words, "--executor", "processes:2"],
        cwd=PROJECT_ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + 300
    children: list[psutil.Process] = []
    while len(children) < 3 and time.monotonic() < end:  # two workers and a resource tracker
        children = psutil.Process(asking.pid).children(recursive=True)
        time.sleep(0.1)
    asking.kill()
    asking.wait()
    _, alive = psutil.wait_procs(children, timeout=300)
    assert alive == []
