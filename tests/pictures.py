"""Pictures of the pages for the README: ``python -m tests.pictures`` from the checkout."""

from __future__ import annotations

import tempfile
from pathlib import Path

from prune_core.engine.sweep_worker import measure_cell
from prune_core.paths import PROJECT_ROOT
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.run import run_sweep
from prune_core.sweeps.store.journal import RunStore
from tests.browser import Tab, chromium, serve, visitor

FOLDER = PROJECT_ROOT / "docs" / "pictures"
MAX_BYTES = 400_000
RECIPE = Recipe(sparsity=0.3)
ANSWERED = '[data-testid="answer-pruned"][data-finished="true"]'
# an address, and how many figures have to be there
PAGES = {
    "overview": ("/overview", 1),
    "weights": ("/weights?sparsity=0.3", 2),
    "attention": ("/attention", 2),
    "neurons": ("/neurons?neuron_share=0.1", 2),
    "layers": ("/layers", 1),
    "tradeoff": ("/tradeoff", 1),
}
GRID = {
    "name": "Magnitude against Wanda",
    "models": ["smollm2-135m"],
    "criteria": ["magnitude", "wanda"],
    "patterns": ["per-row"],
    "sparsities": [0.1, 0.2, 0.3, 0.4, 0.5],
    "calibration": {"text": "andersen", "windows": 8, "seq_len": 256},
    "seq_len": 256,
    "windows": 4,
}


def filled_store(path: Path) -> str:
    """A store with a small sweep, really measured."""
    store = RunStore(str(path))
    try:
        run_sweep(store, store.add_sweep(Grid.from_dict(GRID)), parse_where("inline"), measure_cell)
    finally:
        store.close()
    return str(path)


def idle(tab: Tab, figures: int = 0) -> None:
    """Wait until the figures are there and nothing on the page has moved for a while."""
    quiet = 0
    for _ in range(3000):
        waiting = tab.page.locator('[data-testid="stSkeleton"], [data-testid="stProgress"]').count()
        still = tab.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')
        drawn = tab.page.locator(".js-plotly-plot").count() >= figures
        quiet = quiet + 1 if drawn and not waiting and still.count() else 0
        if quiet == 20:
            return
        tab.page.wait_for_timeout(100)
    raise RuntimeError(f"{tab.page.url} did not come to rest.")


def save(tab: Tab, name: str) -> Path:
    """What the window shows, as a PNG; raises RuntimeError if it is too large for a README."""
    path = FOLDER / f"{name}.png"
    tab.page.screenshot(path=path)
    if path.stat().st_size >= MAX_BYTES:
        raise RuntimeError(f"{path} has {path.stat().st_size:,} bytes, over {MAX_BYTES:,}.")
    return path


def studio(tab: Tab, address: str, query: str = "") -> None:
    tab.open(f"{address}/studio?sparsity={RECIPE.sparsity:g}{query}")
    tab.settled(RECIPE.fingerprint)
    tab.page.locator(ANSWERED).wait_for()
    idle(tab)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        serve(PRUNE_STORE=filled_store(Path(place) / "runs.sqlite")) as address,
        chromium() as browser,
    ):
        for name, (path, figures) in PAGES.items():
            with visitor(browser) as tab:
                idle(tab.open(f"{address}{path}"), figures)
                print(save(tab, name))
        with visitor(browser) as tab:
            studio(tab, address)
            print(save(tab, "studio"))
        with visitor(browser, color_scheme="dark", locale="zh-CN") as tab:
            studio(tab, address, "&lang=zh")
            print(save(tab, "studio-dark"))


if __name__ == "__main__":
    main()
