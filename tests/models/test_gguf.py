"""GGUF files answer like the same weights in plain transformers, or are refused by name.

The files are written with the ``gguf`` package: its writer, and its own table of tensor names.
"""

from __future__ import annotations

import string
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel

from prune_core.errors import ModelFileError, PruneCoreError, UnknownArchitectureError
from prune_core.models.gguf_fields import ARCHITECTURES
from prune_core.models.gguf_tensors import NAMES, read_tensor
from prune_core.models.gguf_tokenizer import PRE_TOKENIZERS
from prune_core.models.headers import DEQUANTIZABLE, read_gguf_header
from prune_core.models.load import load_model

Fields = Mapping[str, Any]
"""Key to value: a number, a text, a list; None leaves a field out."""

TEXT = "the harbour was 1906 ships wide, don't you think? It's 42."
NUM_BLOCKS = 4  # every fourth of SmolLM3 has no positions


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(tmp_path))
    for name in ("PRUNE_MODE", "PRUNE_OFFLINE", "PRUNE_FAULTS"):
        monkeypatch.delenv(name, raising=False)


# ---- writing files as a converter does -------------------------------------------------------


def byte_tokens() -> list[str]:
    spelled = sorted(pre_tokenizers.ByteLevel.alphabet())
    return ["<pad>", "<s>", "</s>", "<unk>", "<|tool|>", *spelled, "th", "the", "19", "190", "06"]


MERGES = ["t h", "th e", "1 9", "19 0", "0 6"]
VOCABULARY = len(byte_tokens())


def tokenizer_fields(pre: str | None = "gpt-2") -> dict[str, Any]:
    types = [3, 3, 3, 3, 4, *[1] * (VOCABULARY - 5)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": byte_tokens(),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }


def write(
    path: Path,
    architecture: str,
    fields: Fields,
    tensors: Mapping[str, np.ndarray | tuple[np.ndarray, gguf.GGMLQuantizationType]],
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in fields.items():
        if value is None:
            continue
        kinds: dict[type, Callable[..., None]] = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }
        kinds[type(value)](key, value)
    for name, values in tensors.items():
        if isinstance(values, tuple):
            writer.add_tensor(name, values[0], raw_dtype=values[1])
        else:
            writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_model(config: Any) -> PreTrainedModel:
    """With every weight, norm and bias drawn, so that none can be left out without a trace."""
    torch.manual_seed(5)
    auto = transformers.AutoModelForCausalLM
    if config.model_type == "t5":
        auto = transformers.AutoModelForSeq2SeqLM
    model = auto.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0.0, 0.3)
        if name.endswith("norm.weight") or ".ln_" in name:
            parameter.data += 1.0
    return model


def interleaved_rows(values: np.ndarray, heads: int) -> np.ndarray:
    """Llama's rows of a head: first and second half side by side in pairs."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.swapaxes(halves, 1, 2).reshape(values.shape)


def converted(model: PreTrainedModel, architecture: str) -> dict[str, np.ndarray]:
    """The tensors as llama.cpp's converter stores them, named by the gguf package."""
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(numbers[architecture], NUM_BLOCKS)
    config, tensors = model.config, {}
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    if architecture == "t5" and not config.scale_decoder_outputs:
        tied -= {"lm_head.weight"}  # T5 1.1 and Flan-T5 have a head of their own in the file
    for name, value in model.state_dict().items():
        stored = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if name in tied:
            continue
        assert stored is not None, name
        values = value.numpy()
        if architecture in ("llama", "smollm3") and ".attn_q." in stored:
            values = interleaved_rows(values, config.num_attention_heads)
        if architecture in ("llama", "smollm3") and ".attn_k." in stored:
            values = interleaved_rows(values, config.num_key_value_heads)
        if architecture.startswith("gemma") and stored.endswith("norm.weight"):
            values = values + 1
        if architecture == "gpt2" and values.ndim == 2 and ".h." in name:
            values = values.T
        if architecture == "gptneox" and ".attn_qkv." in stored:
            by_head = values.reshape(config.num_attention_heads, 3, -1, *values.shape[1:])
            values = np.swapaxes(by_head, 0, 1).reshape(values.shape)
        tensors[stored] = values
    return tensors


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": NUM_BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def common(architecture: str, epsilon: str = "layer_norm_rms_epsilon") -> dict[str, Any]:
    return {
        f"{architecture}.{key}": value
        for key, value in {
            "context_length": 128,
            "embedding_length": 32,
            "block_count": NUM_BLOCKS,
            "feed_forward_length": 64,
            "attention.head_count": 4,
            "attention.head_count_kv": 2,
            f"attention.{epsilon}": 0.125,  # large, so that it counts
            "vocab_size": VOCABULARY,
        }.items()
    }


def config_of(model_type: str, **changes: Any) -> Any:
    sizes = SIZES | {"rms_norm_eps": 0.125, "layer_norm_eps": 0.125} | changes
    return transformers.AutoConfig.for_model(model_type, **sizes)


def saved(
    tmp_path: Path,
    architecture: str,
    config: Any,
    fields: Fields,
    tensors: Mapping[str, Any] | None = None,
) -> tuple[Path, PreTrainedModel]:
    """A file, and the model it was made of."""
    model = random_model(config)
    every = {**converted(model, architecture), **(tensors or {})}
    path = write(tmp_path / "m.gguf", architecture, {**tokenizer_fields(), **fields}, every)
    return path, model


@torch.no_grad()
def logits(model: PreTrainedModel, length: int = 96) -> torch.Tensor:
    torch.manual_seed(7)
    ids = torch.randint(5, VOCABULARY, (1, length))
    more = {"decoder_input_ids": ids[:, :20]} if model.config.is_encoder_decoder else {}
    answer: torch.Tensor = model(input_ids=ids, **more).logits
    return answer


def assert_same(
    path: Path, model: PreTrainedModel, length: int = 96, atol: float = 1e-5
) -> PreTrainedModel:
    loaded = load_model(str(path)).model
    expected = logits(model, length)
    assert expected.std() > 0.1  # no flat model, which would agree with anything
    torch.testing.assert_close(logits(loaded, length), expected, rtol=1e-5, atol=atol)
    return loaded


def refused(path: Path, kind: type[PruneCoreError] = ModelFileError) -> str:
    with pytest.raises(kind) as caught:
        load_model(str(path))
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


# ---- family by family ------------------------------------------------------------------------


def partial(model_type: str, share: float, **changes: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": share}
    return config_of(model_type, rope_parameters=rope, **changes)


def family_cases() -> dict[str, tuple[str, Any, dict[str, Any]]]:
    theta = {"rope_type": "default", "rope_theta": 500.0}
    base = {"llama.rope.freq_base": 500.0}
    t5 = {key: value for key, value in common("t5").items() if "head_count_kv" not in key}
    t5 |= {"t5.attention.key_length": 8, "t5.attention.relative_buckets_count": 8}
    t5 |= {"t5.attention.layer_norm_epsilon": 0.125, "t5.decoder_start_token_id": 0}
    t5_sizes: dict[str, Any] = {
        "d_model": 32,
        "d_ff": 64,
        "d_kv": 8,
        "num_layers": NUM_BLOCKS,
        "num_heads": 4,
    }
    t5_sizes |= {"relative_attention_num_buckets": 8, "layer_norm_epsilon": 0.125}
    t5_sizes |= {"vocab_size": VOCABULARY, "decoder_start_token_id": 0}
    for_t5 = transformers.T5Config
    gpt2 = {**common("gpt2", "layer_norm_epsilon"), "gpt2.attention.head_count_kv": 4}
    gpt2_config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=128,
        n_embd=32,
        n_layer=NUM_BLOCKS,
        n_head=4,
        n_inner=64,
        layer_norm_epsilon=0.125,
    )
    neox = {**common("gptneox", "layer_norm_epsilon"), "gptneox.attention.head_count_kv": 4}
    neox |= {"gptneox.rope.dimension_count": 2}
    wide = {"head_dim": 16}
    caps = {"gemma2.attn_logit_softcapping": 2.0, "gemma2.final_logit_softcapping": 3.0}
    windowed = {"gemma2.attention.sliding_window": 16}
    keys = {"attention.key_length": 16, "attention.value_length": 16}

    def wide_keys(name: str) -> dict[str, Any]:
        return {f"{name}.{key}": value for key, value in keys.items()}

    phi3 = {"phi3.rope.dimension_count": 8}
    return {
        "llama": ("llama", config_of("llama", rope_parameters=theta), common("llama") | base),
        "llama tied": ("llama", config_of("llama", tie_word_embeddings=True), common("llama")),
        "llama wide heads": (
            "llama",
            config_of("llama", **wide),
            common("llama") | wide_keys("llama") | {"llama.rope.dimension_count": 16},
        ),
        "llama all heads": (
            "llama",
            config_of("llama", num_key_value_heads=4),
            common("llama") | {"llama.attention.head_count_kv": None},
        ),
        "llama biases": (
            "llama",
            config_of("llama", attention_bias=True, mlp_bias=True),
            common("llama"),
        ),
        "llama attention biases": (
            "llama",
            config_of("llama", attention_bias=True),
            common("llama"),
        ),
        "mistral window": (
            "llama",
            config_of("mistral", sliding_window=16),
            common("llama") | {"llama.attention.sliding_window": 16},
        ),
        "qwen2": ("qwen2", config_of("qwen2"), common("qwen2")),
        "qwen3": ("qwen3", config_of("qwen3", **wide), common("qwen3") | wide_keys("qwen3")),
        "gemma": (
            "gemma",
            config_of("gemma", **wide, tie_word_embeddings=True),
            common("gemma") | wide_keys("gemma"),
        ),
        "gemma2": (
            "gemma2",
            config_of(
                "gemma2",
                **wide,
                tie_word_embeddings=True,
                sliding_window=16,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=3.0,
            ),
            common("gemma2") | wide_keys("gemma2") | caps | windowed,
        ),
        "gemma2 scale": (
            "gemma2",
            config_of("gemma2", **wide, tie_word_embeddings=True, query_pre_attn_scalar=16),
            common("gemma2") | wide_keys("gemma2") | {"gemma2.attention.scale": 0.25},
        ),
        "phi2": (
            "phi2",
            partial("phi", 0.5),
            common("phi2", "layer_norm_epsilon") | {"phi2.rope.dimension_count": 4},
        ),
        "phi3 window": (
            "phi3",
            config_of("phi3", sliding_window=16),
            common("phi3") | phi3 | {"phi3.attention.sliding_window": 16},
        ),
        "phi3 half rotated": (
            "phi3",
            partial("phi3", 0.5),
            common("phi3") | {"phi3.rope.dimension_count": 4},
        ),
        "smollm3": (
            "smollm3",
            config_of("smollm3", tie_word_embeddings=True, no_rope_layer_interval=4),
            common("smollm3") | {"smollm3.rope.freq_base": 2_000_000.0},
        ),
        "gpt2": ("gpt2", gpt2_config, gpt2),
        "gptneox": ("gptneox", partial("gpt_neox", 0.25), neox),
        "gptneox in turn": (
            "gptneox",
            partial("gpt_neox", 0.25, use_parallel_residual=False),
            neox | {"gptneox.use_parallel_residual": False},
        ),
        "t5 relu": ("t5", for_t5(**t5_sizes), t5),
        "t5 gated": (
            "t5",
            for_t5(**t5_sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
            t5,
        ),
    }


FAMILIES = family_cases()


@pytest.mark.parametrize("case", FAMILIES)
def test_a_file_answers_like_the_same_weights_in_transformers(case: str, tmp_path: Path) -> None:
    architecture, config, fields = FAMILIES[case]
    path, model = saved(tmp_path, architecture, config, fields)
    assert_same(path, model)


def test_every_architecture_is_compared() -> None:
    assert {architecture for architecture, _, _ in FAMILIES.values()} == set(ARCHITECTURES)
    assert set(NAMES) == set(ARCHITECTURES)


def test_a_head_of_its_own_in_t5(tmp_path: Path) -> None:
    _, config, fields = FAMILIES["t5 gated"]
    model = random_model(config)
    head = np.random.default_rng(3).normal(0, 0.3, (VOCABULARY, 32)).astype(np.float32)
    tensors = {**converted(model, "t5"), "output.weight": head}
    path = write(tmp_path / "m.gguf", "t5", {**tokenizer_fields(), **fields}, tensors)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        states = model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True)
        answer = load_model(str(path)).model(input_ids=ids, decoder_input_ids=ids).logits
    expected = states.decoder_hidden_states[-1] @ torch.from_numpy(head).T
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


# ---- RoPE scaling ----------------------------------------------------------------------------


def yarn(**more: float) -> dict[str, Any]:
    rope = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, **more}
    return {**rope, "original_max_position_embeddings": 32}


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 32}
BETAS = {"yarn_beta_fast": 8.0, "yarn_beta_slow": 2.0, "yarn_ext_factor": 1.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
ROPE_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": (LINEAR, {"scaling.type": "linear", "scaling.factor": 4.0}),
    "a factor alone": (LINEAR, {"scaling.factor": 4.0}),
    "the old name": (LINEAR, {"scale_linear": 4.0}),
    "yarn": (yarn(), {f"scaling.{key}": value for key, value in YARN.items()}),
    "yarn with betas": (
        yarn(beta_fast=8.0, beta_slow=2.0),
        {f"scaling.{key}": value for key, value in (YARN | BETAS).items()},
    ),
    "none": ({"rope_type": "default", "rope_theta": 10_000.0}, {"scaling.type": "none"}),
}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma", "smollm3"])
@pytest.mark.parametrize("case", ROPE_CASES)
def test_rope_scaling_of_fields(case: str, architecture: str, tmp_path: Path) -> None:
    rope, scaling = ROPE_CASES[case]
    sizes: dict[str, Any] = {"head_dim": 8} if architecture in ("gemma", "qwen3") else {}
    sizes["tie_word_embeddings"] = architecture == "gemma"
    config = config_of(architecture, rope_parameters=dict(rope), **sizes)
    fields = common(architecture) | {f"{architecture}.rope.{k}": v for k, v in scaling.items()}
    fields |= {f"{architecture}.attention.key_length": 8}
    path, model = saved(tmp_path, architecture, config, fields)
    assert_same(path, model)
    if case != "none":
        plain = config_of(architecture, **sizes)
        assert (logits(random_model(plain)) - logits(model)).abs().max() > 0.01


def test_rope_factors_of_llama_3_are_named_as_its_scaling(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 64}
    config = config_of("llama", rope_parameters=dict(rope), head_dim=16)
    frequencies = random_model(config).model.rotary_emb.inv_freq.numpy()
    plain = 500_000.0 ** -(np.arange(0, 16, 2) / 16)
    fields = common("llama") | {"llama.rope.freq_base": 500_000.0}
    fields |= {"llama.attention.key_length": 16, "llama.attention.value_length": 16}
    tensors = {"rope_freqs.weight": plain / frequencies}
    path, model = saved(tmp_path, "llama", config, fields, tensors)
    loaded = assert_same(path, model, atol=1e-4)  # the last bit of a frequency, times a position
    assert loaded.config.rope_parameters["rope_type"] == "llama3"
    assert loaded.config.rope_parameters["factor"] == pytest.approx(8.0, rel=1e-6)


def test_rope_factors_of_any_kind_are_read(tmp_path: Path) -> None:
    factors = np.array([1.0, 2.0, 1.5, 7.0], dtype=np.float32)
    tensors = {"rope_freqs.weight": factors}
    path, model = saved(tmp_path, "llama", config_of("llama"), common("llama"), tensors)
    before = logits(model)
    model.model.rotary_emb.inv_freq /= torch.from_numpy(factors)
    assert (logits(model) - before).abs().max() > 0.01
    assert_same(path, model, atol=1e-4)


@pytest.mark.parametrize("attention", [1.25, None])
@pytest.mark.parametrize("length", [24, 96])
def test_longrope_of_phi3(length: int, attention: float | None, tmp_path: Path) -> None:
    short, long = [1.0, 1.1, 1.2, 1.3], [1.5, 2.0, 3.0, 6.0]
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": short}
    rope |= {"long_factor": long, "partial_rotary_factor": 1.0}
    rope |= {"original_max_position_embeddings": 32}
    rope |= {} if attention is None else {"attention_factor": attention}
    config = config_of("phi3", rope_parameters=rope, original_max_position_embeddings=32)
    fields = common("phi3") | {"phi3.rope.scaling.original_context_length": 32}
    fields |= {"phi3.rope.dimension_count": 8, "phi3.rope.scaling.attn_factor": attention}
    tensors = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    arrays = {name: np.array(values, dtype=np.float32) for name, values in tensors.items()}
    path, model = saved(tmp_path, "phi3", config, fields, arrays)
    assert_same(path, model, length)


# ---- types of tensors ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantized_linear_layers(kind: str, tmp_path: Path) -> None:
    number = gguf.GGMLQuantizationType[kind]
    model = random_model(config_of("qwen2"))
    tensors: dict[str, Any] = converted(model, "qwen2")
    weights = dict(model.named_parameters())
    for name, values in tensors.items():
        if name.startswith("blk.") and values.ndim == 2:
            packed = gguf.quantize(values, number)
            tensors[name] = (packed, number)
            stored = torch.from_numpy(np.array(gguf.dequantize(packed, number)))
            same = [w for w in weights.values() if np.array_equal(w.detach().numpy(), values)]
            assert len(same) == 1
            same[0].data = stored.reshape(values.shape)
    fields = {**tokenizer_fields(), **common("qwen2")}
    path = write(tmp_path / "m.gguf", "qwen2", fields, tensors)
    assert_same(path, model)
    assert load_model(str(path)).info.quantized == (None if "F16" in kind else kind)


@pytest.mark.parametrize("kind", sorted(DEQUANTIZABLE))
def test_every_readable_type_has_the_values_of_the_gguf_package(kind: str, tmp_path: Path) -> None:
    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    random = np.random.default_rng(11)
    packed = random.integers(0, 64, (3, 2 * size), dtype=np.uint8)  # small halves, no NaN
    whole = {"F32": np.float32, "F16": np.float16}.get(kind)
    stored = packed.view(whole) if whole else packed
    tensors = {"first": (stored, number), "second": (stored[::-1].copy(), number)}
    path = write(tmp_path / "m.gguf", "llama", {}, tensors)
    header = read_gguf_header(path)
    for tensor in gguf.GGUFReader(path).tensors:
        expected = gguf.dequantize(tensor.data, number)
        values = read_tensor(path, header, tensor.name)
        assert values.shape == (3, 2 * block) and np.isfinite(values).all()
        assert np.array_equal(values, np.asarray(expected).reshape(values.shape))
        assert values.any()


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("llama.expert_count", 4, "llama.expert_count"),
        ("llama.attention.scale", 0.5, "llama.attention.scale"),
        ("llama.attn_logit_softcapping", 5.0, "llama.attn_logit_softcapping"),
        ("llama.final_logit_softcapping", 5.0, "llama.final_logit_softcapping"),
        ("llama.attention.clamp_kqv", 8.0, "llama.attention.clamp_kqv"),
        ("llama.attention.causal", False, "llama.attention.causal"),
        ("llama.attention.value_length", 4, "llama.attention.value_length"),
        ("llama.attention.head_count_kv", "2", "llama.attention.head_count_kv"),
        ("llama.attention.head_count_kv", [2, 1], "llama.attention.head_count_kv"),
        ("llama.attention.layer_norm_rms_epsilon", None, "layer_norm_rms_epsilon is missing"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "layer_norm_rms_epsilon"),
        ("llama.attention.layer_norm_rms_epsilon", -1.0, "layer_norm_rms_epsilon"),
        ("llama.rope.freq_base", 0.0, "llama.rope.freq_base"),
        ("llama.attention.head_count", 0, "at least 1"),
        ("llama.attention.head_count", None, "llama.attention.head_count is missing"),
        ("llama.rope.dimension_count", 4, "llama.rope.dimension_count"),
        ("llama.rope.scaling.type", "dynamic", "llama.rope.scaling.type is dynamic"),
        ("llama.rope.scaling.type", "longrope", "rope_factors_long.weight"),
        ("llama.rope.scaling.attn_factor", 2.0, "llama.rope.scaling.attn_factor"),
        ("llama.rope.scaling.yarn_log_multiplier", 0.1, "yarn_log_multiplier"),
        ("llama.tensor_data_layout", "reference", "llama.tensor_data_layout"),
        ("llama.vocab_size", 7, "llama.vocab_size"),
        ("llama.logit_scale", 2.0, "llama.logit_scale"),
        ("made.up", 1, "made.up"),
        ("tokenizer.ggml.normalizer.lowercase", True, "tokenizer.ggml.normalizer.lowercase"),
        ("tokenizer.ggml.tokens", None, "tokenizer.ggml.tokens is missing"),
        ("tokenizer.ggml.tokens", ["a", "b", "a"], "'a' twice"),
        ("tokenizer.ggml.tokens", [str(i) for i in range(999)], "999 entries"),
        ("tokenizer.ggml.token_type", [1, 2], "tokenizer.ggml.token_type"),
        ("tokenizer.ggml.merges", None, "tokenizer.ggml.merges is missing"),
        ("tokenizer.ggml.merges", ["t h", "x q"], "'x q'"),
        ("tokenizer.ggml.model", "rwkv", "tokenizer.ggml.model is rwkv"),
        ("tokenizer.ggml.model", "llama", "tokenizer.ggml.pre"),
        ("tokenizer.ggml.pre", "chatglm-bpe", "chatglm-bpe"),
        ("tokenizer.ggml.bos_token_id", 10_000, "tokenizer.ggml.bos_token_id"),
        ("tokenizer.ggml.added_tokens", ["<|new|>"], "<|new|>"),
        ("split.count", 3, "part 1 of 3"),
        ("general.type", "adapter", "adapter"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    key: str, value: Any, words: str, tmp_path: Path
) -> None:
    fields = common("llama") | {key: value}
    path, _ = saved(tmp_path, "llama", config_of("llama"), fields)
    text = refused(path)
    assert words in text and "m.gguf" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.quantized_by", "somebody"),
        ("general.file_type", 1),
        ("quantize.imatrix.file", "x.dat"),
        ("llama.expert_count", 0),
        ("llama.attention.causal", True),
        ("llama.rope.scaling.finetuned", True),
        ("llama.rope.scaling.attn_factor", 1.0),
        ("llama.tensor_data_layout", "Meta AI original pth"),
        ("llama.feed_forward_length", [64, 64]),
        ("split.count", 1),
        ("tokenizer.chat_template.tool_use", "{{ messages }}"),
        ("tokenizer.ggml.eot_token_id", 2),
        ("tokenizer.ggml.added_tokens", ["<|tool|>"]),
    ],
)
def test_what_changes_nothing_may_stand_there(key: str, value: Any, tmp_path: Path) -> None:
    path, model = saved(tmp_path, "llama", config_of("llama"), common("llama") | {key: value})
    assert_same(path, model)


@pytest.mark.parametrize(
    "name",
    [
        *("blk.0.attn_sinks.weight", "blk.1.ffn_gate_exps.weight", "blk.0.attn_q.scale"),
        *("blk.0.attn_q_norm.weight", "blk.7.attn_q.weight", "cls.output.weight", "made_up"),
        *("blk.0.attn_norm.bias", "output.bias", "position_embd.weight"),
    ],
)
def test_a_tensor_without_a_place_is_refused_by_name(name: str, tmp_path: Path) -> None:
    tensors = {name: np.ones((32, 32), dtype=np.float32)}
    path, _ = saved(tmp_path, "llama", config_of("llama"), common("llama"), tensors)
    assert name in refused(path)


def test_biases_of_a_windowed_llama_have_no_place(tmp_path: Path) -> None:
    config = config_of("llama", attention_bias=True)
    fields = common("llama") | {"llama.attention.sliding_window": 16}
    path, _ = saved(tmp_path, "llama", config, fields)
    assert "blk.0.attn_" in (text := refused(path)) and "bias" in text


def test_biases_of_the_queries_alone(tmp_path: Path) -> None:
    model = random_model(config_of("llama", attention_bias=True))
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.data.zero_()
    tensors = {n: v for n, v in converted(model, "llama").items() if "output.bias" not in n}
    path = write(tmp_path / "m.gguf", "llama", tokenizer_fields() | common("llama"), tensors)
    assert_same(path, model)
    del tensors["blk.1.attn_k.bias"]
    path = write(tmp_path / "n.gguf", "llama", tokenizer_fields() | common("llama"), tensors)
    assert "model.layers.1.self_attn.k_proj.bias" in refused(path)


@pytest.mark.parametrize("gone", ["blk.1.attn_k.bias", "token_embd.weight", "output_norm.weight"])
def test_a_tensor_that_is_missing_is_named(gone: str, tmp_path: Path) -> None:
    model = random_model(config_of("qwen2"))
    tensors = {name: v for name, v in converted(model, "qwen2").items() if name != gone}
    path = write(tmp_path / "m.gguf", "qwen2", tokenizer_fields() | common("qwen2"), tensors)
    place = {"blk.1.attn_k.bias": "layers.1.self_attn.k_proj.bias", "output_norm.weight": "norm"}
    assert place.get(gone, gone) in refused(path)


def test_a_shape_that_does_not_fit_is_named(tmp_path: Path) -> None:
    tensors = {"blk.1.ffn_up.weight": np.ones((48, 32), dtype=np.float32)}
    path, _ = saved(tmp_path, "llama", config_of("llama"), common("llama"), tensors)
    text = refused(path)
    assert "blk.1.ffn_up.weight" in text and "(48, 32)" in text and "(64, 32)" in text


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, 0.0, 1.0]])
def test_rope_factors_that_cannot_be(values: list[float], tmp_path: Path) -> None:
    tensors = {"rope_freqs.weight": np.array(values, dtype=np.float32)}
    path, _ = saved(tmp_path, "llama", config_of("llama"), common("llama"), tensors)
    assert "rope_freqs.weight must hold 4 numbers" in refused(path)


def test_rope_factors_beside_another_scaling(tmp_path: Path) -> None:
    tensors = {"rope_freqs.weight": np.full(4, 2, dtype=np.float32)}
    fields = common("llama") | {"llama.rope.scaling.type": "linear"}
    fields |= {"llama.rope.scaling.factor": 2.0}
    path, _ = saved(tmp_path, "llama", config_of("llama"), fields, tensors)
    assert "rope_freqs.weight" in (text := refused(path)) and "linear" in text


def test_phi3_has_no_linear_scaling(tmp_path: Path) -> None:
    fields = common("phi3") | {"phi3.rope.dimension_count": 8, "phi3.rope.scaling.factor": 2.0}
    path, _ = saved(tmp_path, "phi3", config_of("phi3"), fields)
    assert "phi3.rope.scaling.type" in refused(path)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    fields = tokenizer_fields() | common("mamba")
    path = write(tmp_path / "m.gguf", "mamba", fields, {"x": np.ones((2, 32))})
    text = refused(path, UnknownArchitectureError)
    assert "mamba" in text and "qwen3" in text


def test_versions(tmp_path: Path) -> None:
    path, model = saved(tmp_path, "llama", config_of("llama"), common("llama"))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + struct.pack("<I", 2) + whole[8:])  # the layout did not change
    assert_same(path, model)
    path.write_bytes(whole[:4] + struct.pack("<I", 1) + whole[8:])
    assert "version 1" in refused(path)
    path.write_bytes(whole[:4] + struct.pack(">I", 3) + whole[8:])
    assert "big-endian" in refused(path)


# ---- tokenizers ------------------------------------------------------------------------------

LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_CUT = LLAMA3_CUT.replace("{1,3}", "")


def byte_level(cut: str, *, whole: bool = False) -> Tokenizer:
    """As in the tokenizer.json of the models: SmolLM, GPT-2, Llama 3 and Qwen2."""
    vocabulary = {token: index for index, token in enumerate(byte_tokens())}
    pairs = [(left, right) for left, right in (line.split(" ") for line in MERGES)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=whole))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("gpt2", "digits"))
    steps: list[Any] = [last]
    if cut == "digits":
        steps = [pre_tokenizers.Digits(individual_digits=True), last]
    elif cut != "gpt2":
        steps = [pre_tokenizers.Split(Regex(cut), "isolated"), last]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


CUTS = {
    "gpt-2": "gpt2",
    "smollm": "digits",
    "starcoder": "digits",
    "command-r": "digits",
    "llama-bpe": LLAMA3_CUT,
    "smaug-bpe": LLAMA3_CUT,
    "qwen2": QWEN2_CUT,
}
PIECES = [TEXT, "1906", "x1906y 190 06!!\n\n\n  the\tthe", "naïve ½ 12345 don'T", "\r\n 7 \r\n"]


@pytest.mark.parametrize("pre", CUTS)
def test_the_cut_of_a_tokenizer(pre: str, tmp_path: Path) -> None:
    fields = common("llama") | {"tokenizer.ggml.pre": pre}
    path, _ = saved(tmp_path, "llama", config_of("llama"), fields)
    tokenizer = load_model(str(path)).tokenizer
    oracle = byte_level(CUTS[pre], whole=pre == "llama-bpe")
    for text in PIECES:
        assert tokenizer(text).input_ids == oracle.encode(text).ids, text
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_cuts_tell_one_another_apart() -> None:
    sizes = {cut: len(byte_level(cut).encode("1906 1906").ids) for cut in CUTS.values()}
    assert sizes["digits"] > sizes["gpt2"]
    assert set(CUTS) <= set(PRE_TOKENIZERS)


def test_capitals_cut_in_tekken_and_gpt_4o(tmp_path: Path) -> None:
    text = "HelloWorld's HTTPServer 1234"
    for pre, expected in {
        "tekken": ["Hello", "World", "'s", " HTTPServer", " ", "1", "2", "3", "4"],
        "gpt-4o": ["Hello", "World's", " HTTPServer", " ", "123", "4"],
    }.items():
        fields = common("llama") | {"tokenizer.ggml.pre": pre}
        path, _ = saved(tmp_path, "llama", config_of("llama"), fields)
        backend = load_model(str(path)).tokenizer.backend_tokenizer
        cut = backend.pre_tokenizer.pre_tokenize_str(text)
        assert [text[start:end] for _, (start, end) in cut] == expected


def test_a_file_without_a_cut_says_so(tmp_path: Path) -> None:
    fields = common("llama") | {"tokenizer.ggml.pre": None}
    path, _ = saved(tmp_path, "llama", config_of("llama"), fields)
    for handle in (load_model(str(path)), load_model(str(path))):  # converted, and from the cache
        assert any("tokenizer.ggml.pre" in warning for warning in handle.info.warnings)
        assert handle.tokenizer(TEXT).input_ids == byte_level("gpt2").encode(TEXT).ids
    fields = common("qwen2") | {"tokenizer.ggml.pre": None}
    path, _ = saved(tmp_path, "qwen2", config_of("qwen2"), fields)
    handle = load_model(str(path))
    assert not any("tokenizer.ggml.pre" in warning for warning in handle.info.warnings)
    assert handle.tokenizer(TEXT).input_ids == byte_level(QWEN2_CUT).encode(TEXT).ids


def test_added_tokens_are_found_whole(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, "llama", config_of("llama"), common("llama"))
    tokenizer = load_model(str(path)).tokenizer
    plain = byte_level("gpt2")
    expected = [*plain.encode("a").ids, 4, *plain.encode(" b").ids, 2]
    assert tokenizer("a<|tool|> b</s>").input_ids == expected
    assert tokenizer.decode(expected, skip_special_tokens=True) == "a<|tool|> b"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert tokenizer.unk_token is None  # the file names none, and none is made up


@pytest.mark.parametrize(
    ("pre", "bos", "eos", "before", "after"),
    [
        ("gpt-2", None, None, [], []),
        ("llama-bpe", None, None, [1], []),
        ("gpt-2", True, True, [1], [2]),
        ("llama-bpe", False, None, [], []),
    ],
)
def test_ends_that_a_tokenizer_adds(
    pre: str,
    bos: bool | None,
    eos: bool | None,
    before: list[int],
    after: list[int],
    tmp_path: Path,
) -> None:
    fields = common("llama") | {"tokenizer.ggml.pre": pre}
    fields |= {"tokenizer.ggml.add_bos_token": bos, "tokenizer.ggml.add_eos_token": eos}
    path, _ = saved(tmp_path, "llama", config_of("llama"), fields)
    tokenizer = load_model(str(path)).tokenizer
    bare = tokenizer("the", add_special_tokens=False).input_ids
    assert tokenizer("the").input_ids == [*before, *bare, *after]


BYTES = [f"<0x{value:02X}>" for value in range(256)]
WORDS = ["▁t", "he", "▁the", "▁▁", "▁▁▁", "er", "▁w", "as", "▁was", "▁1", "19", "▁19", "06", "1906"]
LETTERS = [*string.ascii_letters, *string.digits, *",.?!'\n", "▁"]


def pieces(user: list[str]) -> list[tuple[str, float, int]]:
    head = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<s>", 0.0, 3), ("<unk>", 0.0, 2)]
    own = [(token, -1000.0, 4) for token in user]
    ranked = [
        (word, -float(rank), 1) for rank, word in enumerate(w for w in WORDS if w not in user)
    ]
    letters = [(letter, -100.0 - rank, 1) for rank, letter in enumerate(LETTERS)]
    return [*head, *own, *((byte, 0.0, 6) for byte in BYTES), *ranked, *letters]


def proto(vocabulary: list[tuple[str, float, int]], model: int, *, dummy: bool, tidy: bool) -> Any:
    """sentencepiece's own encoder of the same vocabulary: the oracle."""
    content = sentencepiece_model_pb2.ModelProto()
    for piece, score, kind in vocabulary:
        content.pieces.add(piece=piece, score=score, type=kind)
    trainer = content.trainer_spec
    trainer.model_type, trainer.vocab_size = model, len(vocabulary)
    trainer.byte_fallback = any(kind == 6 for *_, kind in vocabulary)
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 3, 2, 1, 0
    content.normalizer_spec.name = "identity"
    content.normalizer_spec.add_dummy_prefix = dummy
    content.normalizer_spec.remove_extra_whitespaces = tidy
    return sentencepiece.SentencePieceProcessor(model_proto=content.SerializeToString())


def sentencepiece_fields(
    vocabulary: list[tuple[str, float, int]], model: str, **more: Any
) -> dict[str, Any]:
    tokens, scores, types = (list(column) for column in zip(*vocabulary, strict=True))
    # the converter writes the user's own tokens with blanks
    spelled = [t.replace("▁", " ") if k == 4 else t for t, k in zip(tokens, types, strict=True)]
    return {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": spelled,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


SPACED = [
    "the the was 1906",
    " the  was   the\n\n1906",
    "there, é½ was",
    "t",
    "  ",
    "was  19061906",
]


@pytest.mark.parametrize(
    ("user", "dummy"),
    [([], True), ([], False), (["▁▁", "▁▁▁", "<turn>", "\n\n"], False)],
    ids=["llama", "gemma", "gemma with tokens of its own"],
)
def test_sentencepiece_merges_like_the_library(
    user: list[str], dummy: bool, tmp_path: Path
) -> None:
    vocabulary = pieces(user)
    architecture = "llama" if dummy else "gemma"
    fields = common(architecture) | {f"{architecture}.vocab_size": len(vocabulary)}
    fields |= sentencepiece_fields(vocabulary, "llama", add_bos_token=None)
    sizes = {"vocab_size": len(vocabulary), "head_dim": 8, "tie_word_embeddings": not dummy}
    config = config_of(architecture, **sizes)
    path, _ = saved(tmp_path, architecture, config, fields)
    tokenizer = load_model(str(path)).tokenizer
    oracle = proto(vocabulary, 2, dummy=dummy, tidy=False)
    for text in [*SPACED, *(["a<turn> b", "x\n\n\ny"] if user else [])]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == oracle.encode(text), text
        assert tokenizer.decode(ids) == text
    assert tokenizer("the").input_ids[0] == 2  # a sentencepiece model starts, unless told


def test_unigram_of_t5_like_the_library(tmp_path: Path) -> None:
    words = [
        ("▁the", -2.0, 1),
        ("▁was", -2.5, 1),
        ("the", -3.0, 1),
        ("▁", -3.5, 1),
        ("er", -4.0, 1),
    ]
    letters = [(letter, -8.0, 1) for letter in string.ascii_lowercase]
    vocabulary = [*pieces([])[:4], *words, *letters]
    fields = FAMILIES["t5 relu"][2] | {"t5.vocab_size": len(vocabulary)}
    fields |= sentencepiece_fields(vocabulary, "t5", add_bos_token=None)
    config = transformers.T5Config(
        **{**FAMILIES["t5 relu"][1].to_dict(), "vocab_size": len(vocabulary)}
    )
    path, _ = saved(tmp_path, "t5", config, fields)
    tokenizer = load_model(str(path)).tokenizer
    oracle = proto(vocabulary, 1, dummy=True, tidy=True)
    for text in ("the the was", "  there   was ", "therethe", "was É the"):
        assert tokenizer(text, add_special_tokens=False).input_ids == oracle.encode(text), text
        assert tokenizer(text).input_ids == [*oracle.encode(text), 1]
