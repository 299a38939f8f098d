"""A running app and a Chromium to drive it; used by test_browser.py and pictures.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prune_core.paths import PROJECT_ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# a deep link asks below its own path first
ALLOWED_404 = ("/_stcore/health", "/_stcore/host-config", "host-config")
START_SECONDS = 180.0
SETTLED = '[data-testid="gauge-perplexity"][data-state="settled"][data-recipe="{}"]'

RESTS = """() => new Promise((resolve) => {
    const app = document.querySelector('[data-testid="stApp"]');
    let timer = 0;
    const again = () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
            if (app.dataset.testScriptState !== "notRunning") return again();
            watch.disconnect();
            resolve();
        }, 1000);
    };
    const watch = new MutationObserver(again);
    watch.observe(app, {subtree: true, childList: true, attributes: true});
    again();
})"""
"""Ends when the app has been at rest for a second."""


def require_browser() -> None:
    """Skip in plain words where no browser can be driven; fail if ``PRUNE_REQUIRE_BROWSER``."""
    if find_spec("playwright") is None:
        missing = "The Python package playwright is not installed"
    elif not CHROMIUM.exists():
        missing = f"There is no Chromium at {CHROMIUM}"
    else:
        return
    if os.environ.get("PRUNE_REQUIRE_BROWSER"):
        pytest.fail(f"{missing}, and PRUNE_REQUIRE_BROWSER asks for it.")
    pytest.skip(f"{missing}: what only a browser can see is not tested.")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(**environment: str) -> Iterator[str]:
    """Run the app with extra environment variables; gives its address without a slash.

    Raises:
        RuntimeError: it ended or was not healthy in time; the log's end is in the text.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true"),
                *("--server.address=127.0.0.1", f"--server.port={port}"),
            ],
            cwd=PROJECT_ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the worker can be ended with it
        )
        try:
            if not _healthy(server, address):
                log.seek(0)
                end = log.read()[-2000:].decode("utf-8", "replace")
                raise RuntimeError(f"The app did not start on {address}:\n{end}")
            yield address
        finally:
            _stop(server)


def _healthy(server: subprocess.Popen[bytes], address: str) -> bool:
    end = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, then whatever is left of its session: the worker."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(10)
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visitor(
    browser: Browser, width: int = 1280, height: int = 900, **options: Any
) -> Iterator[Tab]:
    """A fresh browser profile with one tab."""
    options = {"locale": "en-US", "color_scheme": "light", **options}
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    try:
        yield Tab(context)
    finally:
        context.close()


class Tab:
    """One tab, with everything its console complained about."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(180_000)
        self.complaints: list[str] = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type != "error":
            return
        url = str(message.location.get("url", ""))
        if "404" in message.text and url.partition("?")[0].endswith(ALLOWED_404):
            return
        self.complaints.append(f"{message.text} ({url})")

    def open(self, url: str) -> Tab:
        self.page.goto(url)
        self.page.wait_for_selector('[data-testid="stApp"][data-test-connection-state="CONNECTED"]')
        return self

    def rest(self) -> None:
        """Wait until no script has run for a second and nothing on the page changed meanwhile."""
        self.page.evaluate(RESTS)

    def settled(self, recipe: str) -> Locator:
        """The perplexity gauge once it shows the measurement of the recipe of this fingerprint."""
        gauge = self.page.locator(SETTLED.format(recipe))
        gauge.wait_for()
        return gauge

    def perplexity(self, recipe: str) -> float:
        return float(self.settled(recipe).get_attribute("data-value") or "nan")

    def slider(self) -> Locator:
        """The Studio's large slider."""
        return self.page.get_by_test_id("stSlider").first

    def sparsity(self) -> float:
        """Where the large slider stands."""
        return float(self.slider().get_by_role("slider").input_value())

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window, in its scrolling container too."""
        return int(
            self.page.evaluate(
                """() => Math.max(...[document.documentElement,
                ...document.querySelectorAll('[data-testid="stMain"]')]
                .map((el) => el.scrollWidth - el.clientWidth))"""
            )
        )

    def share_link(self) -> str:
        """What the Reproduce drawer gives as link: its last block of code."""
        drawer = self.page.get_by_test_id("stExpander").filter(has_text="Reproduce this")
        drawer.locator("summary").click()
        link = drawer.get_by_test_id("stCode").last
        link.wait_for()
        return link.inner_text().strip()
