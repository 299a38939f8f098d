"""Heads of the Attention page: which one is chosen, which are dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.ui.i18n import t
from prune_core.ui.keys import recipe_from_state, set_recipe, value


@dataclass(frozen=True, slots=True)
class Choice:
    """One head and its score; ``block`` is the flat index, ``row`` the index in its stack."""

    stack: str
    kind: str
    block: int
    row: int
    head: int
    score: float


def all_heads(sites: Sequence[Mapping[str, Any]]) -> list[Choice]:
    """All heads of a ``HeadImportance`` result, site by site."""
    return [
        Choice(str(site["stack"]), str(site["kind"]), int(block), row, head, float(score))
        for site in sites
        for row, (block, scores) in enumerate(zip(site["blocks"], site["scores"], strict=True))
        for head, score in enumerate(scores)
        if score is not None
    ]


def chosen_head(heads: Sequence[Choice]) -> Choice:
    """The head of the session or of its link; the strongest one where there is none such."""
    for head in heads:
        if value("head") == f"{head.kind}:{head.block}:{head.head}":
            return head
    method = str(value("head_method"))
    return max(heads, key=lambda head: importance(method, head.score))


def head_text(head: Choice) -> str:
    """What a head is called on the page."""
    key = "cross_head" if head.kind == "cross" else f"{head.stack}_head"
    return t(f"attention.{key}", block=head.row, head=head.head)


def drop_head(pair: tuple[int, int], *, wanted: bool) -> None:
    """Drop a head in the session's recipe, or keep it again (callback)."""
    recipe = recipe_from_state()
    dropped = set(recipe.drop_heads) | {pair} if wanted else set(recipe.drop_heads) - {pair}
    set_recipe(replace(recipe, drop_heads=tuple(sorted(dropped))))


def drop_group(pairs: Sequence[tuple[int, int]], *, wanted: bool) -> None:
    """Drop all heads of a key/value group, or keep them again (callback)."""
    recipe = recipe_from_state()
    dropped = set(recipe.drop_heads)
    dropped = dropped | set(pairs) if wanted else dropped - set(pairs)
    set_recipe(replace(recipe, drop_heads=tuple(sorted(dropped))))


def importance(method: str, score: float) -> float:
    """A score as an importance: a head that looks everywhere alike (high entropy) matters least."""
    return -score if method == "entropy" else score


def drop_least(heads: Sequence[Choice], count: int, method: str) -> None:
    """Drop the ``count`` least important of ``heads`` and no others (callback); ties by place."""
    if count == len(recipe_from_state().drop_heads):
        return  # the slider echoes a number that single heads gave it
    order = sorted(heads, key=lambda h: (importance(method, h.score), h.block, h.head))
    dropped = tuple((head.block, head.head) for head in order[:count])
    set_recipe(replace(recipe_from_state(), drop_heads=dropped))


# ---- do the methods agree? ---------------------------------------------------------------------


def remember(about: tuple[object, ...], method: str, heads: Sequence[Choice]) -> None:
    """Note a method's importances of the self-attention heads on a model and text."""
    seen: dict[str, object] = st.session_state.setdefault("_head_scores", {})
    if seen.get("about") != about:
        seen.clear()
        seen["about"] = about
    own = {(h.block, h.head): importance(method, h.score) for h in heads if h.kind == "self"}
    seen[f"of {method}"] = own


def agreement() -> pd.DataFrame | None:
    """Spearman's rank correlation of every two methods seen so far; None below two."""
    seen = st.session_state.get("_head_scores", {})
    columns = {
        name.removeprefix("of "): scores for name, scores in seen.items() if name.startswith("of ")
    }
    if len(columns) < 2:
        return None
    return pd.DataFrame(columns).corr(method="spearman")
