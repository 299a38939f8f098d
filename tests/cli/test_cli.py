"""The command line: what machines read, what people are told, and the commands pages show."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from prune_core.cli import cost as cli_cost
from prune_core.cli import export as cli_export
from prune_core.cli import main as cli
from prune_core.cli.running import ShownModel
from prune_core.errors import PruneCoreError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.heads import AttentionPattern, HeadImportance
from prune_core.models.handle import ModelHandle
from prune_core.models.weight_counts import WeightCounts
from prune_core.paths import PROJECT_ROOT
from prune_core.recipes.recipe import Recipe

pytestmark = pytest.mark.usefixtures("own_cache")

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--seq-len", "16", "--windows", "3")
WORDS = "The king had a daughter who could not be made to laugh, and whoever made her laugh. " * 20


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("PRUNE_DEVICE", "PRUNE_DTYPE", "PRUNE_SOURCES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(WORDS, encoding="utf-8")
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def one_object(answer: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = answer
    assert code == 0, err
    assert out.count("\n") == 1 and out.endswith("\n")
    read = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(read, dict)
    return read


# ---- verbs -----------------------------------------------------------------------------------


def test_evaluate_gives_the_promised_fields_as_one_object(run: Run, text: str) -> None:
    got = one_object(
        run("evaluate", "tiny-llama", "--sparsity", "0.5", "--text", text, *SMALL, "--json")
    )

    for name in ("perplexity", "perplexity_dense", "nll", "nll_stderr"):
        assert got[name] > 0
    assert got["perplexity"] == pytest.approx(math.exp(got["nll"]), rel=1e-6)
    assert got["delta_nll"] == pytest.approx(
        math.log(got["perplexity"]) - math.log(got["perplexity_dense"]), abs=1e-6
    )
    assert got["delta_nll_stderr"] >= 0
    assert got["tokens"] == 3 * 15
    assert set(got["seconds"]) >= {"load", "statistics", "ranks", "apply", "evaluate"}
    assert all(seconds >= 0 for seconds in got["seconds"].values())
    assert got["recipe"] == Recipe(sparsity=0.5).to_dict()


def test_sparsity_is_counted_not_repeated(
    run: Run, text: str, handles: dict[str, ModelHandle]
) -> None:
    asked = 0.123456789
    got = one_object(
        run("evaluate", "tiny-llama", "--sparsity", str(asked), "--text", text, *SMALL, "--json")
    )

    layers = handles["tiny-llama"].structure.layers.values()
    total = sum(layer.numel for layer in layers)
    assert got["sparsity"] == pytest.approx(sum(got["removed"].values()) / total, abs=1e-12)
    assert got["sparsity"] == pytest.approx(asked, abs=len(layers) / total)


def test_two_of_four_brings_its_sparsity(run: Run, text: str) -> None:
    got = one_object(
        run("evaluate", "tiny-llama", "--pattern", "nm:2:4", "--text", text, *SMALL, "--json")
    )

    assert got["sparsity"] == 0.5 and got["recipe"]["sparsity"] == 0.5


def test_a_recipe_file_replaces_the_options(run: Run, text: str, tmp_path: Path) -> None:
    recipe = Recipe(sparsity=0.25, pattern="per-row", drop_heads=((1, 0),))
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json(), encoding="utf-8")

    got = one_object(
        run("evaluate", "tiny-llama", "--recipe", str(path), "--text", text, *SMALL, "--json")
    )

    assert got["recipe"] == recipe.to_dict() and got["fingerprint"] == recipe.fingerprint


def test_inspect_gives_a_row_for_each_layer(run: Run, handles: dict[str, ModelHandle]) -> None:
    got = one_object(run("inspect", "tiny-gpt2", "--json"))

    handle = handles["tiny-gpt2"]
    assert [row["name"] for row in got["rows"]] == list(handle.structure.layers)
    for row in got["rows"]:
        weight = handle.structure.layers[row["name"]].weight(handle.model)
        assert row["shape"] == list(weight.shape) and row["numel"] == weight.numel()
        assert row["mean_abs"] == pytest.approx(float(weight.abs().mean()), rel=1e-5)
        assert row["zeros"] == int((weight == 0).sum())
        assert {"block", "role", "std", "quantiles"} <= set(row)
        assert row["quantiles"]["q50"] == pytest.approx(float(weight.abs().median()), rel=1e-2)


@pytest.mark.parametrize("method", ["gradient", "weight-norm"])
def test_importance_gives_blocks_by_heads(
    run: Run, text: str, handles: dict[str, ModelHandle], method: str
) -> None:
    got = one_object(
        run(
            *("importance", "tiny-llama", "--of", "heads", "--method", method),
            *("--text", text, *SMALL, "--json"),
        )
    )

    blocks = handles["tiny-llama"].structure.blocks
    heads = [b.attention.num_heads for b in blocks if b.attention is not None]
    assert got["method"] == method and got["shape"] == [len(blocks), heads[0]]
    assert [len(row) for row in got["scores"]] == heads
    assert all(score >= 0 for row in got["scores"] for score in row)
    assert got["seconds"] is not None


def test_generate_answers_twice_and_the_same_where_nothing_is_removed(run: Run) -> None:
    command = ("generate", "tiny-llama", "--prompt", "The king", "--max-new-tokens", "6")
    got = one_object(run(*command, "--greedy", "--json"))

    assert got["dense"]["text"] == got["pruned"]["text"] and got["divergence"] is None
    assert len(got["dense"]["pieces"]) <= 6


def test_a_seed_decides_what_is_sampled(run: Run) -> None:
    command = ("generate", "tiny-llama", "--prompt", "The king", "--max-new-tokens", "12", "--json")
    first, again, other = (
        one_object(run(*command, "--seed", seed))["dense"]["text"] for seed in ("1", "1", "2")
    )

    assert first == again != other


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("inspect", "tiny-opt"), "mean |w|"),
        (("importance", "tiny-llama", "--method", "weight-norm"), "self-attention, weight-norm"),
        (("evaluate", "tiny-llama", "--sparsity", "0.5", *SMALL), "perplexity"),
        (("evaluate", "tiny-bert", "--sparsity", "0.5", *SMALL), "measured on"),
        (("generate", "tiny-llama", "--prompt", "A", "--max-new-tokens", "3"), "[pruned]"),
    ],
)
def test_people_get_words(run: Run, text: str, arguments: tuple[str, ...], shown: str) -> None:
    more = ("--text", text) if arguments[0] in ("importance", "evaluate") else ()
    code, out, err = run(*arguments, *more)

    assert code == 0 and shown in out and err == ""


# ---- errors ----------------------------------------------------------------------------------

EVALUATE = ("evaluate", "tiny-llama", *SMALL)
IMPORTANCE = ("importance", "tiny-llama", "--of")
NINES = "9" * 5000
WRONG = {
    "sparsity above one": ((*EVALUATE, "--sparsity", "1.5"), "1.5"),
    "sparsity below zero": ((*EVALUATE, "--sparsity", "-0.1"), "-0.1"),
    "sparsity not a number": ((*EVALUATE, "--sparsity", "nan"), "nan"),
    "sparsity a word": ((*EVALUATE, "--sparsity", "half"), "half"),
    "no such model": (("inspect", "tiny-lama"), "tiny-lama"),
    "no such text": ((*EVALUATE, "--text", "/nowhere/text.txt"), "/nowhere/text.txt"),
    "near miss": ((*EVALUATE, "--sparsity", "0.5", "--criterion", "magnitud"), "'magnitude'"),
    "near miss, dense": ((*EVALUATE, "--criterion", "magnitud"), "'magnitude'"),
    "N:M against sparsity": ((*EVALUATE, "--pattern", "nm:2:4", "--sparsity", "0.3"), "0.5"),
    "N:M ranked globally": ((*EVALUATE, "--pattern", "nm:2:4", "--allocation", "global"), "N:M"),
    "no such pattern": ((*EVALUATE, "--pattern", "per-colum", "--sparsity", "0.5"), "per-row"),
    "no recipe": ((*EVALUATE, "--recipe", "/nowhere/recipe.json"), "/nowhere/recipe.json"),
    "heads as words": ((*EVALUATE, "--drop-heads", "first"), "0:3,5:1"),
    "heads half": ((*EVALUATE, "--drop-heads", "0:1,2"), "'2'"),
    "heads superscript": ((*EVALUATE, "--drop-heads", "0:\u00b2"), "0:3,5:1"),
    "heads it has not": ((*EVALUATE, "--drop-heads", "0:99"), "99"),
    "no windows": ((*EVALUATE, "--windows", "0"), "window"),
    "an encoder writes": (("generate", "tiny-bert", "--prompt", "A"), "encoder"),
    "no prompt": (("generate", "tiny-llama"), "--prompt"),
    "no tokens": (("generate", "tiny-llama", "--prompt", "A", "--max-new-tokens", "0"), "0"),
    "no such asset": (("fetch", "smollm3"), "smollm3"),
    "heads beyond number": ((*EVALUATE, "--drop-heads", f"0:{NINES}"), "--drop-heads"),
    "blocks beyond number": ((*EVALUATE, "--drop-blocks", NINES), "--drop-blocks"),
    "neurons beyond number": ((*EVALUATE, "--drop-neurons", f"{NINES}:0"), "--drop-neurons"),
    "a neuron beyond number": ((*IMPORTANCE, "neurons", "--neuron", f"0:{NINES}"), "--neuron"),
    "recipe without a name": ((*EVALUATE, "--recipe", ""), "--recipe"),
    "text without a name": ((*EVALUATE, "--text", ""), "No text is named"),
    "calibration too long": (
        (*EVALUATE, "--drop-neurons", "0.5", "--calibration-seq-len", "513"),
        "Calibration windows of 513",
    ),
    "seed": (("generate", "tiny-llama", "--prompt", "A", "--seed", str(2**64)), "seed"),
    "prompt not UTF-8": (("generate", "tiny-llama", "--prompt", "\udcff"), "prompt"),
    "folder not UTF-8": (("export", "tiny-llama", "--to", "/tmp/\udcff"), "--to"),
    "report not UTF-8": (("report", "--to", "/tmp/\udcff"), "--to"),
    "all blocks in a run": (
        (*IMPORTANCE, "blocks", "--method", "angular", "--run", "4", *SMALL),
        "between 1 and 3 blocks",
    ),
    "windows without end": ((*IMPORTANCE, "heads", "--windows", "99999"), "1 to 4096 windows"),
    "no such method of layers": ((*IMPORTANCE, "layers", "--method", "foo"), "ablation"),
    "near miss of layers": ((*IMPORTANCE, "layers", "--method", "ablaton"), "'ablation'?"),
    "no verb": ((), "VERB"),
    "no such verb": (("evalute", "tiny-llama"), "evalute"),
}


@pytest.mark.parametrize(("arguments", "named"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("machine", [False, True], ids=["words", "json"])
def test_a_mistake_is_one_line_that_names_it(
    run: Run, text: str, arguments: tuple[str, ...], named: str, machine: bool
) -> None:
    if arguments[:1] in (("evaluate",), ("importance",)) and "--text" not in arguments:
        arguments = (*arguments, "--text", text)
    if arguments and machine:
        arguments = (*arguments, "--json")

    code, out, err = run(*arguments)

    assert code in (1, 2) and out == ""
    assert named in err and "Traceback" not in err
    assert err.count("\n") == 1 and len(err) < 400


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"{", b"[]", b'{"schema": 9}', b'{"schema": 1, "sparsty": 1}']
)
def test_a_recipe_that_is_none_is_refused(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(content)

    code, out, err = run("evaluate", "tiny-llama", "--recipe", str(path))

    assert code == 1 and out == "" and "recipe" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "option", "owner"),
    [
        (("blocks", "--lowest", "0.1"), "--lowest", "--of heads"),
        (("layers", "--lowest", "0.1"), "--lowest", "--of heads"),
        (("neurons", "--neuron", "0:1", "--lowest", "0.1"), "--lowest", "without --neuron"),
        (("heads", "--scope", "block"), "--scope", "--lowest"),
        (("heads", "--method", "entropy", "--normalize"), "--normalize", "--method gradient"),
        (("neurons", "--normalize"), "--normalize", "--method gradient"),
        (("heads", "--neuron", "0:1"), "--neuron", "--of neurons"),
        (("heads", "--run", "1"), "--run", "--method angular"),
        (("blocks", "--method", "ablation", "--run", "2"), "--run", "--method angular"),
        (("layers", "--halves"), "--halves", "--method ablation"),
        (("layers", "--method", "ablation", "--halves"), "--halves", "--of blocks"),
        (("blocks", "--steps", "2"), "--steps", "--method greedy"),
        (("blocks", "--method", "angular", "--ends"), "--ends", "--method greedy"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    run: Run, arguments: tuple[str, ...], option: str, owner: str
) -> None:
    code, out, err = run(*IMPORTANCE, *arguments)

    assert code == 1 and out == "" and err.count("\n") == 1
    assert err.startswith(f"{option} belongs to ") and owner in err


@pytest.mark.parametrize(
    ("model", "more", "steps"),
    [("tiny-llama", (), 2), ("tiny-llama", ("--ends",), 3), ("tiny-opt", ("--ends",), 1)],
)
def test_a_greedy_search_takes_what_a_small_model_can_lose(
    run: Run, text: str, model: str, more: tuple[str, ...], steps: int
) -> None:
    words = ("importance", model, "--of", "blocks", "--method", "greedy", "--text", text)
    got = one_object(run(*words, *SMALL, *more, "--json"))

    assert len(got["suggested"]) == steps


def test_columns_stay_apart_on_a_fast_machine(capsys: pytest.CaptureFixture[str]) -> None:
    speed = {"median": 98765.4, "low": 98765.4, "high": 98765.4}
    same = dict.fromkeys(("prefill", "decode"), speed)
    numbers = ("parameters", "nonzero", "bytes", "flops_per_token", "peak_memory", "perplexity")
    side = {**dict.fromkeys(numbers, 1), **same}
    cost = dict.fromkeys(
        (
            *("parameters", "parameters_shrunk", "nonzero", "nonzero_dense", "bytes_dense"),
            *("bytes_shrunk", "bytes_sparse_dense"),
            *("bytes_half", "bytes_sparse", "flops_dense", "flops_shrunk", "dense_peak_memory"),
            *("zeros_peak_memory", "peak_memory"),
        ),
        1,
    )
    speeds = {f"{who}{key}": speed for who in ("dense_", "zeros_", "") for key in same}
    cli_cost.show({**cost, **speeds, "parts": {"heads": 1}, "shrunk_refused": None})
    counts = WeightCounts(4, 3, 1, 0, 0, 0, 0).to_numbers()
    screen = {**counts, "perplexity_low": None, "perplexity_high": None}
    export = {"folder": "x", "format": "masked", "dense": side, "exported": side, "screen": screen}
    cli_export.show(export)

    lines = [line for line in capsys.readouterr().out.splitlines() if "per second" in line]
    assert len(lines) == 4
    for line in lines:
        assert line.count(") ") == line.count("(98765.4 to") - 1 >= 1


def test_every_option_says_what_it_is() -> None:
    actions = cli.command_parser()._actions
    verbs: Any = next(action.choices for action in actions if action.metavar == "VERB")
    for verb, parser in verbs.items():
        parser.format_help()  # a lone % in a help would end it with an error
        for action in parser._actions:
            assert action.help or not action.option_strings, (verb, action.option_strings)


def test_the_break_key_ends_without_a_traceback(run: Run) -> None:
    with mock.patch.object(ShownModel, "run", side_effect=KeyboardInterrupt):
        assert run("inspect", "tiny-llama", "--json") == (130, "", "Cancelled.\n")


def test_what_is_not_finite_becomes_null(run: Run) -> None:
    with mock.patch.object(
        ShownModel, "run", return_value={"rows": [], "a": [math.nan, (math.inf, 1)]}
    ):
        got = one_object(run("inspect", "tiny-llama", "--json"))

    assert got["a"] == [None, [None, 1]]


# ---- a process of its own --------------------------------------------------------------------


def test_a_process_prints_only_the_object(text: str) -> None:
    """A shell runs the very line that a page shows."""
    recipe = Recipe(sparsity=0.5, overrides={"block:1": 0.25, "role:mlp.down": 0.0})
    job = Evaluate("tiny-llama", recipe, TextSpec("file", text), seq_len=16, windows=2)
    line = command_line(job).replace("python", shlex.quote(sys.executable), 1)

    done = subprocess.run(
        ["bash", "-c", f"{line} --json"],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        check=False,
    )

    got = one_object((done.returncode, done.stdout, done.stderr))
    assert got["recipe"] == recipe.to_dict()
    assert done.stderr == ""


def test_a_process_fails_with_a_code_and_a_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prune_core", "evaluate", "tiny-llama", "--sparsity", "1.5"],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        check=False,
    )

    assert done.returncode == 1 and done.stdout == ""
    assert "1.5" in done.stderr and done.stderr.count("\n") == 1


# how an answer leaves is the same for each verb; ``runs`` loads no model
def answer_to(place: Any, *more: str) -> tuple[int, str]:
    """Exit code and standard error of a process that writes its answer to a file or pipe."""
    words = [sys.executable, "-m", "prune_core", "runs", *more]
    done = subprocess.run(
        words, stdout=place, stderr=subprocess.PIPE, text=True, cwd=PROJECT_ROOT, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_answer_that_finds_no_room_is_one_sentence(more: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        said = answer_to(full, *more)

    assert said == (1, "The answer could not be written: No space left on device.\n")


def test_a_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as ``| head -0`` does, before anything is written
    try:
        said = answer_to(writing, "--json")
    finally:
        os.close(writing)

    assert said == (141, "")


# ---- the commands that pages show ------------------------------------------------------------


def asked_for(line: str) -> Any:
    """The job that the command line makes of a command."""
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "prune_core"]
    taken: list[Any] = []

    def take(job: Any) -> dict[str, Any]:
        taken.append(job)
        text = {"text": ""}
        return {
            "sites": [{"scores": [[0.0]]}],
            "pruned": text,
            "dense": text,
            "divergence": None,
            "folder": "",
        }

    with mock.patch.object(ShownModel, "run", side_effect=take), mock.patch("builtins.print"):
        assert cli.main([*words[3:], "--json"]) == 0
    return taken[0]


sources = some.sampled_from(
    ["smollm2-135m", "tiny-llama", "hub:openai-community/gpt2@main", "/a folder/it's", "m.gguf"]
)
shares = some.one_of(some.just(0.0), some.floats(1e-9, 1.0))
heads = some.lists(some.tuples(some.integers(0, 99), some.integers(0, 99)), max_size=4).map(tuple)
plain = some.builds(
    Recipe,
    criterion=some.sampled_from(["magnitude", "random"]),
    pattern=some.just("per-layer"),
    allocation=some.sampled_from(["uniform", "global"]),
    sparsity=shares,
    drop_heads=heads,
    drop_cross_heads=heads,
)
rows = some.builds(Recipe, pattern=some.just("per-row"), sparsity=shares, drop_heads=heads)
ratios = some.sampled_from(["nm:2:4", "nm:1:3", "nm:4:8", "nm:1:7"]).map(Recipe().with_pattern)
recipes = some.one_of(plain, rows, ratios)
texts = some.one_of(
    some.sampled_from(["grimm", "andersen"]).map(lambda name: TextSpec("preset", name)),
    some.sampled_from(["/a b/c.txt", "it's.txt", "-x.txt"]).map(lambda p: TextSpec("file", p)),
)
lengths = {"seq_len": some.integers(2, 4096), "windows": some.integers(1, 4096)}
prompts = some.text(some.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=60)
@given(some.builds(Evaluate, sources, recipes, texts, **lengths))
def test_the_command_of_an_evaluation_asks_for_the_same(job: Evaluate) -> None:
    assert asked_for(command_line(job)) == job


@settings(max_examples=60)
@given(
    some.builds(
        Generate,
        sources,
        recipes,
        prompts,
        greedy=some.booleans(),
        max_new_tokens=some.integers(1, 512),
        seed=some.integers(0, 2**31),
        chat=some.booleans(),
    ),
    some.floats(0.01, 5.0),
    some.floats(0.01, 1.0),
)
def test_the_command_of_an_answer_asks_for_the_same(
    job: Generate, temperature: float, top_p: float
) -> None:
    if not job.greedy:  # the likeliest token needs neither
        job = Generate(
            *(job.source, job.recipe, job.prompt, job.max_new_tokens, False, job.seed),
            *(temperature, top_p, job.chat),
        )
    assert asked_for(command_line(job)) == job


@settings(max_examples=40)
@given(some.builds(HeadImportance, sources, some.just("gradient"), texts, **lengths))
def test_the_command_of_head_importance_asks_for_the_same(job: HeadImportance) -> None:
    assert asked_for(command_line(job)) == job


@pytest.mark.parametrize("method", ["gradient", "weight-norm"])
@pytest.mark.parametrize("normalize", [False, True])
def test_normalized_head_importance_says_so(method: str, normalize: bool) -> None:
    job = HeadImportance("tiny-llama", method, normalize=normalize)
    again = asked_for(command_line(job))

    # weight norms read no text, so their command names none
    assert (again.source, again.method) == ("tiny-llama", method)
    assert again.normalize == (normalize and method == "gradient")  # the others have no gradient


def test_pasted_text_is_named_as_a_file_to_save() -> None:
    job = Evaluate("tiny-llama", Recipe(), TextSpec("inline", "secret words"), 16, 2)
    line = command_line(job)

    assert "secret" not in line and asked_for(line).text == TextSpec("file", "text.txt")


def test_a_job_without_a_verb_says_so() -> None:
    with pytest.raises(PruneCoreError, match="AttentionPattern"):
        command_line(AttentionPattern("tiny-llama", "A sentence", 0))
