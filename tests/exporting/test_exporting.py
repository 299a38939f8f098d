"""Exports: shapes, answers and perplexity against plain transformers; what comes along."""

from __future__ import annotations

import copy
import datetime
import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
)

from prune_core.cli.main import main
from prune_core.engine.core import Core
from prune_core.errors import PruneCoreError, RecipeError
from prune_core.exporting.cost import flops_per_token, parameter_counts
from prune_core.exporting.formats import FORMATS
from prune_core.jobs.base import TextSpec
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Export
from prune_core.models.reading import quiet
from prune_core.models.tiny import TINY, tiny_model, tiny_tokenizer
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.words.numbers import with_error
from tests.isolated import LEFT_OUT, environment, perplexity
from tests.models.test_model_files import llama_config, write_gguf

TEXT = TextSpec("inline", "The fox ran over the hill and far away from here. " * 60)
LAST = Recipe(sparsity=0.3, drop_blocks=(1,))


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield Core()


@pytest.fixture
def run(core: Core) -> Callable[..., dict[str, Any]]:
    return lambda job: core.run(job)


def job(recipe: Recipe, folder: Path, form: str = "shrunk", source: str = "tiny-llama") -> Export:
    return Export(source, recipe, str(folder), form, False, TEXT, 32, 3, 0)


def parts(core: Core, name: str) -> dict[str, Recipe]:
    structure = core.loaded(name).handle.structure
    blocks = structure.blocks
    attention = blocks[0].attention
    assert attention is not None
    group = range(attention.group_size)
    return {
        "block": Recipe(drop_blocks=(len(blocks) - 1,)),
        "neurons": Recipe(
            sparsity=0.2, drop_neurons=tuple((b.index, n) for b in blocks for n in (1, 4))
        ),
        "heads": Recipe(drop_heads=tuple((b.index, h) for b in blocks for h in group)),
    }


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.parametrize("what", ["block", "neurons", "heads"])
def test_surgery_answers_as_masking_does(
    name: str, what: str, core: Core, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = parts(core, name)[what]
    if what == "heads" and name != "tiny-llama":
        with pytest.raises(RecipeError, match="masked"):
            run(job(recipe, tmp_path / "out", source=name))
        assert not list(tmp_path.iterdir())
        recipe = replace(recipe)
        run(job(recipe, tmp_path / "out", "masked", source=name))
        return
    got = run(job(recipe, tmp_path / "out", source=name))
    assert got["difference"] < 1e-4
    assert got["exported"]["parameters"] < got["dense"]["parameters"]
    assert got["exported"]["flops_per_token"] < got["dense"]["flops_per_token"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that has torch, transformers and what those need."""
    return environment(tmp_path_factory.mktemp("environment") / "plain")


@pytest.mark.parametrize("form", ["masked", "shrunk"])
def test_plain_transformers_gives_the_perplexity_on_screen(
    form: str, core: Core, run: Callable[..., dict[str, Any]], python: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    loaded = core.loaded("tiny-llama")
    left = [b.index for b in loaded.handle.structure.blocks if b.index not in LAST.drop_blocks]
    recipe = replace(LAST, drop_neurons=tuple((b, n) for b in left for n in (2, 3, 9)))
    got = run(job(recipe, folder, form))
    on_screen = run(Evaluate("tiny-llama", recipe, TEXT, 32, 3))
    there = perplexity(python, folder, [w.tolist() for w in loaded.windows(TEXT, 32, 3)])
    assert there["perplexity"] == pytest.approx(on_screen["perplexity"], rel=1e-3)
    assert there["perplexity"] == pytest.approx(got["exported"]["perplexity"], rel=1e-5)
    assert there["parameters"] == got["exported"]["parameters"] and there["text"]
    assert Recipe.from_json((folder / "recipe.json").read_text()) == recipe
    assert not list(tmp_path.glob(".*"))
    assert got["files"] == {path.name: path.stat().st_size for path in folder.iterdir()}


def test_the_environment_has_no_more_than_it_says(python: Path) -> None:
    program = (
        "import sys; from importlib.util import find_spec\n"
        f"print([name for name in {(*LEFT_OUT, 'torch', 'transformers')!r} if find_spec(name)])\n"
        "print(*[place for place in sys.path if place.endswith('site-packages')])"
    )
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    found, place = done.stdout.splitlines()
    assert found == "['torch', 'transformers']"
    assert Path(place).is_relative_to(python.parent.parent)


def test_the_model_card_says_what_was_done(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    got = run(replace(job(LAST, folder), repeats=1))
    card = (folder / "README.md").read_text()
    assert card == got["card"]
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "apache-2.0" and "Llama" in head["base_model"]
    measured, screen = got["exported"], got["screen"]
    error = (screen["perplexity_high"] - screen["perplexity_low"]) / (2 * 1.96)
    written = with_error(measured["perplexity"], error).split(" ")[0]
    said = [
        "modified copy of Tiny Llama",
        "Apache-2.0",
        datetime.date.today().isoformat(),
        f"{100 * screen['sparsity']:.1f} % of the prunable weights = ",
        "single weights by magnitude, per-layer",
        "1 block",
        f"| parameters | {got['dense']['parameters']:,} | {measured['parameters']:,} |",
        f"| bytes of the weight file | {got['dense']['bytes']:,} | {measured['bytes']:,} |",
        f"| {written} (95 %: ",
        f"{measured['decode']['median']:.1f} (",
        "3 windows of 32 tokens of a pasted text",
        screen["protocol"]["text_fingerprint"][:12],
        'AutoModelForCausalLM.from_pretrained(".")',
        '"drop_blocks": [\n    1\n  ]',
        "physically gone",
    ]
    assert [text for text in said if text not in card] == []
    assert "fox" not in card and str(tmp_path) not in card  # pasted text and folders stay here
    assert (folder / "LICENSE").read_text().lstrip().startswith("Apache License")
    kept = json.loads((folder / "measured.json").read_text())
    assert kept["exported"] == measured and "folder" not in kept
    assert measured["bytes"] == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("form", FORMATS)
def test_tokenizer_generation_config_and_chat_template_come_along(
    form: str, core: Core, tmp_path: Path
) -> None:
    handle = core.loaded("tiny-llama").handle
    tokenizer = copy.deepcopy(handle.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    model = copy.deepcopy(handle.model)
    model.generation_config.temperature = 0.7
    model.generation_config.do_sample = True
    source = tmp_path / "source"
    with quiet():
        model.save_pretrained(source)
        tokenizer.save_pretrained(source)
    folder = tmp_path / "out"
    core.run(job(LAST, folder, form, source=str(source)))
    again = AutoTokenizer.from_pretrained(folder)
    text = "Once upon a time, 从前"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    talk = [{"role": "user", "content": "hello"}]
    assert again.apply_chat_template(talk, tokenize=False) == "<user>hello"
    assert GenerationConfig.from_pretrained(folder).temperature == 0.7
    assert "license of the base model is not known" in (folder / "README.md").read_text()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-t5", "tied"])
def test_tied_embeddings_stay_tied(
    name: str, form: str, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    if name == "tied":
        name = str(tmp_path / "source")
        with quiet():
            tiny_model("llama", tie_word_embeddings=True).save_pretrained(name)
            tiny_tokenizer().save_pretrained(name)
    got = run(job(Recipe(sparsity=0.5, drop_blocks=(1,)), tmp_path / "out", form, source=name))
    stored = [n for f in (tmp_path / "out").glob("*.safetensors") for n in load_file(f)]
    assert not [n for n in stored if n.startswith("lm_head")] and stored
    assert got["difference"] < 1e-4
    if form != "compressed":
        kind = AutoModelForSeq2SeqLM if "t5" in name else AutoModelForCausalLM
        with quiet():
            again = kind.from_pretrained(tmp_path / "out")
        assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_a_quantized_source_gives_plain_weights(
    core: Core, run: Callable[..., dict[str, Any]], python: Path, tmp_path: Path
) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", LlamaForCausalLM(llama_config()).eval())
    text = TextSpec("inline", "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 9)
    asked = replace(
        job(Recipe(sparsity=0.3, drop_blocks=(0,)), tmp_path / "out", "shrunk", str(source)),
        text=text,
    )
    got = run(asked)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    loaded = core.loaded(str(source))
    there = perplexity(python, tmp_path / "out", [w.tolist() for w in loaded.windows(text, 32, 3)])
    assert there["perplexity"] == pytest.approx(got["screen"]["perplexity"], rel=1e-3)


@pytest.mark.parametrize(
    ("recipe", "form"),
    [
        (Recipe(drop_blocks=(25,)), "masked"),
        (Recipe(drop_heads=((0, 99),)), "shrunk"),
        (Recipe(drop_neurons=((0, 4096),)), "compressed"),
        (Recipe(overrides={"block:25": 0.5}), "masked"),
    ],
)
def test_a_recipe_made_for_another_model(
    recipe: Recipe, form: str, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as refused:
        run(job(recipe, tmp_path / "out", form))
    assert str(refused.value).count(". ") == 0 and not list(tmp_path.iterdir())


def test_all_blocks(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for form in FORMATS:
        with pytest.raises(RecipeError, match="keep at least one"):
            run(job(Recipe(drop_blocks=(0, 1, 2, 3)), tmp_path / "out", form))
    assert not list(tmp_path.iterdir())


def test_the_first_block_may_go(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert run(job(Recipe(drop_blocks=(0,)), tmp_path / "out"))["difference"] < 1e-4


def test_a_masked_block_of_a_post_norm_family_is_refused(
    core: Core, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = parts(core, "tiny-bert")["block"]
    with pytest.raises(PruneCoreError, match="export it as shrunk"):
        run(job(recipe, tmp_path / "out", "masked", "tiny-bert"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Recipe(drop_neurons=((0, 1),)), "block 0 keeps .* neurons and block 1"),
        (Recipe(drop_heads=((0, 0), (1, 0))), "unequally|divide|heads"),
        (Recipe(drop_mlp=(0,)), "without its attention or its MLP"),
        (Recipe(drop_attention=(1,)), "without its attention or its MLP"),
    ],
)
def test_what_plain_transformers_cannot_load_is_refused(
    recipe: Recipe, sentence: str, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=sentence) as refused:
        run(job(recipe, tmp_path / "out"))
    assert "masked" in str(refused.value)
    assert run(job(recipe, tmp_path / "out", "masked"))["difference"] < 1e-4


def test_all_neurons_of_the_model(
    core: Core, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    structure = core.loaded("tiny-llama").handle.structure
    every = tuple((b.index, n) for b in structure.blocks for n in range(b.intermediate_size))
    with pytest.raises(RecipeError, match="no neuron would be left"):
        run(job(Recipe(drop_neurons=every), tmp_path / "out"))


def test_counts_by_hand() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2, bias=False))
    with torch.no_grad():
        model[0].weight[0] = 0
    assert parameter_counts(model)["parameters"] == 15 + 5 + 10
    assert parameter_counts(model)["nonzero"] == 15 + 5 + 10 - 3
    assert flops_per_token(model) == 2 * (15 + 10)


def test_the_command_line_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT.value)
    words = ["export", "tiny-llama", "--drop-blocks", "0", "--format", "shrunk"]
    words += ["--to", str(tmp_path / "out"), "--text", str(text)]
    words += ["--seq-len", "32", "--windows", "2"]
    assert main([*words, "--repeats", "0", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["format"] == "shrunk" and math.isfinite(got["exported"]["perplexity"])
    assert main([*words, "--repeats", "1", "--overwrite"]) == 0
    assert "tokens per second" in capsys.readouterr().out
    said = command_line(job(Recipe(drop_blocks=(0,)), tmp_path / "out"))
    assert "export tiny-llama" in said and "--drop-blocks 0" in said and "--format shrunk" in said


def test_heads_of_cross_attention_are_told(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = Recipe(drop_heads=((0, 1),), drop_cross_heads=tuple((2, h) for h in range(4)))
    found = run(job(recipe, tmp_path / "out", "masked", "tiny-t5"))
    assert found["parts"]["head"] == 5 and "5 heads" in found["card"]
    screen = run(Evaluate("tiny-t5", recipe, TEXT, 32, 2))
    assert screen["emptied"] == {"heads": [2], "neurons": []}


def test_files_do_not_tell_of_this_machine(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    model, tokenizer = TINY["tiny-llama"]()
    model.save_pretrained(secret / "model")
    tokenizer.save_pretrained(secret / "model")
    text = secret / "patients.txt"
    text.write_text("Once upon a time there was a wolf. " * 40)
    calibration = Calibration(TextSpec("file", str(text)), 2, 64)
    recipe = Recipe(neurons=NeuronShare(0.2), calibration=calibration)
    run(job(recipe, tmp_path / "out", "masked", str(secret / "model")))
    for path in (tmp_path / "out").iterdir():
        if path.suffix in (".json", ".md"):
            assert "secret" not in path.read_text(encoding="utf-8"), path.name
    kept = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert kept["calibration"]["text"] == {"kind": "file", "value": "patients.txt"}
