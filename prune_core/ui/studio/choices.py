"""The Studio's choices beside criterion and sparsity: cut by value, shares, calibration text."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from prune_core.allocation import ALLOCATIONS
from prune_core.models.info import ModelInfo
from prune_core.recipes.calibration import CALIBRATION_MODES, MAX_CALIBRATION_WINDOWS
from prune_core.recipes.notation import MAX_CUT, MAX_LINK_SEED, write_indices, write_numbers
from prune_core.recipes.parts import NEURON_METHODS
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.echoes import chosen, put
from prune_core.ui.frame.own_text import own_text
from prune_core.ui.session.keys import TEXTS, set_value, value, widget
from prune_core.ui.session.language import name_of, t, t_or
from prune_core.ui.session.recipe_state import (
    calibration_length,
    calibration_text,
    cut_by_value,
    recipe_from_state,
)

DROPS = ("drop_blocks", "drop_attention", "drop_mlp")
LENGTHS = (64, 128, 256, 512, 1024, 2048)


# ---- cut by value ----------------------------------------------------------------------------


def cut_control() -> None:
    """|w| below which weights go, typed; 0 removes nothing."""
    st.session_state["_cut_value"] = float(value("cut"))
    st.number_input(
        t("studio.cut"),
        0.0,
        MAX_CUT,
        step=0.005,
        format="%.4f",
        key="_cut_value",
        on_change=lambda: cut_by_value(float(st.session_state["_cut_value"])),
        help=t("studio.cut_help"),
    )


# ---- shares by role and by block -------------------------------------------------------------


def shares_editor(model: ModelInfo) -> None:
    """A table of shares where the allocation is by role or by hand."""
    allocation = str(value("allocation"))
    if allocation == "per-role":
        names = list(dict.fromkeys(layer.role for layer in model.layers))
        labels = [t_or(f"common.role_{name.replace('.', '_')}", name) for name in names]
    elif allocation == "manual":
        names = [str(block.index) for block in model.blocks]
        labels = [t("studio.part_block", name=name) for name in names]
    else:
        return
    given = dict(recipe_from_state().allocation_args)
    state = st.session_state
    if state.get("_shares_seen") != (allocation, given):  # from a link, a file or undo
        state["_shares_seen"], state["_shares_base"] = (allocation, given), dict(given)
        state["_shares_number"] = int(state.get("_shares_number", 0)) + 1
    base: dict[str, float] = state["_shares_base"]
    key = f"_shares_{state['_shares_number']}"
    st.caption(t("studio.shares_help"))
    st.data_editor(
        pd.DataFrame({"part": labels, "share": [base.get(name, 1.0) for name in names]}),
        key=key,
        hide_index=True,
        height=min(38 * (len(names) + 1), 300),
        disabled=["part"],
        on_change=_shares_edited,
        args=(key, allocation, tuple(names)),
        column_config={
            "part": st.column_config.Column(t("studio.part"), width=105),
            "share": st.column_config.NumberColumn(
                t("studio.share"),
                width=70,
                min_value=0.0,
                max_value=1000.0,
                step=0.05,
                required=True,
            ),
        },
    )


def _shares_edited(key: str, allocation: str, names: tuple[str, ...]) -> None:
    shares = dict(st.session_state["_shares_base"])
    for row, edit in st.session_state[key]["edited_rows"].items():
        if edit.get("share") is not None:
            shares[names[int(row)]] = float(edit["share"])
    shares = {name: share for name, share in shares.items() if share != 1.0}
    st.session_state["_shares_seen"] = (allocation, shares)  # the table shows it already
    set_value("shares", write_numbers(shares))


# ---- whole parts -----------------------------------------------------------------------------


def structure_panel(model: ModelInfo) -> None:
    """Blocks that go, or lose their attention or their MLP."""
    recipe = recipe_from_state()
    dropped = {name: getattr(recipe, name) for name in DROPS}
    with st.expander(t("studio.structure"), icon=":material/layers_clear:"):
        st.caption(t("studio.structure_help"))
        for name, blocks in dropped.items():
            key = f"_{name}"
            st.multiselect(
                t(f"studio.{name}"),
                [block.index for block in model.blocks],
                put(key, [b for b in blocks if b < len(model.blocks)]),
                format_func=lambda index: t("studio.part_block", name=index),
                placeholder=t("studio.drop_none"),
                key=key,
                on_change=_set_drops,
                args=(name, key),
            )
        st.session_state["_neuron_share"] = float(value("neuron_share"))
        st.slider(
            t("studio.neuron_share"),
            0.0,
            1.0,
            step=0.01,
            format="percent",
            key="_neuron_share",
            help=t("studio.neuron_share_help"),
            on_change=lambda: set_value("neuron_share", st.session_state["_neuron_share"]),
        )
        if recipe.neurons is not None:
            chosen = recipe.neurons
            st.caption(
                t(
                    "studio.neuron_chosen",
                    method=name_of(NEURON_METHODS, chosen.method),
                    scope=t(f"neurons.scope_{chosen.scope}"),
                )
            )
        if recipe.compensate:
            st.caption(t("neurons.compensate"))
        if heads := len(recipe.drop_heads) + len(recipe.drop_cross_heads):
            single = t("studio.dropped_heads_one")
            st.caption(single if heads == 1 else t("studio.dropped_heads", count=heads))
        if neurons := len(recipe.drop_neurons):
            single = t("studio.dropped_neurons_one")
            st.caption(single if neurons == 1 else t("studio.dropped_neurons", count=neurons))
        if heads or recipe.removes_neurons:
            st.button(t("studio.keep_all"), key="_keep_all", on_click=_keep_all)


def _set_drops(name: str, key: str) -> None:
    if chosen(key):
        set_value(name, write_indices(sorted(st.session_state[key])))


def _keep_all() -> None:
    set_value("heads", "")
    set_value("cross_heads", "")
    set_value("neurons", "")
    set_value("neuron_share", 0.0)
    set_value("compensate", False)


# ---- the calibration text --------------------------------------------------------------------


def calibration_panel(model: ModelInfo) -> None:
    """Which text teaches the criterion, and how much of it."""
    with st.expander(t("studio.calibrated_on"), icon=":material/school:"):
        brought = st.session_state.get("_calibration_file")
        if brought is not None:
            st.caption(t("studio.calibration_file", name=plain(brought.value)))
            st.button(t("studio.calibration_preset"), key="_drop_file", on_click=_drop_file)
        elif not st.session_state.get("_use_own_calibration"):
            _preset()
        if brought is None:
            own_text("calibration", t("studio.own_calibration_help"))
        st.number_input(
            t("studio.calibration_windows"),
            1,
            MAX_CALIBRATION_WINDOWS,
            step=8,
            help=t("studio.calibration_windows_help"),
            **widget("cal_windows", initial="value"),
        )
        now = calibration_length()
        lengths = sorted({*(n for n in LENGTHS if n <= model.context), now})
        st.session_state["_cal_seq_len"] = now
        st.selectbox(
            t("studio.calibration_length"),
            lengths,
            key="_cal_seq_len",
            on_change=lambda: set_value("cal_seq_len", st.session_state["_cal_seq_len"]),
        )
        _order()
        st.selectbox(
            t("studio.calibration_mode"),
            list(CALIBRATION_MODES),
            format_func=lambda name: t(f"studio.calibration_{name}"),
            help=t("studio.calibration_mode_help"),
            on_change=_mode_chosen,
            **widget("cal_mode", CALIBRATION_MODES),
        )
        say_change("cal_mode")


def _preset() -> None:
    st.session_state["_cal_text"] = calibration_text().value
    st.selectbox(
        t("studio.text"),
        list(TEXTS),
        format_func=lambda name: name.capitalize(),
        key="_cal_text",
        on_change=lambda: set_value("cal_text", st.session_state["_cal_text"]),
        help=t("studio.calibration_text_help"),
    )


def _order() -> None:
    """From the start of the text on, or drawn with a seed."""
    seed = str(value("cal_seed"))
    st.session_state["_cal_drawn"] = bool(seed)
    st.toggle(
        t("studio.calibration_drawn"),
        key="_cal_drawn",
        on_change=lambda: set_value("cal_seed", "0" if st.session_state["_cal_drawn"] else ""),
        help=t("studio.calibration_drawn_help"),
    )
    if seed:
        st.session_state["_cal_seed"] = int(seed)
        st.number_input(
            t("studio.seed"),
            0,
            MAX_LINK_SEED,
            step=1,
            key="_cal_seed",
            on_change=lambda: set_value("cal_seed", str(st.session_state["_cal_seed"])),
        )


def _mode_chosen() -> None:
    forget_changes()
    whole = "ordered" in ALLOCATIONS[str(value("allocation"))].needs
    if value("cal_mode") == "sequential" and whole:
        set_value("allocation", "uniform")
        note_change("cal_mode", t("studio.changed_allocation_mode"))


# ---- choices that change others --------------------------------------------------------------

_CHANGES = "_choice_changes"


def forget_changes() -> None:
    """A new choice: what the last one changed is no news any more."""
    st.session_state[_CHANGES] = {}


def note_change(key: str, sentence: str) -> None:
    """Remember what a choice changed besides itself, to be said under the widget of ``key``."""
    st.session_state.setdefault(_CHANGES, {})[key] = sentence


def say_change(key: str) -> None:
    """Say under a widget what the last choice changed here."""
    if sentence := st.session_state.get(_CHANGES, {}).get(key):
        st.caption(f":material/info: {sentence}")


def _drop_file() -> None:
    st.session_state["_calibration_file"] = None
