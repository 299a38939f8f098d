"""The computation of one head for one token, a step at a time, with its real numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from prune_core.figures.theme import visible
from prune_core.jobs.heads import AttentionSteps
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.ui.attention.heads import Choice, head_text
from prune_core.ui.frame.components import number
from prune_core.ui.frame.loading import follow
from prune_core.ui.session.language import t

STEPS = ("product", "scale", "mask", "softmax", "sum")
SHOWN = 4
"""Numbers of a vector that are shown; the rest is an ellipsis."""


def stepped(
    model: ModelInfo, head: Choice, sentence: str, tokens: Sequence[str], recipe: Recipe
) -> None:
    """Choose a token and go through q k, scale, mask, softmax and the sum of values."""
    if not tokens:
        return
    st.subheader(t("attention.steps", head=head_text(head)), anchor=False)
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    places = list(range(len(tokens)))
    if st.session_state.get("_step_token") not in places:
        st.session_state["_step_token"] = places[-1]
    left.selectbox(
        t("attention.step_token"),
        places,
        format_func=lambda place: (
            f"{place}: {visible(tokens[place], 20)}" if place < len(tokens) else str(place)
        ),
        key="_step_token",
        persist_state="session",
    )
    with right:
        st.segmented_control(
            t("attention.step"),
            STEPS,
            format_func=lambda name: f"{STEPS.index(name) + 1}. {t(f'attention.step_{name}')}",
            key="_step_at",
            default=STEPS[0],
            required=True,
            persist_state="session",
        )
    job = AttentionSteps(
        model.source,
        sentence,
        head.block,
        head.head,
        int(st.session_state["_step_token"]),
        head.kind,
        recipe,
    )
    outcome = follow(job, "steps", what=t("attention.reading"), height=200)
    if outcome.fresh is not None:
        _draw(outcome.fresh, STEPS.index(st.session_state["_step_at"] or STEPS[0]), job.token)


def _vector(values: Sequence[float]) -> str:
    shown = ", ".join(f"{x:.2f}" for x in values[:SHOWN])
    return f"[{shown}{', …' if len(values) > SHOWN else ''}]"


def _draw(found: Mapping[str, Any], step: int, token: int) -> None:
    width = found["width"]
    shares = found["shares"]
    best = max(range(len(shares)), key=lambda place: shares[place])
    key = visible(found["key_tokens"][best], 20)
    formulas = (
        r"s_j = q \cdot k_j = \sum_{i=1}^{%d} q_i k_{j,i}" % width,  # noqa: UP031 - braces are LaTeX's
        r"\frac{q \cdot k_j}{\sqrt{d_k}} = s_j \times %.4g" % found["scale"],  # noqa: UP031
        r"m_j = \frac{q \cdot k_j}{\sqrt{d_k}} + \mathrm{mask}_j",
        r"p_j = \frac{e^{m_j}}{\sum_l e^{m_l}}",
        r"\mathrm{output} = \sum_j p_j v_j",
    )
    st.latex(formulas[step])
    name = STEPS[step]
    values = {
        "token": visible(found["tokens"][token], 20),
        "key": key,
        "width": width,
        "product": number(found["products"][best], 4),
        "scaled": number(found["scaled"][best], 4),
        "share": f"{100 * shares[best]:.1f} %",
    }
    st.text(t(f"attention.explain_step_{name}", **values))
    st.caption(t("attention.vectors", query=_vector(found["query"]), width=width))
    rows = []
    for place, text in enumerate(found["key_tokens"]):
        row: dict[str, Any] = {
            t("attention.keys"): f"{place}: {visible(text, 20)}",
            "k": _vector(found["keys"][place]),
            "q·k": found["products"][place],
        }
        if step >= 1:
            row["q·k / √d"] = found["scaled"][place]
        if step >= 2:
            score = found["scores"][place]
            row[t("attention.step_mask")] = "−∞" if score is None else f"{score:.3f}"  # noqa: RUF001
        if step >= 3:
            row["softmax"] = shares[place]
        if step >= 4:
            row["v"] = _vector(found["values"][place])
            row["p × v"] = _vector([shares[place] * x for x in found["values"][place]])
        rows.append(row)
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "q·k": st.column_config.NumberColumn(format="%.3f"),
            "q·k / √d": st.column_config.NumberColumn(format="%.3f"),
            "softmax": st.column_config.ProgressColumn(
                format="percent", min_value=0.0, max_value=1.0
            ),
        },
    )
    if step >= 4:
        st.caption(t("attention.step_output", output=_vector(found["output"]), width=width))
