"""Entry point: names and orders the pages; each page can also be opened alone."""

import streamlit as st

from prune_core.paths import PROJECT_ROOT
from prune_core.ui.frame.loading import engine
from prune_core.ui.frame.page import PAGES
from prune_core.ui.session.language import t


def home() -> None:
    # "/" moves on to /overview: a default page has no address of its own, and a link to it copied
    # from a cold start would find nothing
    st.switch_page("pages/overview.py", query_params=st.query_params.to_dict())


def main() -> None:
    engine()  # its worker imports torch while the browser still draws
    pages = [
        # no icon: Streamlit would fetch it as the tab's from fonts.gstatic.com
        st.Page(f"pages/{name}.py", title=t(f"common.page_{name}"))
        for name in PAGES
        if (PROJECT_ROOT / "pages" / f"{name}.py").exists()
    ]
    start = st.Page(home, title=t("common.page_overview"), default=True, visibility="hidden")
    # the side bar (prune_core/ui/frame/page.py) links pages itself: a cold link looks the same
    st.navigation([start, *pages], position="hidden").run()


# a spawned process imports this file as __mp_main__ and must not run the app
if __name__ == "__main__":
    main()
