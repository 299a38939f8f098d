"""The frame of every page and what a page asks of its session; start here.

Every page stands alone: a cold link runs it without app.py, so nothing may rely on app.py having
run. A page reads::

    with open_page("weights"):
        model = current_model()
        if model is not None:
            draw(model)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import streamlit as st
from streamlit.errors import StreamlitAPIException

from prune_core.figures.theme import Look
from prune_core.paths import ASSETS_FOLDER
from prune_core.ui.frame.chooser import adopt_wanted, compact_chooser, side_summary
from prune_core.ui.frame.chooser import current_model as current_model
from prune_core.ui.frame.components import boundary, choice, look
from prune_core.ui.frame.components import guarded as guarded
from prune_core.ui.frame.components import reproduce as reproduce
from prune_core.ui.frame.loading import engine as engine
from prune_core.ui.frame.loading import follow as follow
from prune_core.ui.frame.loading import submit as submit
from prune_core.ui.session.keys import KEYS as KEYS
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import LANGUAGES, language, t
from prune_core.ui.session.link import adopt_link, link_values, write_url
from prune_core.ui.session.link import session_id as session_id
from prune_core.ui.session.link import share_link as share_link
from prune_core.ui.session.recipe_state import evaluation_settings as evaluation_settings
from prune_core.ui.session.recipe_state import recipe_from_state as recipe_from_state
from prune_core.ui.session.recipe_state import set_recipe as set_recipe
from prune_core.ui.session.recipe_state import text_spec as text_spec
from prune_core.ui.widgets.mounting import source

PAGES = {
    "overview": ":material/view_agenda:",
    "weights": ":material/equalizer:",
    "attention": ":material/hub:",
    "neurons": ":material/blur_on:",
    "layers": ":material/layers:",
    "studio": ":material/tune:",
    "tradeoff": ":material/scatter_plot:",
    "report": ":material/summarize:",
    "compare": ":material/balance:",
}
"""Pages in the order of the side bar, with their icons."""

_FRAME_CSS = """
[class*="st-key-_prunescope_"] { position: absolute; }
[data-testid="stMainBlockContainer"] { max-width: 1680px; padding-left: 3rem;
  padding-right: 3rem; padding-bottom: 3rem; }
[data-testid="stMainBlockContainer"] h1 { padding-top: 0; }
[data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; }
[data-testid="stCaptionContainer"] { opacity: 0.78; }
[class*="st-key-stale_"] { opacity: 0.45; transition: opacity 0.2s; }
"""


@dataclass(frozen=True, slots=True)
class Page:
    """An open page: its name, the look of its figures, and whether it is being presented."""

    name: str
    look: Look
    presenting: bool


@contextmanager
def open_page(name: str) -> Iterator[Page]:
    """First call of every page: session, link, side bar, title, error boundary.

    Args:
        name: the page's file name without ``.py``; its texts are ``NAME.title`` and
            ``NAME.subtitle`` in the catalogues.
    """
    stale = adopt_link()
    presenting = bool(value("present"))
    with suppress(StreamlitAPIException):  # app.py has set it already
        st.set_page_config(
            page_title=f"{t(f'{name}.title')} · Prunescope",
            page_icon=str(ASSETS_FOLDER / "logo.svg"),
            layout="wide",
            initial_sidebar_state="collapsed" if presenting else "auto",
        )
    adopt_wanted()
    write_url()
    _frame_css(presenting)
    with boundary(name):
        _head(name, stale, presenting)
    # a boundary of its own: a generator that swallowed an exception must still yield
    with boundary(name):
        yield Page(name, look(), presenting)
    write_url()  # the page may have chosen for the user: a layer of the role, a role of the model


def _head(name: str, stale: tuple[str, ...], presenting: bool) -> None:
    """Side bar or presentation bar, title, and what could not be read from the link."""
    if presenting:
        _presentation_bar()
    else:
        _side_bar(name)
    st.title(t(f"{name}.title"), anchor=False)
    if not presenting:
        st.markdown(t(f"{name}.subtitle"))
    if stale:
        st.info(t("common.stale_link", names=", ".join(stale)), icon=":material/link_off:")


def _frame_css(presenting: bool) -> None:
    css = source("frame.css") + (source("present.css") if presenting else "")
    name = "prunescope.present" if presenting else "prunescope.frame"
    st.components.v2.component(name, css=css, isolate_styles=False)(
        key=f"_{name.replace('.', '_')}", height=1
    )


def _side_bar(name: str) -> None:
    st.logo(
        str(ASSETS_FOLDER / ("logo_dark.svg" if look().dark else "logo_light.svg")),
        icon_image=str(ASSETS_FOLDER / "logo.svg"),
        size="large",
    )
    with st.sidebar:
        for page, icon in PAGES.items():
            page_link(page, icon=icon)
        st.space("small")
        compact_chooser()
        side_summary()
        st.space("small")
        if value("lang") is None:
            set_value("lang", language())
        choice(
            "lang", t("common.language"), list(LANGUAGES), LANGUAGES.__getitem__, width="stretch"
        )
        st.button(
            t("common.present"),
            icon=":material/present_to_all:",
            help=t("common.present_help"),
            on_click=set_value,
            args=("present", True),
            width="stretch",
            key=f"_present_{name}",
        )


def page_link(page: str, *, label: str = "", icon: str = "", narrow: bool = False) -> None:
    """A link to another page that carries the session's state.

    Args:
        page: name of the page.
        label: text; the page's title if empty.
        icon: Material icon; the page's own if empty.
        narrow: as wide as its text, for a bar of links.
    """
    # alone under a test runner the other pages are not registered: then there is nothing to link
    with suppress(StreamlitAPIException):
        st.page_link(
            f"pages/{page}.py",
            label=label or t(f"common.page_{page}"),
            icon=icon or PAGES[page],
            query_params=link_values(),
            width="content" if narrow else "stretch",
        )


def _presentation_bar() -> None:
    with st.container(
        horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="small"
    ):
        for page in PAGES:
            page_link(page, narrow=True)
        st.button(
            t("common.present_end"),
            icon=":material/close_fullscreen:",
            on_click=set_value,
            args=("present", False),
            type="tertiary",
            key="_present_end",
        )
