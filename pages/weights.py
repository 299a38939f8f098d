"""Weights: how large the weights of each layer are, and which of them the recipe removes."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.figures.weights import histogram, ridges
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.weights import Histograms, LayerTable, ScoreHistogram
from prune_core.models.info import LayerInfo, ModelInfo
from prune_core.ui.frame import echoes
from prune_core.ui.frame.components import (
    chart,
    choice,
    clicked,
    csv_button,
    dimmed,
    percent,
    plain,
)
from prune_core.ui.frame.page import (
    Page,
    current_model,
    follow,
    open_page,
    page_link,
    recipe_from_state,
    reproduce,
)
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import t, t_or, words
from prune_core.ui.session.recipe_state import cut_by_value
from prune_core.ui.studio.choices import cut_control
from prune_core.ui.weights.scores import compared, scores_section

COLUMNS = (
    *("block", "role", "rows", "columns", "mean_abs", "std", "kurtosis", "zeros", "removed"),
    *("q01", "q25", "q50", "q75", "q99", "max_abs", "norm", "distinct_share", "name"),
)

WHOLE = ("block", "rows", "columns", "zeros", "removed")
# the most there are: a few large weights stretch the range, and the figures join them again
BINS = 1024


def ridge_clicked() -> None:
    point = clicked("_ridges")
    if point is not None:
        set_value("layer", point[0])


def row_clicked() -> None:
    rows = st.session_state["_layer_table"]["selection"]["rows"]
    names = st.session_state.get("_layer_names", [])
    if rows and rows[0] < len(names):
        layer, role = names[rows[0]]
        set_value("role", role)
        set_value("layer", layer)


def bar_clicked() -> None:
    point = clicked("_histogram")
    if point is not None:
        cut_by_value(float(f"{point[0]:.4g}"))


def block_chosen(key: str, names: Collection[str]) -> None:
    picked = st.session_state[key]
    if echoes.chosen(key) and picked in names:
        set_value("layer", picked)


def choose_layer(model: ModelInfo) -> tuple[list[LayerInfo], LayerInfo]:
    """The controls; returns the role's layers and the chosen one of them."""
    roles = list(dict.fromkeys(layer.role for layer in model.layers))
    if value("role") not in roles:
        set_value("role", next((role for role in roles if role == "mlp.down"), roles[0]))
    with st.container(horizontal=True, gap="large"):
        role = choice(
            "role",
            t("weights.role"),
            roles,
            lambda name: t_or(f"common.role_{name.replace('.', '_')}", name),
            help_text=t("weights.role_help"),
        )
        choice(
            "counts",
            t("weights.counts"),
            ["linear", "log"],
            lambda name: t(f"weights.counts_{name}"),
            help_text=t("weights.counts_help"),
        )
    layers = [layer for layer in model.layers if layer.role == role]
    by_name = {layer.name: layer for layer in layers}
    if value("layer") not in by_name:
        # another role was chosen: stay in the block
        before = next((x.block for x in model.layers if x.name == value("layer")), None)
        same = [layer for layer in layers if layer.block == before]
        set_value("layer", (same or layers[len(layers) // 2 :])[0].name)
    return layers, by_name[value("layer")]


def pictures(page: Page, model: ModelInfo) -> None:
    layers, chosen = choose_layer(model)
    recipe = recipe_from_state()
    names = tuple(layer.name for layer in layers)
    job = Histograms(model.source, layers=names, recipe=recipe, bins=BINS)
    outcome = follow(job, "histograms", what=t("weights.counting"), height=420)
    if outcome.result is None:
        return
    found: list[Mapping[str, Any]] = list(outcome.result["layers"])
    log = value("counts") == "log"
    texts = words("weights", "block", "kept", "removed", "cut")
    with dimmed(outcome.stale, "weights"):
        left, right = st.columns([1, 1], gap="medium")
    role = t_or(f"common.role_{chosen.role.replace('.', '_')}", chosen.role)
    with left:
        ridge_words = {
            **texts,
            "title": t("weights.ridge_title", role=role),
            "x": t("weights.magnitude"),
            "y": t("weights.block"),
        }
        chart(
            ridges(
                outcome.result["edges"],
                found,
                page.look,
                selected=chosen.name,
                log=log,
                words=ridge_words,
            ),
            key="_ridges",
            alt=t("weights.ridge_alt", role=role, blocks=len(found)),
            on_select=ridge_clicked,
        )
    with right:
        one_layer(page, outcome.result["edges"], found, layers, chosen, texts, log=log)
        if model.quantized:
            st.caption(t("weights.combs", name=plain(model.quantized)))
        if recipe.is_dense:
            st.caption(t("weights.no_cut"))
            page_link("studio", label=t("weights.to_studio"))


def one_layer(
    page: Page,
    edges: list[float],
    found: list[Mapping[str, Any]],
    layers: list[LayerInfo],
    chosen: LayerInfo,
    texts: dict[str, str],
    *,
    log: bool,
) -> None:
    blocks = {layer.name: layer.block for layer in layers}
    key = f"_block_{chosen.role}"
    st.selectbox(
        t("weights.layer"),
        list(blocks),
        list(blocks).index(echoes.put(key, chosen.name)),
        format_func=lambda name: t("weights.layer_option", block=blocks[name], name=name),
        key=key,
        on_change=block_chosen,
        args=(key, tuple(blocks)),
        help=t("weights.layer_help"),
    )
    # while another role is counted, the block's old picture stays, dimmed
    layer = next((x for x in found if x["block"] == chosen.block), None)
    if layer is None:
        return
    share = layer["removed"] / layer["numel"] if layer["numel"] else 0.0
    title = t("weights.histogram_title", block=layer["block"], removed=percent(share))
    if not layer["removed"]:
        title = t("weights.histogram_whole", block=layer["block"])
    labels = {
        **texts,
        "title": title,
        "x": t("weights.magnitude"),
        "y": t("weights.number"),
    }
    chart(
        histogram(edges, layer, page.look, log=log, words=labels),
        key="_histogram",
        alt=t("weights.histogram_alt", block=layer["block"], removed=percent(share)),
        on_select=bar_clicked,
    )
    cut_control()


def table(model: ModelInfo) -> None:
    st.subheader(t("weights.table"), anchor=False)
    job = LayerTable(model.source, recipe=recipe_from_state())
    outcome = follow(job, "layer_table", what=t("weights.measuring"), height=200)
    if outcome.result is None:
        return
    frame = pd.DataFrame(outcome.result["rows"])
    frame = frame[[column for column in COLUMNS if column in frame]]
    st.session_state["_layer_names"] = list(zip(frame["name"], frame["role"], strict=True))
    st.dataframe(
        frame,
        key="_layer_table",
        on_select=row_clicked,
        selection_mode="single-row",
        hide_index=True,
        height=320,
        alt=t("weights.table_alt", rows=len(frame)),
        column_config={
            column: st.column_config.Column(
                t(f"weights.column_{column}"), help=t(f"weights.help_{column}")
            )
            if column in ("role", "name")
            else st.column_config.NumberColumn(
                t(f"weights.column_{column}"),
                help=t(f"weights.help_{column}"),
                format="localized" if column in WHOLE else "%.4g",
            )
            for column in frame.columns
        },
    )
    csv_button(frame, "layers", key="_layers_csv")


with open_page("weights") as page:
    model = current_model()
    if model is not None and not model.layers:
        st.info(t("weights.empty"), icon=":material/info:")
    elif model is not None:
        pictures(page, model)
        scores_section(page, model)
        table(model)
        commands = [command_line(LayerTable(model.source))]
        other = compared()
        if other is not None:
            commands.append(command_line(ScoreHistogram(model.source, recipe=other)))
        reproduce(*commands)
