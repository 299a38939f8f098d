"""Data flows one way: what each part may not import, and what never comes into the web process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "prune_core"

FORBIDDEN = {
    "criteria": ("models", "patterns", "allocation", "masks", "ranks", "engine", "figures"),
    "patterns": ("models", "criteria", "allocation", "masks", "ranks", "engine", "figures"),
    "allocation": ("models", "criteria", "masks", "ranks", "engine", "figures"),
    "models": ("criteria", "patterns", "allocation", "masks", "ranks", "figures"),
    "evaluation": ("criteria", "patterns", "allocation", "masks", "ranks", "figures"),
    "analysis": ("criteria", "masks", "ranks", "engine", "figures"),
    "figures": ("criteria", "patterns", "allocation", "masks", "ranks", "evaluation", "analysis"),
    "engine": ("figures",),
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


FILES = sorted(CORE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CORE)))
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(CORE).parts[0].removesuffix(".py")
    names = list(imported(path))
    if part != "ui":
        assert not [n for n in names if n.split(".")[0] == "streamlit"]
        assert not [n for n in names if n.startswith("prune_core.ui")]
    for other in FORBIDDEN.get(part, ()):
        assert not [n for n in names if n.startswith(f"prune_core.{other}")]
    if part == "figures":
        assert not [n for n in names if n.split(".")[0] == "torch"]


@pytest.mark.parametrize(
    "module",
    [
        "prune_core.engine.client",
        "prune_core.criteria",
        "prune_core.commands",
        "prune_core.models.sources",
        "prune_core.texts",
        "prune_core.figures.scores",
        "prune_core.figures.studio",
        "prune_core.ui.state",
        "prune_core.ui.studio_live",
        "prune_core.cli",
    ],
)
def test_the_web_process_never_loads_torch(module: str) -> None:
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_no_page_renders_raw_markup() -> None:
    for path in [*FILES, *(ROOT / "pages").glob("*.py"), ROOT / "app.py"]:
        text = path.read_text()
        for banned in (
            "unsafe_allow_html",
            "st.html(",
            "components.html",
            "st.iframe",
            "innerHTML",
        ):
            assert banned not in text, f"{path.name}: {banned}"
