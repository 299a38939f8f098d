"""What the fields of a GGUF file mean for transformers: read, known to change nothing, or refused.

Names of the fields: the GGUF specification and the constants of the ``gguf`` package. A field that
is neither read here nor known to be harmless ends in an error that names it, because leaving it
out could change every number without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prune_core.errors import ModelFileError, UnknownArchitectureError
from prune_core.models.headers import GgufHeader
from prune_core.models.sources import shown

_LLAMA_FIELDS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_NORM_FIELDS = {name: key for name, key in _LLAMA_FIELDS.items() if "rms" not in name}
_NORM_FIELDS |= {"attention.layer_norm_epsilon": "layer_norm_eps"}


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """How one ``general.architecture`` is told to transformers.

    Attributes:
        model_type: of transformers.
        fields: name without the architecture's prefix to key of the configuration; all required.
        rotary: which part of a head is rotated: ``whole``, ``part`` or ``none`` (other positions).
        head_dim: the configuration has a width of heads of its own.
        kv_heads: key of the number of key/value heads; empty: as many as query heads.
        constant: keys of the configuration that the architecture implies.
        neutral: fields beyond those of every architecture that may stand there with one value.
    """

    model_type: str
    fields: Mapping[str, str] = field(default_factory=lambda: _LLAMA_FIELDS)
    rotary: str = "whole"
    head_dim: bool = True
    kv_heads: str = "num_key_value_heads"
    constant: Mapping[str, Any] = field(default_factory=dict)
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


_TANH = "gelu_pytorch_tanh"

ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    "gemma": GgufArchitecture("gemma", constant={"hidden_act": _TANH}),
    "gemma2": GgufArchitecture("gemma2", constant={"hidden_activation": _TANH}),
    "gpt2": GgufArchitecture(
        "gpt2",
        {
            "context_length": "n_positions",
            "embedding_length": "n_embd",
            "block_count": "n_layer",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        rotary="none",
        head_dim=False,
        kv_heads="",
    ),
    "gptneox": GgufArchitecture(
        "gpt_neox", _NORM_FIELDS, rotary="part", head_dim=False, kv_heads=""
    ),
    "llama": GgufArchitecture("llama", neutral={"tensor_data_layout": ("Meta AI original pth",)}),
    "phi2": GgufArchitecture("phi", _NORM_FIELDS, rotary="part", head_dim=False),
    "phi3": GgufArchitecture("phi3", rotary="part", head_dim=False),
    "qwen2": GgufArchitecture("qwen2", head_dim=False),
    "qwen3": GgufArchitecture("qwen3"),
    "smollm3": GgufArchitecture("smollm3", head_dim=False),
    "t5": GgufArchitecture(
        "t5",
        {
            "context_length": "n_positions",
            "embedding_length": "d_model",
            "block_count": "num_layers",
            "feed_forward_length": "d_ff",
            "attention.head_count": "num_heads",
            "attention.key_length": "d_kv",
            "attention.relative_buckets_count": "relative_attention_num_buckets",
        },
        rotary="none",
        kv_heads="",
    ),
}
"""``general.architecture`` to how it is read."""

_HARMLESS_PREFIXES = (
    *("general.", "split.", "quantize.", "mradermacher."),
    *("tokenizer.chat_template.", "tokenizer.chat_templates"),
)
# who made the file, and of what; what matters of general.* and split.* is read in headers.py
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.finetuned": (True, False),
    "use_parallel_residual": (),
}
"""Fields of any architecture that change nothing with these values."""

ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that are part of the configuration: what each frequency is divided by."""


class GgufFields:
    """The fields of one file, which remembers what has been read.

    Args:
        name: of the file, for sentences.
        header: of the file.
    """

    def __init__(self, name: str, header: GgufHeader) -> None:
        self.name = shown(name)
        self.values = header.fields
        self.read: set[str] = {"general.architecture"}

    def take(self, key: str, kind: type, default: Any = None, *, required: bool = False) -> Any:
        """One field, checked to be of its kind and marked as read.

        Args:
            key: in full.
            kind: ``int``, ``float``, ``bool``, ``str`` or ``list``.
            default: what stands for a field that is not there.
            required: it must be there.

        Raises:
            ModelFileError: missing, or not of the kind; names the field.
        """
        self.read.add(key)
        if key not in self.values:
            if required:
                raise ModelFileError(f"{self.name}: the GGUF field {key} is missing.")
            return default
        value = self.values[key]
        if kind in (int, float) and isinstance(value, list) and value and len(set(value)) == 1:
            value = value[0]  # one number for each block, and all the same
        if kind is float and type(value) is int:
            value = float(value)
        is_number = kind in (int, float) and type(value) is kind
        # no number of a model is below zero
        if type(value) is not kind or (is_number and not 0 <= value < math.inf):
            raise ModelFileError(
                f"{self.name}: the GGUF field {key} cannot be {shown(str(value), 40)}."
            )
        return value

    def insist(self, key: str, kind: type, allowed: tuple[Any, ...]) -> None:
        """Mark a field as read; where it is there it must have one of these values.

        Raises:
            ModelFileError: it has another one; names the field.
        """
        value = self.take(key, kind, allowed[0])
        if value not in allowed:
            known = " or ".join(str(one) for one in allowed)
            raise ModelFileError(
                f"{self.name}: the GGUF field {key} is {shown(str(value), 40)}; only {known} can "
                "be read here."
            )

    def check_all_read(self, architecture: str) -> None:
        """Refuse what has not been read and is not known to change nothing.

        Raises:
            ModelFileError: names the first such field.
        """
        neutral = {**_NEUTRAL, **ARCHITECTURES[architecture].neutral}
        for key, value in self.values.items():
            if key in self.read or key.startswith(_HARMLESS_PREFIXES):
                continue
            if value in neutral.get(key.removeprefix(f"{architecture}."), ()):
                continue
            raise ModelFileError(
                f"{self.name}: the GGUF field {shown(key)} ({shown(str(value), 40)}) is not known "
                "here; without it the numbers could be wrong, so the file is refused."
            )


def gguf_config(
    fields: GgufFields, header: GgufHeader, factors: Mapping[str, list[float]]
) -> dict[str, Any]:
    """The configuration of transformers that a GGUF file means.

    Args:
        fields: of the file; what is read is marked there.
        header: of the file.
        factors: the tensors of :data:`ROPE_TENSORS` that it has, dequantized.

    Returns:
        Keys of a ``config.json``, ``model_type`` among them.

    Raises:
        UnknownArchitectureError: an architecture that is not read here.
        ModelFileError: a field is missing, of the wrong kind, or has a value that cannot be read.
    """
    name = header.architecture
    if name not in ARCHITECTURES:
        raise UnknownArchitectureError(
            f"GGUF files of architecture {shown(name)} are not supported; supported are "
            f"{', '.join(sorted(ARCHITECTURES))}."
        )
    chosen = ARCHITECTURES[name]
    config: dict[str, Any] = {"model_type": chosen.model_type, **chosen.constant}
    for suffix, key in chosen.fields.items():
        kind = float if "epsilon" in suffix else int
        config[key] = fields.take(f"{name}.{suffix}", kind, required=True)
    hidden = fields.take(f"{name}.embedding_length", int)
    heads = fields.take(f"{name}.attention.head_count", int)
    if hidden < 1 or heads < 1:
        raise ModelFileError(
            f"{fields.name}: {name}.embedding_length and {name}.attention.head_count must be at "
            f"least 1, got {hidden} and {heads}."
        )
    shared = fields.take(f"{name}.attention.head_count_kv", int, heads)
    if chosen.kv_heads:
        config[chosen.kv_heads] = shared
    else:
        fields.insist(f"{name}.attention.head_count_kv", int, (heads,))
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding[1]) != 2:
        raise ModelFileError(f"{fields.name}: the tensor token_embd.weight is missing.")
    config["vocab_size"] = embedding[1][1]
    fields.insist(f"{name}.vocab_size", int, (embedding[1][1],))
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    if name == "t5":
        _t5(config, fields, header)
    else:
        _heads_and_rope(config, fields, chosen, (hidden, heads), factors, name)
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
        wanted = round(scale**-2) if scale > 1e-4 else 0
        if not wanted or not math.isclose(wanted**-0.5, scale, rel_tol=1e-4):
            raise ModelFileError(
                f"{fields.name}: the GGUF field gemma2.attention.scale is {scale}; it must be 1 "
                "over the root of a whole number."
            )
        return wanted
    largest = config["num_hidden_layers"] == 46
    return int(config["hidden_size"] // config["num_attention_heads"]) if largest else 256


def _heads_and_rope(
    config: dict[str, Any],
    fields: GgufFields,
    chosen: GgufArchitecture,
    sizes: tuple[int, int],
    factors: Mapping[str, list[float]],
    name: str,
) -> None:
    hidden, heads = sizes
    if chosen.head_dim:
        width = fields.take(f"{name}.attention.key_length", int, hidden // heads)
        config["head_dim"] = width
    else:
        width = hidden // heads
        fields.insist(f"{name}.attention.key_length", int, (width,))
    fields.insist(f"{name}.attention.value_length", int, (width,))
    if chosen.rotary == "none":
        return
    rotated = width
    if chosen.rotary == "part":
        rotated = fields.take(f"{name}.rope.dimension_count", int, width)
        if rotated % 2 or not 0 < rotated <= width:
            raise ModelFileError(
                f"{fields.name}: the GGUF field {name}.rope.dimension_count must be an even number "
                f"up to {width}, got {rotated}."
            )
    else:
        fields.insist(f"{name}.rope.dimension_count", int, (width,))
    rope = _rope(fields, name, config, rotated, factors)
    rope["rope_theta"] = fields.take(f"{name}.rope.freq_base", float, 10_000.0)
    if not rope["rope_theta"] or not rope.get("factor", 1.0):
        raise ModelFileError(
            f"{fields.name}: the GGUF fields {name}.rope.freq_base and {name}.rope.scaling.factor "
            "must be above 0."
        )
    if chosen.rotary == "part":
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
                f"{fields.name}: the tensor {tensor} must hold {rotated // 2} numbers above 0."
            )
    long, short = factors.get(ROPE_TENSORS[1]), factors.get(ROPE_TENSORS[2])
    if long is not None or short is not None or kind == "longrope":
        if long is None or short is None or kind not in ("none", "longrope") or len(factors) > 2:
            raise ModelFileError(
                f"{fields.name}: the GGUF field {prefix}.type is {shown(kind)}, which does not fit "
                f"the tensors {', '.join(factors) or 'of the file'}; longrope needs "
                "rope_factors_long.weight and rope_factors_short.weight."
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
            f"{fields.name}: the tensor {ROPE_TENSORS[0]} does not go with the GGUF field "
            f"{prefix}.type {shown(kind)}."
        )
    if factors:
        return {"rope_type": "frequencies", "frequencies": factors[ROPE_TENSORS[0]]}
    if kind == "none":
        return {"rope_type": "default"}
    if name == "phi3" or kind not in ("linear", "yarn"):
        raise ModelFileError(
            f"{fields.name}: the GGUF field {prefix}.type is {shown(kind)}, which cannot be read "
            f"for architecture {name}."
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
