"""The fields of a GGUF file: which each architecture has, and which have been read.

Names of the fields: the GGUF specification and the constants of the ``gguf`` package. A field that
is neither read nor known to be harmless ends in an error that names it, because leaving it out
could change every number without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prune_core.errors import ModelFileError
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
                raise ModelFileError(
                    "{name}: the GGUF field {key} is missing.", name=self.name, key=key
                )
            return default
        value = self.values[key]
        if kind in (int, float) and isinstance(value, list) and value and len(set(value)) == 1:
            value = value[0]  # one number for each block, and all the same
        if kind is float and type(value) is int:
            value = float(value)
        wrong = type(value) is not kind
        if isinstance(value, (int, float)):  # no number of a model is below zero
            wrong = wrong or not 0 <= value < math.inf
        if wrong:
            raise ModelFileError(
                "{name}: the GGUF field {key} cannot be {value}.",
                name=self.name,
                key=key,
                value=shown(str(value), 40),
            )
        return value

    def insist(self, key: str, kind: type, allowed: tuple[Any, ...]) -> None:
        """Mark a field as read; where it is there it must have one of these values.

        Raises:
            ModelFileError: it has another one; names the field.
        """
        value = self.take(key, kind, allowed[0])
        if value not in allowed:
            choices = " or ".join(str(one) for one in allowed)
            raise ModelFileError(
                "{name}: the GGUF field {key} is {value}; only {known} can be read here.",
                name=self.name,
                key=key,
                value=shown(str(value), 40),
                known=choices,
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
                "{name}: the GGUF field {key} ({value}) is not known here; without it the numbers "
                "could be wrong, so the file is refused.",
                name=self.name,
                key=shown(key),
                value=shown(str(value), 40),
            )
