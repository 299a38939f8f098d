"""A promise on the page: at most so much worse, or at most so large."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from prune_core.errors import PruneCoreError
from prune_core.jobs.sweeps import Budget
from prune_core.models.info import ModelInfo
from prune_core.models.weight_counts import headline_share
from prune_core.recipes.calibration import Calibration, TextSpec, usual_text
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import method_of, same_question
from prune_core.sweeps.limits import parse_promise
from prune_core.sweeps.records import Cell, Run
from prune_core.sweeps.store.portable import run_to_dict
from prune_core.ui.frame.components import percent, plain
from prune_core.ui.frame.loading import follow
from prune_core.ui.frame.runs import method_label
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import error_sentence, t
from prune_core.ui.session.recipe_state import set_recipe, text_spec
from prune_core.words.numbers import error_in, percent_measured, size

EXAMPLES = ("5%", "10%", "25%", "300MB")
PANEL = "budget"
KEPT = (
    *("delta_nll", "delta_nll_stderr", "tokens", "windows", "metric"),
    *("sparsity", "added", "zeros_after"),
)


def budget_panel(model: ModelInfo, runs: Sequence[Run]) -> None:
    """Type a promise; see the largest removal that keeps it, per method and over all."""
    st.subheader(t("tradeoff.budget"), anchor=False)
    st.caption(t("tradeoff.budget_about"))
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    st.session_state["_budget"] = str(value("budget"))
    left.text_input(
        t("tradeoff.promise"),
        key="_budget",
        placeholder=t("tradeoff.promise_placeholder"),
        max_chars=40,
        on_change=lambda: _ask(st.session_state["_budget"]),
    )
    with right.container(horizontal=True, gap="small"):
        for example in EXAMPLES:
            st.button(example, key=f"_budget_{example}", on_click=_ask, args=(example,))
    typed = str(value("budget")).strip()
    if not typed:
        return
    try:
        parse_promise(typed)
    except PruneCoreError as error:
        st.error(plain(error_sentence(error)), icon=":material/error:")
        return
    job = _job(model, runs, typed)
    st.caption(
        t(
            "tradeoff.budget_methods",
            methods=plain(", ".join(method_label(method_of(r)) for r in job.recipes)),
            known=len(job.known),
        )
    )
    if st.session_state.get("_budget_asked") != job.key:
        st.button(
            t("tradeoff.solve"),
            key="_budget_solve",
            type="primary",
            icon=":material/my_location:",
            on_click=lambda: st.session_state.update(_budget_asked=job.key),
        )
        return
    outcome = follow(job, PANEL, what=t("tradeoff.solving"), partial=_partial)
    if outcome.fresh is not None:
        _answer(outcome.fresh)


def _ask(text: str) -> None:
    set_value("budget", text.strip())


def _job(model: ModelInfo, runs: Sequence[Run], promise: str) -> Budget:
    """The question of what is shown; else of the text that is set."""
    cell = runs[0].cell if runs and runs[0].cell.source == model.source else None
    question = cell or Cell(model.source, text=text_spec(), seq_len=_length(model), windows=8)
    mine = [run for run in runs if same_question(question, run)]
    dials: dict[tuple[str, ...], Recipe] = {}
    for run in mine:
        recipe = run.cell.recipe
        if not recipe.is_dense and not recipe.removes_structure:
            dials.setdefault(method_of(recipe), recipe)
    recipes = tuple(dials.values()) or _usual(question.text)
    kept = [run for run in mine if method_of(run.cell.recipe) in {method_of(r) for r in recipes}]
    known = []
    for run in kept:
        data = run_to_dict(run)
        data["numbers"] = {key: data["numbers"][key] for key in KEPT if key in data["numbers"]}
        known.append(json.dumps(data, sort_keys=True))
    return Budget(
        question.source,
        recipes,
        promise,
        question.text,
        question.seq_len,
        question.windows,
        tuple(known),
    )


def _length(model: ModelInfo) -> int:
    return min(256, model.context)


def _usual(text: TextSpec) -> tuple[Recipe, ...]:
    calibration = Calibration(usual_text(text))
    return (
        Recipe(sparsity=0.5),
        Recipe(criterion="wanda", sparsity=0.5, calibration=calibration),
    )


def _partial(event: Mapping[str, Any]) -> None:
    if event.get("stage") != "budget":
        return
    st.caption(
        t(
            "tradeoff.solving_at",
            method=plain(method_label(tuple(event["method"]))),
            share=percent(float(event["sparsity"])),
            done=event["evaluations"] + 1,
            limit=event["limit"],
        )
    )
    _rows(event.get("answers") or [])


def _answer(found: Mapping[str, Any]) -> None:
    best = found["best"]
    promise = _spoken(found["budget"])
    if best is None or best["recipe"] is None:
        states = {answer["state"] for answer in found["answers"]}
        key = "budget_dense" if "dense" in states else "budget_none"
        st.info(t(f"tradeoff.{key}", promise=promise), icon=":material/info:")
    else:
        said = t(
            "tradeoff.budget_best",
            method=plain(method_label(tuple(best["method"]))),
            share=percent(best["sparsity"]),
            promise=promise,
        )
        if headline_share(best["sparsity"], best["added"]) != best["sparsity"]:
            said += " " + t("tradeoff.budget_added", added=percent(best["added"]))
        icon = ":material/task_alt:" if best["verdict"] != "broken" else ":material/warning:"
        verdict = best["verdict"] or "none"
        held = best["held_out"]
        more = t(
            f"tradeoff.verdict_{verdict}",
            worse=_worse(held) if held is not None else t("common.none"),
        )
        (st.success if verdict == "kept" else st.warning)(f"{said} {more}", icon=icon)
        st.button(
            t("tradeoff.to_studio"),
            key="_budget_open",
            icon=":material/tune:",
            on_click=_open,
            args=(best["recipe"],),
        )
    _rows(found["answers"])
    st.caption(t("tradeoff.budget_time", seconds=round(float(found["seconds"]))))


def _open(recipe: Mapping[str, Any]) -> None:
    set_recipe(Recipe.from_dict(recipe))
    st.session_state["_to_studio"] = True


def _spoken(budget: Mapping[str, Any]) -> str:
    if budget["kind"] == "size":
        return t("tradeoff.promise_size", size=size(budget["limit"]))
    return t("tradeoff.promise_worse", share=percent(budget["limit"]))


def _worse(answer: Mapping[str, Any]) -> str:
    if answer.get("worse") is None:
        return str(t("common.none"))
    error = error_in(answer["worse_low"], answer["worse_high"])
    text = percent_measured(answer["worse"], error, sign=True)
    if error is None:
        return text
    ends = (answer["worse_low"], answer["worse_high"])
    low, high = (percent_measured(end, error, sign=True) for end in ends)
    return f"{text} ({low} … {high})"


def _rows(answers: Sequence[Mapping[str, Any]]) -> None:
    if not answers:
        return
    rows = []
    for answer in answers:
        held = answer.get("held_out")
        rows.append(
            {
                t("tradeoff.column_method"): method_label(tuple(answer["method"])),
                t("tradeoff.column_answer"): t(f"tradeoff.answer_{answer['state']}"),
                t("tradeoff.column_removed"): round(answer["sparsity"], 3)
                if answer["recipe"]
                else None,
                t("tradeoff.column_added"): round(answer["added"], 3) if answer["recipe"] else None,
                t("tradeoff.column_worse_here"): _worse(answer),
                t("tradeoff.column_held_out"): _worse(held) if held else t("common.none"),
                t("tradeoff.column_size"): size(answer["bytes"]) if answer["bytes"] else "",
                t("tradeoff.column_evaluations"): answer["evaluations"],
                t("tradeoff.column_note"): error_sentence(answer["error"] or ""),
            }
        )
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            t(f"tradeoff.column_{name}"): st.column_config.NumberColumn(format="percent")
            for name in ("removed", "added")
        },
    )
