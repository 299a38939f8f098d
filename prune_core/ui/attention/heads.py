"""Heads of the Attention page: which one is chosen, which are dropped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.analysis.selection import importance
from prune_core.recipes.parts import HEAD_FIELDS
from prune_core.recipes.recipe import Recipe
from prune_core.ui.session.keys import value
from prune_core.ui.session.language import t
from prune_core.ui.session.recipe_state import recipe_from_state, set_recipe

Head = tuple[str, int, int]
"""Kind of attention, flat index of the block, head."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One head and its score; ``block`` is the flat index, ``row`` the index in its stack."""

    stack: str
    kind: str
    block: int
    row: int
    head: int
    score: float

    @property
    def name(self) -> Head:
        """Kind, block and head."""
        return self.kind, self.block, self.head


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


def dropped_heads(recipe: Recipe) -> set[Head]:
    """The dropped heads of all kinds of attention."""
    return {
        (kind, block, head)
        for kind, field in HEAD_FIELDS.items()
        for block, head in getattr(recipe, field)
    }


def _drop_exactly(heads: Iterable[Head]) -> None:
    gone = sorted(heads)
    fields: dict[str, Any] = {
        field: tuple((block, head) for of, block, head in gone if of == kind)
        for kind, field in HEAD_FIELDS.items()
    }
    set_recipe(replace(recipe_from_state(), **fields))


def drop_heads(heads: Collection[Head], *, wanted: bool) -> None:
    """Drop heads in the session's recipe, or keep them again (callback)."""
    gone = dropped_heads(recipe_from_state())
    _drop_exactly(gone | set(heads) if wanted else gone - set(heads))


def drop_least(heads: Sequence[Choice], count: int, method: str) -> None:
    """Drop the ``count`` least important of ``heads`` and no others (callback); ties by place."""
    order = sorted(heads, key=lambda h: (importance(method, h.score), h.block, h.kind, h.head))
    _drop_exactly(head.name for head in order[:count])


# ---- do the methods agree? ---------------------------------------------------------------------


def remember(about: tuple[object, ...], method: str, heads: Sequence[Choice]) -> None:
    """Note a method's importances of all heads on a model and text."""
    seen: dict[str, object] = st.session_state.setdefault("_head_scores", {})
    if seen.get("about") != about:
        seen.clear()
        seen["about"] = about
    seen[f"of {method}"] = {h.name: importance(method, h.score) for h in heads}


def agreement() -> pd.DataFrame | None:
    """Spearman's rank correlation of every two methods seen so far; None below two."""
    seen = st.session_state.get("_head_scores", {})
    columns = {
        name.removeprefix("of "): scores for name, scores in seen.items() if name.startswith("of ")
    }
    if len(columns) < 2:
        return None
    return pd.DataFrame(columns).corr(method="spearman")
