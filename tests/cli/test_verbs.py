"""Each verb is one file, found by one list, and starting one imports nothing of the others."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from prune_core.cli.main import command_parser
from prune_core.cli.verbs import VERBS
from prune_core.paths import PROJECT_ROOT

HELPERS = {
    *("__init__", "main", "verbs", "options", "running", "checks", "choices"),
    *("importance_blocks", "importance_neurons"),
}


def choices(only: str | None = None) -> dict[str, argparse.ArgumentParser]:
    actions = command_parser(only)._actions
    return dict(next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices)


def loaded_by(*words: str) -> set[str]:
    """Modules that a process has loaded once it ran a command."""
    code = (
        "import sys\nfrom prune_core.cli.main import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print('\\n'.join(['', '---', *sys.modules]))\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("---\n")[1].split())


def test_every_file_is_a_verb_or_helps_one() -> None:
    files = {path.stem for path in Path(PROJECT_ROOT, "prune_core", "cli").glob("*.py")}
    assert files == set(VERBS) | HELPERS


@pytest.mark.parametrize("verb", VERBS)
def test_the_file_of_a_verb_adds_runs_and_shows_it(verb: str) -> None:
    module = importlib.import_module(f"prune_core.cli.{verb}")
    parser = choices()[verb]
    assert parser.get_default("verb") is module.run and parser.get_default("show") is module.show
    assert parser.description == VERBS[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_alone_a_verb_has_the_options_that_it_has_among_all(verb: str) -> None:
    alone = choices(verb)
    assert list(alone) == list(VERBS), "the others are still listed"
    assert alone[verb].format_help() == choices()[verb].format_help()


def test_help_loads_no_verb() -> None:
    loaded = loaded_by("--help")
    heavy = {"torch", "transformers", "numpy", "plotly", "sqlite3", "pptx", "jinja2", "streamlit"}
    assert not loaded & heavy
    assert not loaded & {f"prune_core.cli.{verb}" for verb in VERBS}


def test_evaluate_loads_what_it_needs(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The king had a daughter who could not be made to laugh. " * 9)
    line = ("evaluate", "tiny-llama", "--sparsity", "0.5", "--text", str(text), "--seq-len", "16")
    loaded = loaded_by(*line)
    assert "torch" in loaded, "it did run"
    assert not loaded & {"plotly", "sqlite3", "pptx", "pandas", "streamlit", "gguf"}
    assert not loaded & {f"prune_core.cli.{verb}" for verb in VERBS if verb != "evaluate"}
    rooms = {name.split(".")[1] for name in loaded if name.startswith("prune_core.")}
    assert not rooms & {"figures", "reporting", "exporting", "ui", "sweeps"}
