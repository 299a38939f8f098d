"""The configuration of transformers that the fields of a GGUF file mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from prune_core.errors import ModelFileError, UnknownArchitectureError
from prune_core.models.gguf_fields import (
    ARCHITECTURES,
    ROPE_TENSORS,
    GgufArchitecture,
    GgufFields,
)
from prune_core.models.headers import GgufHeader
from prune_core.models.sources import shown
from prune_core.sentences import Sentence


def gguf_config(
    fields: GgufFields, header: GgufHeader, factors: Mapping[str, list[float]]
) -> dict[str, Any]:
    """The configuration of transformers that a GGUF file means.

    Args:
        fields: of the file; what is read is marked there.
        header: of the file.
        factors: those of :data:`prune_core.models.gguf_fields.ROPE_TENSORS` that it has, as
            numbers.

    Returns:
        Keys of a ``config.json``, ``model_type`` among them.

    Raises:
        UnknownArchitectureError: an architecture that is not read here.
        ModelFileError: a field is missing, of the wrong kind, or has a value that cannot be read.
    """
    name = header.architecture
    if name not in ARCHITECTURES:
        raise UnknownArchitectureError(
            "GGUF files of architecture {name} are not supported; supported are {known:list}.",
            name=shown(name),
            known=sorted(ARCHITECTURES),
        )
    architecture = ARCHITECTURES[name]
    config: dict[str, Any] = {"model_type": architecture.model_type, **architecture.constant}
    for suffix, key in architecture.fields.items():
        kind = float if "epsilon" in suffix else int
        config[key] = fields.take(f"{name}.{suffix}", kind, required=True)
    hidden = fields.take(f"{name}.embedding_length", int)
    heads = fields.take(f"{name}.attention.head_count", int)
    if hidden < 1 or heads < 1:
        raise ModelFileError(
            "{name}: {arch}.embedding_length and {arch}.attention.head_count must be at least 1, "
            "got {hidden} and {heads}.",
            name=fields.name,
            arch=name,
            hidden=hidden,
            heads=heads,
        )
    shared = fields.take(f"{name}.attention.head_count_kv", int, heads)
    if architecture.kv_heads:
        config[architecture.kv_heads] = shared
    else:
        fields.insist(f"{name}.attention.head_count_kv", int, (heads,))
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding[1]) != 2:
        raise ModelFileError("{name}: the tensor token_embd.weight is missing.", name=fields.name)
    config["vocab_size"] = embedding[1][1]
    fields.insist(f"{name}.vocab_size", int, (embedding[1][1],))
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    if name == "t5":
        _t5(config, fields, header)
    else:
        _heads_and_rope(config, fields, architecture, (hidden, heads), factors, name)
    _own_fields(config, fields, header, name)
    if name in ("llama", "qwen3", "gemma", "gemma2", "smollm3"):
        _biases(config, header, name)
    for key, token in _TOKEN_IDS.items():
        config[key] = fields.take(f"tokenizer.ggml.{token}", int)
    return config


_TOKEN_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "padding_token_id",
}


def _biases(config: dict[str, Any], header: GgufHeader, name: str) -> None:
    """Flags of families that have biases or not."""
    endings = {tensor.partition(".")[2].partition(".")[2] for tensor in header.tensors}
    attention = {f"attn_{part}.bias" for part in ("q", "k", "v", "output")}
    config["attention_bias"] = not endings.isdisjoint(attention)
    if name in ("llama", "smollm3"):
        mlp = {f"ffn_{part}.bias" for part in ("gate", "up", "down")}
        config["mlp_bias"] = not endings.isdisjoint(mlp)


def _t5(config: dict[str, Any], fields: GgufFields, header: GgufHeader) -> None:
    fields.insist("t5.attention.value_length", int, (config["d_kv"],))
    # converters write both names of one number
    plain, rms = (f"t5.attention.layer_norm_{word}" for word in ("epsilon", "rms_epsilon"))
    config["layer_norm_epsilon"] = fields.take(
        plain, float, fields.take(rms, float), required=rms not in fields.values
    )
    fields.insist(rms, float, (config["layer_norm_epsilon"],))
    config["num_decoder_layers"] = fields.take("t5.decoder_block_count", int, config["num_layers"])
    config["decoder_start_token_id"] = fields.take("t5.decoder_start_token_id", int)
    # version 1.1 has gates and an output of its own; llama.cpp tells the two by the gates as well
    gated = any(".ffn_gate." in name for name in header.tensors)
    config["feed_forward_proj"] = "gated-gelu" if gated else "relu"
    config["scale_decoder_outputs"] = config["tie_word_embeddings"]


def _own_fields(config: dict[str, Any], fields: GgufFields, header: GgufHeader, name: str) -> None:
    """What only one architecture has."""
    window = fields.take(f"{name}.attention.sliding_window", int, 0)
    if name == "gemma2":
        config["attn_logit_softcapping"] = (
            fields.take(f"{name}.attn_logit_softcapping", float, 50.0) or None
        )
        config["final_logit_softcapping"] = (
            fields.take(f"{name}.final_logit_softcapping", float, 30.0) or None
        )
        config["sliding_window"] = window or 4096
        config["query_pre_attn_scalar"] = _gemma2_scale(config, fields)
    elif name == "phi3":
        config["sliding_window"] = window or None
    elif name == "llama":
        if window:  # the same blocks, of which transformers' Llama has no window
            config["model_type"], config["sliding_window"] = "mistral", window
    else:
        fields.insist(f"{name}.attention.sliding_window", int, (0,))
    if name == "gptneox":
        config["use_parallel_residual"] = fields.take(f"{name}.use_parallel_residual", bool, True)


def _gemma2_scale(config: Mapping[str, Any], fields: GgufFields) -> int:
    """What Gemma 2 (arXiv 2408.00118) divides attention by the root of; files seldom say it.

    256 in the models of 26 and 42 blocks, the hidden size over the heads in that of 46.
    """
    scale = fields.take("gemma2.attention.scale", float, 0.0)
    if scale != 0:
        scalar = round(scale**-2) if scale > 1e-4 else 0
        if not scalar or not math.isclose(scalar**-0.5, scale, rel_tol=1e-4):
            raise ModelFileError(
                "{name}: the GGUF field gemma2.attention.scale is {scale}; it must be 1 over the "
                "root of a whole number.",
                name=fields.name,
                scale=scale,
            )
        return scalar
    largest = config["num_hidden_layers"] == 46
    return int(config["hidden_size"] // config["num_attention_heads"]) if largest else 256


def _heads_and_rope(
    config: dict[str, Any],
    fields: GgufFields,
    architecture: GgufArchitecture,
    sizes: tuple[int, int],
    factors: Mapping[str, list[float]],
    name: str,
) -> None:
    hidden, heads = sizes
    if architecture.head_dim:
        width = fields.take(f"{name}.attention.key_length", int, hidden // heads)
        config["head_dim"] = width
    else:
        width = hidden // heads
        fields.insist(f"{name}.attention.key_length", int, (width,))
    fields.insist(f"{name}.attention.value_length", int, (width,))
    if architecture.rotary == "none":
        return
    rotated = width
    if architecture.rotary == "part":
        rotated = fields.take(f"{name}.rope.dimension_count", int, width)
        if rotated % 2 or not 0 < rotated <= width:
            raise ModelFileError(
                "{name}: the GGUF field {arch}.rope.dimension_count must be an even number up to "
                "{width}, got {rotated}.",
                name=fields.name,
                arch=name,
                width=width,
                rotated=rotated,
            )
    else:
        fields.insist(f"{name}.rope.dimension_count", int, (width,))
    rope = _rope(fields, name, config, rotated, factors)
    rope["rope_theta"] = fields.take(f"{name}.rope.freq_base", float, 10_000.0)
    if not rope["rope_theta"] or not rope.get("factor", 1.0):
        raise ModelFileError(
            "{name}: the GGUF fields {arch}.rope.freq_base and {arch}.rope.scaling.factor must be "
            "above 0.",
            name=fields.name,
            arch=name,
        )
    if architecture.rotary == "part":
        rope["partial_rotary_factor"] = rotated / width
    if rope["rope_type"] == "frequencies":
        rope |= _factored(rope, rotated, config)
        rope.pop("frequencies")
    config["rope_parameters"] = rope
    if name == "phi3":  # a key of its own comes before that of rope_parameters
        config["original_max_position_embeddings"] = rope.get(
            "original_max_position_embeddings", config["max_position_embeddings"]
        )


def _rope(
    fields: GgufFields,
    name: str,
    config: Mapping[str, Any],
    rotated: int,
    factors: Mapping[str, list[float]],
) -> dict[str, Any]:
    """RoPE scaling as transformers names it, from fields and tensors."""
    prefix, context = f"{name}.rope.scaling", config["max_position_embeddings"]
    old = fields.take(f"{name}.rope.scale_linear", float, 1.0)
    factor = fields.take(f"{prefix}.factor", float, old)
    # a factor without a type is linear
    kind = fields.take(f"{prefix}.type", str, "none" if factor == 1.0 else "linear")
    original = fields.take(f"{prefix}.original_context_length", int, context)
    attention = fields.take(f"{prefix}.attn_factor", float)
    for tensor, values in factors.items():
        if len(values) != rotated // 2 or not all(v > 0 and math.isfinite(v) for v in values):
            raise ModelFileError(
                "{name}: the tensor {tensor} must hold {count} numbers above 0.",
                name=fields.name,
                tensor=tensor,
                count=rotated // 2,
            )
    long, short = factors.get(ROPE_TENSORS[1]), factors.get(ROPE_TENSORS[2])
    if long is not None or short is not None or kind == "longrope":
        if long is None or short is None or kind not in ("none", "longrope") or len(factors) > 2:
            raise ModelFileError(
                "{name}: the GGUF field {prefix}.type is {kind}, which does not fit the tensors "
                "{tensors:list}; longrope needs rope_factors_long.weight and "
                "rope_factors_short.weight.",
                name=fields.name,
                prefix=prefix,
                kind=shown(kind),
                tensors=list(factors) or [Sentence("of the file")],
            )
        rope: dict[str, Any] = {"rope_type": "longrope", "long_factor": long, "short_factor": short}
        rope["original_max_position_embeddings"] = original
        if attention is not None:
            rope["attention_factor"] = attention
        return rope
    if attention not in (None, 1.0):
        fields.insist(f"{prefix}.attn_factor", float, (1.0,))
    if factors and kind != "none":
        raise ModelFileError(
            "{name}: the tensor {tensor} does not go with the GGUF field {prefix}.type {kind}.",
            name=fields.name,
            tensor=ROPE_TENSORS[0],
            prefix=prefix,
            kind=shown(kind),
        )
    if factors:
        return {"rope_type": "frequencies", "frequencies": factors[ROPE_TENSORS[0]]}
    if kind == "none":
        return {"rope_type": "default"}
    if name == "phi3" or kind not in ("linear", "yarn"):
        raise ModelFileError(
            "{name}: the GGUF field {prefix}.type is {kind}, which cannot be read for "
            "architecture {arch}.",
            name=fields.name,
            prefix=prefix,
            kind=shown(kind),
            arch=name,
        )
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    for key in ("yarn_ext_factor", "yarn_attn_factor"):
        fields.insist(f"{prefix}.{key}", float, (1.0,))
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
        "beta_fast": fields.take(f"{prefix}.yarn_beta_fast", float, 32.0),
        "beta_slow": fields.take(f"{prefix}.yarn_beta_slow", float, 1.0),
    }


def _factored(rope: Mapping[str, Any], rotated: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Frequencies divided by given factors, as a type that transformers has.

    Llama 3.1 and later (arXiv 2407.21783) write what their ``llama3`` scaling comes to; where such
    a scaling gives these factors it is named, so that an exported config.json is the usual one.
    Any others are longrope with the same factors for short and long texts.
    """
    factors = rope["frequencies"]
    largest = max(factors)
    for original in (8192, *(2**power for power in range(4, 18))):
        expected = [
            _llama3_factor(rope["rope_theta"] ** (2 * i / rotated), largest, original)
            for i in range(rotated // 2)
        ]
        close = all(abs(a - b) <= 1e-5 * b for a, b in zip(factors, expected, strict=True))
        if largest > 1 and close:
            return {
                "rope_type": "llama3",
                "factor": largest,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
    return {
        "rope_type": "longrope",
        "long_factor": factors,
        "short_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": config["max_position_embeddings"],
    }


def _llama3_factor(period: float, factor: float, original: int) -> float:
    """What Llama 3 divides a frequency by; low and high factor are 1 and 4 in all its models."""
    turns = original / (2 * math.pi * period)  # in the original context
    if turns > 4.0:
        return 1.0
    if turns < 1.0:
        return factor
    smooth = (turns - 1.0) / 3.0
    return 1.0 / ((1.0 - smooth) / factor + smooth)
