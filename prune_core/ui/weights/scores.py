"""The Weights page's second row: scores of any criterion, and where its mask differs."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from prune_core.criteria import CRITERIA
from prune_core.figures.scores import overlap_map, score_histogram
from prune_core.jobs.compare import MaskOverlap
from prune_core.jobs.weights import ScoreHistogram
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.ui.frame.components import chart, csv_button, dimmed, percent
from prune_core.ui.frame.loading import follow
from prune_core.ui.frame.method_cards import method_card
from prune_core.ui.frame.page import Page, recipe_from_state
from prune_core.ui.session.keys import value, widget
from prune_core.ui.session.language import name_of, t, t_or, words
from prune_core.ui.session.recipe_state import chosen_calibration

BINS = 96


def compared() -> Recipe | None:
    """The session's recipe with the chosen criterion in place of its own; None without a choice.

    Pattern, shares and sparsity stay, so that only the criterion differs.
    """
    other = str(value("other"))
    if not other:
        return None
    recipe = recipe_from_state()
    if other == recipe.criterion:
        return recipe
    return replace(
        recipe,
        criterion=other,
        criterion_args={},
        reconstruction="none",
        calibration=chosen_calibration(),
    )


def scores_section(page: Page, model: ModelInfo) -> None:
    """The choice of a criterion, its scores of the chosen layer, its overlap with the recipe's."""
    st.subheader(t("weights.scores"), anchor=False)
    other = str(value("other"))
    with st.container(width=420):
        st.selectbox(
            t("weights.other"),
            ["", *CRITERIA],
            format_func=lambda name: name_of(CRITERIA, name) if name else t("weights.other_none"),
            help=method_card(other) if other else t("weights.other_help"),
            **widget("other", ["", *CRITERIA]),
        )
    recipe = compared()
    if recipe is None:
        st.caption(t("weights.other_help"))
        return
    left, right = st.columns(2, gap="medium")
    with left:
        _scores(page, model, recipe)
    with right:
        _overlap(page, model, recipe)


def _scores(page: Page, model: ModelInfo, recipe: Recipe) -> None:
    job = ScoreHistogram(model.source, str(value("layer")), recipe, BINS)
    outcome = follow(job, "scores", what=t("weights.scoring"), height=420)
    if outcome.result is None:
        return
    found = outcome.result
    share = percent(found["removed"] / found["numel"] if found["numel"] else 0.0)
    name = name_of(CRITERIA, found["criterion"])
    texts = {
        **words("weights", "kept", "removed"),
        "title": t("weights.scores_title", name=name, block=found["block"]),
        "x": t("weights.score"),
        "y": t("weights.number"),
    }
    with dimmed(outcome.stale, "scores"):
        chart(
            score_histogram(found, page.look, words=texts),
            key="_scores",
            alt=t("weights.scores_alt", name=name, block=found["block"], removed=share),
        )
        if found["zeros"]:
            st.caption(t("weights.scores_zero", count=found["zeros"]))


def _overlap(page: Page, model: ModelInfo, recipe: Recipe) -> None:
    ours = recipe_from_state()
    if recipe == ours:
        st.info(t("weights.overlap_same"), icon=":material/info:")
        return
    if not (ours.removes_weights and recipe.removes_weights):
        st.info(t("weights.overlap_nothing"), icon=":material/info:")
        return
    job = MaskOverlap(model.source, ours, recipe)
    outcome = follow(job, "overlap", what=t("weights.overlapping"), height=320)
    if outcome.result is None:
        return
    total, chance = outcome.result["total"], outcome.result["by_chance"]
    names = [name_of(CRITERIA, x.criterion) for x in (ours, recipe)]
    roles = {
        layer.role: t_or(f"common.role_{layer.role.replace('.', '_')}", layer.role)
        for layer in model.layers
    }
    jaccard = f"{total['jaccard'] or 0.0:.3f}"
    texts = {
        "title": t("weights.overlap_title", jaccard=jaccard),
        "x": t("weights.block"),
        "y": t("weights.role"),
        "overlap": t("weights.overlap"),
    }
    with dimmed(outcome.stale, "overlap"):
        chart(
            overlap_map(outcome.result["layers"], page.look, words=texts, roles=roles),
            key="_overlap",
            alt=t("weights.overlap_alt", jaccard=jaccard),
        )
        st.caption(
            t(
                "weights.overlap_help",
                ours=names[0],
                theirs=names[1],
                both=f"{total['both']:,}",
                either=f"{total['either']:,}",
                chance=f"{chance or 0.0:.3f}",
            )
        )
        csv_button(outcome.result["layers"], "overlap", key="_overlap_csv")
