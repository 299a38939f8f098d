"""What follows once the numbers of all slots have settled: is it real, where does it hurt, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.errors import ProtocolError
from prune_core.evaluation.metrics import METRICS
from prune_core.evaluation.paired import compare_results
from prune_core.figures.compare import block_damage, differences, overlap_matrix
from prune_core.jobs.base import Job
from prune_core.jobs.compare import BlockDamage, MaskOverlap
from prune_core.models.info import ModelInfo
from prune_core.ui.compare.live import Recipes
from prune_core.ui.frame.components import chart, choice, csv_button, plain
from prune_core.ui.frame.loading import Outcome, again, failure_text, follow_all
from prune_core.ui.frame.page import Page
from prune_core.ui.session.language import error_sentence, t
from prune_core.ui.session.recipe_state import evaluation_settings, text_spec
from prune_core.ui.widgets.lanes import lanes

DAMAGE_WINDOWS = 2
Results = Mapping[str, Mapping[str, Any]]


def verdicts(compared: Mapping[str, Any]) -> list[str]:
    """One sentence for each pair: which is better, by how much, how sure; as Markdown."""
    similar = compared["metric"] == "similarity"
    sentences = []
    for pair in compared["pairs"]:
        first, second, p = pair["first"], pair["second"], pair["p_holm"]
        if p is None:
            sentences.append(t("compare.one_window", first=first, second=second))
            continue
        if p >= 0.05:
            sentences.append(t("compare.alike", first=first, second=second, p=_p(p)))
            continue
        better = (pair["mean"] > 0) == METRICS[compared["metric"]].more_is_better
        names = (first, second) if better else (second, first)
        low, high = sorted((abs(pair["low"]), abs(pair["high"])))
        if pair["low"] < 0 < pair["high"]:
            low = 0.0
        values = {"size": f"{abs(pair['mean']):.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}"}
        key = "compare.closer" if similar else "compare.better"
        sentences.append(t(key, first=names[0], second=names[1], p=_p(p), **values))
    return sentences


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def compare_or_say(results: Results) -> dict[str, Any] | None:
    """Paired differences, or one sentence why not."""
    try:
        return compare_results(results)
    except ProtocolError as error:
        st.warning(plain(error_sentence(error)), icon=":material/info:")
        return None


def significance(page: Page, results: Results) -> None:
    """Which differences are real: sentences, intervals, the table."""
    st.subheader(t("compare.significance"), anchor=False)
    compared = compare_or_say(results)
    if compared is None:
        return
    similar = compared["metric"] == "similarity"
    left, right = st.columns([1, 1.15], gap="large")
    with left:
        for sentence in verdicts(compared):
            st.markdown(sentence)
        pairs = compared["pairs"]
        windows, least = pairs[0]["windows"], pairs[0]["least_p"]
        if least is not None and least * len(pairs) >= 0.05:
            st.info(t("compare.too_few", windows=windows, pairs=len(pairs)), icon=":material/info:")
        drawn = "" if pairs[0]["exact"] else t("compare.drawn")
        st.caption(t("compare.test", windows=windows, pairs=len(pairs)) + drawn)
    with right:
        unit = "similarity" if similar else "nll"
        texts = {
            "title": t("compare.differences_title"),
            "x": t(f"compare.differences_{unit}"),
            "clear": t("compare.clear_difference"),
            "open": t("compare.open"),
            "hover": t("compare.differences_hover"),
        }
        chart(
            differences(compared["pairs"], page.look, words=texts),
            key="_differences",
            alt=" ".join(verdicts(compared)).replace("*", ""),
        )
        csv_button(compared["pairs"], "differences", key="_differences_csv")


def passage(page: Page, results: Results) -> None:
    """The measured text, token by token, with a lane for each recipe."""
    strips = {name: result["strip"] for name, result in results.items() if result["strip"]}
    if not strips:
        return
    st.subheader(t("studio.strip"), anchor=False)
    st.caption(t("compare.lanes_help"))
    tokens = next(iter(strips.values()))
    labels = {name: t(f"studio.strip_{name}") for name in ("better", "worse", "hint")}
    labels["lanes"] = t("compare.lanes", names=", ".join(strips))
    labels["read"], labels["lane"] = t("compare.lanes_read"), t("compare.lanes_lane")
    labels["alt"] = t("compare.lanes_alt", tokens=len(tokens), recipes=len(strips))
    lanes(strips, page.look.diverging, labels=labels, dark=page.look.dark)
    frame = pd.DataFrame({"token": [t[0] for t in tokens], "dense": [t[1] for t in tokens]})
    for name, strip in strips.items():
        frame[name] = [token[2] for token in strip]
    csv_button(frame, "token-losses", key="_lanes_csv")


def damage(page: Page, model: ModelInfo, recipes: Recipes) -> None:
    """Damage by block."""
    st.subheader(t("compare.blocks"), anchor=False)
    options = ["accumulated", "own", *(["increase"] if model.has_language_head else [])]
    measure = choice(
        "block_measure",
        t("compare.measure"),
        options,
        lambda name: t(f"compare.measure_{name}"),
        help_text=t("compare.measure_help"),
    )
    measure = measure if measure in options else options[0]
    size = (evaluation_settings()["seq_len"], DAMAGE_WINDOWS)
    kind = "loss" if measure == "increase" else "output"
    jobs: dict[str, Job] = {
        f"compare_blocks_{n}": BlockDamage(model.source, r, text_spec(), *size, kind)
        for n, r in recipes.items()
    }
    outcomes = follow_all(jobs, t("compare.measuring_blocks"))
    series = []
    for name in recipes:
        fresh = outcomes[f"compare_blocks_{name}"].fresh
        if fresh is not None:
            series.append({"name": name, **fresh[measure]})
    _failures(outcomes)
    if not series:
        return
    texts = {
        "title": t(f"compare.blocks_{measure}_title"),
        "x": t("weights.block"),
        "y": t(f"compare.blocks_{measure}_axis"),
    }
    figure = block_damage(series, page.look, log=measure != "increase", words=texts)
    chart(figure, key="_block_damage", alt=t("compare.blocks_alt", names=_names(series)))
    st.caption(t(f"compare.blocks_{measure}_help"))
    rows = [
        {"recipe": line["name"], "block": block, "mean": mean, "stderr": error}
        for line in series
        for block, (mean, error) in enumerate(zip(line["mean"], line["stderr"], strict=True))
    ]
    csv_button(rows, f"block-damage-{measure}", key="_blocks_csv")


def overlap(page: Page, model: ModelInfo, recipes: Recipes) -> None:
    """How far the recipes remove the same weights."""
    st.subheader(t("compare.overlap"), anchor=False)
    jobs: dict[str, Job] = {
        f"compare_overlap_{a}{b}": MaskOverlap(model.source, recipes[a], recipes[b])
        for a, b in combinations(recipes, 2)
    }
    outcomes = follow_all(jobs, t("compare.comparing_masks"))
    _failures(outcomes)
    cells = {}
    for panel, outcome in outcomes.items():
        if outcome.fresh is not None:
            found = (outcome.fresh["total"]["jaccard"], outcome.fresh["by_chance"])
            cells[panel[-2], panel[-1]] = found
    if not cells:
        return
    texts = {
        "title": t("compare.overlap_title"),
        "jaccard": t("compare.jaccard"),
        "chance": t("compare.chance"),
        "none": t("compare.overlap_none"),
    }
    figure = overlap_matrix(list(recipes), cells, page.look, words=texts)
    chart(figure, key="_overlap", alt=t("compare.overlap_alt", names=", ".join(recipes)))
    st.caption(t("compare.overlap_help"))
    rows = [
        {"first": first, "second": second, "jaccard": jaccard, "by_chance": chance}
        for (first, second), (jaccard, chance) in cells.items()
    ]
    csv_button(rows, "mask-overlap", key="_overlap_csv")


def _names(series: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(line["name"]) for line in series)


def _failures(outcomes: Mapping[str, Outcome]) -> None:
    """One sentence for each failure that is not told yet, and one button for all of them."""
    failed = [o.ticket for o in outcomes.values() if o.ticket.state == "failed"]
    stopped = any(o.ticket.state == "cancelled" for o in outcomes.values())
    for text in dict.fromkeys(failure_text(ticket) for ticket in failed):
        st.error(text, icon=":material/error:")
    if failed or stopped:
        label = t("common.retry" if failed else "common.resume")
        panels = tuple(outcomes)
        st.button(label, key=f"_again_{panels[0]}", on_click=again, args=(panels,))
