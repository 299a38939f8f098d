"""The model of a verb: the front door's, with its progress and warnings on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from prune_core.api import Model
from prune_core.cli.checks import say
from prune_core.cli.verbs import Result as Result
from prune_core.jobs.base import Job
from prune_core.models.info import UNKNOWN_LICENSE


class ShownModel(Model):
    """A model whose jobs show how far they are, and which says once what loading it gave to say.

    Args:
        source: the model, as it was typed.
        shows: say how far a job is, on a terminal.

    Attributes:
        label: stands before the progress, where several things are done in turn.
    """

    def __init__(self, source: str, *, shows: bool = True) -> None:
        self._shows = shows and sys.stderr.isatty()
        super().__init__(source, on_event=self._line if self._shows else None)
        self.label = ""
        self._said: set[str] = set()

    def run(self, job: Job) -> Result:
        """Run a job; its result has the ``warnings`` of loading the model.

        Raises:
            PruneCoreError: see ``prune_core.api.View.run``.
        """
        try:
            result = super().run(job)
        finally:
            if self._shows:
                print("\r\033[K", end="", file=sys.stderr, flush=True)
        warnings = self.core.warnings(job.source)
        say_warnings([warning for warning in warnings if warning not in self._said])
        self._said.update(warnings)
        return {**result, "warnings": list(warnings)}

    def _line(self, event: dict[str, Any]) -> None:
        done, total = event.get("done") or event.get("window"), event.get("total")
        total = total or event.get("windows")
        line = f"{event.get('stage', 'working')} {done or 0} / {total or '?'}"
        before = f"{self.label}: " if self.label else ""
        print(f"\r\033[K{before}{line}", end="", file=sys.stderr, flush=True)


def run_job(job: Job) -> Result:
    """Run one job on a model that nothing else is asked of."""
    return ShownModel(job.source).run(job)


def say_warnings(warnings: Sequence[str]) -> None:
    """Each on a line of standard error, but for that of the license."""
    for warning in warnings:
        if not warning.startswith(UNKNOWN_LICENSE):
            say(warning)


def speed(values: dict[str, float]) -> str:
    """Median and range: spread is rarely symmetric."""
    return f"{values['median']:.1f} ({values['low']:.1f} to {values['high']:.1f})"
