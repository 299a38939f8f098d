"""Neurons: which fire, which write much, what one of them stands for, and what goes without."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from prune_core.figures.neurons import silent_bars, sorted_scores
from prune_core.figures.theme import visible
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.neurons import NeuronDetails, NeuronProfile
from prune_core.models.info import ModelInfo
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES
from prune_core.ui.frame.components import chart, choice, csv_button, dimmed, number, percent
from prune_core.ui.frame.echoes import chosen, mark_clicked, put
from prune_core.ui.frame.gauge import mini_gauge
from prune_core.ui.frame.page import Page, current_model, follow, open_page, page_link, reproduce
from prune_core.ui.session.keys import set_value, value, widget
from prune_core.ui.session.language import name_of, t, words
from prune_core.ui.session.recipe_state import (
    chosen_calibration,
    evaluation_settings,
    recipe_from_state,
    set_recipe,
    text_spec,
)
from prune_core.ui.widgets.passages import passages

Found = Mapping[str, Any]


def shares_gone(found: Found) -> list[float]:
    """Share of each block's neurons that the session's slider removes."""
    fraction = float(value("neuron_share"))
    sizes = found["sizes"]
    if value("neuron_scope") == "block":
        return [fraction] * len(sizes)
    counts = found["methods"][value("neuron_method")]["gone"][round(100 * fraction)]
    return [n / max(1, size) for n, size in zip(counts, sizes, strict=True)]


def chosen_neuron(found: Found) -> tuple[int, int]:
    """Of the session or its link; else the most important of the middle block."""
    sizes = dict(zip(found["blocks"], found["sizes"], strict=True))
    given = [pair.split(":") for pair in str(value("neuron")).split(",") if pair]
    for block, neuron in ((int(b), int(n)) for b, n in given):
        if neuron < sizes.get(block, 0):
            return block, neuron
    middle = len(found["blocks"]) // 2
    return found["blocks"][middle], found["methods"][value("neuron_method")]["most"][middle][0]


def map_clicked() -> None:
    point = mark_clicked("_neuron_map", "_neuron_map", renew=False)
    if point is not None:
        set_value("neuron", f"{point[0]}:{point[1]}")


def controls() -> None:
    choice(
        "neuron_method",
        t("neurons.method"),
        list(NEURON_METHODS),
        lambda name: name_of(NEURON_METHODS, name),
        help_text=t("neurons.method_help"),
    )
    st.caption(name_of(NEURON_METHODS, str(value("neuron_method")), "measures"))


def removal(model: ModelInfo, found: Found) -> None:
    st.session_state["_share"] = float(value("neuron_share"))
    st.slider(
        t("neurons.share"),
        0.0,
        1.0,
        step=0.01,
        format="percent",
        key="_share",
        help=t("neurons.share_help"),
        on_change=lambda: set_value("neuron_share", st.session_state["_share"]),
    )
    choice(
        "neuron_scope",
        t("neurons.scope"),
        list(NEURON_SCOPES),
        lambda name: t(f"neurons.scope_{name}"),
        help_text=t("neurons.scope_help"),
        width="stretch",
    )
    if found["bias"]:
        st.toggle(
            t("neurons.compensate"),
            help=t("neurons.compensate_help"),
            **widget("compensate", initial="value"),
        )
    else:
        st.caption(t("neurons.no_bias"))
    gone = shares_gone(found)
    if any(gone):
        count = round(sum(g * size for g, size in zip(gone, found["sizes"], strict=True)))
        low, high = percent(min(gone), 0), percent(max(gone), 0)
        total = f"{sum(found['sizes']):,}"
        if low == high:
            st.caption(t("neurons.gone_count_even", count=f"{count:,}", total=total, low=low))
        else:
            st.caption(t("neurons.gone_count", count=f"{count:,}", total=total, low=low, high=high))
    mini_gauge(model)
    page_link("studio", label=t("neurons.to_studio"))


def share_below(found: Found, neuron: tuple[int, int], closely: Found | None) -> float | None:
    """Share of its block's neurons that score lower than one; None while it is not known."""
    method, row = str(value("neuron_method")), found["blocks"].index(neuron[0])
    most, least = (found["methods"][method][end][row] for end in ("most", "least"))
    size, below = int(found["sizes"][row]), None
    if closely is not None:
        below = int(closely["places"][method])
    elif neuron[1] in most:
        below = size - 1 - most.index(neuron[1])
    elif neuron[1] in least:
        below = least.index(neuron[1])
    return None if below is None else below / max(1, size)


def overview(page: Page, found: Found, neuron: tuple[int, int], closely: Found | None) -> None:
    method = str(value("neuron_method"))
    rows = found["methods"][method]
    name = name_of(NEURON_METHODS, method)
    texts = words("neurons", "block", "neuron", "gone") | {
        "title": t("neurons.map_title", method=name[:1].lower() + name[1:]),
        "x": t("neurons.map_x"),
        "y": t("neurons.block"),
        "score": name,
    }
    chart(
        sorted_scores(
            rows["scores"],
            rows["neurons"],
            found["blocks"],
            shares_gone(found),
            page.look,
            selection=neuron,
            below=share_below(found, neuron, closely),
            words=texts,
        ),
        key="_neuron_map",
        alt=t("neurons.map_alt", method=name, blocks=len(found["blocks"])),
        on_select=map_clicked,
    )
    st.caption(t("neurons.measured", tokens=f"{found['tokens']:,}"))
    texts = words("neurons", "dead", "rare") | {
        "title": t("neurons.silent_title"),
        "x": t("neurons.block"),
        "y": t("neurons.silent_y"),
    }
    chart(
        silent_bars(
            found["dead"], found["rare"], found["sizes"], found["blocks"], page.look, words=texts
        ),
        key="_silent",
        alt=t("neurons.silent_alt", dead=sum(found["dead"]), rare=sum(found["rare"])),
    )
    table = [
        {"block": block, "size": size, "dead": dead, "rare": rare}
        for block, size, dead, rare in zip(
            *(found[key] for key in ("blocks", "sizes", "dead", "rare")), strict=True
        )
    ]
    csv_button(table, "neurons", key="_neurons_csv")


def one(found: Found, neuron: tuple[int, int], job: NeuronDetails) -> Found | None:
    """A neuron closely: where it stands, what it writes, where it fires; the result, if known."""
    block, index = neuron
    st.subheader(t("neurons.one", block=block, neuron=index), anchor=False)
    sizes = dict(zip(found["blocks"], found["sizes"], strict=True))
    left, middle, right = st.columns([1, 1, 2], vertical_alignment="bottom")
    blocks = list(sizes)
    left.selectbox(
        t("neurons.block"),
        blocks,
        blocks.index(put("_block_box", block)),
        key="_block_box",
        on_change=box_changed,
        args=("_block_box", sizes),
    )
    middle.number_input(
        t("neurons.neuron"),
        0,
        sizes[block] - 1,
        put("_neuron_box", index),
        key="_neuron_box",
        on_change=box_changed,
        args=("_neuron_box", sizes),
    )
    dropped = recipe_from_state().drop_neurons
    key = f"_drop_neuron_{block}_{index}"
    right.toggle(
        t("neurons.drop_one"),
        put(key, neuron in dropped),
        key=key,
        help=t("neurons.drop_one_help"),
        on_change=toggled,
        args=(key, neuron),
    )
    outcome = follow(job, "neuron", what=t("neurons.reading"), height=260)
    if outcome.result is not None:
        with dimmed(outcome.stale, "neuron"):
            details(outcome.result)
    return outcome.fresh


def box_changed(key: str, sizes: Mapping[int, int]) -> None:
    if not chosen(key):
        return
    block = int(st.session_state["_block_box"])
    neuron = min(int(st.session_state["_neuron_box"]), sizes[block] - 1)
    set_value("neuron", f"{block}:{neuron}")


def toggled(key: str, neuron: tuple[int, int]) -> None:
    if not chosen(key):
        return
    recipe = recipe_from_state()
    dropped = set(recipe.drop_neurons)
    dropped = dropped | {neuron} if st.session_state[key] else dropped - {neuron}
    set_recipe(replace(recipe, drop_neurons=tuple(sorted(dropped))))


def details(found: Found) -> None:
    for column, method in zip(st.columns(len(NEURON_METHODS)), NEURON_METHODS, strict=True):
        column.metric(name_of(NEURON_METHODS, method), number(found["scores"][method], 3))
        column.caption(t("neurons.place", place=found["places"][method] + 1, total=found["size"]))
    if found["dead"] or found["rare"]:
        st.caption(t("neurons.is_dead" if found["dead"] else "neurons.is_rare"))
    left, right = st.columns([4, 5], gap="large")
    with left:
        st.markdown(f"**{t('neurons.writes')}**", help=t("neurons.writes_help"))
        if found["reason"]:
            st.caption(t(f"neurons.reason_{found['reason'].replace('-', '_')}"))
        else:
            st.dataframe(
                [
                    {
                        t("neurons.raised"): visible(up[0], 24),
                        "+": up[1],
                        t("neurons.lowered"): visible(down[0], 24),
                        "\u2212": down[1],
                    }
                    for up, down in zip(found["raised"], found["lowered"], strict=True)
                ],
                hide_index=True,
                column_config={
                    sign: st.column_config.NumberColumn(sign, width=56, format="%.3g")
                    for sign in ("+", "\u2212")
                },
            )
    with right:
        st.markdown(f"**{t('neurons.fires')}**", help=t("neurons.fires_help"))
        where: Sequence[Found] = found["passages"]
        if not where:
            st.caption(t("neurons.fires_nowhere"))
        passages(
            where,
            [
                t(
                    "neurons.passage",
                    activation=number(one["activation"], 3),
                    window=one["window"] + 1,
                    position=one["position"] + 1,
                )
                for one in where
            ],
        )
        st.caption(t("neurons.passages_from", tokens=f"{found['tokens']:,}"))


def draw(page: Page, model: ModelInfo) -> None:
    job = NeuronProfile(model.source, chosen_calibration())
    controls()
    outcome = follow(job, "neuron_profile", what=t("neurons.measuring"), height=480)
    if outcome.result is None:
        return
    found = outcome.result
    neuron = chosen_neuron(found)
    details_job = NeuronDetails(
        model.source, *neuron, chosen_calibration(), text_spec(), **evaluation_settings()
    )
    left, right = st.columns([5, 2], gap="large")
    with st.container():  # before the map, which marks the neuron by its rank
        closely = one(found, neuron, details_job)
    with left, dimmed(outcome.stale, "neurons"):
        overview(page, found, neuron, closely)
    with right:
        removal(model, found)
    reproduce(command_line(job), command_line(details_job))


with open_page("neurons") as page:
    model = current_model()
    if model is not None:
        draw(page, model)
