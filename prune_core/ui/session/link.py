"""A session's choices as the query of a link, and back."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from prune_core.errors import PruneCoreError, RecipeError
from prune_core.recipes.notation import write_plain
from prune_core.recipes.packing import unpack
from prune_core.recipes.recipe import Recipe
from prune_core.ui.session.keys import KEYS, value
from prune_core.ui.session.language import browser, t
from prune_core.ui.session.recipe_state import RECIPE_KEYS, recipe_said, recipe_values


def adopt_link() -> tuple[str, ...]:
    """Take the link's values on a session's first run, and again where Back or Forward led.

    Returns:
        Keys whose value in the link is of no use (stale or damaged); they keep their defaults.
    """
    first = "_session" not in st.session_state
    if first:
        st.session_state["_session"] = uuid.uuid4().hex
    context = get_script_run_ctx()
    back = context is not None and context.is_history_navigation
    if not first and not back:
        return ()
    refused = [key for key in KEYS if not _adopt(key, back=back and not first)]
    try:
        recipe_said()
    except RecipeError:
        for key in RECIPE_KEYS:
            st.session_state.pop(key, None)
        refused.extend(key for key in RECIPE_KEYS if key in st.query_params)
    return tuple(dict.fromkeys(refused))


def _adopt(key: str, *, back: bool) -> bool:
    """Take one value; ``back``: a missing one means its default. False if it is of no use."""
    text = st.query_params.get(key)
    if text is None:
        # a bound widget of this page takes its default too, but only when it is drawn
        if back and key in st.session_state and (not KEYS[key].bound or _is_bound(key)):
            st.session_state[key] = KEYS[key].default
        return True
    try:
        st.session_state[key] = KEYS[key].read(text)
    except (ValueError, PruneCoreError):
        return False
    return True


def session_id() -> str:
    """A random name for this session, the same on every page."""
    if "_session" not in st.session_state:
        adopt_link()
    return str(st.session_state["_session"])


def write_url() -> None:
    """Bring the URL up to date with everything chosen; ``open_page`` calls it on each run.

    One entry of the browser's history per run, and none where nothing changed.
    """
    wanted, context = link_values(), get_script_run_ctx()
    changed = [key for key in KEYS if st.query_params.get(key) != wanted.get(key)]
    # a key bound to a widget of this page is Streamlit's to write, unless others change with it
    if context is None or all(_is_bound(key) for key in changed):
        return
    with context.session_state.query_params() as query:
        kept = {key: query.get_all(key) for key in query if key not in changed}
        query.clear_with_no_forward_msg(preserve_embed=True)
        # each ``del`` and each bound widget would be an entry of its own: all in one message
        for key, texts in kept.items():
            query.set_with_no_forward_msg(key, texts)
        for key in changed:
            if key in wanted:
                query.set_with_no_forward_msg(key, wanted[key])
    st.query_params.update({})


def _is_bound(key: str) -> bool:
    """Whether a widget of this page writes the key into the URL."""
    context = get_script_run_ctx()
    if context is None:
        return False
    with context.session_state.query_params() as query:
        return query.is_bound(key)


def link_values(recipe: Recipe | None = None) -> dict[str, str]:
    """What differs from the defaults, as URL text by key; ``recipe`` stands in for the current."""
    values = {key: value(key) for key in KEYS}
    if recipe is not None:
        values.update(recipe_values(recipe))
    return {
        key: write_plain(v)
        for key, v in values.items()
        if v is not None and v != KEYS[key].default and not (key == "lang" and v == browser())
    }


def share_link(recipe: Recipe | None = None, page: str = "") -> str:
    """A link that opens the same state elsewhere: model, language, text and recipe.

    Args:
        recipe: in place of the session's.
        page: URL path of another page; this page if empty.
    """
    base = (st.context.url or "").partition("?")[0]
    if page:
        base = base.rpartition("/")[0] + f"/{page}"
    query = urlencode({k: v for k, v in link_values(recipe).items() if k != "present"})
    return f"{base}?{query}" if query else base


def read_link(link: str) -> tuple[str, dict[str, Recipe], Recipe]:
    """What a link of another session holds; nothing of this session changes.

    Returns:
        The model as the link names it, the recipes of its comparison by slot, and its own recipe.

    Raises:
        RecipeError: not a link of Prunescope, or damaged; the sentence names the part.
    """
    try:
        query = parse_qs(urlsplit(link.strip()).query, keep_blank_values=True)
    except ValueError:
        query = {}
    known = [key for key in query if key in KEYS]
    if not known and "://" not in link:
        raise RecipeError(t("compare.no_link"))
    values: dict[str, Any] = {}
    for key in known:
        try:
            values[key] = KEYS[key].read(query[key][0])
        except (ValueError, PruneCoreError):
            raise RecipeError(t("compare.damaged_link", part=key)) from None

    def get(key: str) -> Any:
        return values.get(key, KEYS[key].default)

    return str(get("model")), unpack(str(get("slots"))), recipe_said(get)
