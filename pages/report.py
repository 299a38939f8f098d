"""Report: chosen runs as slides, a page, a table and recipe files, for whoever has to decide."""

import hashlib

import streamlit as st

from prune_core.ui.frame.components import plain
from prune_core.ui.frame.page import open_page, reproduce
from prune_core.ui.report.form import (
    choose_reader,
    choose_runs,
    command,
    downloads,
    gathered,
    preview,
    with_examples,
)
from prune_core.ui.session.language import t

with open_page("report"):
    runs, title = choose_runs()
    audience, language, wanted = choose_reader()
    content = gathered(runs, title, audience, language)
    if content is not None:
        asked = hashlib.sha256(
            " ".join([*(run.id for run in content.runs), content.source]).encode()
        ).hexdigest()
        if st.session_state.get("_report_asked") != asked:
            st.button(
                t("report.make"),
                key="_report_make",
                type="primary",
                icon=":material/summarize:",
                on_click=lambda: st.session_state.update(_report_asked=asked),
            )
            st.caption(t("report.make_caption", runs=len(content.runs)))
        else:
            whole = with_examples(content) if wanted else content
            if whole is not None:
                downloads(whole)
                key = f"{asked} {audience} {language} {len(whole.examples)} {whole.no_examples}"
                preview(whole, plain(key))
        reproduce(command(runs, content))
