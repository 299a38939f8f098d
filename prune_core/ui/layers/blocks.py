"""Blocks of the Layers page: what a click drops, a switch for each, costs as they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from prune_core.analysis.selection import most_removable, removable
from prune_core.figures.layers import cost_bars, greedy_curve
from prune_core.jobs.blocks import BlockAblation, GreedyBlocks
from prune_core.models.info import ModelInfo
from prune_core.ui.frame.components import chart, clicked
from prune_core.ui.frame.echoes import chosen, figure_key, mark_clicked, put
from prune_core.ui.frame.loading import Outcome, follow
from prune_core.ui.frame.page import Page
from prune_core.ui.session.keys import value, widget
from prune_core.ui.session.language import t, words
from prune_core.ui.session.recipe_state import recipe_from_state, set_recipe, text_spec

COST_AXES = {"loss": "layers.nats", "classes": "layers.nats_class", "distance": "layers.cosine"}
VALUE_AXES = {
    "perplexity": "layers.perplexity",
    "classes": "layers.class_loss",
    "distance": "layers.cosine",
}
"""Labels of axes by the metric of a job."""

FIELDS = {"block": "drop_blocks", "attention": "drop_attention", "mlp": "drop_mlp"}


def part() -> str:
    """What a click removes: the block, its attention or its MLP."""
    return str(value("block_part"))


def dropped() -> tuple[int, ...]:
    """Blocks that the recipe drops by the chosen part."""
    found: tuple[int, ...] = getattr(recipe_from_state(), FIELDS[part()])
    return found


def drop(blocks: Sequence[int]) -> None:
    """Drop these by the chosen part and no others (callback)."""
    gone: dict[str, Any] = {FIELDS[part()]: tuple(sorted(blocks))}
    set_recipe(replace(recipe_from_state(), **gone))


def bar_clicked(name: str, key: str) -> None:
    """Drop the block of the bar, or keep it again (callback)."""
    point = mark_clicked(name, key)
    if point is not None:
        drop(tuple(set(dropped()) ^ {int(point[0])}))


def thin(model: ModelInfo, scores: Sequence[float]) -> None:
    """Drop the chosen number of blocks, least score first (callback)."""
    if not chosen("_drop_least_blocks"):
        return
    count, gone = int(st.session_state["_drop_least_blocks"]), list[int]()
    ends = bool(value("block_ends"))
    stacks = removable(_stacks(model), ends=ends)
    left = {block: number for number, blocks in enumerate(stacks) for block in blocks}
    spare = [len(blocks) - (1 if ends else 0) for blocks in stacks]
    for block in sorted(left, key=lambda block: (scores[block], block)):
        if len(gone) < count and spare[left[block]]:  # a stack keeps its last block
            spare[left[block]] -= 1
            gone.append(block)
    drop(gone)


def _stacks(model: ModelInfo) -> list[str]:
    return [block.stack for block in model.blocks]


def least_slider(model: ModelInfo, scores: Sequence[float]) -> None:
    """How many of the least important blocks go; the first and last stay unless asked."""
    gone = len(dropped())
    most = most_removable(_stacks(model), ends=bool(value("block_ends")))
    if most > 0:
        st.slider(
            t("layers.drop_least"),
            0,
            most,
            put("_drop_least_blocks", min(gone, most)),
            key="_drop_least_blocks",
            help=t("layers.drop_least_help"),
            on_change=thin,
            args=(model, tuple(scores)),
        )
    st.caption(t("layers.left", left=len(scores) - gone, total=len(scores)))


def switches(model: ModelInfo) -> None:
    """Blocks, attention and MLPs that go, each by name."""
    for name, field in FIELDS.items():
        key = f"_layers_{field}"
        gone = getattr(recipe_from_state(), field)
        st.multiselect(
            t(f"layers.without_{name}"),
            [block.index for block in model.blocks],
            put(key, [b for b in gone if b < len(model.blocks)]),
            placeholder=t("layers.none"),
            key=key,
            on_change=_switched,
            args=(field, key),
        )


def _switched(field: str, key: str) -> None:
    if chosen(key):
        gone: dict[str, Any] = {field: tuple(sorted(st.session_state[key]))}
        set_recipe(replace(recipe_from_state(), **gone))


def least_run(
    blocks: Sequence[int], distance: Sequence[Sequence[float | None]], length: int, ends: bool
) -> tuple[tuple[int, ...], float] | None:
    """The run of neighbouring blocks with the smallest angle, and that angle in units of pi.

    Args:
        blocks: flat indices of a stack.
        distance: ``[n - 1][l]``; None past the end.
        length: blocks in the run.
        ends: the first and the last block of the stack may be among them.
    """
    inner = range(len(blocks) - length + 1) if ends else range(1, len(blocks) - length)
    known = [(x, first) for first in inner if (x := distance[length - 1][first]) is not None]
    if not known:
        return None
    angle, first = min(known)
    return tuple(blocks[first : first + length]), angle


def run_button(stack: Mapping[str, Any]) -> None:
    """How many neighbouring blocks to drop, and a button that drops those of the least angle."""
    ends, name = bool(value("block_ends")), stack["stack"]
    most = len(stack["blocks"]) - (1 if ends else 2)
    if most < 1:
        return
    key = f"_run_length_{name}"
    st.session_state[key] = min(int(st.session_state.get(key, 2)), most)
    length = st.number_input(
        t("layers.run_length"), 1, most, key=key, help=t("layers.run_length_help")
    )
    found = least_run(stack["blocks"], stack["distance"], int(length), ends)
    if found is not None:
        run, angle = found
        which = "layers.take_one" if len(run) == 1 else "layers.take_run"
        label = t(which, first=run[0], last=run[-1], angle=f"{angle:.3f}")
        st.button(label, key=f"_take_run_{name}", on_click=_take, args=(run,))


def windows() -> int:
    """How much text is read for what costs many passes."""
    st.number_input(
        t("layers.windows"),
        1,
        16,
        step=1,
        help=t("layers.windows_help"),
        **widget("block_windows", initial="value"),
    )
    return int(value("block_windows"))


def ablation(page: Page, model: ModelInfo) -> tuple[BlockAblation, Outcome]:
    """Costs of blocks, drawn as they come in."""
    job = BlockAblation(
        model.source, text_spec(), int(value("seq_len")), windows(), (str(value("block_part")),)
    )

    def draw(event: Mapping[str, Any], name: str = "_costs_live") -> None:
        found = event.get(part())
        if not found:
            return
        key = figure_key(name)
        texts = words("layers", "kept", "dropped") | {
            "title": t(f"layers.cost_title_{part()}"),
            "x": t("layers.block"),
            "y": t(COST_AXES[event["metric"]]),
        }
        chart(
            cost_bars(found["mean"], found["stderr"], dropped(), page.look, words=texts),
            key=key,
            alt=t("layers.cost_alt", blocks=len(found["mean"])),
            on_select=(lambda: bar_clicked(name, key)) if name == "_costs" else None,
        )

    outcome = follow(job, "block_ablation", what=t("layers.ablating"), partial=draw)
    if outcome.fresh is not None:
        draw(outcome.fresh, "_costs")
        costs = [cost or 0.0 for cost in outcome.fresh[part()]["mean"]]
        least_slider(model, costs)
    return job, outcome


def greedy(page: Page, model: ModelInfo) -> tuple[GreedyBlocks, Outcome]:
    """Blocks that go one after the other, and the value after each."""
    count = windows()
    most = max(1, most_removable(_stacks(model), ends=bool(value("block_ends"))))
    st.session_state["_block_steps"] = min(int(value("block_steps")), most)
    st.number_input(
        t("layers.steps"),
        1,
        most,
        key="_block_steps",
        on_change=_steps,
        help=t("layers.steps_help"),
    )
    job = GreedyBlocks(
        model.source,
        text_spec(),
        int(value("seq_len")),
        count,
        int(st.session_state["_block_steps"]),
        bool(value("block_ends")),
    )

    def draw(event: Mapping[str, Any], key: str = "_path_live") -> None:
        path = event.get("path")
        if not path:
            return
        texts = {
            "title": t("layers.greedy_title"),
            "x": t("layers.removed"),
            "y": t(VALUE_AXES[event["metric"]]),
        }
        chosen = recipe_from_state().drop_blocks
        chart(
            greedy_curve(path, float(event["dense"]), chosen, page.look, words=texts),
            key=key,
            alt=t("layers.greedy_alt", steps=len(path)),
            on_select=(lambda: _step_clicked(path)) if key == "_path" else None,
        )

    outcome = follow(job, "greedy_blocks", what=t("layers.searching"), partial=draw)
    if outcome.fresh is not None:
        draw(outcome.fresh, "_path")
        path = outcome.fresh["path"]
        st.caption(t("layers.greedy_help"))
        st.button(
            t("layers.take_path" if len(path) > 1 else "layers.take_path_one", count=len(path)),
            key="_take_path",
            on_click=_take,
            args=(tuple(path[-1]["blocks"]),),
        )
    return job, outcome


def _steps() -> None:
    st.session_state["block_steps"] = int(st.session_state["_block_steps"])


def _take(blocks: tuple[int, ...]) -> None:
    set_recipe(replace(recipe_from_state(), drop_blocks=blocks))


def _step_clicked(path: Sequence[Mapping[str, Any]]) -> None:
    point = clicked("_path")
    if point is not None:
        _take(tuple(path[int(point[0])]["blocks"]))
