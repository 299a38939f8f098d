"""Shared pieces of pages: hostile text stays text, tables are safe to open, no torch is loaded."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from prune_core.errors import PruneCoreError
from prune_core.paths import PROJECT_ROOT
from prune_core.ui.frame.components import csv_bytes, number, percent, plain
from prune_core.ui.widgets.mounting import FOLDER, source
from prune_core.words.numbers import count, size
from prune_core.words.translated_errors import translated


def test_csv_cells_are_no_formulas_and_chinese_survives() -> None:
    rows = [{"name": "=HYPERLINK(1)", "w": -1.5}, {"name": "权重", "w": 2.0}]
    text = csv_bytes(rows).decode("utf-8-sig")
    assert text.splitlines() == ["name,w", "'=HYPERLINK(1),-1.5", "权重,2.0"]


def test_plain_text_is_not_markdown() -> None:
    assert plain("![x](http://e)") == r"\!\[x\]\(http\://e\)"
    assert plain(":red[x] $y$ `z`") == r"\:red\[x\] \$y\$ \`z\`"
    assert plain("a\u202eb\nc") == "a b c"
    assert plain("x" * 9, 3) == "xxx…"


def test_numbers_are_short() -> None:
    assert [count(n) for n in (134_515_008, 56_300, 12)] == ["134.5 M", "56.3 k", "12"]
    assert [number(x) for x in (0.0123456, 0, 12345.6)] == ["0.0123", "0", "12,346"]
    assert size(537_900_000) == "537.9 MB"
    assert size(1_076_000_000) == "1.08 GB"
    assert percent(0.2934) == "29.3 %"


def test_a_sentence_of_an_error_begins_with_a_capital() -> None:
    raised = "this recipe removes every block of the model; keep at least one."
    assert translated(PruneCoreError(raised), "en") == f"T{raised[1:]}"
    assert translated(raised, "en", inside=True) == raised
    assert translated(raised, "zh").startswith("此方案")
    for named in ("config.json does not hold a JSON object.", "tiny-llama has no heads.", ""):
        assert translated(named, "en") == named


@pytest.mark.parametrize("call", ["unsafe_allow_html", "st.html(", "components.html", "st.iframe"])
def test_no_page_inserts_markup(call: str) -> None:
    files = [*PROJECT_ROOT.glob("pages/*.py"), *PROJECT_ROOT.glob("prune_core/ui/**/*.py")]
    assert not [path.name for path in files if call in path.read_text(encoding="utf-8")]


def test_every_widget_has_its_files_and_every_file_its_widget() -> None:
    """A file that nothing reads is a widget nobody sees; one that is missing breaks a page."""
    texts = [p.read_text(encoding="utf-8") for p in PROJECT_ROOT.glob("prune_core/ui/**/*.py")]
    whole = "\n".join(texts)
    names = set(re.findall(r'\bcomponent\("(\w+)"', whole))
    read = {f"{name}.{kind}" for name in names for kind in ("js", "css")}
    read |= set(re.findall(r'\bsource\("([\w.]+)"\)', whole))
    assert len(names) >= 9
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} - read == {
        path.name for path in FOLDER.glob("*.py")
    }
    assert all(source(name).strip() for name in read)


@pytest.mark.parametrize("call", ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "http"])
def test_no_widget_inserts_markup_or_asks_the_network(call: str) -> None:
    scripts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js")}
    names = "http://www.w3.org/2000/svg"  # a name space, no address
    assert not [name for name, text in scripts.items() if call in text.replace(names, "")]


def test_the_web_process_does_not_load_torch() -> None:
    code = "import sys, prune_core.ui.frame.page; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-500:]
