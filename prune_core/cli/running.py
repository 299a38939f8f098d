"""Runs the job of a verb in this process, with its progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prune_core.cli.checks import with_warnings
from prune_core.jobs.base import Job
from prune_core.progress import Progress

if TYPE_CHECKING:
    from prune_core.engine.core import Core

Result = dict[str, Any]


def say(sentence: str) -> None:
    """One line on standard error, in place of a progress line that may stand there."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{sentence}", file=sys.stderr)


def run_job(job: Job) -> Result:
    """Run one job in this process."""
    from prune_core.engine.core import Core

    return run_on(Core(), job)


def runner() -> Callable[[Job], Result]:
    """Runs jobs one after the other on models that are loaded once."""
    from prune_core.engine.core import Core

    core = Core()
    return lambda job: run_on(core, job)


def run_on(core: Core, job: Job) -> Result:
    """Run a job with its progress on a terminal; a core keeps the models that it loaded."""
    shows = sys.stderr.isatty()

    def emit(event: Result) -> None:
        if shows:
            done, total = event.get("done") or event.get("window"), event.get("total")
            total = total or event.get("windows")
            line = f"{event.get('stage', 'working')} {done or 0} / {total or '?'}"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    result = core.run(job, Progress(emit))
    if shows:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return with_warnings(result, core, job.source)


def speed(values: dict[str, float]) -> str:
    """Median and range: spread is rarely symmetric."""
    return f"{values['median']:.1f} ({values['low']:.1f} to {values['high']:.1f})"
