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

FLOORS = """
sentences
errors paths
registry faults progress cache_files
words
assets disk_cache criteria patterns
allocation
models recipes
texts evaluation
calibration sweeps
pruning jobs figures
analysis exporting reporting
tasks
engine
api ui
cli pages app
"""
"""The rooms of the house, lowest floor first: an import points down, inside a line never across."""

LEVEL = {room: level for level, line in enumerate(FLOORS.split("\n")) for room in line.split()}
DOORS = ("__init__", "__main__")  # of the package: the library's and the command line's


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


FILES = sorted(CORE.rglob("*.py"))


PAGES = [*sorted((ROOT / "pages").glob("*.py")), ROOT / "app.py"]


def room_of(path: Path) -> str:
    """The room that a file stands in."""
    parts = path.relative_to(CORE if path.is_relative_to(CORE) else ROOT).parts
    return parts[0].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    """Rooms of the package that a file imports from, itself left out."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "prune_core":
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prune_core."):
            used.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            used |= {a.name.split(".")[1] for a in node.names if a.name.startswith("prune_core.")}
    return used - {room_of(path)}


def test_every_room_is_known() -> None:
    rooms = {room_of(path) for path in FILES} - set(DOORS)
    assert rooms <= set(LEVEL), f"give these a floor: {sorted(rooms - set(LEVEL))}"
    assert {room for room in LEVEL if room not in ("pages", "app")} >= rooms


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room in DOORS:
        return
    level = LEVEL[room]
    upward = {used for used in rooms_used(path) if LEVEL[used] >= level}
    assert not upward, f"{room} (floor {level}) imports {sorted(upward)} from its floor or above"
    names = [name.split(".")[0] for name in imported(path)]
    assert "streamlit" not in names or room in ("ui", "pages", "app")
    assert "torch" not in names or room not in ("figures", "pages", "app", "recipes", "jobs")


def test_no_two_modules_import_each_other() -> None:
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in FILES
    }
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        graph[name] = set()
        for node in ast.parse(path.read_text()).body:  # inside functions it may point anywhere
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prune_core"):
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= (whole & set(names)) or {str(node.module)}
    for name in graph:
        reached, waiting = set(), [name]
        while waiting:
            for other in graph.get(waiting.pop(), ()):
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        assert name not in reached, f"{name} imports itself in a circle"


@pytest.mark.parametrize(
    "module",
    [
        "prune_core.engine.client",
        "prune_core.criteria",
        "prune_core.jobs.command_lines",
        "prune_core.models.sources",
        "prune_core.texts.reading",
        "prune_core.figures.scores",
        "prune_core.figures.studio",
        "prune_core.ui.frame.page",
        "prune_core.ui.studio.live",
        "prune_core.api",
        "prune_core.cli.main",
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


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_holds_one_thing(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


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
