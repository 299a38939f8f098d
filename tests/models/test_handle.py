"""Handles of tiny models: what the pages are told, clones that share tensors, tiny models alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prune_core.errors import UnknownArchitectureError
from prune_core.models.clone import clone_shared
from prune_core.models.families import FAMILIES, SUPPORTED
from prune_core.models.handle import ModelHandle, build_handle, context_length
from prune_core.models.info import ModelInfo
from prune_core.models.load import load_model
from prune_core.models.tiny import CONTEXT, TINY, VOCABULARY, tiny_model, tiny_tokenizer


def handle_of(model: Any, **changes: Any) -> ModelHandle:
    described = {"source": "here", "title": "Here", "fingerprint": "abc"} | changes
    return build_handle(model, tiny_tokenizer(), **described)


def forward(model: Any, length: int = 16) -> Any:
    ids = torch.randint(4, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(2))
    extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **extra)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict(keep_vars=True))


# --- information ----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_parameters_are_counted_once(model_type: str, head: bool) -> None:
    """Oracle: distinct storages among all names, tied ones included."""
    model = tiny_model(model_type, head=head)
    info = handle_of(model).info
    distinct = {p.data_ptr(): p for _, p in model.named_parameters(remove_duplicate=False)}
    assert info.parameters == sum(p.numel() for p in distinct.values())
    assert info.bytes_in_memory == 4 * info.parameters
    assert info.prunable == sum(x.rows * x.columns for x in info.layers) < info.parameters
    in_blocks = sum(b.parameters for b in info.blocks)
    # OLMo has neither biases nor weights in its norms
    assert info.prunable + (model_type != "olmo") <= in_blocks < info.parameters


def test_tying_changes_the_count_by_one_table() -> None:
    tied, untied = (
        handle_of(tiny_model("llama", tie_word_embeddings=tied)).info for tied in (True, False)
    )
    assert (tied.tied_embeddings, untied.tied_embeddings) == (True, False)
    assert untied.parameters - tied.parameters == VOCABULARY * 32
    assert untied.prunable == tied.prunable


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_language_head_means_next_token_predictions(model_type: str, head: bool) -> None:
    model = tiny_model(model_type, head=head)
    info = handle_of(model).info
    assert info.has_language_head == (head and FAMILIES[model_type].kind != "encoder")
    assert info.has_language_head == (hasattr(forward(model), "logits") and model.can_generate())
    assert info.kind == FAMILIES[model_type].kind and info.family == model_type
    assert info.vocabulary == VOCABULARY and info.hidden_size == 32
    assert (info.dtype, info.device) == ("float32", "cpu")


LEARNED = (
    *("bart", "bert", "blenderbot", "camembert", "distilbert", "electra", "gpt2", "gpt_bigcode"),
    *("gpt_neo", "led", "longformer", "mbart", "mpnet", "opt", "roberta", "xlm-roberta"),
)


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_context_is_what_can_really_be_fed(model_type: str) -> None:
    """Oracle: a table of learned positions takes that many tokens and not one more."""
    model = tiny_model(model_type)
    info = handle_of(model).info
    assert info.context == CONTEXT
    forward(model, info.context)
    if model_type in LEARNED:
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            forward(model, info.context + 1)


@pytest.mark.parametrize(
    ("config", "limit", "context"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 7, 512),
        ({"model_type": "opt", "max_position_embeddings": 2048, "pad_token_id": 1}, 7, 2048),
        ({"model_type": "t5"}, int(1e30), 512),
        ({"model_type": "t5"}, 1024, 1024),
        ({"model_type": "t5", "n_positions": 512}, 77, 512),
        ({"model_type": "llama", "max_position_embeddings": None}, 300, 300),
    ],
)
def test_context_of_known_checkpoints(config: dict[str, Any], limit: int, context: int) -> None:
    tokenizer = SimpleNamespace(model_max_length=limit)
    assert context_length(SimpleNamespace(**config), tokenizer) == context


def test_what_the_caller_knows_is_kept_and_info_is_plain_data() -> None:
    handle = handle_of(
        tiny_model("t5"), quantized="Q4_1", license="MIT", warnings=("Mind.",), load_seconds=1.5
    )
    info = handle.info
    assert handle.fingerprint == info.fingerprint == "abc"
    assert (info.quantized, info.license, info.warnings) == ("Q4_1", "MIT", ("Mind.",))
    assert (info.source, info.title, info.load_seconds) == ("here", "Here", 1.5)
    assert ModelInfo.from_dict(info.to_dict()) == info
    assert [(b.stack, b.number, b.heads, b.cross_heads) for b in info.blocks][1:4] == [
        ("encoder", 1, 4, 0),
        ("decoder", 0, 4, 4),
        ("decoder", 1, 4, 4),
    ]
    assert [(x.rows, x.columns) for x in info.layers[:4]] == [(48, 32)] * 3 + [(32, 48)]


def test_chat_template_is_reported() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    described = {"source": "", "title": "", "fingerprint": ""}
    assert not build_handle(model, tokenizer, **described).info.has_chat_template
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert build_handle(model, tokenizer, **described).info.has_chat_template


def test_an_unknown_layout_gets_no_handle() -> None:
    model = tiny_model("llama")
    model.model.layers[0].mlp.add_module("router", nn.Linear(3, 3))
    with pytest.raises(UnknownArchitectureError, match=r"layers\.0\.mlp\.router"):
        handle_of(model)


def test_no_blocks_at_all() -> None:
    info = handle_of(tiny_model("gpt2", n_layer=0)).info
    assert info.blocks == () and info.layers == () and info.prunable == 0 < info.parameters


# --- presets --------------------------------------------------------------------------------------


def test_presets_load_as_handles(handles: Mapping[str, ModelHandle]) -> None:
    assert set(handles) == set(TINY)
    for name, handle in handles.items():
        assert handle.info.source == name
        assert handle.info.license == "Apache-2.0" and handle.info.provenance
        assert 2 <= len(handle.info.blocks) <= 5 and not handle.model.training
        assert not any(p.requires_grad for p in handle.model.parameters())
        assert any(x.rows != x.columns for x in handle.info.layers)


@pytest.mark.parametrize("name", TINY)
def test_presets_are_the_same_each_time_and_leave_the_global_random_state(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, _ = TINY[name]()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second, _ = TINY[name]()
    for (key, a), (_, b) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), key
    assert all(p.std() > 0.02 for p in first.parameters())


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_removing_half_of_a_layer_is_visible(model_type: str) -> None:
    """A fixture whose output ignores its layers would let every pruning test pass."""
    handle = handle_of(tiny_model(model_type))
    before = forward(handle.model)[0]
    for layer in handle.structure.layers.values():
        clone = clone_shared(handle.model)
        weight = layer.weight(handle.model)
        kept = layer.to_stored(weight * (weight.abs() > weight.abs().median()))
        clone.get_submodule(layer.name).weight = nn.Parameter(kept)
        assert (forward(clone)[0] - before).abs().max() > 0.005, layer.name


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_a_saved_model_is_read_back_as_it_was(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(tmp_path))
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    model = tiny_model(model_type)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    again = load_model(str(folder))
    assert again.structure == handle_of(model).structure
    assert torch.equal(forward(again.model)[0], forward(model)[0])
    assert again.tokenizer("Märchen").input_ids == tiny_tokenizer()("Märchen").input_ids


# --- tokenizer ------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    tokenizer = TOKENIZER
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text.encode()) or "<|" in text


TOKENIZER = tiny_tokenizer()


@pytest.mark.parametrize(
    "text", ["从前有一个国王。", "  two  spaces .\n\ttab ", "naïve 🐺 don't , .", "\x00\x7f", ""]
)
def test_awkward_texts_come_back(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert ids == TOKENIZER(text).input_ids and len(ids) == len(text.encode())
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode([1, *ids, 2], skip_special_tokens=True) == text


def test_vocabulary_fits_the_tables() -> None:
    assert len(TOKENIZER) == VOCABULARY == len(set(TOKENIZER.get_vocab().values()))
    assert max(TOKENIZER.get_vocab().values()) == VOCABULARY - 1
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    for model_type in SUPPORTED:
        model = tiny_model(model_type)
        assert model.get_input_embeddings().num_embeddings == VOCABULARY
        config = model.config
        # MPNet counts positions from row 1 on, whatever its configuration says
        assert (config.pad_token_id, config.eos_token_id) == (int(model_type == "mpnet"), 2)


# --- clones ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_a_clone_shares_every_tensor_and_nothing_else(model_type: str) -> None:
    model = tiny_model(model_type)
    clone = clone_shared(model)
    ours, theirs = tensors_of(model), tensors_of(clone)
    assert ours.keys() == theirs.keys() and all(ours[k] is theirs[k] for k in ours)
    assert torch.equal(forward(model)[0], forward(clone)[0])
    assert not {id(m) for m in model.modules()} & {id(m) for m in clone.modules()}


def test_tied_weights_stay_tied_and_new_ones_stay_in_the_clone() -> None:
    model = tiny_model("gpt2")
    clone = clone_shared(model)
    assert clone.lm_head.weight is clone.transformer.wte.weight
    before, values = tensors_of(model), {k: v.clone() for k, v in tensors_of(model).items()}
    logits = forward(model).logits
    clone.transformer.h[0].mlp.c_fc.weight = nn.Parameter(torch.zeros(32, 80))
    handle = clone.transformer.h[1].register_forward_hook(lambda *a: None)
    assert not torch.equal(forward(clone).logits, logits)
    assert torch.equal(forward(model).logits, logits)
    now = tensors_of(model)
    assert all(now[k] is before[k] and torch.equal(now[k], values[k]) for k in before)
    assert not any(m._forward_hooks for m in model.modules())
    handle.remove()


def test_attention_implementation_of_a_clone_is_its_own() -> None:
    model = tiny_model("llama")
    clone = clone_shared(model)
    assert model.config._attn_implementation == "sdpa"
    clone.set_attn_implementation("eager")
    assert clone.config is clone.model.config is clone.model.layers[0].self_attn.config
    assert clone.model.layers[0].self_attn.config._attn_implementation == "eager"
    for config in (model.config, model.model.config, model.model.layers[0].self_attn.config):
        assert config._attn_implementation == "sdpa"
    ids = torch.tensor([[5, 6, 7]])
    assert clone(ids, output_attentions=True).attentions[0].shape == (1, 4, 3, 3)
