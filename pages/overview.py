"""Overview: the model as a picture, what it is and where it comes from, and where to start."""

import streamlit as st

from prune_core.figures.overview import model_picture, tiles
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.weights import LayerTable
from prune_core.models.info import ModelInfo
from prune_core.models.weight_counts import WeightCounts, counts_of
from prune_core.ui.frame.chooser import full_chooser
from prune_core.ui.frame.components import chart, choice, percent, plain
from prune_core.ui.frame.page import (
    Page,
    current_model,
    follow,
    open_page,
    page_link,
    recipe_from_state,
    reproduce,
)
from prune_core.ui.frame.weight_bar import both_said, weight_bar, zeros_said
from prune_core.ui.session.language import error_sentence, t, words
from prune_core.words.numbers import count, size


def picture(page: Page, model: ModelInfo) -> None:
    tint = choice(
        "tint",
        t("overview.tint"),
        ["parameters", "sparsity"],
        lambda name: t(f"overview.tint_{name}"),
        help_text=t("overview.tint_help"),
    )
    recipe = recipe_from_state()
    removed: dict[str, int] = {}
    if tint == "sparsity" and not recipe.is_dense:
        job = LayerTable(model.source, recipe=recipe)
        outcome = follow(job, "overview_table", what=t("overview.counting"))
        if outcome.result is not None:
            removed = {row["name"]: row["removed"] for row in outcome.result["rows"]}
        if outcome.stale:
            st.caption(t("common.updating"))
    found = tiles(model, removed, {"self": recipe.drop_heads, "cross": recipe.drop_cross_heads})
    texts = words(
        "overview",
        *(
            "block",
            "head",
            "mlp",
            "self",
            "cross",
            "encoder",
            "decoder",
            "parameters",
            "removed",
            "color",
        ),
    )
    texts["title"] = t(f"overview.picture_{tint}")
    chart(
        model_picture(model, found, page.look, tint=tint, words=texts),
        key="_picture",
        alt=t(
            "overview.picture_alt",
            blocks=len(model.blocks),
            heads=max((block.heads for block in model.blocks), default=0),
            tint=t(f"overview.picture_{tint}"),
        ),
    )
    if tint == "sparsity" and recipe.is_dense:
        st.caption(t("overview.nothing_removed"))


def recipe_counts(model: ModelInfo) -> WeightCounts | None:
    """What the recipe makes of the parameters, where that has been measured."""
    known = st.session_state.get("_studio_shown", {})
    mine = known.get("source") == model.source
    if mine and known.get("recipe") == recipe_from_state().fingerprint and known["numbers"]:
        return counts_of(known["numbers"])
    return None


def headline(model: ModelInfo) -> None:
    st.subheader(plain(model.title), anchor=False)
    first, second, third, fourth = st.columns(4)
    first.metric(
        t("overview.parameters"),
        count(model.parameters),
        help=t("overview.parameters_help", share=percent(model.prunable / model.parameters)),
        border=True,
    )
    second.metric(
        t("overview.memory"),
        size(model.bytes_in_memory),
        help=t("overview.memory_help", dtype=model.dtype, device=model.device),
        border=True,
    )
    third.metric(
        t("overview.context"),
        f"{model.context:,}",
        help=t("overview.context_help"),
        border=True,
    )
    fourth.metric(
        t("overview.blocks"),
        str(len(model.blocks)),
        help=t("overview.blocks_help") + heads_text(model),
        border=True,
    )
    for warning in model.warnings:
        st.warning(plain(error_sentence(warning)), icon=":material/warning:")


def heads_text(model: ModelInfo) -> str:
    if not model.blocks:
        return ""
    first = model.blocks[0]
    key = "heads_grouped" if first.kv_heads < first.heads else "heads_plain"
    return t(f"overview.{key}", heads=first.heads, groups=first.kv_heads)


def kind_of(model: ModelInfo) -> str:
    if model.classes:
        return t("overview.kind_classifier", classes=model.classes)
    return t(f"overview.kind_{model.kind.replace('-', '_')}")


def fine_print(model: ModelInfo) -> None:
    with st.container(border=True):
        st.markdown(f"### {t('overview.about')}")
        st.caption(
            t(
                "overview.architecture",
                family=plain(model.family),
                kind=kind_of(model),
                vocabulary=f"{model.vocabulary:,}",
            )
            + heads_text(model)
        )
        st.caption(
            t(
                "overview.license",
                license=plain(model.license or t("common.unknown")),
                provenance=plain(model.provenance or t("common.unknown")),
            )
        )
        if model.quantized:
            st.caption(t("overview.quantised", name=plain(model.quantized)))


def start_here() -> None:
    with st.container(border=True):
        st.markdown(f"### {t('overview.start')}")
        for step, target in enumerate(("weights", "attention", "studio"), start=1):
            st.markdown(t(f"overview.step_{step}"))
            page_link(target)


with open_page("overview") as page:
    model = current_model()
    if model is not None:
        headline(model)
        left, right = st.columns([3, 2], gap="large")
        with left:
            picture(page, model)
            counts = recipe_counts(model)
            st.caption(t("overview.bar"))
            weight_bar(
                counts or model.counts(),
                page.look,
                key="_weight_bar",
                said=t("overview.bar_loaded")
                if counts is None
                else " · ".join(filter(None, (both_said(counts), zeros_said(counts)))),
            )
        with right:
            start_here()
            fine_print(model)
    full_chooser()
    if model is not None:
        reproduce(command_line(LayerTable(model.source)))
