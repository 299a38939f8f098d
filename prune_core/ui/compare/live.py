"""Compare's live side: one evaluation per slot, cards that fill as numbers come in, answers.

Recipes share one working copy, so jobs are ordered to change it seldom: all evaluations first, A
to D, then the dense answer and the others from D back to A, then damage by block from A to D. Each
slot has its own panel: a newer job replaces the slot's older one and no other slot's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import streamlit as st

from prune_core.evaluation.evaluation import Evaluation
from prune_core.evaluation.metrics import (
    LANGUAGE,
    METRICS,
    Metric,
    headline_of,
    kind_of,
    metrics_of,
)
from prune_core.figures.compare import SHAPES, slot_color
from prune_core.jobs.base import Job
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.models.info import ModelInfo
from prune_core.models.weight_counts import counts_of
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import smallest_file
from prune_core.ui.frame.components import guarded, number
from prune_core.ui.frame.loading import (
    Outcome,
    busy,
    progress_line,
    submit_all,
)
from prune_core.ui.frame.page import Page
from prune_core.ui.frame.slots import recipe_detail, recipe_name
from prune_core.ui.frame.weight_bar import zeros_said
from prune_core.ui.session.keys import value
from prune_core.ui.session.language import error_sentence, metric_text, t, t_or
from prune_core.ui.session.recipe_state import evaluation_settings, text_spec
from prune_core.ui.widgets.cards import axis_scale, card
from prune_core.ui.widgets.lanes import compared_answers
from prune_core.words.numbers import (
    count,
    counted_share,
    error_in,
    measured,
    percent_measured,
    size,
)

POLL_SECONDS = 0.25
DENSE = "dense"

Numbers = Mapping[str, Any]
Recipes = Mapping[str, Recipe]


def evaluate_jobs(model: ModelInfo, recipes: Recipes) -> dict[str, Job]:
    """Panel to job: what the cards show."""
    text, sizes = text_spec(), evaluation_settings()
    return {f"compare_{n}": Evaluate(model.source, r, text, **sizes) for n, r in recipes.items()}


def prompts() -> list[str]:
    """What all are asked to continue, at most four: typed here, or the Studio's and two more."""
    typed = [line.strip() for line in str(value("prompts")).splitlines() if line.strip()]
    if typed:
        return typed[:4]
    own = str(value("prompt")) or t("studio.prompt_default")
    return [own, t("compare.prompt_default_2"), t("compare.prompt_default_3")]


def chosen_prompt() -> str:
    """The prompt that is shown."""
    found = prompts()
    return found[min(int(value("prompt_at")), len(found) - 1)]


def generate_jobs(model: ModelInfo, recipes: Recipes) -> dict[str, Job]:
    """Panel to job: the dense answer once, then from the last slot to the first."""

    def job(recipe: Recipe) -> Job:
        return Generate(
            model.source,
            recipe,
            prompt=chosen_prompt(),
            max_new_tokens=int(value("new_tokens")),
            greedy=value("sampling") == "greedy",
            seed=int(value("seed")),
            chat=bool(value("chat")) and model.has_chat_template,
            with_dense=False,
        )

    found = {"compare_write_dense": job(Recipe())}
    return found | {f"compare_write_{name}": job(recipes[name]) for name in reversed(list(recipes))}


# ---- cards -----------------------------------------------------------------------------------


def live_cards(page: Page, model: ModelInfo, recipes: Recipes) -> dict[str, Outcome]:
    """Cards of all slots, kept up to date; returns what is known, by slot."""
    jobs = evaluate_jobs(model, recipes)
    outcomes = submit_all(jobs)
    st.session_state["_compare_final"] = _final(outcomes)

    @guarded("compare")
    def draw() -> None:
        now = submit_all(jobs)
        if st.session_state["_compare_final"] != _final(now):
            st.rerun()  # a slot settled or failed: what depends on it follows
        draw_cards(page, model, recipes, now)
        if busy(now):
            progress_line(now, t("studio.measuring"))

    st.fragment(draw, run_every=POLL_SECONDS if busy(outcomes) else None)()
    return {panel.rpartition("_")[2]: outcome for panel, outcome in outcomes.items()}


def _final(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [f"{p} {o.ticket.job.key} {o.ticket.state}" for p, o in outcomes.items() if not o.busy]


def shown_numbers(outcome: Outcome) -> tuple[Numbers, str]:
    """Numbers to draw and their state."""
    state = outcome.ticket.state
    if outcome.fresh is not None:
        return outcome.fresh, "settled"
    if state == "failed":
        return {}, "failed"
    event = outcome.ticket.event or {}
    if event.get("tokens") or event.get("similarity") is not None:
        return event, "stopped" if state == "cancelled" else "estimating"
    if outcome.result is not None:
        return outcome.result, "stale"
    return {}, "stopped" if state == "cancelled" else "waiting"


def draw_cards(
    page: Page, model: ModelInfo, recipes: Recipes, outcomes: Mapping[str, Outcome]
) -> None:
    """The cards side by side, on one scale."""
    known = {name: shown_numbers(outcomes[f"compare_{name}"]) for name in recipes}
    scale: list[float | None] = []
    for numbers, _ in known.values():
        dense, mine, low, high = _main(numbers)
        scale += [dense, mine, low, high]
    places = st.columns(len(recipes), gap="medium" if len(recipes) < 4 else "small")
    for place, (name, recipe) in zip(places, recipes.items(), strict=True):
        others = [_main(n)[1] for other, (n, _) in known.items() if other != name]
        data = _card(page, model, recipe, *known[name], outcomes[f"compare_{name}"])
        shared = {
            "scale": axis_scale(scale),
            "others": axis_scale(others),
            "mark": SHAPES[name][1],
            "color": slot_color(name, page.look),
            "dense_color": page.look.dense,
            "here": page.presenting and value("slot_at") == name,
            "present": page.presenting,
        }
        with place:
            card(name, data | shared)


def _main(numbers: Numbers) -> tuple[float | None, float | None, float | None, float | None]:
    """Dense, measured and its interval: of the headline's metric; None where not finite."""
    evaluation = Evaluation.from_dict(numbers)
    row = evaluation.headline
    mine = evaluation.value(row)
    ends = mine.low, mine.high
    if not row.low and mine.value is not None and mine.error is not None:
        ends = mine.value - 1.96 * mine.error, min(1.0, mine.value + 1.96 * mine.error)
    dense = row.unchanged if row.unchanged is not None else mine.dense
    dense, value, low, high = (
        x if x is not None and math.isfinite(x) else None for x in (dense, mine.value, *ends)
    )
    return dense, value, low, high


def _card(
    page: Page, model: ModelInfo, recipe: Recipe, numbers: Numbers, state: str, outcome: Outcome
) -> dict[str, Any]:
    similar = numbers.get("metric") == "similarity" or not model.has_language_head
    dense, mine, low, high = _main(numbers)
    error, many = error_in(low, high), t("common.million")

    def written(value: float | None) -> str:
        return number(None) if value is None else measured(value, error, too_large=many)

    shown = written(mine)
    interval = ""
    if error is not None:
        interval = t("studio.interval", low=written(low), high=written(high))
    kind = kind_of(model.kind, model.has_language_head, model.classes)
    label = metric_text(headline_of({kind}), "title")
    return {
        "title": recipe_name(recipe),
        "detail": recipe_detail(recipe),
        "label": label,
        "value": mine,
        "shown": shown,
        "aside": interval,
        "low": low,
        "high": high,
        "dense": dense,
        "dense_label": "" if dense is None else t("studio.from_dense", dense=written(dense)),
        "rows": _rows(numbers, similar=similar, short=page.presenting),
        "note": _note(state, numbers, outcome),
        "state": state,
        "recipe": recipe.fingerprint,
        "alt": t("compare.axis_alt", label=label, value=shown),
    }


def _rows(numbers: Numbers, *, similar: bool, short: bool) -> list[tuple[str, str, str, str]]:
    """Name, value, error and help of the lesser numbers."""
    rows = []
    mine, dense = numbers.get("perplexity"), numbers.get("perplexity_dense")
    if not similar:
        change = ""
        if mine is not None and dense and math.isfinite(mine):
            error = error_in(numbers.get("perplexity_low"), numbers.get("perplexity_high"))
            spread = None if error is None else error / dense
            change = percent_measured(mine / dense - 1, spread, sign=True)
        rows.append((t("compare.change"), change or number(None), "", t("compare.change_help")))
        rows += [_beside(row, numbers) for row in metrics_of("beside", kinds=LANGUAGE)]
    counts = counts_of(numbers)
    removed_help = metric_text(METRICS["sparsity"], "help")
    removed = number(None)
    of_model = removed
    if counts is not None:
        removed = counted_share(counts.of_prunable(counts.removed))
        of_model = counted_share(counts.of_model(counts.removed))
    rows.append((t("compare.of_prunable"), removed, "", removed_help))
    if not short:
        rows.append((t("compare.of_model"), of_model, "", removed_help))
        if counts is not None and counts.was_sparse:
            added = counted_share(counts.of_prunable(counts.added))
            rows.append((t("compare.added"), added, "", zeros_said(counts)))
        shown = number(None) if counts is None else count(counts.nonzero)
        rows.append((t("compare.left"), shown, "", t("compare.left_help")))
        rows.append((t("compare.size"), _size(numbers), "", t("studio.size_help")))
    return rows


def _size(numbers: Numbers) -> str:
    """The smallest file there is for the recipe; an estimate is named as one."""
    file = smallest_file(numbers)
    if file is None:
        return number(None)
    return t("compare.about", size=size(file.value)) if file.is_estimate else size(file.value)


def _beside(row: Metric, numbers: Numbers) -> tuple[str, str, str, str]:
    """Name, value, error and help of a metric beside the headline."""
    mine = Evaluation.from_dict(numbers).value(row)
    plus_minus = row.error_written(mine.value, mine.error)
    return (
        metric_text(row, "title"),
        row.written(mine.value, mine.error, absent=number(None)),
        t("studio.plus_minus", error=plus_minus) if plus_minus else "",
        metric_text(row, "help", error=f"{numbers.get(row.bias) or 0:.2g}"),
    )


def _note(state: str, numbers: Numbers, outcome: Outcome) -> str:
    if state == "failed":
        return error_sentence(outcome.ticket.error or t("common.failed"))
    if state == "estimating":
        return t("studio.window", done=numbers["window"], total=numbers["windows"])
    if state == "settled":
        return t("studio.state_settled", tokens=numbers["tokens"]) if numbers["tokens"] else ""
    if state == "stale" or state == "waiting":
        stage = str((outcome.ticket.event or {}).get("stage") or "")
        if outcome.ticket.state == "running" and stage:
            return t_or(f"common.stage_{stage}", stage)
        return t("compare.waiting")
    return t("compare.stopped")


# ---- answers ---------------------------------------------------------------------------------


def live_answers(page: Page, model: ModelInfo, recipes: Recipes) -> bool:
    """Answers of all, kept up to date; True once they are all there (or failed, or stopped)."""
    jobs = generate_jobs(model, recipes)
    outcomes = submit_all(jobs)
    waiting = busy(outcomes)

    @guarded("compare")
    def draw() -> None:
        now = submit_all(jobs)
        if waiting and not busy(now):
            st.rerun()
        _answers(page, recipes, now)
        if busy(now):
            progress_line(now, t("compare.writing"))

    st.fragment(draw, run_every=POLL_SECONDS if waiting else None)()
    return not waiting


def parting(mine: list[int], dense: list[int], *, finished: bool) -> int | None:
    """Index of the first token in which an answer leaves the dense one; None so far.

    Args:
        mine: its tokens.
        dense: the dense answer's.
        finished: both are complete, so one being longer counts as parting.
    """
    for index, (a, b) in enumerate(zip(mine, dense, strict=False)):
        if a != b:
            return index
    return min(len(mine), len(dense)) if finished and len(mine) != len(dense) else None


def _written(outcome: Outcome) -> tuple[dict[str, Any], bool]:
    """What an answer holds so far, and whether it belongs to earlier settings."""
    empty = {"pieces": [], "ids": [], "finished": False}
    if outcome.ticket.state == "failed":
        return empty, False
    state = outcome.fresh or outcome.ticket.event
    if state and state.get("pruned"):
        return dict(state["pruned"]), False
    if outcome.result is not None:
        return dict(outcome.result["pruned"]), True
    return empty, False


def _answers(page: Page, recipes: Recipes, outcomes: Mapping[str, Outcome]) -> None:
    dense, dense_old = _written(outcomes["compare_write_dense"])
    shown = []
    names = [DENSE, *recipes]
    chosen = str(value("slot_at"))
    if page.presenting and chosen in recipes:
        names = [DENSE, chosen]
    for name in names:
        outcome = outcomes[f"compare_write_{name}"]
        part, old = (dense, dense_old) if name == DENSE else _written(outcome)
        finished = part["finished"] and dense["finished"]
        at = None if name == DENSE else parting(part["ids"], dense["ids"], finished=finished)
        title = t("studio.dense") if name == DENSE else f"{name} · {recipe_name(recipes[name])}"
        failed = outcome.ticket.state == "failed"
        shown.append(
            {
                "id": name,
                "mark": "" if name == DENSE else SHAPES[name][1],
                "name": title,
                "color": page.look.dense if name == DENSE else slot_color(name, page.look),
                "pieces": part["pieces"],
                "same": [
                    index < len(dense["ids"]) and token == dense["ids"][index]
                    for index, token in enumerate(part["ids"])
                ],
                "divergence": at,
                "parted": "" if name == DENSE else _parted(part, dense, at, finished=finished),
                "finished": part["finished"],
                "writing": outcome.busy,
                "old": old,
                "here": False,
                "empty": error_sentence(outcome.ticket.error or "")
                if failed
                else t("studio.answer_empty"),
            }
        )
    compared_answers(
        shown,
        dense_color=page.look.dense,
        part_help=t("studio.parted_help"),
        position=t("compare.position"),
        present=page.presenting,
    )


def _parted(
    part: Mapping[str, Any], dense: Mapping[str, Any], at: int | None, *, finished: bool
) -> str:
    if not part["ids"] or not dense["ids"]:
        return ""
    if at is None:
        return t("studio.same") if finished else t("studio.same_so_far")
    both = min(len(part["ids"]), len(dense["ids"]))
    same = sum(a == b for a, b in zip(part["ids"], dense["ids"], strict=False))
    return t("compare.parted", token=at + 1, same=same, total=both)
