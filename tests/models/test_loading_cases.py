"""Models as people have them: file names, prefixes, tokenizers, flags, and downloads gone wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    Phi3Config,
    Phi3ForCausalLM,
)

from prune_core.cli import main as cli
from prune_core.engine.core import Core
from prune_core.errors import ModelFileError, PruneCoreError, TextError
from prune_core.exporting.cost import plain_copy
from prune_core.exporting.shrink import shrink
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.models.load import load_model
from prune_core.models.sources import LocalFolder, any_folder, parse_source
from prune_core.models.tiny import TINY, tiny_tokenizer
from prune_core.progress import Progress
from prune_core.recipes.recipe import Recipe

State = dict[str, Tensor]
TEXT = TextSpec("inline", "The harbour master counted the boats twice before he let them go. " * 60)
TOKENS = torch.tensor([list(range(30, 54))])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PRUNE_MODEL_ROOTS", raising=False)


def config(**changes: Any) -> LlamaConfig:
    sizes: dict[str, Any] = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,
    }
    return LlamaConfig(**(sizes | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    place = tmp_path / "model"
    LlamaForCausalLM(config()).save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return place


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    path = folder / "model.safetensors"
    save_file({k: v.clone() for k, v in change(load_file(path)).items()}, path)


def logits(folder: Path) -> Tensor:
    with torch.no_grad():
        found: Tensor = load_model(str(folder)).model(TOKENS).logits
    return found


def refused(folder: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(str(folder))
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


# ---- names of files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["model-00001-of-00001.safetensors", "weights.safetensors", "model.fp16.safetensors"]
)
def test_one_file_of_any_name(folder: Path, name: str) -> None:
    before = logits(folder)
    (folder / "model.safetensors").rename(folder / name)
    assert torch.equal(logits(folder), before)
    assert any(name in warning for warning in load_model(str(folder)).info.warnings)


def shards(folder: Path, count: int) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for number in range(count):
        part = {n: state[n] for n in sorted(state)[number::count]}
        save_file(part, folder / f"model-{number + 1:05d}-of-{count:05d}.safetensors")


def test_shards_without_an_index(folder: Path) -> None:
    before = logits(folder)
    shards(folder, 3)
    assert torch.equal(logits(folder), before)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is missing" in refused(folder)


def test_several_files_that_nothing_puts_together(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "b.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    text = refused(folder)
    assert "a.safetensors, b.safetensors" in text


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_prefixes_of_wrappers(folder: Path, prefix: str) -> None:
    before = logits(folder)
    rewrite(folder, lambda state: {prefix + name: value for name, value in state.items()})
    assert torch.equal(logits(folder), before)


def test_blocks_that_were_compiled_or_checkpointed_alone(folder: Path) -> None:
    before = logits(folder)

    def inside(name: str) -> str:
        name = name.replace("layers.0.", "layers.0._orig_mod.")
        return name.replace("layers.1.", "layers.1._checkpoint_wrapped_module.")

    rewrite(folder, lambda state: {inside(name): value for name, value in state.items()})
    assert torch.equal(logits(folder), before)


def test_a_weight_with_and_without_its_prefix(folder: Path) -> None:
    rewrite(folder, lambda s: s | {"_orig_mod.lm_head.weight": s["lm_head.weight"] + 1})
    assert "lm_head.weight twice" in refused(folder)


def test_the_generation_config_stays_with_other_names(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[2, 3])
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    generation: Any = load_model(str(folder)).model.generation_config
    assert generation.eos_token_id == [2, 3]


# ---- what is not a model ---------------------------------------------------------------------

STARTS: dict[str, bytes] = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:a1\nsize 2690\n",
    "web page": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
    "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(60),
    "pickle": b"PK\x03\x04" + bytes(60),
    "packed": b"\x1f\x8b\x08" + b"\xff" * 60,
    "Entry not found": b"Entry not found",
}


@pytest.mark.parametrize("kind", STARTS)
def test_files_that_are_not_what_their_name_says(folder: Path, kind: str) -> None:
    (folder / "model.safetensors").write_bytes(STARTS[kind])
    text = refused(folder)
    assert kind in text and "model.safetensors" in text and "header" not in text


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["Git LFS pointer", "web page"])
def test_the_same_of_small_files(folder: Path, name: str, kind: str) -> None:
    (folder / name).write_bytes(STARTS[kind])
    text = refused(folder)
    assert kind in text and name in text


def test_an_adapter(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    fields = {"base_model_name_or_path": "owner/base", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    save_file(
        {"base_model.model.x.lora_A.weight": torch.ones(2)}, folder / "adapter_model.safetensors"
    )
    text = refused(folder)
    assert "adapter" in text and "owner/base" in text and "merge_and_unload" in text


def test_an_adapter_beside_a_model_is_left_out(folder: Path) -> None:
    before = logits(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x/y"}))
    save_file({"x.lora_A.weight": torch.ones(2)}, folder / "adapter_model.safetensors")
    assert torch.equal(logits(folder), before)
    assert any("adapter" in warning for warning in load_model(str(folder)).info.warnings)


@pytest.mark.parametrize("tied", [False, True])
def test_a_reward_model(folder: Path, tied: bool) -> None:
    reward = LlamaForSequenceClassification(config(num_labels=1, tie_word_embeddings=tied))
    reward.save_pretrained(folder)
    assert "score.weight" in refused(folder) and "rewards" in refused(folder)


def test_a_bare_base(folder: Path) -> None:
    LlamaModel(config()).save_pretrained(folder)
    text = refused(folder)
    assert "LlamaModel" in text and "lm_head.weight" in text
    torch.manual_seed(5)
    whole = LlamaForCausalLM(config(tie_word_embeddings=True))
    whole.model.save_pretrained(folder)  # its head is its embedding: nothing is missing
    with torch.no_grad():
        torch.testing.assert_close(logits(folder), whole.eval()(TOKENS).logits)


def test_a_list_that_a_pruning_tool_left_too_long(folder: Path) -> None:
    edit(folder / "config.json", layer_types=["full_attention"] * 4)
    text = refused(folder)
    assert "layer_types has 4 entries for 2 blocks" in text


# ---- configurations of other set-ups ---------------------------------------------------------

FLAGS: list[dict[str, Any]] = [
    {"_flash_attn_2_enabled": True},
    {"attn_implementation": "flash_attention_2"},
    {"use_flash_attention_2": True},
    {"return_dict": False},
    {"use_return_dict": False},
    {"output_attentions": True},
    {"output_hidden_states": True},
    {"torchscript": True},
    {"use_cache": False},
    {"gradient_checkpointing": True},
    {"transformers_weights": "elsewhere.safetensors"},
]


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: next(iter(flags)))
def test_flags_that_change_what_a_forward_returns(folder: Path, flags: dict[str, Any]) -> None:
    def measured() -> tuple[Any, ...]:
        core = Core()
        recipe = Recipe(sparsity=0.5)
        job = Evaluate(str(folder), recipe, TEXT, 32, 2)
        found = core.run(job)
        job_2 = Generate(str(folder), recipe, "The harbour", 4, True)
        written = core.run(job_2)
        return found["perplexity"], found["perplexity_dense"], written["pruned"]["ids"]

    before = measured()
    edit(folder / "config.json", **flags)
    assert measured() == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_byte_order_marks(folder: Path, name: str) -> None:
    before = logits(folder)
    path = folder / name
    edit(folder / "generation_config.json", eos_token_id=[2, 3])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    handle = load_model(str(folder))
    generation: Any = handle.model.generation_config
    assert torch.equal(logits(folder), before) and generation.eos_token_id == [2, 3]
    assert handle.tokenizer("harbour").input_ids == tiny_tokenizer()("harbour").input_ids


# ---- tokenizers ------------------------------------------------------------------------------


def test_added_tokens_beyond_the_embedding(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    tokenizer.save_pretrained(folder)
    handle = load_model(str(folder))
    assert any("<extra>" in warning for warning in handle.info.warnings)
    core, recipe = Core(), Recipe()
    core.run(Evaluate(str(folder), recipe, TEXT, 32, 2))
    odd = TextSpec("inline", "The harbour <extra> slept. " * 20)
    for job in (
        Evaluate(str(folder), recipe, odd, 32, 2),
        Generate(str(folder), recipe, "a <extra>", 4, True),
    ):
        with pytest.raises(TextError, match=r"<extra>.*no row"):
            core.run(job)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_file_alone_gives_that_librarys_ids(
    folder: Path, kind: str, prefix: bool
) -> None:
    import sentencepiece

    corpus = folder.parent / "corpus.txt"
    corpus.write_text(TEXT.value + "\nThe boats, the tide; 1, 2, 3 of them!\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=320,
        model_type=kind,
        byte_fallback=True,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.vocab"):
        (folder / name).unlink()
    torch.manual_seed(5)
    LlamaForCausalLM(config(vocab_size=320)).save_pretrained(folder)
    right = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    tokenizer = load_model(str(folder)).tokenizer
    for text in (TEXT.value, " lead", "a  b\n\nc\td", "é 港 😀", "", " \n x"):
        assert tokenizer(text, add_special_tokens=False).input_ids == right.encode(text)
    assert tokenizer.decode(right.encode("the boats")).strip() == "the boats"
    assert tokenizer.eos_token_id == right.eos_id()


# ---- prompts ---------------------------------------------------------------------------------


def with_ends(folder: Path) -> tuple[int, int]:
    """The tokenizer puts a start before and an end behind every text by itself."""
    path = folder / "tokenizer.json"
    tokenizer = tiny_tokenizer()
    end = str(tokenizer.eos_token)
    start = str(tokenizer.bos_token or tokenizer.cls_token or end)
    ids = {name: int(tokenizer.convert_tokens_to_ids(name)) for name in (start, end)}
    content = json.loads(path.read_text())
    pieces = [
        {"SpecialToken": {"id": start, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": end, "type_id": 0}},
    ]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [token], "tokens": [name]} for name, token in ids.items()
        },
    }
    path.write_text(json.dumps(content))
    return ids[start], ids[end]


def test_an_answer_follows_its_prompt_where_a_tokenizer_adds_an_end(folder: Path) -> None:
    start, end = with_ends(folder)
    prompt = "The harbour"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt).input_ids
    assert ids[0] == start and ids[-1] == end  # so it does
    job = Generate(str(folder), Recipe(), prompt, 4, True)
    found = Core().run(job)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    tokens = torch.tensor([ids[:-1]])
    for token in found["dense"]["ids"]:
        with torch.no_grad():
            assert int(model(tokens).logits[0, -1].argmax()) == token
        tokens = torch.cat([tokens, torch.tensor([[token]])], dim=1)
    assert found["prompt_tokens"] == len(ids) - 1


def test_an_end_that_was_typed_stays(folder: Path) -> None:
    with_ends(folder)
    tokenizer = load_model(str(folder)).tokenizer
    prompt = f"The harbour{tokenizer.eos_token}"
    found = Core().run(Generate(str(folder), Recipe(), prompt, 1, True))
    assert found["prompt_tokens"] == len(tokenizer(prompt).input_ids)


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("{{ raise_exception('System role must come first') }}", "System role must come first"),
        ("{{ messages[0]['content'] + 1 }}", "template refuses"),
        ("{% if %}", "template refuses"),
    ],
)
def test_chat_templates_that_refuse(folder: Path, template: str, part: str) -> None:
    edit(folder / "tokenizer_config.json", chat_template=template)
    job = Generate(str(folder), Recipe(), "hi", 2, True, chat=True)
    with pytest.raises(TextError, match=part):
        Core().run(job)


def test_a_decoder_that_nothing_starts(tmp_path: Path) -> None:
    model, tokenizer = TINY["tiny-t5"]()
    model.save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    path = tmp_path / "t5" / "config.json"
    fields = json.loads(path.read_text())
    start = fields.pop("decoder_start_token_id")
    path.write_text(json.dumps(fields))
    (tmp_path / "t5" / "generation_config.json").write_text("{}")
    assert "decoder_start_token_id" in refused(tmp_path / "t5")
    edit(tmp_path / "t5" / "generation_config.json", decoder_start_token_id=start)
    loaded: Any = load_model(str(tmp_path / "t5")).model.config
    assert loaded.decoder_start_token_id == start


# ---- heads of their own, lengths, indices ----------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-opt", "tiny-t5", "tiny-llama", "tiny-bert"])
def test_a_head_of_its_own_under_a_tie_flag(tmp_path: Path, name: str) -> None:
    model, tokenizer = TINY[name]()
    if name == "tiny-bert":  # the preset has no head
        model = BertForMaskedLM(model.config).eval()
    flag = "tie_word_embeddings"
    model.config.tie_word_embeddings = True
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    edit(tmp_path / "model" / "config.json", **{flag: True})
    path = tmp_path / "model" / "model.safetensors"
    state = load_file(path)
    head = "cls.predictions.decoder.weight" if name == "tiny-bert" else "lm_head.weight"
    generator = torch.Generator().manual_seed(3)
    table = model.get_input_embeddings().weight
    state[head] = torch.randn(table.shape, generator=generator)
    save_file(state, path, {"format": "pt"})
    handle = load_model(str(tmp_path / "model"))
    assert torch.equal(handle.model.get_output_embeddings().weight, state[head])

    def answer(m: Any) -> Tensor:
        more = {"decoder_input_ids": TOKENS} if name == "tiny-t5" else {}
        with torch.no_grad():
            found: Tensor = m(input_ids=TOKENS, **more).logits
        return found

    before = answer(handle.model)
    for copy in (
        plain_copy(handle, handle.model),
        shrink(handle.model, handle.structure, Recipe()),
    ):
        assert torch.equal(answer(copy), before)
        copy.save_pretrained(tmp_path / "again")
        again = type(copy).from_pretrained(tmp_path / "again").eval()
        torch.testing.assert_close(answer(again), before)
        shutil.rmtree(tmp_path / "again")


@pytest.mark.parametrize("long", [True, False])
def test_rotary_embeddings_that_follow_the_length(tmp_path: Path, long: bool) -> None:
    torch.manual_seed(4)
    tokenizer = tiny_tokenizer()
    rope: dict[str, Any] = {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 1.0}
    if long:
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": 96}
        rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0]}
    model = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=2000,  # more than the words whose probabilities are kept
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            original_max_position_embeddings=96,
            rope_parameters=rope,
            initializer_range=0.3,
            pad_token_id=0,
        )
    )
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    core, events = Core(), []
    job = Evaluate(str(tmp_path / "model"), Recipe(), TEXT, 256, 2)
    core.run(job)
    found = Evaluate(str(tmp_path / "model"), Recipe(sparsity=0.1), TEXT, 256, 2)
    dense = core.run(job)
    assert dense["kl"] == pytest.approx(0, abs=1e-6)
    assert dense["kl_error"] == pytest.approx(0, abs=1e-5)
    core.run(found, Progress(events.append))
    looked = [e for e in events if e.get("stage") == "evaluate" and e["window"] == 0]
    assert bool(looked) is not long  # a first look at leading tokens only where it is one


def test_blocks_that_scale_by_their_index(tmp_path: Path) -> None:
    model, _ = TINY["tiny-gpt2"]()
    model.config.scale_attn_by_inverse_layer_idx = True
    handle = load_model("tiny-gpt2")
    handle.model.config.scale_attn_by_inverse_layer_idx = True
    last = len(handle.structure.blocks) - 1
    with pytest.raises(PruneCoreError, match=r"index of a block.*masked"):
        shrink(handle.model, handle.structure, Recipe(drop_blocks=(0,)))
    shrink(handle.model, handle.structure, Recipe(drop_blocks=(last,)))  # none moves


# ---- which folder ----------------------------------------------------------------------------


def test_an_existing_folder_is_no_hub_id(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    shutil.copytree(folder, tmp_path / "owner" / "name")
    assert parse_source("owner/name") == LocalFolder(tmp_path / "owner" / "name")
    assert parse_source("model") == LocalFolder(folder)
    assert parse_source("owner/other").text == "hub:owner/other"
    monkeypatch.setenv("PRUNE_MODE", "team")
    monkeypatch.setenv("PRUNE_HUB_ORGS", "owner")
    assert parse_source("owner/name").text == "hub:owner/name"  # guests learn of no folders


def test_the_command_line_reads_any_folder(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(tmp_path / "elsewhere"))
    with pytest.raises(PruneCoreError, match="not under an allowed folder"):
        parse_source(str(folder))
    with any_folder():
        assert parse_source(str(folder)) == LocalFolder(folder)
    assert cli.main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]
    with pytest.raises(PruneCoreError, match="not under an allowed folder"):
        parse_source(str(folder))  # only while it ran


def test_warnings_of_loading_on_the_command_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / "config.json", num_hidden_layers=1)  # the file holds two
    text = tmp_path / "text.txt"
    text.write_text(TEXT.value, encoding="utf-8")
    more = ["--text", str(text), "--seq-len", "32", "--windows", "2", "--json"]
    assert cli.main(["evaluate", str(folder), *more]) == 0
    out, err = capsys.readouterr()
    part = "are not part of the model and were left out"
    assert err.count(part) == 1
    assert sum(part in warning for warning in json.loads(out)["warnings"]) == 1


def test_a_recipe_with_a_byte_order_mark(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, text = tmp_path / "recipe.json", tmp_path / "text.txt"
    recipe.write_bytes(b"\xef\xbb\xbf" + Recipe(sparsity=0.5).to_json().encode())
    text.write_text(TEXT.value, encoding="utf-8")
    more = ["--text", str(text), "--seq-len", "32", "--windows", "2", "--json"]
    assert cli.main(["evaluate", str(folder), "--recipe", str(recipe), *more]) == 0
    assert json.loads(capsys.readouterr().out)["sparsity"] == pytest.approx(0.5, abs=1e-3)


# ---- the beginning of a window ---------------------------------------------------------------


@pytest.mark.parametrize("family", ["gemma", "gemma2", "llama"])
@pytest.mark.parametrize("chosen", ["auto", "yes", "no"])
def test_windows_that_start_with_the_token_that_gemma_needs(
    tmp_path: Path, family: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    classes: dict[str, tuple[Any, Any]] = {
        "gemma": (GemmaConfig, GemmaForCausalLM),
        "gemma2": (Gemma2Config, Gemma2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }
    settings, kind = classes[family]
    fields = config().to_dict() | {"head_dim": 8, "model_type": family, "architectures": None}
    fields |= {"layer_types": ["full_attention"] * 2, "query_pre_attn_scalar": 8}
    model = kind(settings.from_dict(fields)).eval()
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": tokenizer.eos_token})
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("PRUNE_BOS", chosen)
    job = Evaluate(str(tmp_path / "model"), Recipe(), TEXT, 32, 3)
    found = Core().run(job)
    starts = chosen == "yes" or (chosen == "auto" and family != "llama")
    start = [tokenizer.bos_token_id] if starts else []
    ids = tokenizer(TEXT.value, add_special_tokens=False).input_ids
    losses = []
    for number in range(3):
        width = 32 - len(start)
        tokens = torch.tensor([start + ids[number * width : (number + 1) * width]])
        with torch.no_grad():
            logits = model(tokens).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:]))
    right = float(torch.stack(losses).mean().exp())
    assert found["perplexity_dense"] == pytest.approx(right, rel=1e-4)
    assert found["protocol"]["bos"] is starts
    assert found["protocol"]["tokenizer_adds_bos"] is False


def test_a_tokenizer_without_that_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    fields.pop("bos_token", None)
    path.write_text(json.dumps(fields))
    monkeypatch.setenv("PRUNE_BOS", "yes")
    job = Evaluate(str(folder), Recipe(), TEXT, 32, 2)
    with pytest.raises(TextError, match="no beginning-of-sequence token"):
        Core().run(job)
    monkeypatch.setenv("PRUNE_BOS", "perhaps")
    with pytest.raises(TextError, match="auto, yes or no"):
        Core().run(job)


def test_the_option_of_the_command_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": tokenizer.eos_token})
    tokenizer.save_pretrained(folder)
    text = tmp_path / "text.txt"
    text.write_text(TEXT.value, encoding="utf-8")
    more = ["--text", str(text), "--seq-len", "32", "--windows", "2", "--json"]
    found = []
    for option in ([], ["--bos", "yes"], ["--bos", "no"]):
        assert cli.main(["evaluate", str(folder), *more, *option]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [x["protocol"]["bos"] for x in found] == [False, True, False]
    assert found[0]["perplexity_dense"] == found[2]["perplexity_dense"]
    assert found[0]["perplexity_dense"] != found[1]["perplexity_dense"]
