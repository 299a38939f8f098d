"""The report as one HTML file that needs no network: figures, texts and styles are all in it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from prune_core.figures.theme import CONFIG, Look, visible
from prune_core.reporting import picture
from prune_core.reporting.content import Content
from prune_core.reporting.rows import marked, one_line, run_table
from prune_core.reporting.telling import removed_label, tell
from prune_core.words.catalogue import Words
from prune_core.words.numbers import day

TEMPLATE = Path(__file__).with_name("report.html.j2")

NAMES = (
    *("about", "examples_title", "examples_note", "prompt", "dense_answer"),
    *("how_title", "limits_title", "conditions_title", "all_runs", "appendix", "recipes_note"),
    *("notices_title", "picture_alt", "save_png", "save_svg"),
)


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def page(content: Content) -> bytes:
    """The report as HTML (UTF-8)."""
    from plotly.offline import get_plotlyjs

    words = Words(content.language)
    story = tell(content, words)
    looks = {"light": Look(), "dark": Look(dark=True)}
    figures = {
        name: json.loads(picture.figure(content, words, look).to_json())
        for name, look in looks.items()
    }
    html = _template().render(
        language="zh-CN" if content.language == "zh" else "en",
        story=story,
        t={name: words.t(f"report.{name}") for name in NAMES},
        made=words.t("report.made_by", date=day(content.made)),
        examples=_examples(content, words),
        runs=run_table(content, words) if content.audience == "technical" else [],
        recipes=[
            {
                "label": card.label,
                "removed": card.removed,
                "command": visible(card.command, 20_000),
                "json": json.dumps(option.point.recipe.to_dict(), indent=2, ensure_ascii=False),
            }
            for option, card in zip(content.options, story.cards, strict=True)
        ],
        plotly=script(get_plotlyjs()),
        figures=script(json.dumps(figures, allow_nan=False)),
        config=script(json.dumps(CONFIG)),
    )
    return bytes(html.encode("utf-8"))


def _examples(content: Content, words: Words) -> list[dict[str, Any]]:
    found = []
    for example in content.examples:
        dense = one_line(example.dense)
        answers = [
            {"label": words.t("report.dense_answer"), "removed": "", "same": dense, "new": ""}
        ]
        for option in content.options:
            same, new = marked(dense, one_line(example.pruned[option.name]))
            removed = removed_label(option, words)
            label = words.t(f"report.option_{option.name}")
            answers.append({"label": label, "removed": removed, "same": same, "new": new})
        found.append({"prompt": one_line(example.prompt), "answers": answers})
    return found


def script(text: str) -> Any:
    """Text for inside a script element: nothing in it can end the element."""
    from markupsafe import Markup

    safe = text.replace("</", "<\\/").replace("<!--", "<\\u0021--")
    return Markup(safe)
