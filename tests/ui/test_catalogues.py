"""Every text a user reads comes from the catalogues, and the catalogues fit the code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from prune_core.paths import ASSETS_FOLDER, PROJECT_ROOT
from prune_core.ui.session.language import LANGUAGES, catalogue

SOURCES = sorted([*PROJECT_ROOT.glob("pages/*.py"), *PROJECT_ROOT.glob("prune_core/ui/**/*.py")])
SOURCES.append(PROJECT_ROOT / "app.py")
SOURCES += sorted(PROJECT_ROOT.glob("prune_core/reporting/*.py"))
SOURCES.append(PROJECT_ROOT / "prune_core/sweeps/names.py")
SHOWN = {
    *("title", "header", "subheader", "markdown", "caption", "text", "write", "info", "warning"),
    *("error", "success", "toast", "metric", "button", "slider", "select_slider", "selectbox"),
    *("text_input", "text_area", "number_input", "toggle", "checkbox", "radio", "pills", "badge"),
    *("segmented_control", "multiselect", "expander", "popover", "dialog", "download_button"),
    *("form_submit_button", "progress", "status", "spinner", "link_button", "Column"),
}
SHOWN_ARGUMENTS = {"help", "label", "text", "body", "placeholder", "alt", "title", "delta"}
# a directive of Streamlit's Markdown is no text
DIRECTIVE = re.compile(r":material/\w+:|:\w+\[")


def calls(path: Path) -> Iterator[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def used_keys() -> list[re.Pattern[str]]:
    """A pattern for each key the code asks for; an f-string's fields match any name."""
    found = []
    for path in SOURCES:
        for call in calls(path):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if isinstance(call.func, ast.Attribute):
                name = call.func.attr  # words.t("report.title")
            if name in ("t", "t_or") and call.args:
                found.append(pattern(call.args[0]))
            elif name == "words":
                texts = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant)]
                found += [re.compile(re.escape(f"{texts[0]}.{text}")) for text in texts[1:]]
    return [one for one in found if one is not None]


def pattern(node: ast.expr) -> re.Pattern[str] | None:
    if isinstance(node, ast.Constant):
        return re.compile(re.escape(node.value))
    if isinstance(node, ast.JoinedStr):
        parts = [
            re.escape(part.value) if isinstance(part, ast.Constant) else r"[\w-]+"
            for part in node.values
        ]
        return re.compile("".join(parts))
    return None


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", [code for code in LANGUAGES if code != "en"])
def test_languages_have_the_same_keys_and_placeholders(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert set(english) == set(other)
    for key, text in english.items():
        assert placeholders(text) == placeholders(other[key]), key
        assert other[key].strip(), key


def test_chinese_is_chinese() -> None:
    # "CSV" and a dash are the same in both; a forgotten translation would be a sentence, but the
    # sentence given to an English model stays English
    same = [k for k, text in catalogue("zh").items() if text == catalogue("en")[k]]
    same = [key for key in same if "default" not in key]
    assert all(len(catalogue("en")[key].split()) <= 3 for key in same), same


@pytest.mark.parametrize("path", sorted(ASSETS_FOLDER.glob("i18n/*/*.json")), ids=str)
def test_catalogues_are_sorted(path: Path) -> None:
    names = list(json.loads(path.read_text(encoding="utf-8")))
    assert names == sorted(names)


def test_every_key_the_code_asks_for_exists() -> None:
    keys = catalogue("en")
    missing = [p.pattern for p in used_keys() if not any(p.fullmatch(key) for key in keys)]
    assert not missing


def test_every_key_is_asked_for() -> None:
    patterns = used_keys()
    written = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    unused = [
        key
        for key in catalogue("en")
        if not any(p.fullmatch(key) for p in patterns) and f'"{key}"' not in written
    ]
    assert not unused


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_text_for_users_is_written_in_code(path: Path) -> None:
    literals = []
    for call in calls(path):
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in SHOWN:
            continue
        named = [k.value for k in call.keywords if k.arg in SHOWN_ARGUMENTS]
        for node in [*call.args[:1], *named]:
            literals += [(call.lineno, text) for text in letters(node)]
    assert not literals


def letters(node: ast.expr) -> list[str]:
    """String constants of a text argument that hold letters; those inside calls are no texts."""
    if isinstance(node, ast.Call):
        return []
    if isinstance(node, ast.Constant):
        text = DIRECTIVE.sub("", node.value) if isinstance(node.value, str) else ""
        return [node.value] if any(c.isalpha() for c in text) else []
    if isinstance(node, ast.FormattedValue):
        return []
    return [text for child in ast.iter_child_nodes(node) for text in letters(child)]


def test_the_literal_check_sees_literals() -> None:
    node = ast.parse("st.title('Hello' if x else f'{y} items')").body[0].value.args[0]
    assert letters(node) == ["Hello", " items"]
    assert letters(ast.parse("f':blue[{x}]'", mode="eval").body) == []
