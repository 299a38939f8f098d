"""``report``: slides, a page, a table and recipe files from runs of a store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from prune_core.cli.checks import check_name
from prune_core.cli.verbs import Result, Verbs, new_verb
from prune_core.errors import PruneCoreError, ReportError
from prune_core.jobs.base import Job
from prune_core.reporting import examples
from prune_core.reporting.build import FORMATS, check_free, chosen_files, file_name, made, put
from prune_core.reporting.content import Content, from_store
from prune_core.reporting.telling import tell
from prune_core.reporting.words import AUDIENCES
from prune_core.sweeps.axes import COSTS
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.telling import removal
from prune_core.words.catalogue import LANGUAGES, Words


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "report", run, show)
    sub.add_argument("--store", metavar="URL", help="runs; default: PRUNE_STORE or the user's own")
    chosen = sub.add_mutually_exclusive_group()
    chosen.add_argument("--sweep", metavar="ID", help="of this sweep; latest: of the newest one")
    chosen.add_argument("--runs", metavar="ID,…", help="these runs only")
    sub.add_argument(
        "--to",
        required=True,
        metavar="FILE_OR_FOLDER",
        help="a file that ends in .pptx, .html, .csv or .zip (recipes), or a folder",
    )
    sub.add_argument("--format", choices=[*FORMATS, "all"], help="default: by the name, or all")
    sub.add_argument(
        "--audience",
        choices=AUDIENCES,
        default="stakeholder",
        help="whose words it uses; default: stakeholder",
    )
    sub.add_argument("--language", choices=LANGUAGES, default="en", help="default: en")
    sub.add_argument("--cost", choices=COSTS, default="nonzero", help="the picture's axis of cost")
    sub.add_argument(
        "--examples",
        type=int,
        default=len(examples.PROMPTS),
        metavar="N",
        help="usual prompts that the models answer; 0: none",
    )
    sub.add_argument("--prompt", action="append", metavar="TEXT", help="in place of the usual ones")
    sub.add_argument("--overwrite", action="store_true", help="replace an older report")


def run(parsed: argparse.Namespace) -> Result:
    """Make a report and put it in place.

    Raises:
        ReportError: there is nothing to report, or it cannot be written where it should be.
        StoreError: the store or the sweep is not there.
        UnlikeRunsError: the runs named were measured in different ways.
    """
    check_name(parsed.to, "--to")
    prompts = _prompts(parsed)
    content = _content(parsed)
    files = chosen_files(parsed.to, parsed.format, lambda kind: file_name(content, kind))
    check_free(files, overwrite=parsed.overwrite)
    if parsed.examples and {"html", "pptx"} & set(files):
        content = _with_examples(content, prompts, parsed.examples)
    put({path: made(content, kind) for kind, path in files.items()}, overwrite=parsed.overwrite)
    story = tell(content, Words(content.language))
    return {
        "files": {kind: str(path) for kind, path in files.items()},
        "model": content.source,
        "summary": story.summary,
        "runs": len(content.runs),
        "examples": len(content.examples),
        "notices": list(story.notices),
        "left_out": [{"run": one.id, "state": one.state} for one in content.left_out],
        "options": [
            {
                "name": option.name,
                "run": option.run.id,
                "bound": option.bound,
                "lost": option.lost,
                "lost_low": option.low,
                "lost_high": option.high,
                "sparsity": option.point.sparsity,
                "added": option.point.added,
                "quality": option.point.quality.value,
                "quality_low": option.point.quality.low,
                "quality_high": option.point.quality.high,
                "recipe": option.point.recipe.to_dict(),
                "facts": dict(card.facts),
            }
            for option, card in zip(content.options, story.cards, strict=True)
        ],
    }


def _prompts(parsed: argparse.Namespace) -> list[str]:
    count = parsed.examples
    most = len(examples.PROMPTS)
    if not 0 <= count <= most:
        raise ReportError(
            "a report has 0 to {most} usual examples, got {count}; see --prompt.",
            most=most,
            count=count,
        )
    given = [prompt for prompt in parsed.prompt or () if prompt.strip()]
    if len(given) > examples.MAX_PROMPTS:
        raise ReportError(
            "a report has at most {max_prompts} prompts, got {count}.",
            max_prompts=examples.MAX_PROMPTS,
            count=len(given),
        )
    return given


def _content(parsed: argparse.Namespace) -> Content:
    store = RunStore(parsed.store)
    try:
        sweep = parsed.sweep
        if sweep == "latest":
            sweeps = store.sweeps()
            if not sweeps:
                raise ReportError(
                    "the store {name} has no sweeps yet; start one first.", name=store.name
                )
            sweep = sweeps[0].id
        ids = None
        if parsed.runs is not None:
            ids = [name.strip() for name in parsed.runs.split(",") if name.strip()]
        return from_store(
            store,
            sweep=sweep,
            ids=ids,
            audience=parsed.audience,
            language=parsed.language,
            cost=parsed.cost,
        )
    finally:
        store.close()


def _with_examples(content: Content, prompts: list[str], count: int) -> Content:
    from prune_core.engine.core import Core

    core, shows = Core(), sys.stderr.isatty()

    def ask(job: Job) -> Mapping[str, Any]:
        return core.run(job)

    def told(done: int, total: int) -> None:
        if shows:
            line = f"example answers: {done} of {total}"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    try:
        found = examples.write(content, ask, prompts, count=count, told=told)
    finally:
        if shows:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    if not found.examples and not found.no_examples:
        raise PruneCoreError("the example answers came out empty; ask for --examples 0.")
    return found


def show(result: Result) -> None:
    """For people."""
    print(result["summary"])
    for option in result["options"]:
        facts = "; ".join(f"{label}: {value}" for label, value in option["facts"].items())
        print(f"{option['name']:7} {removal(option['sparsity'], option['added'])};  {facts}")
    for notice in result["notices"]:
        print(notice)
    for path in result["files"].values():
        print(path)
