"""Studio: drag a slider, read at once what it did to perplexity and to the text."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.figures.studio import sparsity_map
from prune_core.figures.weights import histogram
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.weights import Histograms
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.ui.frame.components import chart, csv_button, dimmed, percent
from prune_core.ui.frame.loading import Outcome, follow, submit
from prune_core.ui.frame.page import Page, current_model, open_page, reproduce
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import t, t_or, words
from prune_core.ui.session.questions import evaluate_job, generate_job
from prune_core.ui.studio.cost import cost_drawer
from prune_core.ui.studio.export import export_drawer
from prune_core.ui.studio.live import live
from prune_core.ui.studio.recipe import recipe_panel
from prune_core.ui.studio.save import save_panel
from prune_core.ui.widgets.texts import strip

BINS = 1024


def damage(page: Page, outcome: Outcome) -> None:
    """The evaluation text, each token shaded by how much worse it became."""
    tokens = (outcome.result or {}).get("strip") or []
    if not tokens:
        return
    st.subheader(t("studio.strip"), anchor=False)
    st.caption(t("common.updating") if outcome.stale else t("studio.strip_help"))
    labels = {name: t(f"studio.strip_{name}") for name in ("better", "worse", "hint", "read")}
    labels["alt"] = t("studio.strip_alt", tokens=len(tokens))
    strip(tokens, page.look.diverging, labels=labels, stale=outcome.stale, dark=page.look.dark)
    frame = pd.DataFrame(tokens, columns=["token", "loss_dense", "loss_pruned"])
    frame["change"] = frame["loss_pruned"] - frame["loss_dense"]
    csv_button(frame, "tokens", key="_tokens_csv")


def where(page: Page, model: ModelInfo, recipe: Recipe, result: Mapping[str, Any]) -> None:
    """The sparsity map."""
    roles = {
        layer.role: t_or(f"common.role_{layer.role.replace('.', '_')}", layer.role)
        for layer in model.layers
    }
    texts = {
        "title": t("studio.map_title", share=percent(result["sparsity"])),
        "x": t("weights.block"),
        "y": t("studio.map_role"),
        "share": t("studio.map_share"),
        "dense": t("studio.map_dense"),
    }
    figure = sparsity_map(
        model.layers, result["removed"], result["left_dense"], page.look, words=texts, roles=roles
    )
    chart(figure, key="_map", alt=t("studio.map_alt", share=percent(result["sparsity"])))
    if result["left_dense"]:
        st.caption(t("studio.left_dense", count=len(result["left_dense"])))
    for name in ("clipped", "damped"):
        if result[name]:
            st.caption(t(f"studio.{name}", count=len(result[name])))
    rows = [
        {
            "layer": layer.name,
            "block": layer.block,
            "role": layer.role,
            "weights": layer.rows * layer.columns,
            "removed": result["removed"].get(layer.name, 0),
        }
        for layer in model.layers
    ]
    csv_button(rows, f"removed-{recipe.fingerprint}", key="_removed_csv")


def cut(page: Page, model: ModelInfo, recipe: Recipe) -> None:
    """The histogram of one layer with the cut."""
    names = [layer.name for layer in model.layers]
    if value("layer") not in names:
        middle = [layer.name for layer in model.layers if layer.role.startswith("mlp")] or names
        set_value("layer", middle[len(middle) // 2])
    st.session_state["_studio_layer"] = value("layer")
    st.selectbox(
        t("weights.layer"),
        names,
        key="_studio_layer",
        on_change=lambda: set_value("layer", st.session_state["_studio_layer"]),
    )
    job = Histograms(model.source, (str(value("layer")),), recipe, BINS)
    outcome = submit(job, "studio_histogram")
    if outcome.busy and outcome.ticket.wait(1.0):  # milliseconds once the ranks are there
        outcome = submit(job, "studio_histogram")
    if outcome.fresh is None:  # the worker is busy with other sessions, or it failed
        follow(job, "studio_histogram", what=t("studio.reading_layer"), height=280)
        return
    layer = outcome.fresh["layers"][0]
    share = percent(layer["removed"] / layer["numel"] if layer["numel"] else 0.0)
    texts = {
        **words("weights", "kept", "removed", "cut"),
        "title": t("studio.cut_title", block=layer["block"], removed=share),
        "x": t("weights.magnitude"),
        "y": t("weights.number"),
    }
    figure = histogram(outcome.fresh["edges"], layer, page.look, log=False, words=texts)
    chart(figure, key="_cut", alt=t("weights.histogram_alt", block=layer["block"], removed=share))


def details(page: Page, model: ModelInfo, recipe: Recipe, outcome: Outcome) -> None:
    """What is too slow to redraw while the slider moves: it follows when the number settles."""
    damage(page, outcome)
    if outcome.result is None:
        return
    with dimmed(outcome.stale, "studio_details"):
        left, right = st.columns(2, gap="large")
        with left:
            where(page, model, recipe, outcome.result)
        with right:
            if not outcome.stale:
                cut(page, model, recipe)


with open_page("studio") as page:
    model = current_model()
    if model is not None and not model.layers:
        st.info(t("weights.empty"))
    elif model is not None:
        left, right = st.columns([1, 2.9], gap="large")
        with left:
            recipe = recipe_panel(model, presenting=page.presenting)
        with right:
            outcome = live(page, model, recipe)
        details(page, model, recipe, outcome)
        if not page.presenting:
            commands = [command_line(evaluate_job(model, recipe))]
            if model.has_language_head:
                commands.append(command_line(generate_job(model, recipe)))
            if outcome.fresh is not None:
                save_panel(model, recipe)
            cost_drawer(page, model, recipe)
            export_drawer(model, recipe)
            reproduce(*commands)
