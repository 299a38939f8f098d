"""A criterion is one file: a throw-away one, put on the search path, is everywhere by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prune_core.paths import PROJECT_ROOT

LAMP = '''"""LAMP: magnitudes that compare across layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "lamp",
    reference="https://arxiv.org/abs/2010.07611",
    texts={
        "en": {
            "title": "LAMP (layer-adaptive magnitude)",
            "short": "LAMP",
            "measures": "each weight's square over the sum of those in its layer not below it.",
            "cost": "nothing: no text is read; one sort of each layer.",
            "fails": "as magnitude does within a layer: it orders the weights in the same way.",
        },
        "zh": {
            "title": "LAMP（逐层自适应幅值）",
            "short": "LAMP",
            "measures": "权重的平方除以该层中不小于它的权重的平方和。",
            "cost": "无：不读取文本；每层只需排序一次。",
            "fails": "在一层之内与幅值相同：权重的次序一样。",
        },
    },
)
def lamp(weight: Tensor, stats: LayerStats) -> Tensor:
    """Score each weight by its square over the squares that are left when its turn comes."""
    squares, order = weight.float().square().flatten().sort()
    left = squares.flip(0).cumsum(0).flip(0).clamp_min(1e-38)
    return squares.new_empty(squares.shape).scatter_(0, order, squares / left).view_as(weight)
'''
"""Lee et al. 2021, equation 2."""

START = """
import os
import prune_core.criteria
prune_core.criteria.__path__.append(os.environ["NEW_CRITERIA"])
"""
"""A file beside the others needs nothing of this."""

PAGES = """
import json
from streamlit.testing.v1 import AppTest
from prune_core.recipes.recipe import Recipe

def page(name, **query):
    at = AppTest.from_file(f"pages/{name}.py", default_timeout=120)
    for key, text in {"model": "tiny-llama", "seq_len": "64", "windows": "2", **query}.items():
        at.query_params[key] = text
    at.run()
    assert not at.exception and not at.error, (at.exception, at.error)
    return at

at = page("studio", sparsity="0.5")
assert "LAMP (layer-adaptive magnitude)" in at.selectbox(key="criterion").options
at.selectbox(key="criterion").select("lamp").run()
assert not at.exception
shown = at.session_state["_studio_shown"]
assert shown["recipe"] == Recipe("lamp", sparsity=0.5).fingerprint
assert abs(shown["numbers"]["sparsity"] - 0.5) < 1e-3
cards = " ".join(text.value for text in at.markdown)
assert "one sort of each layer" in cards and "arxiv.org/abs/2010.07611" in cards

chinese = page("weights", sparsity="0.5", lang="zh", other="lamp")
box = chinese.selectbox(key="other")
assert "LAMP（逐层自适应幅值）" in box.options and box.value == "lamp"
assert any("LAMP" in json.dumps(json.loads(chart.proto.spec)) for chart in
           chinese.get("plotly_chart"))
print("both pages")
"""

COMMANDS = """
import sys
from prune_core.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""

README = """
from pathlib import Path
from prune_core.cli.choices import with_choices
print(with_choices(Path("README.md").read_text(encoding="utf-8")))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the criterion, and a plugin of pytest that puts it on the search path."""
    folder = tmp_path_factory.mktemp("criteria")
    (folder / "lamp.py").write_text(LAMP, encoding="utf-8")
    plugin = tmp_path_factory.mktemp("plugin")
    (plugin / "with_new_criteria.py").write_text(START, encoding="utf-8")
    return folder


def python(folder: Path, *words: str, plugin: bool = False) -> str:
    """Standard output of a new interpreter in the project, which must end well."""
    paths = [str(path) for path in folder.parent.glob("plugin*")] if plugin else []
    environment = {
        **os.environ,
        "NEW_CRITERIA": str(folder),
        "PRUNE_ENGINE": "inline",
        "PYTHONPATH": os.pathsep.join([str(PROJECT_ROOT), *paths]),
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        encoding="utf-8",
        cwd=PROJECT_ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_one_file_of_at_most_forty_lines() -> None:
    assert len(LAMP.splitlines()) <= 40
    assert not list((PROJECT_ROOT / "prune_core").rglob("lamp.py"))


def test_it_is_on_the_pages(folder: Path) -> None:
    assert "both pages" in python(folder, "-c", START + PAGES)


def test_the_command_line_names_and_runs_it(folder: Path) -> None:
    shown = python(folder, "-c", START + COMMANDS, "evaluate", "--help")
    assert "fisher, lamp, magnitude" in " ".join(shown.split())
    run = ("evaluate", "tiny-llama", "--criterion", "lamp", "--allocation", "global", "--json")
    sizes = ("--sparsity", "0.5", "--seq-len", "64", "--windows", "2", "--text", "grimm")
    result = python(folder, "-c", START + COMMANDS, *run, *sizes)
    assert '"criterion": "lamp"' in result and '"perplexity"' in result


def test_readme_would_list_it(folder: Path) -> None:
    page = python(folder, "-c", START + README)
    row = next(line for line in page.splitlines() if line.startswith("| Criterion | `lamp` |"))
    assert "sum of those in its layer" in row and "[arXiv 2010.07611]" in row


def test_it_passes_the_contract_tests(folder: Path) -> None:
    files = ("tests/contracts/test_criteria.py", "tests/contracts/test_registries.py")
    words = ("-m", "pytest", "-p", "with_new_criteria", "-q", "-rA", "-k", "lamp", *files)
    said = python(folder, *words, plugin=True)
    for test in (
        *("test_scores_have_shape_type_and_sense", "test_a_model_is_only_read"),
        *("test_texts_of_the_languages_fit_each_other", "test_names_are_a_file_format"),
    ):
        assert f"::{test}[" in said and "lamp" in said


def test_its_scores_are_the_papers(folder: Path) -> None:
    code = START + (
        "import torch\n"
        "from prune_core.criteria import CRITERIA, LayerStats\n"
        "weight = torch.tensor([[3.0, -1.0], [0.0, 2.0]])\n"
        "print(CRITERIA['lamp'].fn(weight, LayerStats()).mul(70).tolist())"
    )
    # squares 0, 1, 4, 9: over what is not below them 14, 14, 13, 9
    scores = [round(float(x)) for x in python(folder, "-c", code).translate(_PLAIN).split(",")]
    assert scores == [70, 5, 0, round(70 * 4 / 13)]


_PLAIN = str.maketrans("", "", "[] \n")
