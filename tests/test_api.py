"""The front door: the five lines, the command line's numbers, modules that stay as they are."""

from __future__ import annotations

import doctest
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import prune_core as pc
from prune_core import api
from prune_core.cli.main import main
from prune_core.errors import PruneCoreError, RecipeError, SourceError, TextError, UnknownNameError
from prune_core.jobs.base import LoadModel
from prune_core.recipes.parts import NeuronShare

pytestmark = pytest.mark.usefixtures("own_cache")

ROOT = Path(__file__).parents[1]
DECODERS = ("tiny-llama", "tiny-gpt2", "tiny-opt", "tiny-neox")
SMALL = {"seq_len": 24, "windows": 3}
SMALL_OPTIONS = ("--seq-len", "24", "--windows", "3")
WORDS = "The king had a daughter who could not be made to laugh, and whoever made her laugh. " * 20
OTHER = "Seven ravens flew over the glass mountain where a small star sat and counted keys. " * 60


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text(WORDS, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def calibration() -> pc.Calibration:
    return pc.Calibration(pc.TextSpec("inline", OTHER), windows=3, seq_len=32)


@pytest.fixture(scope="module")
def model(own_cache: None) -> api.Model:
    return pc.load("tiny-llama")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What a command prints with ``--json``."""

    def call(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    return call


def by_hand(module: torch.nn.Module, text: str, model: api.Model) -> float:
    """Perplexity of the text's first windows, written out."""
    tokenizer = model.core.loaded(model.source).handle.tokenizer
    tokens = torch.tensor(tokenizer(Path(text).read_text(), add_special_tokens=False)["input_ids"])
    total = count = 0.0
    for start in range(0, 3 * 24, 24):
        window = tokens[start : start + 24]
        with torch.no_grad():
            logits = module(input_ids=window[None]).logits[0, :-1].double()
        total -= float(logits.log_softmax(-1).gather(1, window[1:, None]).sum())
        count += len(window) - 1
    return math.exp(total / count)


# ---- the door itself ---------------------------------------------------------------------------


def test_nothing_heavy_comes_before_a_model_is_loaded() -> None:
    code = """
import sys
import prune_core as pc
assert not [name for name in sys.modules if name.startswith("prune_core.")]
recipe = pc.Recipe(criterion="wanda", sparsity=0.5, calibration=pc.Calibration(windows=4))
assert recipe.pattern == "per-row" and "wanda" in pc.CRITERIA and callable(pc.sweep)
assert pc.load.__module__ == "prune_core.api" and set(pc.__all__) <= set(dir(pc))
heavy = {"torch", "transformers", "tokenizers", "plotly", "sqlite3", "streamlit"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        pc.laod  # noqa: B018 - misspelled on purpose


@pytest.mark.parametrize("module", [api, pc], ids=["api", "prune_core"])
def test_the_examples_of_docstrings_run(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried >= 3 and failed == 0


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "prune_core" / "py.typed").is_file()


# ---- the command line's numbers ----------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"criterion": "magnitude", "sparsity": 0.5},
        {"criterion": "wanda", "sparsity": 0.4},
        {"criterion": "wanda", "sparsity": 0.5, "reconstruction": "sparsegpt"},
        {"sparsity": 0.3, "drop_blocks": (1,), "drop_heads": ((0, 2),)},
        {"neurons": NeuronShare(0.25)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_evaluate_is_the_command_lines_to_the_bit(
    model: api.Model,
    text: str,
    calibration: pc.Calibration,
    tmp_path: Path,
    said: Callable[..., dict[str, Any]],
    changes: dict[str, Any],
) -> None:
    recipe = pc.Recipe(**changes, calibration=calibration)
    file = tmp_path / "recipe.json"
    file.write_text(recipe.to_json(), encoding="utf-8")

    ours = model.prune(recipe).evaluate(text, **SMALL)
    line = ("evaluate", "tiny-llama", "--recipe", str(file), "--text", text)
    theirs = said(*line, *SMALL_OPTIONS)

    # all but how long it took, and what only one of the two says
    left_out = {"seconds", "first_block", "recipe", "fingerprint", "warnings"}
    same = {key: value for key, value in theirs.items() if key not in left_out}
    assert len(same) > 30
    measured = json.loads(json.dumps(ours.to_dict()))
    assert {key: measured[key] for key in same} == same
    assert ours.perplexity == theirs["perplexity"] and ours.kl == theirs["kl"]
    assert ours.perplexity_dense == theirs["perplexity_dense"] != ours.perplexity


def test_generate_is_the_command_lines(
    model: api.Model, said: Callable[..., dict[str, Any]]
) -> None:
    pruned = model.prune(pc.Recipe(sparsity=0.6))
    ours = pruned.generate("Once upon", max_new_tokens=12, greedy=False, seed=3, with_dense=True)
    theirs = said(
        *("generate", "tiny-llama", "--sparsity", "0.6", "--prompt", "Once upon"),
        *("--max-new-tokens", "12", "--seed", "3"),
    )
    assert (ours.text, ours.dense) == (theirs["pruned"]["text"], theirs["dense"]["text"])
    assert ours.divergence == theirs["divergence"]
    alone = model.generate("Once upon", max_new_tokens=12, greedy=False, seed=3)
    assert alone.text == ours.dense and alone.dense is None and ours.text != ours.dense


@pytest.mark.parametrize(
    ("of", "method"),
    [
        *(("heads", None), ("heads", "weight-norm"), ("neurons", None), ("blocks", None)),
        *(("blocks", "angular"), ("blocks", "greedy")),
        *(("blocks", "ablation"), ("layers", None), ("layers", "ablation"), ("layers", "wanda")),
    ],
)
def test_importance_is_the_command_lines(
    model: api.Model,
    text: str,
    said: Callable[..., dict[str, Any]],
    of: str,
    method: str | None,
) -> None:
    ours = model.importance(of, method, text=text, **SMALL)
    options = () if method is None else ("--method", method)
    line = ("importance", "tiny-llama", "--of", of, *options, "--text", text)
    theirs = said(*line, *SMALL_OPTIONS)
    assert list(ours.scores) == theirs["scores"]
    assert (ours.of, ours.method) == (theirs["of"], theirs["method"])


# ---- the pruned module -------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    "recipe",
    [
        pc.Recipe(sparsity=0.5),
        pc.Recipe(sparsity=0.3, drop_blocks=(1,), drop_heads=((0, 1),), drop_neurons=((0, 5),)),
    ],
    ids=["weights", "structure"],
)
def test_the_module_gives_the_perplexity(name: str, recipe: pc.Recipe, text: str) -> None:
    model = pc.load(name)
    pruned = model.prune(recipe)
    module = pruned.torch

    want = pruned.evaluate(text, **SMALL)
    assert by_hand(module, text, model) == pytest.approx(want.perplexity, rel=1e-5)
    assert by_hand(model.torch, text, model) == pytest.approx(want.perplexity_dense, rel=1e-5)
    assert not module.training


def test_the_module_stays_what_it_is(
    model: api.Model, text: str, calibration: pc.Calibration
) -> None:
    dense = {name: value.clone() for name, value in model.torch.state_dict().items()}
    first = model.prune(pc.Recipe(sparsity=0.5)).torch
    before = {name: value.clone() for name, value in first.state_dict().items()}
    perplexity = by_hand(first, text, model)

    second = model.prune(pc.Recipe("wanda", sparsity=0.7, calibration=calibration))
    second.evaluate(text, **SMALL)
    third = model.prune(pc.Recipe(drop_blocks=(0,)))
    third.evaluate(text, **SMALL)
    assert second.torch is second.torch and third.torch is not first

    assert by_hand(first, text, model) == perplexity
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    now = model.torch.state_dict()
    assert all(torch.equal(value, dense[name]) for name, value in now.items())


def test_the_module_holds_the_mask_and_shares_the_rest(model: api.Model) -> None:
    """Magnitude per layer, counted and compared with what a sort says."""
    layers = [layer.name for layer in model.info.layers]
    kept = next(name for name in layers if name.endswith("down_proj"))
    recipe = pc.Recipe(sparsity=0.5, overrides={f"layer:{kept}": 0.0})
    dense, pruned = model.torch.state_dict(), model.prune(recipe).torch.state_dict()

    for name, value in pruned.items():
        weight = dense[name]
        if name.removesuffix(".weight") not in layers or name == f"{kept}.weight":
            assert value.data_ptr() == weight.data_ptr(), f"{name} is a copy"
            continue
        assert value.data_ptr() != weight.data_ptr()
        gone = value == 0
        assert torch.equal(value[~gone], weight[~gone])
        assert weight[gone].abs().max() <= weight[~gone].abs().min()
        assert abs(int(gone.sum()) - 0.5 * weight.numel()) <= 1


def test_export_writes_the_module(model: api.Model, text: str, tmp_path: Path) -> None:
    pruned = model.prune(pc.Recipe(sparsity=0.5, drop_heads=((1, 0),)))
    folder = pruned.export(tmp_path / "out", format="masked", text=text, **SMALL)

    assert folder == tmp_path / "out"
    read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    ours = pruned.torch.state_dict()
    assert read.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in read.items())


# ---- the rest ----------------------------------------------------------------------------------


def test_a_sweep_measures_what_evaluate_measures(
    model: api.Model, text: str, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    grid = {"model": "tiny-llama", "text": text, "sparsity": [0.2, 0.6], **SMALL}
    swept = pc.sweep(grid, store=tmp_path / "runs.sqlite", threads=threads)

    assert swept.state == "ended" and len(swept.runs) == 2
    for run in swept.runs:
        want = model.prune(run.cell.recipe).evaluate(text, **SMALL)
        assert run.numbers is not None and run.numbers["perplexity"] == want.perplexity
    again = pc.sweep(grid, store=tmp_path / "runs.sqlite", threads=threads)
    assert again.id == swept.id and len(again.runs) == 2


def test_events_say_how_far_it_is(text: str, calibration: pc.Calibration) -> None:
    events: list[dict[str, Any]] = []
    model = pc.load("tiny-gpt2", on_event=events.append)
    model.prune(pc.Recipe("wanda", sparsity=0.5, calibration=calibration)).evaluate(text, **SMALL)
    stages = {event.get("stage") for event in events}
    assert stages >= {"statistics", "ranks", "evaluate"}


def test_any_job_runs(model: api.Model) -> None:
    assert model.run(LoadModel("tiny-llama"))["family"] == model.info.family == "llama"


def test_an_encoder_has_a_similarity_in_place_of_a_perplexity(text: str) -> None:
    measured = pc.load("tiny-bert").prune(pc.Recipe(sparsity=0.5)).evaluate(text, **SMALL)
    assert measured.perplexity is None and measured.similarity is not None
    assert 0 < measured.similarity < 1


def test_what_a_user_gets_wrong_is_one_sentence(model: api.Model, text: str) -> None:
    with pytest.raises(SourceError, match="did you mean tiny-llama"):
        pc.load("tiny-lama")
    with pytest.raises(UnknownNameError, match="wandda"):
        model.prune(pc.Recipe("wandda", sparsity=0.5))
    with pytest.raises(RecipeError, match="no argument 'power'"):
        model.prune(pc.Recipe(criterion_args={"power": 2.0}, sparsity=0.5))
    with pytest.raises(RecipeError, match="heads, neurons, blocks or layers, got 'tails'"):
        model.importance("tails")
    with pytest.raises(UnknownNameError, match="gradient"):
        model.importance("blocks", "gradient", text=text)
    same = pc.Calibration(pc.TextSpec("file", text), windows=2, seq_len=32)
    with pytest.raises(TextError):
        model.prune(pc.Recipe("wanda", sparsity=0.5, calibration=same)).evaluate(text, **SMALL)
    with pytest.raises(PruneCoreError):
        model.prune(pc.Recipe(drop_blocks=(9,))).torch  # noqa: B018 - it is worked out there
