"""Heads of the Attention page: which one is chosen, which are dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
    ]


def chosen_head(heads: Sequence[Choice]) -> Choice:
    """The head of the session or of its link; the strongest one where there is none such."""
    for head in heads:
        if value("head") == f"{head.kind}:{head.block}:{head.head}":
            return head
    return max(heads, key=lambda head: head.score)


def head_text(head: Choice) -> str:
    """What a head is called on the page."""
    key = "cross_head" if head.kind == "cross" else f"{head.stack}_head"
    return t(f"attention.{key}", block=head.row, head=head.head)


def drop_head(pair: tuple[int, int], *, wanted: bool) -> None:
    """Drop a head in the session's recipe, or keep it again (callback)."""
    recipe = recipe_from_state()
    dropped = set(recipe.drop_heads) | {pair} if wanted else set(recipe.drop_heads) - {pair}
    set_recipe(replace(recipe, drop_heads=tuple(sorted(dropped))))


def drop_least(heads: Sequence[Choice], count: int) -> None:
    """Drop the ``count`` least important of ``heads`` and no others (callback); ties by place."""
    if count == len(recipe_from_state().drop_heads):
        return  # the slider echoes a number that single heads gave it
    order = sorted(heads, key=lambda head: (head.score, head.block, head.head))
    dropped = tuple((head.block, head.head) for head in order[:count])
    set_recipe(replace(recipe_from_state(), drop_heads=dropped))
