"""What a report tells: the runs, the picture, the options, the conditions, example answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prune_core.errors import ReportError
from prune_core.reporting.words import AUDIENCES
from prune_core.sentences import Sentence
from prune_core.sweeps.axes import alike_groups, check_alike
from prune_core.sweeps.frontier import Frontier, frontier
from prune_core.sweeps.options import Option, lost, quality_axis, three_options
from prune_core.sweeps.records import Run
from prune_core.sweeps.store.journal import RunStore
from prune_core.words.catalogue import LANGUAGES


@dataclass(frozen=True, slots=True)
class Example:
    """What the models make of one prompt.

    Attributes:
        prompt: what they continue.
        dense: the dense model's continuation.
        pruned: by the option's name.
    """

    prompt: str
    dense: str
    pruned: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that has no number to tell: its id, its state and what went wrong."""

    id: str
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class Content:
    """Everything a report is laid out from.

    Attributes:
        title: name of the sweep, or empty.
        runs: finished runs of one protocol.
        found: their picture.
        options: up to three, the smallest removal first.
        left_out: runs that were chosen and are not finished.
        others: finished runs of other protocols, which cannot share the picture.
        examples: may be empty.
        no_examples: why there are none, one sentence; empty where there are or none were asked for.
        audience, language: see ``words``.
        made: seconds since the epoch.
    """

    title: str
    runs: tuple[Run, ...]
    found: Frontier
    options: tuple[Option, ...]
    left_out: tuple[LeftOut, ...] = ()
    others: int = 0
    examples: tuple[Example, ...] = ()
    no_examples: str = ""
    audience: str = "stakeholder"
    language: str = "en"
    made: float = field(default_factory=time.time)

    @property
    def source(self) -> str:
        """The model, as jobs name it."""
        return self.runs[0].cell.source

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How the longest run was measured."""
        longest = max(self.runs, key=lambda run: int(run.numbers.get("tokens") or 0))
        return longest.numbers.get("protocol") or {}

    @property
    def measured(self) -> tuple[float, float]:
        """When the first and the last run ended."""
        times = [run.finished or run.created for run in self.runs]
        return min(times), max(times)

    def told_to(self, audience: str, language: str) -> Content:
        """The same content for another reader."""
        return replace(self, audience=_audience(audience), language=_language(language))


def gather(
    chosen: Sequence[Run],
    *,
    title: str = "",
    audience: str = "stakeholder",
    language: str = "en",
    cost: str = "nonzero",
    strict: bool = False,
) -> Content:
    """Choose what is told of runs; example answers are added by ``examples.write``.

    Args:
        chosen: any runs; unfinished and failed ones are named and left out.
        title: of the report.
        audience: ``stakeholder`` or ``technical``.
        language: ``en`` or ``zh``.
        cost: what the picture's axis of cost shows, one of ``axes.COSTS``.
        strict: refuse runs of several protocols, instead of keeping the largest group.

    Raises:
        ReportError: none of them is finished, or nothing was removed in any.
        UnlikeRunsError: with ``strict``, they were measured in different ways.
    """
    _audience(audience)
    _language(language)
    if not chosen:
        raise ReportError("there are no runs to report; name a sweep or runs that the store holds.")
    done = [run for run in chosen if run.state == "done"]
    left_out = tuple(
        LeftOut(run.id, run.state, run.error or "") for run in chosen if run.state != "done"
    )
    if not done:
        states = [
            Sentence(
                "{count} {state}",
                count=sum(one.state == state for one in left_out),
                state=Sentence(state),
            )
            for state in dict.fromkeys(one.state for one in left_out)
        ]
        raise ReportError(
            "none of these {count} runs is finished ({states:list}), so there is nothing to "
            "report; let the sweep end, or try its failed cells again.",
            count=len(chosen),
            states=states,
        )
    others = 0
    if strict:
        check_alike(done)
    else:
        groups = alike_groups(done)
        done, others = groups[0], len(done) - len(groups[0])
    found = frontier(done, cost, quality_axis(done))
    options = tuple(three_options(done, found)) or _least(done, found)
    if not options:
        raise ReportError(
            "nothing was removed in any of these runs that was not zero before, or none has finite "
            "numbers on both axes, so there is no trade-off to report; choose pruned runs."
        )
    return Content(
        title, tuple(done), found, options, left_out, others, audience=audience, language=language
    )


def _least(runs: Sequence[Run], found: Frontier) -> tuple[Option, ...]:
    """The least price, where every one is beyond the bounds of the three options."""
    known = {run.id: run for run in runs}
    priced = [
        (price, point)
        for point in (*found.front, *found.points)
        if point.run in known
        and point.added > 0
        and (price := lost(point, found.dense, found.quality)) is not None
    ]
    if not priced:
        return ()
    price, point = min(priced, key=lambda pair: pair[0][0])
    return (Option("least", price[0], known[point.run], point, *price),)


def from_store(
    store: RunStore, *, sweep: str | None = None, ids: Sequence[str] | None = None, **given: Any
) -> Content:
    """:func:`gather` over a sweep or over runs by id.

    Raises:
        StoreError: there is no such sweep, or the store cannot be read.
        ReportError: an id names no run; else see :func:`gather`.
        UnlikeRunsError: runs named by id were measured in different ways.
    """
    if sweep is not None:
        named = store.sweep(sweep)
        return gather(store.runs(sweep=sweep), title=named.name, **given)
    if ids is not None:
        runs = store.runs(ids=ids)
        missing = sorted(set(ids) - {run.id for run in runs})
        if missing:
            raise ReportError(
                "there is no run {run!r} in the store {store}; the verb runs lists what it holds.",
                run=missing[0][:60],
                store=store.name,
            )
        return gather(runs, strict=True, **given)
    return gather(store.runs(), **given)


def _audience(name: str) -> str:
    if name not in AUDIENCES:
        raise ReportError("a report is for {known:or}, not {name!r}.", known=AUDIENCES, name=name)
    return name


def _language(name: str) -> str:
    if name not in LANGUAGES:
        raise ReportError(
            "a report is written in {known:or}, not {name!r}.", known=LANGUAGES, name=name
        )
    return name
