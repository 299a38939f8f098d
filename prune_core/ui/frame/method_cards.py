"""Method cards: what a criterion measures, what it costs, when it fails, and its paper."""

from __future__ import annotations

import streamlit as st

from prune_core.criteria import CRITERIA
from prune_core.recipes.forms import BY_FIELD
from prune_core.recipes.notation import write_numbers
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import language, name_of, t


def method_card(name: str) -> str:
    """The card of a criterion as Markdown.

    Args:
        name: a registered criterion.

    Raises:
        UnknownNameError: there is none of that name.
    """
    entry = CRITERIA[name]
    lines = [f"**{name_of(CRITERIA, name)}**"]
    for part in ("measures", "cost", "fails"):
        lines.append(f"**{t(f'methods.{part}')}** {entry.text(language(), part)}")
    if entry.reference:
        lines.append(f"[{t('methods.paper')}]({entry.reference})")
    return "\n\n".join(lines)


def about_method(name: str) -> None:
    """A button that opens the card, with the criterion's own settings under it."""
    with st.popover(t("methods.about"), icon=":material/menu_book:", width="stretch"):
        st.markdown(method_card(name))
        for argument, usual in CRITERIA[name].defaults.items():
            if (name, argument) != ("threshold", "value"):
                _argument(name, argument, usual)


def _argument(name: str, argument: str, usual: float | int) -> None:
    key = f"_argument_{name}_{argument}"
    given = _arguments().get(argument, usual)
    st.session_state[key] = type(usual)(given)
    whole = isinstance(usual, int)
    top = 2**31 - 1 if argument == "seed" else (1 if whole else 4)
    # a recipe file may bring what no one would set here
    low, high = min(0, given), max(top, given)
    st.number_input(
        CRITERIA[name].text(language(), argument, argument),
        type(usual)(low),
        type(usual)(high),
        step=1 if whole else 0.05,
        key=key,
        on_change=_set_argument,
        args=(key, argument, usual),
        help=CRITERIA[name].text(language(), f"{argument}_help") or None,
    )


def _arguments() -> dict[str, float | int]:
    return dict(BY_FIELD["criterion_args"].from_session(value("arguments")))


def _set_argument(key: str, argument: str, usual: float | int) -> None:
    given = _arguments()
    given.pop(argument, None)
    if st.session_state[key] != usual:
        given[argument] = st.session_state[key]
    set_value("arguments", write_numbers(given))
