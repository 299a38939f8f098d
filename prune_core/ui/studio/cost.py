"""The Studio's cost drawer: where the savings of a recipe went, counted and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.figures.cost import sizes, speeds
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.exports import Cost
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.ui.frame.components import chart, csv_button, dimmed, percent, plain
from prune_core.ui.frame.loading import cancel, follow, forget
from prune_core.ui.frame.page import Page
from prune_core.ui.session.language import error_sentence, t, words
from prune_core.words.numbers import size

COUNTED, MEASURED = "studio_cost", "studio_cost_measured"
REPEATS = 5
_SPEEDS = ("prefill", "decode")
_PREFIX = {"dense": "dense_", "zeros": "zeros_", "shrunk": ""}

Numbers = Mapping[str, Any]


def cost_drawer(page: Page, model: ModelInfo, recipe: Recipe) -> None:
    """Sizes by format at once; speed and memory when asked for. Nothing is counted while shut."""
    drawer = st.expander(
        t("cost.title"), icon=":material/savings:", key="_cost_open", on_change="rerun"
    )
    if not drawer.open:
        _let_go(recipe)
        return
    with drawer:
        outcome = follow(Cost(model.source, recipe), COUNTED, what=t("cost.counting"), height=260)
        if outcome.result is not None:
            with dimmed(outcome.stale, "cost"):
                _counted(page, outcome.result)
        _let_go(recipe)
        measured = _measured(page, model, recipe)
        job = Cost(model.source, recipe, REPEATS if measured is not None else 0)
        if outcome.fresh is not None:
            rows = _table(measured or outcome.fresh)
            st.table(pd.DataFrame(rows[1:], columns=list(rows[0])).set_index(rows[0][0]))
            _sentences(measured or outcome.fresh)
            csv_button(
                _rows(measured or outcome.fresh), f"cost-{recipe.fingerprint}", key="_cost_csv"
            )
        st.code(command_line(job), language=None, wrap_lines=True)


def _let_go(recipe: Recipe) -> None:
    """A measurement of a recipe that has been left is of no use any more."""
    asked: Cost | None = st.session_state.get("_cost_job")
    if asked is not None and asked.recipe != recipe:
        cancel(MEASURED)
        forget(MEASURED)
        del st.session_state["_cost_job"]


def _has_cut(numbers: Numbers) -> bool:
    """Dropped parts can be cut out, and there are some."""
    return numbers["shrunk_refused"] is None and any(numbers["parts"].values())


def _models(numbers: Numbers) -> dict[str, str]:
    names = ["dense", "zeros", *(["shrunk"] if _has_cut(numbers) else [])]
    return {name: t(f"cost.{name}") for name in names}


def _counted(page: Page, numbers: Numbers) -> None:
    bits = 8 * numbers["item"]
    rows = [
        (t("cost.file", bits=bits), "dense", numbers["bytes_dense"], False),
        (t("cost.file_zeros", bits=bits), "zeros", numbers["bytes_dense"], False),
        (t("cost.bitmask"), "zeros", numbers["bytes_sparse"], True),
    ]
    if numbers["item"] > 2:
        rows.insert(1, (t("cost.file", bits=16), "dense", numbers["bytes_half"], True))
    if _has_cut(numbers):
        rows.append((t("cost.file_shrunk", bits=bits), "shrunk", numbers["bytes_shrunk"], False))
    texts = words("cost", "exact", "estimate")
    texts |= {"title": t("cost.sizes_title"), "x": t("cost.megabytes")}
    chart(
        sizes(rows, page.look, words=texts),
        key="_cost_sizes",
        alt=t("cost.sizes_alt", formats=len(rows)),
    )
    st.caption(t("cost.hatched"))


def _measured(page: Page, model: ModelInfo, recipe: Recipe) -> Numbers | None:
    """Speed and memory of this recipe, if they were asked for."""
    asked: Cost | None = st.session_state.get("_cost_job")
    if asked is None or asked.source != model.source:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                t("cost.measure"),
                key="_cost_measure",
                icon=":material/speed:",
                on_click=_wanted,
                args=(Cost(model.source, recipe, REPEATS),),
            )
            st.caption(t("cost.measure_help", repeats=REPEATS))
        return None
    outcome = follow(asked, MEASURED, what=t("cost.measuring"))
    numbers = outcome.fresh
    if numbers is None:
        return None
    models = _models(numbers)
    measures = []
    for key in (*_SPEEDS, "peak_memory"):
        found = {m: numbers[f"{_PREFIX[m]}{key}"] for m in models}
        if any(value is None for value in found.values()):
            continue
        name = t(f"cost.{key}")
        if key == "peak_memory":
            found = {m: _single(value / 1e6) for m, value in found.items()}
            name = t("cost.peak_memory_megabytes")
        measures.append((name, found))
    chart(
        speeds(measures, page.look, title=t("cost.speeds_title"), models=models),
        key="_cost_speeds",
        alt=t("cost.speeds_alt", models=len(models)),
    )
    told = numbers["protocol"]
    st.caption(
        t(
            "cost.conditions",
            repeats=numbers["repeats"],
            threads=told["threads"],
            prompt=told["prompt_tokens"],
            new=told["new_tokens"],
            dtype=told["dtype"],
            device=told["device"],
            torch=told["torch"],
            transformers=told["transformers"],
        )
    )
    return numbers


def _wanted(job: Cost) -> None:
    forget(MEASURED)
    st.session_state["_cost_job"] = job


def _single(value: float) -> dict[str, Any]:
    return {"median": value, "low": value, "high": value, "values": [value]}


def _rows(numbers: Numbers) -> list[dict[str, Any]]:
    """Plain numbers for the CSV, one row for each measure."""
    names = list(_models(numbers))
    cut = _has_cut(numbers)
    half = numbers["bytes_half"]
    shrunk = numbers["parameters_shrunk"] if cut else None
    given: dict[str, Sequence[Any]] = {
        "parameters": (numbers["parameters"], numbers["parameters"], shrunk),
        "nonzero": (numbers["nonzero_dense"], numbers["nonzero"], None),
        "bytes": (numbers["bytes_dense"], numbers["bytes_dense"], numbers["bytes_shrunk"]),
        "bytes_half": (half, half, 2 * shrunk if shrunk else None),
        "bytes_sparse": (numbers["bytes_sparse_dense"], numbers["bytes_sparse"], None),
        "flops": (numbers["flops_dense"], numbers["flops_dense"], numbers["flops_shrunk"]),
    }
    rows = [
        {"measure": name, **dict(zip(names, values, strict=False))}
        for name, values in given.items()
    ]
    for key in (*_SPEEDS, "peak_memory"):
        found = {m: numbers[f"{_PREFIX[m]}{key}"] for m in names}
        if any(value is None for value in found.values()):
            continue
        if key == "peak_memory":
            rows.append({"measure": key, **found})
            continue
        for part in ("median", "low", "high"):
            rows.append({"measure": f"{key}_{part}", **{m: v[part] for m, v in found.items()}})
    return rows


def _table(numbers: Numbers) -> list[tuple[str, ...]]:
    """What is counted and measured, as texts; the first row names the columns."""
    models = _models(numbers)
    none = t("common.none")
    rows: list[tuple[str, ...]] = [(t("cost.what"), *models.values())]
    for row in _rows(numbers):
        name, values = row["measure"], [row.get(m) for m in models]
        if name.startswith(_SPEEDS):
            continue
        form = size if name.startswith(("bytes", "peak")) else "{:,}".format
        rows.append((t(f"cost.{name}"), *(none if v is None else form(v) for v in values)))
    for key in _SPEEDS:
        found = [numbers[f"{_PREFIX[m]}{key}"] for m in models]
        if all(value is not None for value in found):
            rows.append((t(f"cost.{key}"), *(spread(value) for value in found)))
    return rows


def spread(values: Mapping[str, float]) -> str:
    """Median and range of a speed."""
    return t("cost.spread", **{name: f"{values[name]:,.1f}" for name in ("median", "low", "high")})


def _sentences(numbers: Numbers) -> None:
    """One sentence for each way in which a recipe saves, or does not."""
    before, zeros = (
        1 - numbers[name] / numbers["parameters"] for name in ("nonzero_dense", "nonzero")
    )
    said = [
        t(
            "cost.zeros_said",
            share=percent(zeros),
            before=percent(before),
            added=percent(max(0.0, zeros - before)),
        )
    ]
    if numbers["zeros_decode"] is not None and numbers["dense_decode"] is not None:
        said.append(_compared(numbers, "zeros"))
    if numbers["bytes_sparse"] < numbers["bytes_sparse_dense"]:
        said.append(t("cost.bitmask_said", size=size(numbers["bytes_sparse"])))
    if numbers["shrunk_refused"]:
        said.append(
            t(
                "cost.refused_said",
                reason=plain(error_sentence(numbers["shrunk_refused"], inside=True)),
            )
        )
    elif _has_cut(numbers):
        share = 1 - numbers["flops_shrunk"] / numbers["flops_dense"]
        said.append(t("cost.shrunk_said", size=size(numbers["bytes_shrunk"]), flops=percent(share)))
        if numbers["decode"] is not None:
            said.append(_compared(numbers, "shrunk"))
    else:
        said.append(t("cost.nothing_cut_said"))
    st.markdown("\n".join(f"- {sentence}" for sentence in said))


def _compared(numbers: Numbers, model: str) -> str:
    """Decode against dense; a difference within the spread is none."""
    ours, dense = numbers[f"{_PREFIX[model]}decode"], numbers["dense_decode"]
    name = t(f"cost.{model}")
    if ours["low"] <= dense["high"] and dense["low"] <= ours["high"]:
        return t("cost.same_speed_said", model=name)
    return t("cost.speed_said", model=name, ratio=f"{ours['median'] / dense['median']:.2f}")
