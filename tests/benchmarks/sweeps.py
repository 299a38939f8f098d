"""A sweep against plain forward passes, pools against inline, and kills, on SmolLM2-135M.

``python -m tests.benchmarks.sweeps [--write docs/benchmarks.md --append]``. Takes about 35
minutes on two cores, with caches and stores of its own; a sweep starts from nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from prune_core.calibration.statistics import gather_input_norms
from prune_core.engine.core import Core
from prune_core.engine.sweep_worker import measure_cell
from prune_core.models.clone import clone_shared
from prune_core.models.load import load_model
from prune_core.paths import PROJECT_ROOT, cache_folder
from prune_core.sweeps import run
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.store.journal import RunStore
from tests.benchmarks.core import SOURCE, seconds
from tests.benchmarks.methods import texts
from tests.benchmarks.report import header, options, publish, table

CRITERIA = ("magnitude", "wanda", "ria", "random")
SHARES = [round(0.1 * n, 1) for n in range(1, 9)]
WINDOWS, SEQ_LEN = 8, 512
KILLS = 2


def grid(**more: Any) -> Grid:
    """4 criteria x 8 sparsities, per row."""
    calibrate, evaluate = (text.value for text in texts())
    return Grid.from_dict(
        {
            "models": [SOURCE],
            "texts": [evaluate],
            "criteria": list(CRITERIA),
            "patterns": ["per-row"],
            "sparsities": SHARES,
            "calibration": {"text": calibrate, "windows": 32, "seq_len": 512},
            "windows": WINDOWS,
            "seq_len": SEQ_LEN,
            **more,
        }
    )


def in_process(store: str, where: str, threads: int, kill_after: float = 0.0) -> float:
    """Run the sweep in a process of its own; seconds until its end."""
    code = (
        "import sys\n"
        "from prune_core.sweeps.executors import parse_where\n"
        "from prune_core.sweeps.store.journal import RunStore\n"
        "from prune_core.sweeps.run import run_sweep\n"
        "from prune_core.engine.sweep_worker import measure_cell\n"
        "store = RunStore(sys.argv[1])\n"
        "where = parse_where(sys.argv[2], int(sys.argv[3]))\n"
        "run_sweep(store, store.sweeps()[0].id, where, measure_cell)\n"
    )
    words = [sys.executable, "-c", code, store, where, str(threads)]
    start = time.perf_counter()
    process = subprocess.Popen(words, cwd=PROJECT_ROOT, start_new_session=True)
    if kill_after:
        time.sleep(kill_after)
        os.killpg(process.pid, signal.SIGKILL)
    if process.wait() and not kill_after:
        raise SystemExit(f"the sweep in {where} failed")
    return time.perf_counter() - start


def fresh_cache(folder: Path) -> None:
    """A cache with the model in it, and nothing that was worked out."""
    os.environ.pop("PRUNE_CACHE_DIR", None)
    folder.mkdir()
    for kind in ("assets", "models", "hashes"):
        (folder / kind).symlink_to(cache_folder(kind))
    os.environ["PRUNE_CACHE_DIR"] = str(folder)


def contents(store: RunStore) -> dict[str, str]:
    """All numbers but the times, by cell."""
    return {
        one.cell.key: json.dumps(
            {key: v for key, v in one.numbers.items() if key != "seconds"}, sort_keys=True
        )
        for one in store.runs()
    }


def inline_beside_plain(url: str) -> tuple[float, float, list[float]]:
    """A sweep in this process, with a plain evaluation of the same tokens after every fourth cell.

    A shared machine is now faster, now slower: so both see the same of it.

    Returns:
        Seconds of the sweep without the plain evaluations, of the statistics once, and of each
        plain evaluation.
    """
    loaded = Core().loaded(SOURCE)
    asked = grid().cells()
    recipe = next(c.recipe for c in asked if c.recipe.criterion == "wanda")
    calibration = loaded.calibration(recipe.calibration)
    model: Any = loaded.dense
    statistics = seconds(
        lambda: gather_input_norms(
            clone_shared(loaded.handle.model), loaded.handle.structure, calibration
        )
    )
    windows = loaded.windows(asked[0].text, SEQ_LEN, WINDOWS)

    def evaluate() -> None:
        with torch.inference_mode():
            for window in windows:
                float(model(window[None], labels=window[None], use_cache=False).loss)

    evaluate()
    plain: list[float] = []
    count, real = itertools.count(1), run.work

    def work(*args: Any) -> dict[str, Any]:
        found = real(*args)
        if next(count) % 4 == 0:
            plain.append(seconds(evaluate))
        return found

    store = RunStore(url)
    sweep = store.add_sweep(grid())
    run.work = work
    try:
        spent = seconds(
            lambda: run.run_sweep(
                store, sweep, parse_where("inline", torch.get_num_threads()), measure_cell
            )
        )
    finally:
        run.work = real
    return spent - sum(plain), statistics, plain


def main() -> int:
    """Measure and publish."""
    chosen = options("A sweep against plain forward passes.")
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(dir=cache_folder("statistics").parent) as folder:
        load_model(SOURCE)  # into the cache, if it is not there
        cells = len(grid().cells())
        fresh_cache(Path(folder, "beside"))
        spent, statistics, plain = inline_beside_plain(f"{folder}/beside.sqlite")
        passes = sum(plain) / len(plain) * cells
        ratio = spent / (statistics + passes)
        print(f"{spent:.0f} s, {statistics:.0f} + {passes:.0f} s", file=sys.stderr, flush=True)

        times, stores = {}, {}
        for where, per in (("inline", threads), ("processes:2", max(1, threads // 2))):
            # caches of their own: each makes statistics and ranks itself
            fresh_cache(Path(folder, where[:6]))
            url = f"{folder}/{where[:6]}.sqlite"
            stores[where] = RunStore(url)
            stores[where].add_sweep(grid())
            times[where] = in_process(url, where, per)
            print(f"{where}: {times[where]:.0f} s", file=sys.stderr, flush=True)
        inline = times["inline"]

        os.environ["PRUNE_CACHE_DIR"] = f"{folder}/inline"
        url = f"{folder}/killed.sqlite"
        killed = RunStore(url)
        killed.add_sweep(grid())
        draw = random.Random(3)
        for _ in range(KILLS):
            in_process(url, "inline", threads, draw.uniform(25, 70))
        left = sum(one.state != "done" for one in killed.runs())
        in_process(url, "inline", threads)
        equal = contents(killed) == contents(stores["inline"])
    rows = [
        [f"sweep inline, {cells} cells", f"{spent:.0f}", "statistics once and plain passes",
         f"{statistics + passes:.0f}", f"{ratio:.3f}"],
        ["pool of two processes, started", f"{times['processes:2']:.0f}", "inline, started",
         f"{inline:.0f}", f"{times['processes:2'] / inline:.3f}"],
    ]  # fmt: skip
    lines = header("Sweeps")
    lines += [
        f"SmolLM2-135M, float32, {threads} threads: {', '.join(CRITERIA)} per row at 0.1 to 0.8, "
        f"{WINDOWS} x {SEQ_LEN} tokens. Plain passes are transformers' own with their loss, on all "
        f"windows after every fourth cell ({min(plain):.1f} to {max(plain):.1f} s each).",
        "",
        *table(["", "seconds", "against", "seconds", "ratio"], rows),
        "",
        f"Killed with SIGKILL {KILLS} times ({left} of {cells} cells left then) and resumed: the "
        f"table {'equals' if equal else 'DIFFERS FROM'} the undisturbed one, bit for bit.",
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
