"""What a person feels: a key press on the Studio's slider to a perplexity on screen, in a browser.

``python -m tests.benchmarks.browser [--write docs/benchmarks.md --append]``. The clock is the
page's own: it starts at the key event and stops at the frame in which the gauge carries the new
recipe and a number that was measured with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright

from prune_core.paths import PROJECT_ROOT
from tests.benchmarks.report import header, options, percentile, publish, table

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
RUNS = (("0.20", "ArrowRight"), ("0.80", "ArrowLeft"))
"""Where the slider starts and which key is pressed: no value is ever measured twice."""

MOVES = 15
PATIENCE = 60_000
THINKING = 1500
"""Milliseconds from a number to the next move: the worker is still busy with the one before."""

WATCH = """
() => {
  const find = (root) => {
    const here = root.querySelector('[data-testid="gauge-perplexity"]');
    if (here) return here;
    for (const el of root.querySelectorAll("*")) {
      const inside = el.shadowRoot && find(el.shadowRoot);
      if (inside) return inside;
    }
    return null;
  };
  let gauge = find(document), pressed = null, marked = null;
  const before = gauge.dataset.recipe;
  window._watched = new Promise((resolve) => {
    addEventListener("keydown", () => { pressed = performance.now(); },
                     { once: true, capture: true });
    const look = () => {
      if (!gauge || !gauge.isConnected) gauge = find(document);
      const now = performance.now();
      if (gauge && pressed !== null) {
        const { recipe, state } = gauge.dataset;
        if (marked === null && (state === "stale" || recipe !== before)) marked = now - pressed;
        if (recipe !== before && (state === "estimating" || state === "settled")) {
          resolve({ marked, first: now - pressed, state, tokens: Number(gauge.dataset.tokens) });
          return;
        }
      }
      if (pressed !== null && now - pressed > 60000) {
        resolve({ marked, first: NaN, state: "none", tokens: 0 });
        return;
      }
      requestAnimationFrame(look);
    };
    look();
  });
}
"""


@contextmanager
def server() -> Iterator[str]:
    """Streamlit on a free port; yields its address at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    process = subprocess.Popen(
        [*command, "--server.headless", "true"],
        cwd=PROJECT_ROOT,
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for_server(address: str) -> None:
    """Until the health page answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("Streamlit did not start.")


def wait_for_gauge(page: Page, *states: str) -> None:
    """Until the perplexity gauge is in one of the states."""
    wanted = ", ".join(f'[data-testid="gauge-perplexity"][data-state="{s}"]' for s in states)
    page.locator(wanted).first.wait_for(timeout=PATIENCE)


def start_seconds(page: Page, address: str, started: float) -> dict[str, float]:
    """From the start of ``streamlit run`` to the server, the first number, the settled one."""
    wait_for_server(address)
    seconds = {"server": time.monotonic() - started}
    page.goto(f"{address}/studio?sparsity={RUNS[0][0]}")
    wait_for_gauge(page, "estimating", "settled")
    seconds["first number"] = time.monotonic() - started
    wait_for_gauge(page, "settled")
    seconds["settled number"] = time.monotonic() - started
    return seconds


def moves(page: Page, key: str) -> list[dict[str, Any]]:
    """Press the key ``MOVES`` times, each a moment after the number before came in."""
    slider = page.get_by_test_id("stSlider").first.get_by_role("slider")
    slider.focus()
    results = []
    for _ in range(MOVES):
        page.evaluate(WATCH)
        page.keyboard.press(key)
        results.append(page.evaluate("window._watched"))
        print(results[-1], file=sys.stderr, flush=True)
        page.wait_for_timeout(THINKING)
    return results


def main() -> int:
    """Measure and publish."""
    chosen = options("Slider to number, in a browser.")
    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    measured: list[dict[str, Any]] = []
    lines = header("In a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        started = time.monotonic()
        with server() as address:
            start = start_seconds(page, address, started)
            print(start, file=sys.stderr, flush=True)
            for number, (sparsity, key) in enumerate(RUNS):
                if number:
                    page.goto(f"{address}/studio?sparsity={sparsity}")
                    page.wait_for_timeout(2000)
                    wait_for_gauge(page, "settled")
                page.wait_for_timeout(2000)
                measured += moves(page, key)
        browser.close()
    publish([*lines, *_report(start, measured)], chosen)
    return 0


def _report(start: dict[str, float], measured: list[dict[str, Any]]) -> list[str]:
    rows = []
    for name, title in (
        ("marked", "key press to the old number marked as old"),
        ("first", "key press to the first number of the new recipe"),
    ):
        values = [m[name] / 1000 for m in measured if m[name] is not None]
        rows.append(
            [
                title,
                f"{statistics.median(values):.2f}",
                f"{percentile(values, 0.95):.2f}",
                f"{min(values):.2f} to {max(values):.2f}",
            ]
        )
    tokens = sorted({m["tokens"] for m in measured})
    return [
        f"{len(measured)} slider moves by keyboard on SmolLM2-135M, magnitude per layer, headless "
        f"Chromium; first numbers rest on {' or '.join(map(str, tokens))} predictions.",
        "",
        *table(["seconds", "median", "95th percentile", "range"], rows),
        "Second start, model and ranks in the cache, from `streamlit run` in seconds: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in start.items())
        + ".",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
