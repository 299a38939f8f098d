"""The README names what the code has: a new criterion, verb, preset or variable must be told."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from prune_core.cli.main import command_parser, main
from prune_core.criteria import CRITERIA
from prune_core.models.sources import preset_names
from prune_core.ui.frame.page import PAGES
from tests.test_imports import LEVEL

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _verbs() -> list[str]:
    parser = command_parser()
    found = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return sorted(found[0].choices)


def _assets() -> list[str]:
    manifest = json.loads((ROOT / "assets" / "manifest.json").read_text(encoding="utf-8"))
    return sorted({*manifest["assets"], *preset_names()})


def _variables() -> list[str]:
    names: set[str] = set()
    for path in (ROOT / "prune_core").rglob("*.py"):
        names.update(re.findall(r"\bPRUNE_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    return sorted(names)


def test_the_lists_are_not_empty() -> None:
    assert len(CRITERIA) and _verbs() and _assets() and _variables()


@pytest.mark.parametrize("name", [*CRITERIA, *_assets(), *_variables()])
def test_readme_names(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("verb", _verbs())
def test_readme_shows_every_verb(verb: str) -> None:
    assert re.search(rf"^python -m prune_core {re.escape(verb)}\b", README, re.MULTILINE)


@pytest.mark.parametrize("verb", _verbs())
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])

    shown = capsys.readouterr()
    assert stop.value.code == 0 and shown.err == ""
    assert f"prune_core {verb}" in shown.out and "--json" in shown.out


@pytest.mark.parametrize(
    "command",
    [
        "pip install -r requirements.txt && streamlit run app.py",
        "pip install -r requirements-dev.txt && pytest",
    ],
)
def test_readme_has_both_set_up_commands(command: str) -> None:
    assert command in README.splitlines()


def test_contributing_names_what_is_there() -> None:
    """A file that has moved, or is not there yet, sends a newcomer astray."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"(?:prune_core|tests|assets|docs|examples|pages)/[\w./]*", text)
    placeholders = ("NAME", "VERB", "CODE", "name.json")
    paths = {name.rstrip(".") for name in names if not any(x in name for x in placeholders)}
    assert len(paths) > 25
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def _document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_architecture_lists_the_rooms_floor_by_floor() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", _document("architecture.md"), re.MULTILINE)
    floors = [(room, int(floor)) for floor, rooms in rows for room in re.findall("`(.+?)`", rooms)]

    assert floors == list(LEVEL.items())


def test_architecture_names_every_page_and_every_cache() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", _document("architecture.md"), re.MULTILINE)
    caches: set[str] = set()
    for path in (ROOT / "prune_core").rglob("*.py"):
        caches.update(re.findall(r'\bDiskCache\("(\w+)"', path.read_text(encoding="utf-8")))

    assert len(caches) > 3 and sorted(rows) == sorted([*PAGES, *caches])


def test_the_index_of_the_decisions_is_their_headings() -> None:
    text = _document("decisions.md")
    entries = re.findall(r"^ *- \**\[(.+)\]\(#(.+)\)", text, re.MULTILINE)

    assert [title for title, _ in entries] == re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    for title, anchor in entries:
        assert anchor == re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["architecture.md", "decisions.md"])
def test_files_that_a_document_names_are_there(name: str) -> None:
    named = set(re.findall(r"`([\w./-]+/(?:[\w.-]+\.\w+)?)`", _document(name)))
    folders = (ROOT, ROOT / "prune_core")

    assert named, "nothing is named: the pattern above no longer fits"
    assert [p for p in sorted(named) if not any((base / p).exists() for base in folders)] == []
