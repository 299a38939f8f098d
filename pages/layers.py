"""Layers: what each block does to what passes through it, and which could go."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from prune_core.figures.layers import angular_map, influence_bars
from prune_core.jobs.blocks import BLOCK_METHODS, BlockImportance
from prune_core.jobs.command_lines import command_line
from prune_core.models.info import ModelInfo
from prune_core.ui.frame.components import chart, choice, csv_button, dimmed
from prune_core.ui.frame.echoes import figure_key
from prune_core.ui.frame.gauge import mini_gauge
from prune_core.ui.frame.page import (
    Page,
    current_model,
    follow,
    open_page,
    page_link,
    reproduce,
    text_spec,
)
from prune_core.ui.layers import blocks as layers
from prune_core.ui.session.keys import block_methods, widget
from prune_core.ui.session.language import name_of, t, words


def bars(page: Page, model: ModelInfo, influence: Sequence[float]) -> None:
    dropped = [b for b in layers.dropped() if b < len(influence)]
    texts = {
        **words("layers", "kept", "dropped"),
        "title": t("layers.influence_title"),
        "x": t("layers.block"),
        "y": t("layers.influence"),
    }
    least = min(range(len(influence)), key=lambda block: influence[block])
    key = figure_key("_influence")
    chart(
        influence_bars(influence, dropped, page.look, words=texts),
        key=key,
        alt=t("layers.influence_alt", blocks=len(influence), least=least, dropped=len(dropped)),
        on_select=lambda: layers.bar_clicked("_influence", key),
    )
    layers.least_slider(model, influence)


def runs(page: Page, stack: Mapping[str, Any], alone: bool) -> None:
    name, title = stack["stack"], t("layers.angular_title")
    texts = {
        "title": title if alone else f"{t(f'overview.{name}')} · {title}",
        "x": t("layers.first"),
        "y": t("layers.length"),
        "distance": t("layers.distance"),
        "least": t("layers.least"),
    }
    chart(
        angular_map(stack["blocks"], stack["distance"], page.look, words=texts),
        key=f"_angular_{name}",
        alt=t("layers.angular_alt", blocks=len(stack["blocks"])),
    )
    layers.run_button(stack)


def read(page: Page, model: ModelInfo, method: str) -> None:
    """Influence and angles: one pass over the text."""
    job = BlockImportance(model.source, text_spec())
    outcome = follow(job, "block_importance", what=t("layers.measuring"), height=400)
    if outcome.result is not None:
        with dimmed(outcome.stale, "layers"):
            if method == "influence":
                bars(page, model, list(outcome.result["influence"]))
            else:
                stacks = outcome.result["angular"]
                for stack in stacks:
                    runs(page, stack, alone=len(stacks) == 1)
        st.caption(t("layers.angular_help"))
        st.caption(t("layers.measured", tokens=outcome.result["tokens"]))
        rows = [{"block": b, "influence": x} for b, x in enumerate(outcome.result["influence"])]
        csv_button(rows, "blocks", key="_blocks_csv")
    reproduce(command_line(job))


def measured(page: Page, model: ModelInfo, method: str) -> None:
    """Ablation and greedy removal: many passes, drawn as they come in."""
    if method == "ablation":
        job, outcome = layers.ablation(page, model)
        found = (outcome.fresh or {}).get(layers.part())
        rows = [{"block": b, "cost": x} for b, x in enumerate(found["mean"])] if found else []
        line = command_line(job)
    else:
        search, outcome = layers.greedy(page, model)
        rows = [
            {key: step[key] for key in ("block", "value", "low", "high", "delta")}
            for step in (outcome.fresh or {}).get("path", [])
        ]
        line = command_line(search)
    if rows:
        csv_button(rows, f"blocks-{method}", key="_blocks_csv")
    reproduce(line)


def _registered(name: str) -> str:
    """A method's full name: the page leaves the kind out."""
    return next(full for full in BLOCK_METHODS if full.removeprefix("block-") == name)


def draw(page: Page, model: ModelInfo) -> None:
    method = choice(
        "block_method",
        t("layers.method"),
        block_methods(),
        lambda name: name_of(BLOCK_METHODS, _registered(name)),
        help_text=t("layers.method_help"),
    )
    left, right = st.columns([5, 2], gap="large")
    with right:
        choice(
            "block_part",
            t("layers.part"),
            list(layers.FIELDS),
            lambda name: t(f"layers.part_{name}"),
            help_text=t("layers.part_help"),
        )
        st.toggle(
            t("layers.ends"), help=t("layers.ends_help"), **widget("block_ends", initial="value")
        )
        layers.switches(model)
    with left:
        if "loss" not in BLOCK_METHODS[_registered(method)].needs:
            read(page, model, method)
        else:
            if model.classes:
                st.caption(t("common.class_loss", classes=model.classes))
            measured(page, model, method)
    with right:  # after the figure: what is asked for first is computed first
        mini_gauge(model)
        page_link("studio", label=t("layers.to_studio"))


with open_page("layers") as page:
    model = current_model()
    if model is not None and not model.blocks:
        st.info(t("weights.empty"), icon=":material/info:")
    elif model is not None:
        draw(page, model)
