"""Attention: which heads matter, what one of them looks at, and what happens without it."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from prune_core.analysis.selection import importance
from prune_core.figures.attention import agreement_map, importance_map, pattern_grid
from prune_core.figures.theme import visible
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.heads import HEAD_METHODS, AttentionPattern, HeadImportance
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.ui.attention.heads import (
    Choice,
    Head,
    agreement,
    all_heads,
    chosen_head,
    drop_heads,
    drop_least,
    dropped_heads,
    head_text,
    remember,
)
from prune_core.ui.attention.steps import stepped
from prune_core.ui.frame.components import chart, choice, csv_button, dimmed, number
from prune_core.ui.frame.echoes import chosen, figure_key, mark_clicked, put
from prune_core.ui.frame.loading import Outcome
from prune_core.ui.frame.page import (
    Page,
    current_model,
    follow,
    open_page,
    recipe_from_state,
    reproduce,
    text_spec,
)
from prune_core.ui.session.keys import KEYS, set_value, value, widget
from prune_core.ui.session.language import name_of, t, t_or, words
from prune_core.ui.widgets.attention_lines import attention_lines


def controls(model: ModelInfo) -> HeadImportance:
    method = choice(
        "head_method",
        t("attention.method"),
        list(HEAD_METHODS),
        lambda name: name_of(HEAD_METHODS, name),
        help_text=t("attention.method_help"),
    )
    st.caption(name_of(HEAD_METHODS, method, "measures"))
    if model.classes and "loss" in HEAD_METHODS[method].needs:
        st.caption(t("common.class_loss", classes=model.classes))
    if method == "ablation":
        windows = st.select_slider(
            t("attention.windows"), [1, 2, 4, 8], key="_head_windows", persist_state="session"
        )
        st.caption(t("attention.ablation_note"))
        return HeadImportance(model.source, method, text_spec(), windows=int(windows))
    return HeadImportance(model.source, method=method, text=text_spec())


def map_clicked(name: str, key: str, kind: str) -> None:
    drops = bool(st.session_state.get("_click_drops"))
    point = mark_clicked(name, key, renew=drops)
    if point is None:
        return
    set_value("head", f"{kind}:{point[0]}:{point[1]}")
    if drops:
        head = (kind, int(point[0]), int(point[1]))
        drop_heads([head], wanted=head not in dropped_heads(recipe_from_state()))


def maps(
    page: Page,
    sites: list[Mapping[str, Any]],
    label: str,
    head: Choice | None,
    *,
    live: bool = False,
) -> None:
    """One heat map for each kind of attention; ``live`` while they fill."""
    dropped = dropped_heads(recipe_from_state())
    columns = st.columns(len(sites)) if len(sites) > 1 else [st.container()]
    for column, site in zip(columns, sites, strict=True):
        alone = "only" if len(sites) == 1 else site["stack"]
        name = t(f"attention.site_{alone}_{site['kind']}")
        figure = f"{'_live' if live else ''}_map_{site['stack']}_{site['kind']}"
        key = figure_key(figure)
        fits = head is not None and head.kind == site["kind"]
        mine = (head.block, head.head) if head is not None and fits else None
        texts = words("attention", "block", "head", "group", "dropped")
        texts |= {"title": name, "x": t("attention.head"), "y": t("attention.block")}
        texts |= {"score": label, "bar": label if len(sites) == 1 else ""}
        with column:
            chart(
                importance_map(
                    site,
                    page.look,
                    selected=mine,
                    dropped={name[1:] for name in dropped if name[0] == site["kind"]},
                    words=texts,
                    low_matters=HEAD_METHODS[str(value("head_method"))].falling,
                ),
                key=key,
                alt=t(
                    "attention.map_alt",
                    name=name,
                    best=t("common.none") if head is None else head_text(head),
                ),
                on_select=None if live else partial(map_clicked, figure, key, str(site["kind"])),
            )


def head_picked(names: Mapping[str, str]) -> None:
    picked = st.session_state["_head"]
    if chosen("_head") and picked in names:
        set_value("head", names[picked])


def drop_toggle(label: str, help_text: str, heads: list[Head], key: str) -> None:
    """A switch for heads that go together."""
    st.toggle(
        label,
        put(key, dropped_heads(recipe_from_state()).issuperset(heads)),
        key=key,
        help=help_text,
        on_change=toggled,
        args=(key, heads),
    )


def toggled(key: str, heads: list[Head]) -> None:
    if chosen(key):
        drop_heads(heads, wanted=st.session_state[key])


def group_toggle(head: Choice, group: int) -> None:
    """All query heads that share one key/value head, where several do."""
    if group < 2:
        return
    number_of_group = head.head // group
    first = number_of_group * group
    heads = [(head.kind, head.block, first + place) for place in range(group)]
    drop_toggle(
        t("attention.drop_group", group=number_of_group, size=group),
        t("attention.drop_group_help"),
        heads,
        f"_drop_group_{head.kind}_{head.block}_{first}",
    )


def agreeing(page: Page) -> None:
    """Rank correlations of the methods asked so far."""
    table = agreement()
    with st.expander(t("attention.agreement"), icon=":material/compare_arrows:"):
        if table is None:
            st.caption(t("attention.agreement_empty"))
            return
        names = [name_of(HEAD_METHODS, name) for name in table.columns]
        chart(
            agreement_map(
                table.to_numpy().tolist(),
                names,
                page.look,
                title=t("attention.agreement_title"),
                unit=t("attention.agreement_unit"),
            ),
            key="_agreement",
            alt=t("attention.agreement_alt", methods=", ".join(names)),
        )
        st.caption(t("attention.agreement_note"))


def head_panel(heads: list[Choice], head: Choice, label: str, group: int) -> None:
    by = str(value("head_method"))
    same = sorted((importance(by, h.score) for h in heads if h.kind == head.kind), reverse=True)
    names = {head_text(h): f"{h.kind}:{h.block}:{h.head}" for h in heads}
    with st.container(border=True):
        st.selectbox(
            t("attention.chosen"),
            list(names),
            list(names).index(put("_head", head_text(head))),
            key="_head",
            help=t("attention.chosen_help"),
            on_change=head_picked,
            args=(names,),
        )
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            st.metric(label[:1].upper() + label[1:], number(head.score), width="stretch")
            st.caption(
                t(
                    "attention.place_of",
                    place=same.index(importance(by, head.score)) + 1,
                    total=len(same),
                ),
                width="content",
            )
        key = f"_drop_{head.kind}_{head.block}_{head.head}"
        drop_toggle(t("attention.drop"), t("attention.drop_help"), [head.name], key)
        group_toggle(head, group)


def counted(heads: list[Choice]) -> None:
    if chosen("_drop_count"):
        drop_least(heads, st.session_state["_drop_count"], str(value("head_method")))


def thinning(heads: list[Choice]) -> None:
    if len(heads) > 1:
        count = len(dropped_heads(recipe_from_state()))
        st.slider(
            t("attention.drop_least"),
            0,
            len(heads),
            put("_drop_count", min(count, len(heads))),
            key="_drop_count",
            help=t("attention.drop_least_help"),
            on_change=counted,
            args=(heads,),
        )
        st.toggle(
            t("attention.click_drops"),
            key="_click_drops",
            persist_state="session",
            help=t("attention.click_drops_help"),
        )
        left = len(heads) - count
        st.caption(t("attention.heads_left", left=left, total=len(heads)))
    csv_button([asdict(one) for one in heads], "heads", key="_heads_csv")


def read_pattern(model: ModelInfo, head: Choice) -> Outcome:
    st.markdown(f"#### {t('attention.looks', head=head_text(head))}")
    sentence = st.text_input(
        t("attention.sentence"),
        KEYS["sentence"].default,
        placeholder=t("attention.default_sentence"),
        help=t("attention.sentence_help"),
        max_chars=2000,
        **widget("sentence"),
    )
    recipe = recipe_from_state()
    pruned = not recipe.is_dense and st.toggle(
        t("attention.with_recipe"), key="_with_recipe", persist_state="session"
    )
    job = AttentionPattern(
        model.source,
        sentence=sentence.strip() or t("attention.default_sentence"),
        block=head.block,
        kind=head.kind,
        recipe=recipe if pruned else Recipe(),
    )
    return follow(job, "pattern", what=t("attention.reading"), height=320)


def draw_lines(page: Page, outcome: Outcome, head: Choice) -> None:
    found = outcome.result
    if found is None or head.head >= len(found["heads"]):
        return
    with dimmed(outcome.stale, "lines"):
        st.markdown(f"**{t('attention.lines_title')}**", help=t("attention.lines_help"))
        attention_lines(
            found["heads"][head.head],
            [visible(token, 20) for token in found["tokens"]],
            [visible(token, 20) for token in found["key_tokens"]],
            queries=t("attention.queries"),
            keys=t("attention.keys"),
            alt=t("attention.lines_alt", head=head_text(head)),
            scale=page.look.scale,
        )


def draw_grid(page: Page, outcome: Outcome, head: Choice) -> None:
    found = outcome.result
    if found is None or head.head >= len(found["heads"]):
        return
    shares = found["heads"][head.head]
    with dimmed(outcome.stale, "grid"):
        texts = words("attention", "share") | {
            "title": t("attention.grid_title"),
            "x": t("attention.keys"),
            "y": t("attention.queries"),
        }
        chart(
            pattern_grid(shares, found["tokens"], found["key_tokens"], page.look, words=texts),
            key="_grid",
            alt=t("attention.grid_alt", head=head_text(head), count=len(found["tokens"])),
        )
    rows = pd.DataFrame(shares, columns=[plain_cell(k) for k in found["key_tokens"]])
    rows.insert(0, t("attention.queries"), [visible(token) for token in found["tokens"]])
    csv_button(rows, f"attention_{head.block}_{head.head}", key="_pattern_csv")


def plain_cell(token: str) -> str:
    """A column name that no spreadsheet runs as a formula."""
    shown = visible(token)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def label_of(model: ModelInfo, method: str) -> str:
    """What a score is and is counted in; an encoder without a language head has no loss."""
    name = method.replace("-", "_")
    unit = t(f"attention.unit_{name}")
    if not model.has_language_head:
        unit = t_or(f"attention.unit_{name}_{'classes' if model.classes else 'encoder'}", unit)
    return t("attention.entropy" if method == "entropy" else "attention.score", unit=unit)


def page_body(page: Page, model: ModelInfo) -> None:
    job = controls(model)

    def fill(event: Mapping[str, Any]) -> None:
        if "sites" in event:
            maps(page, list(event["sites"]), label_of(model, job.method), None, live=True)

    partial = fill if job.method == "ablation" else None
    outcome = follow(job, "heads", what=t("attention.scoring"), height=420, partial=partial)
    if outcome.busy and partial is not None:
        return
    if outcome.result is None:
        return
    sites = list(outcome.result["sites"])
    heads = all_heads(sites)
    if not heads:
        st.info(t("attention.empty"), icon=":material/info:")
        return
    head = chosen_head(heads)
    label = label_of(model, job.method)
    alone = len(sites) == 1
    # one map has its head beside it, so that what a click chose is seen without scrolling
    above = st.container()
    left, right = st.columns([6, 5] if alone else [5, 6], gap="large")
    with left if alone else above, dimmed(outcome.stale, "maps"):
        maps(page, sites, label, head)
    with right if alone else left:
        of_kind = next(site for site in sites if site["kind"] == head.kind)
        head_panel(heads, head, label, int(of_kind["group_size"]))
    with right:
        pattern = read_pattern(model, head)
        draw_lines(page, pattern, head)
    with left:
        thinning(heads)
    draw_grid(page, pattern, head)
    if pattern.fresh is not None:
        read = pattern.ticket.job
        stepped(model, head, read.sentence, pattern.fresh["tokens"], read.recipe)
    if outcome.fresh is not None:
        remember((model.source, job.text), job.method, heads)
    agreeing(page)
    reproduce(command_line(job))


with open_page("attention") as page:
    model = current_model()
    if model is not None:
        page_body(page, model)
