"""The journal on SQLite and on a real Postgres: leases, exactly one end, undo, files, faults."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prune_core.errors import PruneCoreError, StoreError
from prune_core.paths import PROJECT_ROOT
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence
from prune_core.sweeps.records import Cell
from prune_core.sweeps.store import leases as workers
from prune_core.sweeps.store import opening as database
from prune_core.sweeps.store import schema, sqlite
from prune_core.sweeps.store.claims import MAX_ATTEMPTS
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.store.leases import Worker
from prune_core.sweeps.store.portable import cell_from_dict, cell_to_dict, run_to_dict
from prune_core.words.translated_errors import translated

FIRST_SCHEMA = Path(__file__).parents[1] / "fixtures" / "store-schema-1.sql"


@dataclass(frozen=True)
class Given:
    """A grid that is nothing but its cells."""

    made: tuple[Cell, ...]
    name: str = "a grid"

    @property
    def fingerprint(self) -> str:
        return "-".join(cell.key for cell in self.made)

    def cells(self) -> Sequence[Cell]:
        return self.made

    def to_dict(self) -> dict[str, Any]:
        return {"cells": len(self.made)}


def grid(count: int = 6, criterion: str = "magnitude") -> Given:
    text = TextSpec("inline", "Once upon a time.")
    return Given(
        tuple(
            Cell("tiny-llama", Recipe(criterion, sparsity=i / max(count, 100)), text, 32, 2)
            for i in range(count)
        )
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server of the tests' own on a socket; skipped where the machine has none."""
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:], Path("/usr/local/bin")]
    folder = next((p for p in places if (p / "initdb").exists() and (p / "pg_ctl").exists()), None)
    if folder is None or shutil.which("runuser") is None:
        pytest.skip("this machine has no Postgres server")
    pytest.importorskip("psycopg", reason="psycopg is not installed (requirements-scale.txt)")
    home = Path(tempfile.mkdtemp(prefix="prune-pg-"))
    as_other = []
    if os.getuid() == 0:  # Postgres refuses to run as root
        shutil.chown(home, "postgres")
        as_other = ["runuser", "-u", "postgres", "--"]
    data = home / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    subprocess.run([*as_other, folder / "initdb", "-D", data, "-A", "trust", "-U", "me"], **quiet)  # type: ignore[call-overload]
    control = [*as_other, folder / "pg_ctl", "-D", data, "-w"]
    options = f"-c listen_addresses= -c unix_socket_directories={home}"
    subprocess.run([*control, "-o", options, "-l", home / "log", "start"], **quiet)  # type: ignore[call-overload]
    yield f"postgresql://me@/postgres?host={home}"
    subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "runs.sqlite")
    found = str(request.getfixturevalue("postgres"))
    import psycopg

    with psycopg.connect(found, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS prune_errors, prune_runs, prune_sweeps")
        connection.execute("DROP TABLE IF EXISTS prune_schema")
    return found


@pytest.fixture
def store(url: str) -> Iterator[RunStore]:
    made = RunStore(url)
    yield made
    made.close()


def test_a_sweep_is_asked_for_measured_and_read(store: RunStore) -> None:
    cells = grid(3)
    sweep = store.add_sweep(cells)
    me = Worker.here()
    while (run := store.claim(me, sweep=sweep)) is not None:
        assert run.state == "running" and run.attempts == 1
        assert store.finish(run.id, {"nll": run.cell.recipe.sparsity, "strip": [["a", 1.0, 2.0]]})

    runs = store.runs(sweep=sweep)

    assert [run.cell for run in runs] == list(cells.made)
    assert [run.numbers for run in runs] == [{"nll": 0.0}, {"nll": 0.01}, {"nll": 0.02}]
    assert {run.state for run in runs} == {"done"} and all(run.finished for run in runs)
    assert store.sweep(sweep).counts == {"done": 3} and store.sweep(sweep).ended


def test_numbers_come_back_bit_for_bit(store: RunStore) -> None:
    numbers = {"a": 0.1 + 0.2, "b": 1e-310, "c": float("inf"), "d": None, "e": [1 / 3]}
    id = store.save_run(grid(1).made[0], numbers)

    assert store.runs(ids=[id])[0].numbers == numbers


def test_an_equal_grid_is_the_same_sweep_unless_asked_afresh(store: RunStore) -> None:
    first = store.add_sweep(grid())

    assert store.add_sweep(grid()) == first
    assert store.add_sweep(grid(5)) != first
    second = store.add_sweep(grid(), fresh=True)
    assert second != first and len(store.runs()) == 6 + 5 + 6
    store.delete([second])
    found = store.find_sweep(grid())
    assert found is not None and found.id == first


def test_the_same_cell_twice_in_a_grid_is_one_run(store: RunStore) -> None:
    cell = grid(1).made[0]

    assert len(store.runs(sweep=store.add_sweep(Given((cell, cell))))) == 1


def test_ten_workers_claim_every_cell_once(url: str) -> None:
    stores = [RunStore(url) for _ in range(5)]
    sweep = stores[0].add_sweep(grid(60))
    taken: list[str] = []

    def work(store: RunStore) -> None:
        me = Worker.here()
        while (run := store.claim(me, sweep=sweep)) is not None:
            taken.append(run.id)
            store.finish(run.id, {"nll": 1.0})

    threads = [threading.Thread(target=work, args=(stores[i % 5],)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == sorted(run.id for run in stores[0].runs())
    assert stores[0].sweep(sweep).counts == {"done": 60}
    for made in stores:
        made.close()


def test_a_second_end_changes_nothing(store: RunStore) -> None:
    sweep = store.add_sweep(grid(1))
    run = store.claim(Worker.here(), sweep=sweep)
    assert run is not None

    assert store.finish(run.id, {"nll": 1.0})
    assert not store.finish(run.id, {"nll": 2.0})
    store.fail(run.id, "too late")
    found = store.runs(sweep=sweep)[0]
    assert (found.state, found.numbers) == ("done", {"nll": 1.0})


def stranger(token: str = "x") -> Worker:
    """A worker of another machine: nobody here can tell whether it lives."""
    return Worker("elsewhere", 1, "1", token)


def test_a_silent_worker_loses_its_cell_and_a_living_one_keeps_it(store: RunStore) -> None:
    sweep = store.add_sweep(grid(2))
    silent, living = stranger("a"), stranger("b")
    lost = store.claim(silent, 2, sweep=sweep)
    kept = store.claim(living, 2, sweep=sweep)
    assert lost is not None and kept is not None
    assert store.claim(Worker.here(), sweep=sweep) is None

    assert store.heartbeat(living, 60) == 1
    time.sleep(2.1)  # a database server's clock cannot be moved
    again = store.claim(Worker.here(), sweep=sweep)

    assert again is not None and again.id == lost.id and again.attempts == 2
    assert store.claim(Worker.here(), sweep=sweep) is None
    assert store.heartbeat(silent) == 0
    assert [e["attempt"] for e in store.errors(lost.id)] == [1]


def test_what_a_dead_process_held_is_free_at_once(store: RunStore) -> None:
    if not workers.place():
        pytest.skip("this system does not name its boot")
    sweep = store.add_sweep(grid(1))
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    here = Worker.here()
    dead = Worker(here.place, child.pid, workers._process_start(child.pid), "dead")
    child.wait()
    assert store.claim(dead, 3000, sweep=sweep) is not None

    assert store.claim(here, sweep=sweep) is not None


def test_a_process_that_lives_is_not_gone_but_one_with_its_number_may_be() -> None:
    if not workers.place():
        pytest.skip("this system does not name its boot")
    here = Worker.here()

    assert not here.is_gone
    assert replace(here, born="1").is_gone
    assert not replace(here, place="elsewhere", pid=2**22 + 1).is_gone
    assert Worker.parse(str(here)) == here and Worker.parse("me") is None


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_jump_of_the_wall_clock_moves_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    if not workers.boot():
        pytest.skip("this system does not name its boot")
    store = RunStore(str(tmp_path / "runs.sqlite"))
    sweep = store.add_sweep(grid(2))
    assert store.claim(stranger(), 60, sweep=sweep) is not None
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)

    other = store.claim(stranger("b"), 60, sweep=sweep)
    assert other is not None and other.attempts == 1
    assert store.claim(stranger("c"), 60, sweep=sweep) is None
    store.close()


def test_after_a_restart_of_the_machine_leases_run_out_by_the_wall_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(str(tmp_path / "runs.sqlite"))
    sweep = store.add_sweep(grid(1))
    assert store.claim(stranger(), 60, sweep=sweep) is not None
    monkeypatch.setattr(workers, "boot", lambda: "the next boot")
    assert store.claim(stranger("b"), 60, sweep=sweep) is None
    now = time.time
    # also where the clock went back so far that the lease seems to last for years
    for jump in (61, -1e8):
        monkeypatch.setattr(time, "time", lambda jump=jump: now() + jump)
        assert store.claim(stranger("b"), 60, sweep=sweep) is not None
        monkeypatch.setattr(workers, "boot", lambda jump=jump: f"another boot {jump}")
    store.close()


def test_a_cell_that_goes_wrong_again_and_again_is_given_up(store: RunStore) -> None:
    sweep = store.add_sweep(grid(1))
    for attempt in range(1, MAX_ATTEMPTS + 1):
        run = store.claim(Worker.here(), sweep=sweep)
        assert run is not None and run.attempts == attempt
        store.fail(run.id, "The worker ended.", again=True)

    run = store.runs(sweep=sweep)[0]
    assert (run.state, run.error, run.attempts) == ("failed", "The worker ended.", MAX_ATTEMPTS)
    assert len(store.errors(run.id)) == MAX_ATTEMPTS
    assert store.claim(Worker.here(), sweep=sweep) is None
    assert store.retry(sweep) == 1
    assert store.claim(Worker.here(), sweep=sweep) is not None


def test_what_went_wrong_with_a_cell_is_kept_with_its_template(store: RunStore) -> None:
    sweep = store.add_sweep(grid(2))
    inner = PruneCoreError("{name} is not valid JSON.", name="é{}")
    said = Sentence("The cell could not be measured: {error}", error=inner)
    for error in (said, "a sentence of\n{an} earlier version"):
        run = store.claim(Worker.here(), sweep=sweep)
        assert run is not None
        store.fail(run.id, error)

    first, second = store.runs(sweep=sweep)
    assert first.error == said == store.errors(first.id)[0]["error"]
    assert translated(first.error, "zh") == "无法测量此单元：é{} 不是有效的 JSON。"
    assert second.error == translated(second.error, "zh") == "a sentence of\n{an} earlier version"


def test_released_cells_are_free_and_no_attempt(store: RunStore) -> None:
    sweep = store.add_sweep(grid(1))
    me = Worker.here()
    assert store.claim(me, sweep=sweep) is not None

    assert store.release(me) == 1
    again = store.claim(me, sweep=sweep)
    assert again is not None and again.attempts == 1


def test_shards_share_the_cells_and_leave_none(store: RunStore) -> None:
    sweep = store.add_sweep(grid(7))
    parts = []
    for i in (1, 2, 3):
        mine = []
        while (run := store.claim(Worker.here(), sweep=sweep, shard=(i, 3))) is not None:
            mine.append(run.cell.recipe.sparsity)
        parts.append(mine)

    assert parts == [[0.0, 0.01], [0.02, 0.03], [0.04, 0.05, 0.06]]


def test_the_background_takes_cells_of_active_sweeps_of_the_app_only(store: RunStore) -> None:
    store.add_sweep(grid(1, "random"))
    mine = store.add_sweep(grid(1), origin="app")
    store.set_state(mine, "paused")
    assert store.claim(Worker.here()) is None
    store.set_state(mine, "active")

    run = store.claim(Worker.here())
    assert run is not None and run.sweep == mine
    with pytest.raises(StoreError, match="active, paused, cancelled"):
        store.set_state(mine, "sleeping")
    with pytest.raises(StoreError, match="no sweep zzz"):
        store.set_state("zzz", "paused")


def test_numbers_are_refined_only_from_what_they_were(store: RunStore) -> None:
    id = store.save_run(grid(1).made[0], {"windows": 2, "nll": 1.0})

    assert store.refine(id, {"windows": 4, "nll": 1.5}, windows=2)
    assert not store.refine(id, {"windows": 4, "nll": 9.0}, windows=2)
    assert store.runs(ids=[id])[0].numbers == {"windows": 4, "nll": 1.5}


@pytest.mark.parametrize(
    ("words", "found"),
    [("", 6), ("magnitude", 6), ("MAGNITUDE 3%", 1), ("kept", 1), ("100%", 0), ("_", 0),
     ("!", 0), ("pending", 5), ("done", 1), ("tiny-llama inline", 6)],
)  # fmt: skip
def test_runs_are_found_by_words(store: RunStore, words: str, found: int) -> None:
    sweep = store.add_sweep(grid(6))
    first = store.runs(sweep=sweep)[0]
    store.note(first.id, "KEPT for the meeting")
    store.finish(first.id, {})

    assert len(store.runs(search=words)) == found


def test_runs_are_found_by_ids_in_the_order_of_the_store(store: RunStore) -> None:
    store.add_sweep(grid(3))
    ids = [run.id for run in store.runs()]

    assert [r.id for r in store.runs(ids=[ids[2], ids[0], "nobody"])] == [ids[0], ids[2]]
    assert store.runs(ids=[]) == []
    saved = store.save_run(grid(1).made[0], {})
    assert [r.id for r in store.runs(sweep="")] == [saved]


def test_delete_is_undone_exactly(store: RunStore) -> None:
    sweep = store.add_sweep(grid(3))
    ids = [run.id for run in store.runs()]
    store.delete([ids[0]])

    gone = store.delete([sweep])
    assert sorted(gone) == sorted([sweep, ids[1], ids[2]])
    assert store.runs() == [] and store.sweeps() == []
    assert sorted(store.restore([i for i in gone if i != sweep])) == sorted(ids[1:])
    assert store.restore([sweep]) == [sweep, ids[0]]
    assert len(store.runs()) == 3
    with pytest.raises(StoreError, match="no run nobody"):
        store.delete([ids[0], "nobody"])
    assert len(store.runs()) == 3


def test_a_deleted_sweep_is_not_worked_on(store: RunStore) -> None:
    sweep = store.add_sweep(grid(2))
    store.delete([sweep])

    assert store.claim(Worker.here(), sweep=sweep) is None


def test_notes(store: RunStore) -> None:
    sweep = store.add_sweep(grid(1))
    id = store.runs()[0].id
    store.note(id, "of the run")
    store.note(sweep, "of the sweep")

    assert store.runs()[0].note == "of the run" and store.sweep(sweep).note == "of the sweep"
    with pytest.raises(StoreError, match="no run nobody"):
        store.note("nobody", "x")
    with pytest.raises(StoreError, match="at most 4000"):
        store.note(id, "x" * 4001)


# ---- files -----------------------------------------------------------------------------------


def test_a_run_goes_from_store_to_store_as_a_file(store: RunStore, tmp_path: Path) -> None:
    numbers = {"perplexity": float("inf"), "nll": 0.1 + 0.2, "removed": {"a": 1}}
    id = store.save_run(grid(2).made[1], numbers, note="mine")
    content = store.export_run(id)
    json.loads(content, parse_constant=lambda name: pytest.fail(f"not JSON: {name}"))
    other = RunStore(str(tmp_path / "other.sqlite"))

    assert other.import_run(content) == id == other.import_run(content)
    assert other.runs() == store.runs(ids=[id])
    other.delete([id])
    assert other.import_run(json.loads(content)) == id and len(other.runs()) == 1
    changed = {**json.loads(content), "numbers": {"nll": 7.0}}
    new = other.import_run(changed)
    assert new != id and other.runs(ids=[new])[0].numbers == {"nll": 7.0}
    assert other.runs(ids=[id])[0].numbers == numbers
    other.close()


def broken_runs() -> list[Any]:
    good = json.loads(json.dumps(run_to_dict(run_of())))
    recipe = {**good["cell"], "recipe": {**good["cell"]["recipe"], "sparsity": 3}}
    return [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        b"x" * 8_000_001,
        {**good, "schema": 2},
        {**good, "state": "running"},
        {**good, "numbers": [1]},
        {**good, "cell": None},
        {**good, "cell": recipe},
        {**good, "cell": {**good["cell"], "more": 1}},
        {**good, "cell": {**good["cell"], "windows": "8"}},
        {**good, "created": "yesterday"},
        {**good, "attempts": None},
        {**good, "id": 7},
        {**good, "extra": 1},
    ]


def run_of() -> Any:
    from prune_core.sweeps.records import Run

    return Run("abc", "", grid(1).made[0], "done", {"nll": 1.0}, created=1.0, finished=2.0)


@pytest.mark.parametrize("content", broken_runs(), ids=range(len(broken_runs())))
def test_files_that_are_no_run_are_refused(tmp_path: Path, content: Any) -> None:
    store = RunStore(str(tmp_path / "runs.sqlite"))
    from prune_core.errors import PruneCoreError

    with pytest.raises(PruneCoreError) as told:
        store.import_run(content)
    assert "\n" not in str(told.value) and len(str(told.value)) < 300
    assert store.runs() == []
    store.close()


def test_an_unfinished_run_is_not_exported(store: RunStore) -> None:
    sweep = store.add_sweep(grid(1))

    with pytest.raises(StoreError, match="not finished"):
        store.export_run(store.runs(sweep=sweep)[0].id)
    with pytest.raises(StoreError, match="no run nobody"):
        store.export_run("nobody")


def test_cells_are_plain_data() -> None:
    recipe = Recipe("wanda", "per-row", sparsity=0.5, drop_heads=((1, 0), (0, 1)))
    cell = Cell("tiny-llama", recipe, TextSpec("file", "a.txt"), 64, 3, True)

    assert cell_from_dict(json.loads(json.dumps(cell_to_dict(cell)))) == cell


# ---- faults ----------------------------------------------------------------------------------


def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runs.sqlite'}"


def test_a_locked_store_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    store = RunStore(sqlite_url(tmp_path))
    id = store.save_run(grid(1).made[0], {})
    other = sqlite3.connect(tmp_path / "runs.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match="locked by another program"):
        store.note(id, "now")
    assert len(store.runs()) == 1
    other.execute("COMMIT")
    other.close()
    store.note(id, "now")
    store.close()


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
def test_a_damaged_store_is_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "runs.sqlite"
    store = RunStore(sqlite_url(tmp_path))
    store.add_sweep(grid(200))
    store.close()
    content = bytearray(path.read_bytes())
    if damage == "head":
        content[:64] = b"\x00" * 64
    elif damage == "middle":
        content[4096:40960] = b"\x5a" * 36864
    else:
        content = bytearray(b"these are my notes, not a database")
    path.write_bytes(content)

    with pytest.raises(StoreError, match="damaged; it was left as it is"):
        RunStore(sqlite_url(tmp_path))
    assert path.read_bytes() == bytes(content)


def test_a_store_of_a_newer_version_is_left_as_it_is(url: str) -> None:
    RunStore(url).close()
    opened = database.open_database(url)
    with opened.transaction(write=True) as ask:
        if url.startswith("postgresql"):
            ask("UPDATE prune_schema SET version = 99")
        else:
            ask("PRAGMA user_version = 99")
    opened.close()

    with pytest.raises(StoreError, match=r"newer version of Prunescope \(schema 99"):
        RunStore(url)


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "runs.sqlite")
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    before = (tmp_path / "runs.sqlite").read_bytes()

    with pytest.raises(StoreError, match="database of another program"):
        RunStore(sqlite_url(tmp_path))
    assert (tmp_path / "runs.sqlite").read_bytes() == before


def test_a_read_only_store_is_shown_and_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(sqlite_url(tmp_path))
    id = store.save_run(grid(1).made[0], {"nll": 1.0})
    store.close()
    before = (tmp_path / "runs.sqlite").read_bytes()
    # root may write everything: what the system says is stood in for
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)

    shown = RunStore(sqlite_url(tmp_path))
    assert shown.read_only and shown.runs()[0].numbers == {"nll": 1.0}
    for change in (
        lambda: shown.note(id, "x"),
        lambda: shown.add_sweep(grid(1)),
        lambda: shown.delete([id]),
        lambda: shown.claim(Worker.here()),
    ):
        with pytest.raises(StoreError, match="read-only"):
            change()
    shown.close()
    assert (tmp_path / "runs.sqlite").read_bytes() == before


FULL = """
import resource, sys
from tests.sweeps.test_sweeps_store import grid
from prune_core.errors import PruneCoreError, StoreError
from prune_core.sweeps.store.journal import RunStore
store = RunStore(sys.argv[1])
size = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    for i in range(10000):
        store.save_run(grid(1).made[0], {"i": i, "much": "x" * 5000})
        print(i, flush=True)
except StoreError as error:
    print(error)
"""


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, sqlite_url(tmp_path), "300000"],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        check=False,
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    lines = done.stdout.splitlines()
    assert "make room, then resume" in lines[-1], done.stdout + done.stderr
    stored = [int(line) for line in lines[:-1]]
    assert stored

    store = RunStore(sqlite_url(tmp_path))
    assert [run.numbers["i"] for run in store.runs()] == stored
    store.save_run(grid(1).made[0], {"i": "after"})
    store.close()


@pytest.mark.parametrize(
    "url",
    ["mysql://a:secret@b/c", "", "a\0b"],
)
def test_places_that_are_no_store_are_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="a store is a file") as told:
        database.open_database(url)
    assert "secret" not in str(told.value)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        RunStore(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        RunStore(str(tmp_path / "file" / "runs.sqlite"))


def test_a_server_that_does_not_answer_is_told_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (requirements-scale.txt)")
    with pytest.raises(StoreError, match="does not answer") as told:
        RunStore("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(told.value)


def test_without_the_driver_postgres_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"requirements-scale\.txt"):
        RunStore("postgresql://me@127.0.0.1/none")


def test_two_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.sweeps.test_sweeps_store import grid; "
        "from prune_core.sweeps.store.journal import RunStore; "
        "print(RunStore(sys.argv[1]).add_sweep(grid()))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, sqlite_url(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT_ROOT,
        )
        for _ in range(3)
    ]
    said = {process.communicate()[0] for process in started}

    assert len(said) == 1 and "" not in said


@pytest.mark.parametrize("fault", ["kill", "disk-full"])
def test_what_a_transaction_had_not_ended_never_was(tmp_path: Path, fault: str) -> None:
    store = RunStore(sqlite_url(tmp_path))
    store.save_run(grid(1).made[0], {"i": 0})
    code = (
        "import sys; from tests.sweeps.test_sweeps_store import grid; "
        "from prune_core.sweeps.store.journal import RunStore; store = RunStore(sys.argv[1]); "
        "import os; os.environ['PRUNE_FAULTS'] = 'store.commit=' + sys.argv[2]; "
        "store.add_sweep(grid(50))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sqlite_url(tmp_path), fault],
        capture_output=True,
        cwd=PROJECT_ROOT,
        check=False,
    )

    assert done.returncode != 0
    assert [run.numbers for run in store.runs()] == [{"i": 0}] and store.sweeps() == []
    store.close()


def test_a_store_of_the_first_schema_is_read(tmp_path: Path) -> None:
    """The fixture was written when schema 1 was new and is never written again."""
    made = sqlite3.connect(tmp_path / "runs.sqlite")
    made.executescript(FIRST_SCHEMA.read_text())
    made.close()

    store = RunStore(sqlite_url(tmp_path))
    states = [run.state for run in store.runs()]
    assert states == ["done", "failed", "running", "pending"]
    assert store.runs()[0].numbers["nll"] == 0.1 + 0.2
    assert store.runs()[0].note == "the first"
    assert store.sweeps()[0].counts == {"done": 1, "failed": 1, "running": 1, "pending": 1}
    with store._database.transaction(write=False) as ask:
        assert ask("PRAGMA user_version")[0]["user_version"] == schema.SCHEMA
    store.close()


def test_the_default_place_is_among_the_users_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRUNE_STORE", raising=False)
    monkeypatch.delenv("PRUNE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert database.default_url() == str(tmp_path / "prunescope" / "runs.sqlite")
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "all"))
    assert database.default_url() == str(tmp_path / "all" / "data" / "runs.sqlite")
    monkeypatch.setenv("PRUNE_STORE", "elsewhere.sqlite")
    assert database.default_url() == "elsewhere.sqlite"


def test_a_file_on_a_network_keeps_no_log_in_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: dict[str, str] = {}
    for kind in ("ext4", "nfs4"):
        monkeypatch.setattr(sqlite, "file_system", lambda path, kind=kind: kind)
        store = RunStore(str(tmp_path / f"{kind}.sqlite"))
        with store._database.transaction(write=False) as ask:
            modes[kind] = ask("PRAGMA journal_mode")[0]["journal_mode"]
        store.close()

    assert modes == {"ext4": "wal", "nfs4": "delete"}
