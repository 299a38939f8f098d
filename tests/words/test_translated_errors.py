"""Every sentence the library raises for a user has its Chinese, and the catalogue no others."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.analysis.selection import lowest
from prune_core.criteria import CRITERIA
from prune_core.engine.worker import unexpected
from prune_core.errors import PruneCoreError, RecipeError
from prune_core.evaluation.paired import check_alike, paired_difference
from prune_core.exporting.formats import format_problem
from prune_core.exporting.shippable import Shape, kept_parts
from prune_core.models.checks import check_tokenizer_files, read_config
from prune_core.models.headers import read_gguf_header, read_safetensors_header
from prune_core.models.memory import guard_memory
from prune_core.models.sources import parse_source
from prune_core.models.weight_files import check_weights
from prune_core.paths import PROJECT_ROOT
from prune_core.pruning.ranks import check_arguments
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.packing import unpack
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.reporting.content import gather
from prune_core.sentences import Sentence
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.limits import parse_promise
from prune_core.sweeps.store.portable import run_from_bytes
from prune_core.sweeps.store.sqlite import SqliteDatabase
from prune_core.texts.reading import read_text
from prune_core.texts.windows import token_windows
from prune_core.ui.session import language as i18n
from prune_core.words.translated_errors import read, translated

LIBRARY = PROJECT_ROOT / "prune_core"

NOT_SHOWN = {
    "Cancelled",  # an outcome: the pages say it in their own words
}

MAKERS = {"refusal", "_Damaged", "Sentence"}
"""What is called with a template beside the errors themselves."""

WHOLE = re.compile(r"_explain|_disk_sentence|_sentence|problem$|\.sentence$|next\(iter\(reasons\)")
"""Arguments of errors that are a sentence made elsewhere, by ``Sentence``."""

COMMANDS = re.compile(r"hf auth login|pip install -r|git lfs pull")
ENGLISH = re.compile(r"\b[a-z]{2,} [a-z]{2,} [a-z]{2,}\b")

CATALOGUE = {kind: read(kind, "zh") for kind in ("errors", "phrases")}
ENTRIES = {**CATALOGUE["phrases"], **CATALOGUE["errors"]}


def is_chinese(text: str) -> bool:
    """Some of it is, and what is not are names and commands."""
    characters = re.search(r"[\u4e00-\u9fff]", text)
    return characters is not None and not ENGLISH.search(COMMANDS.sub("", text))


# ---- the library's code ----------------------------------------------------------------------


def trees() -> Iterator[ast.Module]:
    """Of all that a page can show: not the pages themselves, nor the command line's English."""
    for path in sorted(LIBRARY.rglob("*.py")):
        if path.relative_to(LIBRARY).parts[0] not in ("ui", "cli", "sentences.py", "errors.py"):
            yield ast.parse(path.read_text(encoding="utf-8"))


NODES = [node for tree in trees() for node in ast.walk(tree)]


def error_classes() -> set[str]:
    """Names of the error classes that are shown."""
    below = {"PruneCoreError"}
    source = ast.parse((LIBRARY / "errors.py").read_text(encoding="utf-8"))
    classes = [n for n in [*ast.walk(source), *NODES] if isinstance(n, ast.ClassDef)]
    for _ in range(3):  # a class may come before its base
        below |= {c.name for c in classes if below & {ast.unparse(base) for base in c.bases}}
    return below - NOT_SHOWN


ERRORS = error_classes()
CALLS = [
    (ast.unparse(node.func).rpartition(".")[2], node)
    for node in NODES
    if isinstance(node, ast.Call) and node.args
]
MADE = [(name, call) for name, call in CALLS if name in ERRORS | MAKERS]
LITERAL = [
    (call.args[0].value, {keyword.arg for keyword in call.keywords})
    for _, call in MADE
    if isinstance(call.args[0], ast.Constant)
]
TEMPLATES = sorted({template for template, _ in LITERAL})
STRINGS = {node.value for node in NODES if isinstance(node, ast.Constant)}


def fields(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


# ---- the catalogue against the code ----------------------------------------------------------


def test_every_error_is_made_of_a_template() -> None:
    assert len(TEMPLATES) > 380
    for name, call in MADE:
        argument = call.args[0]
        assert not isinstance(argument, ast.JoinedStr | ast.BinOp), ast.unparse(call)
        if name in ERRORS and not isinstance(argument, ast.Constant):
            assert WHOLE.search(ast.unparse(argument)), ast.unparse(call)


@pytest.mark.parametrize(("template", "values"), LITERAL, ids=[x[0][:60] for x in LITERAL])
def test_every_template_has_its_values_and_its_chinese(template: str, values: set[str]) -> None:
    chinese = ENTRIES[template]
    if not values:  # then braces are braces
        assert is_chinese(chinese)
        return
    assert set(fields(template)) == values
    assert set(fields(chinese)) == values
    pieces = [(how, turn) for _, name, how, turn in Formatter().parse(chinese) if name]
    assert all(piece == ("", None) for piece in pieces)  # values are text by then
    filled = chinese.format(**{name: f"<{name}>" for name in values})
    assert is_chinese(filled) or template.startswith(("logits", "{name}:"))


@pytest.mark.parametrize("kind", ["errors", "phrases"])
def test_no_entry_is_stale(kind: str) -> None:
    assert set(CATALOGUE[kind]) <= (STRINGS if kind == "phrases" else set(TEMPLATES))


def test_no_placeholder_has_two_formats() -> None:
    for template, values in LITERAL:
        parts = [part for part in Formatter().parse(template) if part[1]] if values else []
        assert len({part[1:] for part in parts}) == len({part[1] for part in parts}), template


def test_catalogues_are_sorted() -> None:
    for kind in ("errors", "phrases"):
        path = PROJECT_ROOT / "assets" / "i18n" / kind / "zh.json"
        entries = json.loads(path.read_text(encoding="utf-8"))
        assert all(isinstance(x, str) and x.strip() for x in entries.values())
        assert list(entries) == sorted(entries)


# ---- the translation itself ------------------------------------------------------------------


def test_an_english_session_reads_what_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    error = PruneCoreError("This model has no blocks.")
    monkeypatch.setattr(i18n, "language", lambda: "en")
    assert i18n.error_sentence(error) == "This model has no blocks."
    monkeypatch.setattr(i18n, "language", lambda: "zh")
    assert i18n.error_sentence(error) == "此模型没有块。"
    assert i18n.error_sentence(str(error)) == "此模型没有块。"


@pytest.mark.parametrize("sentence", ["", "Nobody says so.", "a {b} {c", "文件太大。"])
def test_what_is_not_known_stays(sentence: str) -> None:
    assert translated(sentence, "zh") == sentence
    assert translated(PruneCoreError(sentence), "zh") == sentence
    known = Sentence("The text holds NUL characters; it is no plain text.")
    unknown = Sentence("nobody says {this}", this=known)
    assert translated(unknown, "zh") == f"nobody says {known}"


@pytest.mark.parametrize(
    "name", ["a{0}b{x}", r"(.*)$|\1", "the model", "{{", "日本語 \n é", "heads"]
)
def test_values_are_put_in_as_they_are(name: str) -> None:
    english = Sentence("{name} is not valid JSON.", name=name)
    assert english == f"{name} is not valid JSON."
    assert translated(english, "zh") == f"{name} 不是有效的 JSON。"


def test_lists_are_joined_as_the_language_does() -> None:
    error = RecipeError("unknown neuron scope {scope!r}; use {known:or}.", scope="x", known="ab")
    assert str(error) == "unknown neuron scope 'x'; use a or b."
    assert translated(error, "zh") == "未知的神经元范围 'x'；请用：a、b。"


def test_what_stands_inside_is_translated_too() -> None:
    inner = RecipeError("this recipe {x}", x=1)
    assert translated(Sentence("calibration: {error}", error=inner), "zh") == "校准：this recipe 1"
    inner = RecipeError("{what} must lie between 0 and 1, got {value}.", what="a", value=2)
    chinese = translated(Sentence("calibration: {error}", error=inner), "zh")
    assert chinese == "校准：a须在 0 与 1 之间，实际为 2。"


def test_a_page_shows_chinese_and_no_markup() -> None:
    def page() -> None:
        from prune_core.errors import RecipeError
        from prune_core.ui.frame.components import boundary

        with boundary("here"):
            raise RecipeError(
                "unknown override {key!r}; use role:…, block:… or layer:….", key="*x*"
            )

    at = AppTest.from_function(page, default_timeout=60)
    at.session_state["lang"] = "zh"
    shown = at.run().error[0].value
    assert shown.startswith("未知的微调") and r"\*x\*" in shown


def test_no_place_shows_an_error_untranslated() -> None:
    pages = [*PROJECT_ROOT.glob("pages/*.py"), *(LIBRARY / "ui").rglob("*.py")]
    assert len(pages) > 30
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"plain\((str\()?(error|problem|[\w.]*ticket\.error)\b", text), path
        assert "str(error)" not in text, path  # a page keeps the sentence, with its template


# ---- real errors, end to end -----------------------------------------------------------------


def shapes(blocks: int = 2, *, heads: int = 4, stacks: bool = False) -> list[Shape]:
    names = ("encoder", "decoder") if stacks else ("decoder", "decoder")
    return [Shape(i, names[i % 2], heads, 2, 8) for i in range(blocks)]


def kept(recipe: Recipe, family: str = "llama", *, heads: int = 4, stacks: bool = False) -> None:
    kept_parts(recipe, shapes(heads=heads, stacks=stacks), family, 64)


def tokenized(count: int) -> Callable[..., dict[str, list[int]]]:
    return lambda text, **options: {"input_ids": [1] * count}


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def protocol(**changes: object) -> dict[str, object]:
    return {"model_fingerprint": "a", "seq_len": 8, "windows": 2, "dtype": "float32", **changes}


KEPT = [
    (Recipe(drop_attention=(0,)), {}, "plain transformers has no block"),
    (Recipe(drop_blocks=(0, 1)), {}, "no block of the model"),
    (Recipe(drop_blocks=(0,)), {"family": "t5", "stacks": True}, "no block of the encoder"),
    (Recipe(drop_neurons=tuple((0, n) for n in range(8))), {}, "no neuron would"),
    (Recipe(drop_neurons=((0, 1),)), {}, "block 0 keeps 7 neurons"),
    (Recipe(drop_heads=((0, 0), (0, 1))), {"family": "t5", "stacks": True}, "as many of both"),
    (Recipe(drop_heads=((0, 1),)), {"family": "gpt2"}, "no place for the width"),
    (Recipe(drop_heads=tuple((0, n) for n in range(4))), {}, "no head would"),
    (Recipe(drop_heads=((0, 1),)), {}, "are spread unequally"),
    (Recipe(drop_heads=((0, 0), (0, 1))), {}, "block 0 keeps 2 heads"),
    (
        Recipe(drop_heads=((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))),
        {"heads": 6},
        "of hidden size 64",
    ),
]


@pytest.mark.parametrize(("recipe", "more", "english"), KEPT, ids=[x[2] for x in KEPT])
def test_refused_exports(recipe: Recipe, more: dict[str, object], english: str) -> None:
    chinese_of(lambda: kept(recipe, **more), english)


def chinese_of(act: Callable[[], object], english: str) -> str:
    with pytest.raises(PruneCoreError) as caught:
        act()
    assert english in str(caught.value)
    chinese = translated(caught.value, "zh")
    assert is_chinese(chinese), chinese
    return chinese


REAL: dict[str, Callable[[Path], object]] = {
    "sparsity must be a number": lambda _: Recipe(sparsity="much"),
    "sparsity must lie": lambda _: Recipe(sparsity=2.0),
    "the override block:1 must": lambda _: Recipe(overrides={"block:1": 7}),
    "unknown override": lambda _: Recipe(overrides={"x": 0.5}),
    "the fraction of neurons must": lambda _: NeuronShare(3.0),
    "the number of calibration windows": lambda _: Calibration(windows=0),
    "the length of a calibration window": lambda _: Calibration(seq_len=0),
    "calibration tokens to skip": lambda _: Calibration(skip=-1),
    "the calibration seed": lambda _: Calibration(seed=-1),
    "a head is a": lambda _: Recipe(drop_heads=(1,)),
    "a neuron is a": lambda _: Recipe(drop_neurons=(1,)),
    "use uniform or": lambda _: Recipe(allocation="x"),
    "it takes a block's index": lambda _: Recipe(allocation="manual", allocation_args={"x": 1}),
    "it takes none": lambda _: Recipe(allocation_args={"x": 1}),
    "reads schema": lambda _: Recipe.from_dict({"schema": 99}),
    "unknown field in the recipe": lambda _: Recipe.from_dict({"schema": 1, "x": 1}),
    "Did you mean 'wanda'": lambda _: CRITERIA["wandaa"],
    "unknown criterion 'qqqq'. Known": lambda _: CRITERIA["qqqq"],
    "has no argument 'x'; it takes": lambda _: check_arguments("ria", {"x": 1}),
    "has no argument 'x'; it takes none": lambda _: check_arguments("magnitude", {"x": 1}),
    "must be a number, got": lambda _: check_arguments("ria", {"power": "x"}),
    "must be a whole number, got": lambda _: check_arguments("random", {"seed": 0.5}),
    "unknown scope": lambda _: lowest([], [], 0.5, "x"),
    "Name a model": lambda _: parse_source(" "),
    "did you mean tiny-gpt2?": lambda _: parse_source("tinygpt2"),
    "presets are": lambda _: parse_source("?????"),
    "is no hub id": lambda _: parse_source("hub:a--b"),
    "There is no model folder": lambda tmp: parse_source(str(tmp / "none")),
    "There is no config.json": read_config,
    "There is no model.safetensors": check_weights,
    "can run code": lambda tmp: check_weights(written(tmp / "x.bin", "").parent),
    "There is no tokenizer": check_tokenizer_files,
    "Architecture none": lambda tmp: read_config(written(tmp / "config.json", "{}").parent),
    "a header alone": lambda tmp: read_safetensors_header(written(tmp / "m.safetensors", "x")),
    "not begin with GGUF": lambda tmp: read_gguf_header(written(tmp / "m.gguf", "x")),
    "choose a smaller model": lambda _: guard_memory(
        "Big", 10**9, dtype="bfloat16", vocabulary=9, available=10**9
    ),
    "bfloat16 would fit": lambda _: guard_memory(
        "Big", 10**9, dtype="float32", vocabulary=9, converting=True, available=8 * 10**9
    ),
    "The text is empty": lambda _: read_text(TextSpec("inline", " ")),
    "The text holds NUL": lambda _: read_text(TextSpec("inline", "a\0")),
    "There is no text called": lambda _: read_text(TextSpec("preset", "x")),
    "is no text file": lambda _: read_text(TextSpec("file", "x.png")),
    "is no text but": lambda tmp: read_text(TextSpec("file", str(written(tmp / "x", "%PDF-")))),
    "but probably cp1251": lambda tmp: read_text(
        TextSpec("file", str(written(tmp / "x", "Гавань спала.".encode("cp1251"))))
    ),
    "tokens to score": lambda _: token_windows(tokenized(1), "", seq_len=8, windows=1),
    "longer than the model's context": lambda _: token_windows(
        tokenized(9), "", seq_len=8, windows=1, max_context=4
    ),
    "comparison is damaged": lambda _: unpack("??"),
    "the grid has an unknown key 'modles'; did": lambda _: Grid.from_dict({"modles": 1}),
    "the grid has an unknown key 'qqqq'; known": lambda _: Grid.from_dict({"qqqq": 1}),
    "unknown criterion 'wandaa'; did": lambda _: grid(criteria="wandaa"),
    "unknown allocation 'qqqq'; known": lambda _: grid(allocations="qqqq"),
    "unknown neuron scope 'qqqq'; known": lambda _: grid(neuron_scope="qqqq"),
    "unknown key 'windos'; did": lambda _: grid(calibration={"windos": 1}),
    "unknown key 'qqqq'; known": lambda _: grid(calibration={"qqqq": 1}),
    "calibration: the number": lambda _: grid(calibration={"windows": 0}),
    "calibration: unknown calibration mode": lambda _: grid(calibration={"mode": "x"}),
    "Did you mean nm:2:4?": lambda _: grid(patterns="nm:2:4x"),
    "years (an estimate": lambda _: too_many(windows=4096, seq_len=8192),
    "days (an estimate": lambda _: too_many(windows=4096),
    "hours (an estimate": lambda _: too_many(),
    "minutes (an estimate": lambda _: too_many(seq_len=2),
    "seconds (an estimate": lambda _: too_many(windows=1, seq_len=2),
    "not valid YAML (line 1)": lambda _: Grid.from_yaml("a: [b"),
    "it is not text": lambda tmp: Grid.from_file(written(tmp / "x.yaml", b"\xff\xfe")),
    "a budget reads": lambda _: parse_promise("little"),
    "is damaged; it was left as it is": lambda tmp: SqliteDatabase(
        written(tmp / "notes.txt", "no database at all " * 99)
    ),
    "is a folder": SqliteDatabase,
    "not measured alike (tokens per window": lambda _: check_alike(
        {"A": protocol(), "B": protocol(seq_len=9)}
    ),
    "not measured alike (model": lambda _: check_alike(
        {"A": protocol(), "B": protocol(model_fingerprint="b")}
    ),
    "Only results on the same": lambda _: paired_difference([1.0], []),
    "there are no runs": lambda _: gather([], title="", audience="technical", language="en"),
    "is no readable JSON": lambda _: run_from_bytes(b"x"),
}


def grid(**fields: object) -> Grid:
    return Grid.from_dict({"models": "tiny-gpt2", **fields})


def too_many(**fields: object) -> Grid:
    shares = [place / 9000 for place in range(9000)]
    return grid(sparsities=shares, neurons=[0.1, 0.2, 0.3], **fields)


@pytest.mark.parametrize("english", REAL)
def test_real_errors(english: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(tmp_path))
    chinese_of(lambda: REAL[english](tmp_path), english)


def test_what_is_not_raised() -> None:
    assert (
        translated(unexpected(KeyError()), "zh") == "Prunescope 内部出错（KeyError）；详情见日志。"
    )
    everywhere = Recipe(neurons=NeuronShare(0.1, scope="global"))
    problem = translated(format_problem("shrunk", None, everywhere), "zh")
    assert problem.endswith("或改用掩码格式导出。") and is_chinese(problem)


def test_what_python_says_stays() -> None:
    with pytest.raises(PruneCoreError) as caught:
        Recipe.from_json("{")
    reason = str(caught.value).partition(": ")[2]
    assert translated(caught.value, "zh") == f"方案不是有效的 JSON：{reason.removesuffix('.')}。"
