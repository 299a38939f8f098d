"""What every entry of every registry must be; a new one is covered by being registered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from prune_core.cli.choices import REGISTRIES, with_choices
from prune_core.errors import UnknownNameError
from prune_core.paths import PROJECT_ROOT
from prune_core.patterns import example_patterns, parse_pattern, pattern_text
from prune_core.registry import LANGUAGES, Entry, Registry

ENTRIES = [entry for registry in REGISTRIES for entry in registry.values()]
every_registry = pytest.mark.parametrize("registry", REGISTRIES, ids=lambda x: x.kind)
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda x: f"{x.kind}-{x.name}")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_registry_is_listed_and_each_of_its_entries_is_tried() -> None:
    constant = re.compile(r"^([A-Z_]+): Registry\[", re.MULTILINE)
    files = (PROJECT_ROOT / "prune_core").rglob("*.py")
    names = {name for path in files for name in constant.findall(path.read_text(encoding="utf-8"))}
    assert len(names) == len(REGISTRIES)
    tests = Path(__file__).parent.glob("test_*.py")
    written = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [n for n in sorted(names) if not re.search(rf"parametrize\(.*\b{n}\b", written)] == []


@every_registry
def test_every_entry_has_its_texts_in_every_language(registry: Registry[Any]) -> None:
    assert len(registry) >= 2
    assert registry.missing_texts() == []


@every_entry
def test_texts_of_the_languages_fit_each_other(entry: Entry[Any]) -> None:
    english, chinese = entry.texts["en"], entry.texts["zh"]
    for name, text in english.items():
        assert placeholders(text) == placeholders(chinese[name]), name
        assert text == text.strip() and chinese[name] == chinese[name].strip()
    assert re.search("[\u4e00-\u9fff]", chinese["measures"])
    assert not re.search("[\u4e00-\u9fff]", "".join(english.values()))
    assert english["measures"].endswith((".", ".)")) and chinese["measures"].endswith(("。", "）"))


@every_entry
def test_names_are_a_file_format(entry: Entry[Any]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", entry.name)
    assert entry.spelling.startswith(entry.name)
    assert entry.summary.endswith(".")
    if entry.reference:
        assert re.fullmatch(
            r"https://(arxiv\.org/abs/\d{4}\.\d{4,5}|openreview\.net/forum\?id=\w+)",
            entry.reference,
        )


@every_entry
def test_every_argument_of_a_criterion_has_a_name_for_people(entry: Entry[Any]) -> None:
    if entry.kind == "criterion":
        assert set(entry.defaults) <= set(entry.texts["en"])
        assert parse_pattern(entry.pattern).name == entry.pattern
    for usual in entry.defaults.values():
        assert type(usual) in (int, float)


@every_registry
def test_an_unknown_name_is_one_sentence(registry: Registry[Any]) -> None:
    assert "no-such-name" not in registry
    with pytest.raises(UnknownNameError, match=f"unknown {registry.kind} 'no-such-name'"):
        registry["no-such-name"]
    assert registry.text("no-such-name", "en") == "no-such-name"


def test_a_missing_text_is_noticed_here_and_not_by_a_page() -> None:
    registry: Registry[Any] = Registry("thing", "prune_core.words")
    with pytest.raises(ValueError, match="has no texts in zh"):
        registry.register("one", texts={"en": {}})(with_choices)
    with pytest.raises(ValueError, match="needs a docstring"):
        registry.register("one", texts={"en": {}, "zh": {}})(placeholders)
    half = {
        "en": {"title": "One", "short": " ", "measures": "it.", "own": "x"},
        "zh": {"title": "一", "short": "一", "measures": "它。"},
    }

    def one() -> None:
        """Do nothing."""

    registry.register("one", texts=half)(one)
    assert registry.missing_texts() == ["one: en.short", "one: zh.own"]
    assert registry["one"].text("zh", "own") == "x"  # a page shows the other language
    with pytest.raises(ValueError, match="already registered"):
        registry.register("one", texts=half)(one)


def test_names_of_patterns_hold_their_values() -> None:
    for name in example_patterns():
        for language in LANGUAGES:
            for text in ("title", "short"):
                assert "{" not in pattern_text(name, language, text)
    assert pattern_text("nm:2:4", "en") == "2:4 (keep 2 of 4)"
    assert pattern_text("block:8:max", "en", "short") == "8 x 8 blocks"


def test_registries_are_read_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # an import of it fails
        "from prune_core.cli.choices import REGISTRIES, choices_table\n"
        "print(len(choices_table().splitlines()), sum(map(len, REGISTRIES)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False
    )
    rows, entries = map(int, done.stdout.split()) if done.returncode == 0 else (0, done.stderr)
    assert rows == entries + 2


def test_readme_shows_the_registries() -> None:
    page = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    assert with_choices(page) == page, "run python -m prune_core.cli.choices README.md"
    for entry in ENTRIES:
        assert f"| `{entry.spelling}` |" in page
    with pytest.raises(ValueError, match="has no lines"):
        with_choices("no marks")
