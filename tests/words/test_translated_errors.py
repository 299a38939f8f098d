"""Every sentence the library raises for a user has its Chinese, and the catalogue no others."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.analysis.selection import lowest
from prune_core.criteria import CRITERIA
from prune_core.engine.worker import unexpected
from prune_core.errors import PruneCoreError
from prune_core.evaluation.paired import check_alike, paired_difference
from prune_core.exporting.formats import format_problem
from prune_core.exporting.shippable import Shape, kept_parts
from prune_core.models.checks import check_tokenizer_files, check_weights, read_config
from prune_core.models.headers import read_gguf_header, read_safetensors_header
from prune_core.models.memory import guard_memory
from prune_core.models.sources import parse_source
from prune_core.paths import PROJECT_ROOT
from prune_core.pruning.ranks import check_arguments
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.packing import unpack
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.reporting.content import gather
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.limits import parse_promise
from prune_core.sweeps.store.portable import run_from_bytes
from prune_core.sweeps.store.sqlite import SqliteDatabase
from prune_core.texts.reading import read_text
from prune_core.texts.windows import token_windows
from prune_core.ui.session import language as i18n
from prune_core.words.translated_errors import read, split, translated

LIBRARY = PROJECT_ROOT / "prune_core"
PAGES, UI = sorted(PROJECT_ROOT.glob("pages/*.py")), sorted(LIBRARY.glob("ui/*.py"))

NOT_SHOWN = {
    "ShapeError",  # a tensor that does not fit: a fault of the code, which no input brings about
    "Cancelled",  # an outcome: the pages say it in their own words
}
SENTENCES = {"_sentence", "_explain", "_disk_sentence", "library_problem", "format_problem"}
SENTENCES |= {"unexpected", "masked_problem", "shrunk_problem", "compressed_problem"}
"""Functions that return what an error, or a page, says."""

PHRASES = {"_Damaged", "refusal"}
"""What is called with the reason inside another sentence."""

OPAQUE = {
    *("_explain(text, asset, tool, process.returncode)", "_disk_sentence(asset, error)"),
    *("_sentence(error, folder)", "self._sentence(error)", "library_problem()", "problem"),
    "FORMATS[form].fn(info, recipe)",
    # other errors' sentences, as they are or with an end of their own
    *("str(error)", "f'{error}{more}'", "next(iter(reasons), 'the grid is empty.')"),
}
"""Arguments of errors that are no text to read here; what they can be is in the catalogue."""

UNRAISED = {
    "The GGUF file does not say how its tokenizer cuts text (tokenizer.ggml.pre); the cut of "
    "{name} is used, and the numbers are wrong if it is another.",
    "The cell could not be measured: {error}",
    "The model's config.json brings code of its own (auto_map); it is not run.",
    "The model's license is not known here; check it before sharing.",
    "The process that measured this cell was ended by the system.",
    "the grid is empty.",
    "An adapter lies beside the model; it is left out.",
    "The weights are stored as {dtypes} without scales; they are used as they are.",
    "The weights were read from {files}.",
    "{count} added tokens of the tokenizer have no row in the model's embedding ({names}); a text "
    "must not hold them.",
    "{count} weights are stored as {dtypes} beside their scales; they are used as the products of "
    "the two.",
    "{count} tensors of the file are not part of the model and were left out: {names}.",
}
"""Sentences that stand in the library, but not in a raise: warnings, what ended a sweep's cell."""

COMPOSED = {
    "The text holds NUL characters; it is no plain text.",
    "The text is empty; at least {least} tokens are needed.",
    "There is no asset {name}. Did you mean {near}? Known: {known}.",
    "There is no asset {name}. Known: {known}.",
    "calibration has an unknown key {key}; did you mean {near}?",
    "calibration has an unknown key {key}; known are {known}.",
    "the grid has an unknown key {key}; did you mean {near}?",
    "the grid has an unknown key {key}; known are {known}.",
    "these runs were not measured alike: they differ in {what} ({one} and {other}); choose runs of "
    "one model, text, window length, number of windows and dtype.",
    "this model has no MLP in block {block}; the recipe was made for another one.",
    "this model has no attention in block {block}; the recipe was made for another one.",
    "unknown {kind} {name}. Did you mean {near}? Known: {known}",
    "unknown {kind} {name}. Known: {known}",
    "unknown {kind} {name}; did you mean {near}?",
    "unknown {kind} {name}; known are {known}.",
    "{error} Did you mean {near}?",
    # phrases
    *("the encoder", "the decoder", "neuron scope"),
    *("weights {size}", "working copy {size}", "logits {size}", "conversion {size}"),
    *("{count} failed", "{count} pending", "{count} running"),
    *("{count} years", "{count} days", "{count} hours", "{count} minutes"),
}
"""What the library puts together from pieces: more exact than the template of its parts."""

Form = tuple[str, ...]
"""The literal text around the values of a sentence."""

COMMANDS = re.compile(r"hf auth login|pip install -r|git lfs pull")
ENGLISH = re.compile(r"\b[a-z]{2,} [a-z]{2,} [a-z]{2,}\b")


def is_chinese(text: str) -> bool:
    """Some of it is, and what is not are names and commands."""
    found = re.search(r"[\u4e00-\u9fff]", text)
    return found is not None and not ENGLISH.search(COMMANDS.sub("", text))


# ---- reading the library's code --------------------------------------------------------------


def trees() -> Iterator[ast.Module]:
    for path in sorted(LIBRARY.rglob("*.py")):
        place = path.relative_to(LIBRARY)
        cli = place.parts[0] == "cli" or place.name == "command_lines.py"
        if place.parts[0] != "ui" and not cli:
            yield ast.parse(path.read_text(encoding="utf-8"))


TREES = list(trees())


def errors() -> set[str]:
    """Names of the error classes that are shown."""
    classes = [n for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    found = {"PruneCoreError"}
    for _ in range(3):  # a class may come before its base
        found |= {c.name for c in classes if found & {ast.unparse(base) for base in c.bases}}
    return found - NOT_SHOWN


def forms(node: ast.expr | None) -> tuple[set[Form], set[str]]:
    """The sentences that an expression can be, and source code that is not understood."""
    if node is None or (isinstance(node, ast.Constant) and node.value is None):
        return set(), set()
    if isinstance(node, ast.IfExp):
        return joined(forms(node.body), forms(node.orelse))
    if isinstance(node, ast.BoolOp):
        return joined(*(forms(value) for value in node.values))
    if isinstance(node, ast.BinOp):
        (left, odd), (right, more) = forms(node.left), forms(node.right)
        return {(*a[:-1], a[-1] + b[0], *b[1:]) for a in left for b in right}, odd | more
    form = form_of(node)
    if form is None or not any(c.isalpha() for c in "".join(form)):
        return set(), {ast.unparse(node)}
    return {form}, set()


def joined(*found: tuple[set[Form], set[str]]) -> tuple[set[Form], set[str]]:
    return set().union(*(x for x, _ in found)), set().union(*(x for _, x in found))


def form_of(node: ast.AST) -> Form | None:
    """Of a string or an f-string; values side by side count as one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    if not isinstance(node, ast.JoinedStr):
        return None
    literals = [""]
    for before, part in zip([None, *node.values], node.values, strict=False):
        if isinstance(part, ast.Constant):
            literals[-1] += part.value
        elif not isinstance(before, ast.FormattedValue):
            literals.append("")
    return tuple(literals)


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def returned(names: set[str]) -> tuple[set[Form], set[str]]:
    functions = [
        node
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in names
    ]
    return joined(
        *(forms(n.value) for f in functions for n in ast.walk(f) if isinstance(n, ast.Return))
    )


def given(calls: set[str]) -> tuple[set[Form], set[str]]:
    """Of the first argument of calls; those of an error are its sentence."""
    found = [n for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.Call) and n.args]
    return joined(*(forms(call.args[0]) for call in found if name_of(call) in calls))


def failed() -> set[Form]:
    """What the engine itself says of a job: ``error="..."``."""
    found = [n for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.Call)]
    named = [k for c in found if name_of(c) in ("finish", "_finish") for k in c.keywords]
    return joined(*(forms(k.value) for k in named if k.arg == "error"))[0]


RAISED, UNREAD = joined(given(errors()), returned(SENTENCES), (failed(), set()))
SAID = given(PHRASES)[0] | returned({"by_hand"})[0]
WRITTEN = {form for tree in TREES for node in ast.walk(tree) if (form := form_of(node))}


# ---- the catalogue against the code ----------------------------------------------------------


def form(template: str) -> Form:
    return tuple(split(template)[0])


def filled(parts: Form) -> tuple[str, list[str]]:
    """A sentence with made-up values, and the values."""
    values = [f"<{place}>" for place in range(1, len(parts))]
    return "".join(a + b for a, b in zip(parts, [*values, ""], strict=True)), values


def test_the_code_is_understood() -> None:
    assert len(RAISED) > 300 and len(SAID) > 20
    assert UNREAD == OPAQUE


@pytest.mark.parametrize("parts", sorted(RAISED), ids=lambda parts: "{}".join(parts)[:60])
def test_every_sentence_has_its_chinese(parts: Form) -> None:
    assert parts in {form(template) for template in read("errors", "zh")}
    sentence, values = filled(parts)
    chinese = translated(sentence, "zh")
    assert is_chinese(chinese)
    assert all(value in chinese for value in values)


def test_every_reason_inside_a_sentence_has_its_chinese() -> None:
    assert {form(template) for template in read("phrases", "zh")} >= SAID


def test_no_entry_is_stale() -> None:
    sentences = set(read("errors", "zh"))
    assert {x for x in sentences if form(x) not in RAISED} == sentences & {*UNRAISED, *COMPOSED}
    phrases = set(read("phrases", "zh"))
    assert {x for x in phrases if form(x) not in WRITTEN} == phrases & COMPOSED
    assert {*UNRAISED, *COMPOSED} <= sentences | phrases
    assert all(form(x) in WRITTEN for x in UNRAISED)


@pytest.mark.parametrize("kind", ["errors", "phrases"])
def test_entries_fit_one_another(kind: str) -> None:
    for english, chinese in read(kind, "zh").items():
        assert sorted(split(english)[1]) == sorted(set(split(chinese)[1])), english
        assert len(set(split(english)[1])) == len(split(english)[1]), english
        formats = {how for _, name, how, _ in Formatter().parse(chinese) if name}
        assert formats <= {"", "told", "list", "told list"}, english
        assert any(c.isalpha() for c in "".join(form(english))), english  # fits not everything
        assert chinese != english or english.startswith("logits"), english


# ---- the translation itself ------------------------------------------------------------------


def test_an_english_session_reads_what_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "This model has no blocks."
    monkeypatch.setattr(i18n, "language", lambda: "en")
    assert i18n.error_sentence(PruneCoreError(sentence)) == sentence
    monkeypatch.setattr(i18n, "language", lambda: "zh")
    assert i18n.error_sentence(PruneCoreError(sentence)) == "此模型没有块。"
    assert translated(sentence, "en") == sentence


@pytest.mark.parametrize(
    "sentence", ["", "Nobody says so.", "It failed", "the model", "文件太大。"]
)
def test_what_is_not_known_stays(sentence: str) -> None:
    assert translated(sentence, "zh") == sentence


@pytest.mark.parametrize(
    "name", [r"a{0}b{x}", r"(.*)[\w+]^$|\1", "a.txt; b", "the model", "{{", "日本語 \n é", "heads"]
)
def test_values_are_put_in_as_they_are(name: str) -> None:
    assert translated(f"{name} is not valid JSON.", "zh") == f"{name} 不是有效的 JSON。"
    assert translated(f"There is no text file {name}.", "zh") == f"没有文本文件 {name}。"


def test_a_hostile_sentence_does_not_take_long() -> None:
    before = time.perf_counter()
    translated("; or {x} is damaged, got ' (: in block " * 5_000, "zh")
    assert time.perf_counter() - before < 5


@pytest.mark.parametrize("path", [*PAGES, *UI], ids=lambda path: path.name)
def test_no_place_shows_an_error_untranslated(path: Path) -> None:
    shown = ("plain(str(error", "plain(ticket.error", "plain(outcome.ticket.error", "plain(problem")
    text = path.read_text(encoding="utf-8")
    assert not [code for code in shown if code in text]


def test_a_page_shows_chinese_and_no_markup() -> None:
    def page() -> None:
        from prune_core.errors import RecipeError
        from prune_core.ui.frame.components import boundary

        with boundary("here"):
            raise RecipeError("unknown override '*x*'; use role:…, block:… or layer:….")

    at = AppTest.from_function(page)
    at.session_state["lang"] = "zh"
    found = at.run().error[0].value
    assert found.startswith("未知的微调") and r"\*x\*" in found


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
    ended = "The compute worker ended. It was given up; try a smaller one."
    assert translated(ended, "zh") == "计算进程已中止。已放弃此任务；请换一个更小的。"
    cell = "The cell could not be measured: The prompt is empty; write at least one word."
    assert translated(cell, "zh") == "无法测量此单元：提示是空的；请至少写一个词。"
    everywhere = Recipe(neurons=NeuronShare(0.1, scope="global"))
    problem = translated(format_problem("shrunk", None, everywhere), "zh")
    assert problem.endswith("或改用掩码格式导出。") and is_chinese(problem)


def test_what_python_says_stays() -> None:
    with pytest.raises(PruneCoreError) as caught:
        Recipe.from_json("{")
    reason = str(caught.value).partition(": ")[2]
    assert translated(caught.value, "zh") == f"方案不是有效的 JSON：{reason.removesuffix('.')}。"


def test_lists_are_joined_as_in_chinese() -> None:
    states = "none of these 5 runs is finished (3 failed, 2 pending), so there is nothing to report"
    assert "（3 个失败、2 个等待）" in translated(
        f"{states}; let the sweep end, or try its failed cells again.", "zh"
    )
    assert (
        translated("unknown method 'x'; use a, b or c.", "zh") == "未知的方法 'x'；请用：a、b、c。"
    )


def test_catalogues_are_plain_json() -> None:
    for kind in ("errors", "phrases"):
        path = PROJECT_ROOT / "assets" / "i18n" / kind / "zh.json"
        entries = json.loads(path.read_text(encoding="utf-8"))
        assert all(isinstance(x, str) and x.strip() for x in entries.values())
