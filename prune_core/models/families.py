"""The supported architectures, as data: where each keeps its blocks, layers and heads.

Read from the modeling files of transformers 5.23. No torch here: the web process and the file
checks read this table too. A new architecture is a new entry; nothing else dispatches on names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionPaths:
    """Where an attention module keeps its projections; paths are relative to the block.

    Attributes:
        module: the module that computes the attention.
        q: query projection.
        k: key projection.
        v: value projection; if all three are one path, the projection is fused.
        o: output projection.
        layout: rows of a fused projection: ``concatenated`` is all queries, then all keys, then
            all values; ``interleaved`` is per head its query, key and value; ``separate`` is not
            fused.
        head_dim: attribute of ``module`` that holds the width of one head; it must agree with
            the configuration.
    """

    module: str
    q: str
    k: str
    v: str
    o: str
    layout: str = "separate"
    head_dim: str = "head_dim"


@dataclass(frozen=True, slots=True)
class Stack:
    """A list of equal blocks.

    Attributes:
        name: ``encoder`` or ``decoder``.
        container: path of the list, relative to the base model.
        attention: self-attention.
        cross: attention to the encoder, or None.
        mlps: the layouts an MLP may have, each as (role, path) pairs in forward order.
        heads: configuration attribute: number of query heads.
        kv_heads: configuration attribute: number of key/value heads; None: as many as queries.
        head_dim: configuration attribute; absent or unset: hidden size / heads.
    """

    name: str
    container: str
    attention: AttentionPaths
    mlps: tuple[tuple[tuple[str, str], ...], ...]
    cross: AttentionPaths | None = None
    heads: str = "num_attention_heads"
    kv_heads: str | None = None
    head_dim: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One ``model_type``.

    Attributes:
        kind: ``decoder``, ``encoder`` or ``encoder-decoder``.
        prefix: attribute under which a model with a head keeps its base model; empty: none.
        stacks: encoder first.
        head: path of the output head in a model that has one.
        plain_head: the logits are exactly ``head(last_hidden_state)``.
        positions: how the usable context follows from ``max_position_embeddings``: ``all`` of
            them, ``after-padding`` (RoBERTa counts from the padding index on) or ``relative``
            (T5 has none; its models were trained on 512 tokens).
        embeddings: endings of parameters inside blocks that are tables, not layers.
    """

    kind: str
    prefix: str
    stacks: tuple[Stack, ...]
    head: str
    plain_head: bool = True
    positions: str = "all"
    embeddings: tuple[str, ...] = ()


def _two_layers(up: str, down: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    return ((("mlp.up", up), ("mlp.down", down)),)


_GATED = (
    (("mlp.gate", "mlp.gate_proj"), ("mlp.up", "mlp.up_proj"), ("mlp.down", "mlp.down_proj")),
)


def _named(module: str, q: str, k: str, v: str, o: str, **more: str) -> AttentionPaths:
    """Separate projections that are children of the attention module."""
    return AttentionPaths(module, *(f"{module}.{name}" for name in (q, k, v, o)), **more)


def _fused(module: str, qkv: str, o: str, layout: str, **more: str) -> AttentionPaths:
    path = f"{module}.{qkv}"
    return AttentionPaths(module, path, path, path, f"{module}.{o}", layout, **more)


_SELF = _named("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")
_SELF_OUT = _named("self_attn", "q_proj", "k_proj", "v_proj", "out_proj")
_CROSS_OUT = _named("encoder_attn", "q_proj", "k_proj", "v_proj", "out_proj")


def _llama_like(
    attention: AttentionPaths = _SELF,
    mlps: tuple[tuple[tuple[str, str], ...], ...] = _GATED,
    *,
    plain_head: bool = True,
) -> Family:
    stack = Stack(
        "decoder",
        "layers",
        attention,
        mlps,
        kv_heads="num_key_value_heads",
        head_dim="head_dim",
    )
    return Family("decoder", "model", (stack,), "lm_head", plain_head)


def _bert_like(prefix: str, head: str, positions: str = "all") -> Family:
    attention = AttentionPaths(
        "attention.self",
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        head_dim="attention_head_size",
    )
    mlps = _two_layers("intermediate.dense", "output.dense")
    stack = Stack("encoder", "encoder.layer", attention, mlps)
    return Family("encoder", prefix, (stack,), head, plain_head=False, positions=positions)


def _bart_like() -> Family:
    mlps = _two_layers("fc1", "fc2")
    encoder = Stack("encoder", "encoder.layers", _SELF_OUT, mlps, heads="encoder_attention_heads")
    decoder = Stack(
        "decoder", "decoder.layers", _SELF_OUT, mlps, _CROSS_OUT, heads="decoder_attention_heads"
    )
    # the head's logits get final_logits_bias added
    return Family("encoder-decoder", "model", (encoder, decoder), "lm_head", plain_head=False)


def _t5() -> Family:
    def attention(module: str) -> AttentionPaths:
        return _named(module, "q", "k", "v", "o", head_dim="key_value_proj_dim")

    def mlps(module: str) -> tuple[tuple[tuple[str, str], ...], ...]:
        return (
            (("mlp.up", f"{module}.wi"), ("mlp.down", f"{module}.wo")),
            (
                ("mlp.gate", f"{module}.wi_0"),
                ("mlp.up", f"{module}.wi_1"),
                ("mlp.down", f"{module}.wo"),
            ),
        )

    own = attention("layer.0.SelfAttention")
    cross = attention("layer.1.EncDecAttention")
    encoder = Stack(
        "encoder",
        "encoder.block",
        own,
        mlps("layer.1.DenseReluDense"),
        heads="num_heads",
        head_dim="d_kv",
    )
    decoder = Stack(
        "decoder",
        "decoder.block",
        own,
        mlps("layer.2.DenseReluDense"),
        cross,
        heads="num_heads",
        head_dim="d_kv",
    )
    return Family(
        "encoder-decoder",
        "",
        (encoder, decoder),
        "lm_head",
        plain_head=False,  # scaled by 1 / sqrt(hidden) where scale_decoder_outputs is set
        positions="relative",
        embeddings=("relative_attention_bias.weight",),
    )


def _single(
    prefix: str,
    container: str,
    attention: AttentionPaths,
    up: str,
    down: str,
    *,
    heads: str = "num_attention_heads",
) -> Family:
    stack = Stack("decoder", container, attention, _two_layers(up, down), heads=heads)
    return Family("decoder", prefix, (stack,), "lm_head")


def _distilbert() -> Family:
    attention = _named(
        "attention", "q_lin", "k_lin", "v_lin", "out_lin", head_dim="attention_head_size"
    )
    stack = Stack(
        "encoder",
        "transformer.layer",
        attention,
        _two_layers("ffn.lin1", "ffn.lin2"),
        heads="n_heads",
    )
    return Family("encoder", "distilbert", (stack,), "vocab_projector", plain_head=False)


FAMILIES: Mapping[str, Family] = {
    "bart": _bart_like(),
    "bert": _bert_like("bert", "cls.predictions.decoder"),
    "distilbert": _distilbert(),
    "gemma": _llama_like(),
    "gemma2": _llama_like(plain_head=False),  # soft cap on the logits
    "gpt2": _single(
        "transformer",
        "h",
        _fused("attn", "c_attn", "c_proj", "concatenated"),
        "mlp.c_fc",
        "mlp.c_proj",
        heads="n_head",
    ),
    "gpt_neox": _single(
        "gpt_neox",
        "layers",
        _fused("attention", "query_key_value", "dense", "interleaved", head_dim="head_size"),
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    ),
    "llama": _llama_like(),
    "marian": _bart_like(),
    "mistral": _llama_like(),
    "opt": _single("model", "decoder.layers", _SELF_OUT, "fc1", "fc2"),
    "phi": _llama_like(
        _named("self_attn", "q_proj", "k_proj", "v_proj", "dense"),
        _two_layers("mlp.fc1", "mlp.fc2"),
    ),
    "phi3": _llama_like(
        _fused("self_attn", "qkv_proj", "o_proj", "concatenated"),
        ((("mlp.gate_up", "mlp.gate_up_proj"), ("mlp.down", "mlp.down_proj")),),
    ),
    "qwen2": _llama_like(),
    "qwen3": _llama_like(),
    "roberta": _bert_like("roberta", "lm_head.decoder", "after-padding"),
    "smollm3": _llama_like(),
    "t5": _t5(),
}
"""``model_type`` to its description."""

NEEDS_START: frozenset[str] = frozenset({"gemma", "gemma2", "gemma3_text"})
"""Families that were trained with a beginning-of-sequence token before every text and are lost
without it: the perplexity of Gemma is some thirty times as high."""

SUPPORTED: frozenset[str] = frozenset(FAMILIES)
"""Every ``model_type`` that can be read."""

FAMILY_KIND: Mapping[str, str] = {name: family.kind for name, family in FAMILIES.items()}
"""``model_type`` to ``decoder``, ``encoder`` or ``encoder-decoder``."""
