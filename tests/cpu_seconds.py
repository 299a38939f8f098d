"""A pytest plugin that tells where processor time goes: ``pytest -p tests.cpu_seconds``.

Wall time says little on a machine that does other things. This counts the processor seconds of
the test process and of all below it (engine workers, browsers, command lines), and prints them by
file and for the dearest tests. The first test that uses a shared fixture pays for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

DEAREST = 40
NAME = "processor seconds"


def spent() -> float:
    """Processor seconds of this process and of all below it, those that ended included."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it ended meanwhile: its parent has its seconds
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _phase(item: pytest.Item) -> Iterator[Any]:
    before = spent()
    try:
        return (yield)
    finally:  # the report of this phase takes it along; what was killed unwaited is lost
        item.user_properties.append((NAME, max(0.0, spent() - before)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[Any]:
    return (yield from _phase(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    return (yield from _phase(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[Any]:
    return (yield from _phase(item))


_tests: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        _tests[report.nodeid] = sum(value for name, value in report.user_properties if name == NAME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    files: Counter[str] = Counter()
    for test, seconds in _tests.items():
        files[test.partition("::")[0]] += seconds
    say = terminalreporter.write_line
    say(f"processor seconds: {sum(files.values()):.1f}, by file")
    for name, seconds in files.most_common():
        say(f"{seconds:8.1f} {name}")
    say("the dearest tests")
    for name, seconds in _tests.most_common(DEAREST):
        say(f"{seconds:8.1f} {name}")
