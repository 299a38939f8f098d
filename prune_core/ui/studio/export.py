"""The Studio's export drawer: a recipe becomes a folder that plain transformers loads."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.exporting.formats import FORMATS, format_problem
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.exports import Export
from prune_core.models.info import ModelInfo
from prune_core.models.sources import mode
from prune_core.models.weight_counts import counts_of
from prune_core.recipes.recipe import Recipe
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.loading import follow, forget
from prune_core.ui.frame.weight_bar import both_said, zeros_said
from prune_core.ui.session.keys import set_value, value, widget
from prune_core.ui.session.language import error_sentence, name_of, t
from prune_core.ui.session.recipe_state import evaluation_settings, text_spec
from prune_core.ui.studio.cost import spread
from prune_core.words.numbers import error_in, measured, size

PANEL = "studio_export"
REPEATS = 5


def export_drawer(model: ModelInfo, recipe: Recipe) -> None:
    """Format, folder and a button; then progress, and what was written beside the dense model."""
    with st.expander(t("export.title"), icon=":material/save:", key="_export_open"):
        asked: Export | None = st.session_state.get("_export_job")
        if mode() != "local":
            st.caption(t("export.not_here"))
            st.code(command_line(_job(model, recipe, _name(model))), language=None, wrap_lines=True)
            return
        problems = {form: format_problem(form, model, recipe) for form in FORMATS}
        st.radio(
            t("export.format"),
            list(FORMATS),
            format_func=lambda form: name_of(FORMATS, form),
            captions=[_caption(form, problems[form]) for form in FORMATS],
            **widget("export_format", list(FORMATS)),
        )
        form = str(value("export_format"))
        _explained(form, problems[form], recipe)
        _place(model, recipe, refused=problems[form] is not None)
        if asked is None or asked.source != model.source:
            return
        outcome = follow(asked, PANEL, what=t("export.writing"))
        if outcome.busy:
            st.caption(t("export.starts_over"))
        if asked.recipe != recipe:
            st.caption(t("export.other_recipe", recipe=asked.recipe.fingerprint))
        if outcome.fresh is not None:
            _written(outcome.fresh, asked.recipe)
        st.code(command_line(asked), language=None, wrap_lines=True)


def _caption(form: str, problem: str | None) -> str:
    """What a format is, or why it is not for this recipe."""
    return (
        t("export.refused", reason=plain(error_sentence(problem)))
        if problem
        else name_of(FORMATS, form, "measures")
    )


def _explained(form: str, problem: str | None, recipe: Recipe) -> None:
    """Why the chosen format will not do, and what will; or that it changes nothing."""
    if problem is not None:
        st.warning(
            t(
                "export.refused_long",
                format=name_of(FORMATS, form),
                reason=plain(error_sentence(problem)),
            ),
            icon=":material/block:",
        )
        st.button(
            t("export.instead"),
            key="_export_instead",
            on_click=set_value,
            args=("export_format", "masked"),
        )
    elif form == "shrunk" and not recipe.removes_structure:
        st.info(t("export.nothing_cut"), icon=":material/info:")


def _place(model: ModelInfo, recipe: Recipe, *, refused: bool) -> None:
    """Where to, and the button."""
    st.text_input(
        t("export.folder"),
        key="_export_folder",
        placeholder=f"~/{_name(model)}",
        max_chars=400,
        help=t("export.folder_help"),
        persist_state="session",
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.toggle(
            t("export.overwrite"),
            key="_export_overwrite",
            help=t("export.overwrite_help"),
            persist_state="session",
        )
        st.toggle(
            t("export.timed"),
            value=True,
            key="_export_timed",
            help=t("export.timed_help", repeats=REPEATS),
            persist_state="session",
        )
        folder = str(st.session_state.get("_export_folder") or "").strip()
        st.button(
            t("export.write"),
            key="_export",
            type="primary",
            icon=":material/save:",
            disabled=not folder or refused,
            on_click=_wanted,
            args=(model, recipe),
        )


def _name(model: ModelInfo) -> str:
    """A name for the folder that needs no quotes in a shell."""
    return re.sub(r"[^\w.-]+", "-", f"{model.title} pruned").strip("-")


def _job(model: ModelInfo, recipe: Recipe, folder: str) -> Export:
    settings = evaluation_settings()
    return Export(
        model.source,
        recipe,
        folder,
        str(value("export_format")),
        bool(st.session_state.get("_export_overwrite")),
        text_spec(),
        settings["seq_len"],
        settings["windows"],
        REPEATS if st.session_state.get("_export_timed", True) else 0,
        uuid.uuid4().hex[:8],
    )


def _wanted(model: ModelInfo, recipe: Recipe) -> None:
    forget(PANEL)
    folder = str(st.session_state.get("_export_folder") or "").strip()
    st.session_state["_export_job"] = _job(model, recipe, folder)


def _written(result: Mapping[str, Any], recipe: Recipe) -> None:
    st.success(t("export.done"), icon=":material/check:")
    st.code(str(result["folder"]), language=None, wrap_lines=True)
    files = result["files"]
    names = plain(", ".join(sorted(files)))
    total = size(sum(files.values()))
    st.caption(t("export.files", count=len(files), size=total, names=names))
    rows = _rows(result)
    columns = [t("export.measure"), t("studio.dense"), t("export.exported")]
    st.table(pd.DataFrame(rows, columns=columns).set_index(columns[0]))
    st.caption(_same(result))
    if result["repeats"]:
        st.caption(t("export.speed_help", repeats=result["repeats"]))
    counts = counts_of(result["screen"])
    if counts is not None:
        st.caption(" · ".join(filter(None, (both_said(counts), zeros_said(counts)))))
    if not result["cut"]:
        st.caption(t("export.zeros_said"))
    numbers = {key: content for key, content in result.items() if key != "card"}
    given = {
        "card": ("README.md", result["card"], "text/markdown"),
        "recipe": ("recipe.json", recipe.to_json(), "application/json"),
        "numbers": ("measured.json", json.dumps(numbers, indent=2), "application/json"),
    }
    with st.container(horizontal=True):
        for name, (file, content, kind) in given.items():
            st.download_button(
                t(f"export.{name}"),
                content,
                file,
                kind,
                key=f"_export_{name}",
                icon=":material/download:",
                on_click="ignore",
            )


def _rows(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    dense, ours = result["dense"], result["exported"]
    named = "bytes" if result["repeats"] else "bytes_memory"
    rows = [
        (t(f"export.{named}"), size(dense["bytes"]), size(ours["bytes"])),
        (t("export.parameters"), f"{dense['parameters']:,}", f"{ours['parameters']:,}"),
        (t("export.nonzero"), f"{dense['nonzero']:,}", f"{ours['nonzero']:,}"),
        (t("export.flops"), f"{dense['flops_per_token']:,}", f"{ours['flops_per_token']:,}"),
    ]
    if ours["perplexity"] is not None:
        before, after = (_perplexity(x["perplexity"], result["screen"]) for x in (dense, ours))
        rows.append((t("export.perplexity"), before, after))
    for key in ("prefill", "decode"):
        if ours[key] is not None:
            rows.append((t(f"export.{key}"), spread(dense[key]), spread(ours[key])))
    if ours["peak_memory"] is not None:
        pair = (size(dense["peak_memory"]), size(ours["peak_memory"]))
        rows.append((t("export.peak_memory"), *pair))
    return rows


def _same(result: Mapping[str, Any]) -> str:
    difference = f"{result['difference']:.1e}" if result["difference"] else "0"
    if result["exported"]["perplexity"] is None:
        return t("export.same_answers", difference=difference)
    return t(
        "export.same",
        exported=_perplexity(result["exported"]["perplexity"], result["screen"]),
        screen=_perplexity(result["screen"]["perplexity"], result["screen"]),
        difference=difference,
    )


def _perplexity(number: float, screen: Mapping[str, Any]) -> str:
    error = error_in(screen["perplexity_low"], screen["perplexity_high"])
    return measured(number, error, too_large=t("common.million"))
