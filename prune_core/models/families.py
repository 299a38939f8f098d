"""The supported architectures, as data: where each keeps its blocks, layers and heads.

Read from the modeling files of transformers 5.23. No torch here: the web process and the file
checks read this table too. A new architecture is a new entry: whatever the rest of the program must
know of a family is a field here, and nothing else asks for a family by its name.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any


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
        joint_norm: queries and keys are normalized over all heads together (OLMo 2), so that the
            rows of one head cannot go without changing the others.
    """

    module: str
    q: str
    k: str
    v: str
    o: str
    layout: str = "separate"
    head_dim: str = "head_dim"
    joint_norm: bool = False


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
        head_dim: configuration attribute; absent or unset: hidden size / heads. None: the
            configuration has no place for it, so that no checkpoint can have fewer heads.
        blocks: configuration attributes: number of blocks; all that the configuration has are set.
        neurons: configuration attribute: neurons of an MLP; None: it has no place for them.
    """

    name: str
    container: str
    attention: AttentionPaths
    mlps: tuple[tuple[tuple[str, str], ...], ...]
    cross: AttentionPaths | None = None
    heads: str = "num_attention_heads"
    kv_heads: str | None = None
    head_dim: str | None = None
    blocks: tuple[str, ...] = ("num_hidden_layers",)
    neurons: str | None = "intermediate_size"


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
        position_bias: blocks that hold a bias by distance for each head: ``first`` of each stack,
            which serves all its blocks (T5), or ``each`` for itself (umT5); empty: none.
        post_norm: blocks normalize the residual stream itself, so that a block of zeros still
            changes it.
        heads_divide: transformers builds a model only where the number of heads divides the hidden
            size, however wide a head is.
        wants_start: trained with a beginning-of-sequence token before every text and lost without
            it: the perplexity of Gemma is some thirty times as high.
        block_scale: configuration switch: attention is scaled by the index of its block.
        longer_decoder: ``generate`` works where the decoder has more blocks than the encoder; it
            makes T5's cache as long as the encoder.
        scaled_head: the head's input is scaled by 1 / sqrt(hidden) where nothing else is said.
        columns_first: linear weights are stored as (in, out).
        pooler: an encoder without a head has a pooling layer that can be left out.
        head_tensors: how the names of a head's tensors begin in a checkpoint; one that has none of
            them is read without its head (encoders only).
        sentencepiece: file of pieces whose ids are the model's own, where it stands alone.
    """

    kind: str
    prefix: str
    stacks: tuple[Stack, ...]
    head: str
    plain_head: bool = True
    positions: str = "all"
    embeddings: tuple[str, ...] = ()
    position_bias: str = ""
    post_norm: bool = False
    heads_divide: bool = False
    wants_start: bool = False
    block_scale: str = ""
    longer_decoder: bool = True
    scaled_head: bool = False
    columns_first: bool = False
    pooler: bool = True
    head_tensors: tuple[str, ...] = ()
    sentencepiece: str = ""


def _two_layers(up: str, down: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    return ((("mlp.up", up), ("mlp.down", down)),)


_GATED = (
    (("mlp.gate", "mlp.gate_proj"), ("mlp.up", "mlp.up_proj"), ("mlp.down", "mlp.down_proj")),
)


def _named(module: str, q: str, k: str, v: str, o: str, **more: Any) -> AttentionPaths:
    """Separate projections that are children of the attention module."""
    return AttentionPaths(module, *(f"{module}.{name}" for name in (q, k, v, o)), **more)


def _fused(module: str, qkv: str, o: str, layout: str, **more: str) -> AttentionPaths:
    path = f"{module}.{qkv}"
    return AttentionPaths(module, path, path, path, f"{module}.{o}", layout, **more)


_SELF = _named("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")
_SELF_OUT = _named("self_attn", "q_proj", "k_proj", "v_proj", "out_proj")
_CROSS_OUT = _named("encoder_attn", "q_proj", "k_proj", "v_proj", "out_proj")


def _decoder(prefix: str, stack: Stack, **facts: Any) -> Family:
    usual = {"sentencepiece": "tokenizer.model"}
    return Family("decoder", prefix, (stack,), "lm_head", **(usual | facts))


def _llama_like(
    attention: AttentionPaths = _SELF,
    mlps: tuple[tuple[tuple[str, str], ...], ...] = _GATED,
    *,
    head_dim: str | None = "head_dim",
    **facts: Any,
) -> Family:
    stack = Stack(
        "decoder",
        "layers",
        attention,
        mlps,
        kv_heads="num_key_value_heads",
        head_dim=head_dim,
    )
    return _decoder("model", stack, **facts)


_BERT_ATTENTION = AttentionPaths(
    "attention.self",
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    head_dim="attention_head_size",
)


def _encoder(prefix: str, head: str, stack: Stack, **facts: Any) -> Family:
    usual = {"post_norm": True, "plain_head": False}
    return Family("encoder", prefix, (stack,), head, **(usual | facts))


def _bert_like(
    prefix: str, head: str, attention: AttentionPaths = _BERT_ATTENTION, **facts: Any
) -> Family:
    mlps = _two_layers("intermediate.dense", "output.dense")
    return _encoder(prefix, head, Stack("encoder", "encoder.layer", attention, mlps), **facts)


def _roberta_like() -> Family:
    return _bert_like(
        "roberta", "lm_head.decoder", positions="after-padding", head_tensors=("lm_head.",)
    )


def _bart_like(**facts: Any) -> Family:
    def stack(name: str, **more: Any) -> Stack:
        return Stack(
            name,
            f"{name}.layers",
            _SELF_OUT,
            _two_layers("fc1", "fc2"),
            heads=f"{name}_attention_heads",
            blocks=(f"{name}_layers",),
            neurons=f"{name}_ffn_dim",
            **more,
        )

    # the head's logits get final_logits_bias added
    stacks = (stack("encoder"), stack("decoder", cross=_CROSS_OUT))
    return Family("encoder-decoder", "model", stacks, "lm_head", **({"plain_head": False} | facts))


def _t5_like(**facts: Any) -> Family:
    def attention(module: str) -> AttentionPaths:
        return _named(module, "q", "k", "v", "o", head_dim="key_value_proj_dim")

    def stack(name: str, mlp: str, blocks: str, **more: Any) -> Stack:
        down = ("mlp.down", f"{mlp}.wo")
        plain = (("mlp.up", f"{mlp}.wi"), down)
        gated = (("mlp.gate", f"{mlp}.wi_0"), ("mlp.up", f"{mlp}.wi_1"), down)
        return Stack(
            name,
            f"{name}.block",
            attention("layer.0.SelfAttention"),
            (plain, gated),
            heads="num_heads",
            head_dim="d_kv",
            blocks=(blocks,),
            neurons="d_ff",
            **more,
        )

    encoder = stack("encoder", "layer.1.DenseReluDense", "num_layers")
    cross = attention("layer.1.EncDecAttention")
    decoder = stack("decoder", "layer.2.DenseReluDense", "num_decoder_layers", cross=cross)
    usual: dict[str, Any] = {
        "plain_head": False,  # scaled by 1 / sqrt(hidden) where scale_decoder_outputs is set
        "positions": "relative",
        "embeddings": ("relative_attention_bias.weight",),
        "position_bias": "first",
        "longer_decoder": False,
        "scaled_head": True,
        "sentencepiece": "spiece.model",
    }
    return Family("encoder-decoder", "", (encoder, decoder), "lm_head", **(usual | facts))


def _single(
    prefix: str,
    container: str,
    attention: AttentionPaths,
    up: str,
    down: str,
    *,
    heads: str = "num_attention_heads",
    neurons: str | None = "intermediate_size",
    **facts: Any,
) -> Family:
    mlps = _two_layers(up, down)
    stack = Stack("decoder", container, attention, mlps, heads=heads, neurons=neurons)
    return _decoder(prefix, stack, **facts)


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
        neurons="hidden_dim",
    )
    return _encoder(
        "distilbert",
        "vocab_projector",
        stack,
        pooler=False,
        head_tensors=("vocab_transform.", "vocab_projector."),
    )


FAMILIES: dict[str, Family] = {
    "bart": _bart_like(post_norm=True),
    "bert": _bert_like("bert", "cls.predictions.decoder", head_tensors=("cls.predictions.",)),
    "blenderbot": _bart_like(),
    "camembert": _roberta_like(),
    "cohere": _llama_like(plain_head=False),  # scaled
    "distilbert": _distilbert(),
    "electra": _bert_like(
        "electra",
        "generator_lm_head",
        pooler=False,
        head_tensors=("generator_predictions.", "generator_lm_head."),
    ),
    "gemma": _llama_like(wants_start=True),
    "gemma2": _llama_like(  # soft cap on the logits
        plain_head=False, wants_start=True, heads_divide=True
    ),
    "gemma3_text": _llama_like(plain_head=False, wants_start=True, heads_divide=True),
    "gpt2": _single(
        "transformer",
        "h",
        _fused("attn", "c_attn", "c_proj", "concatenated"),
        "mlp.c_fc",
        "mlp.c_proj",
        heads="n_head",
        neurons="n_inner",
        columns_first=True,
        block_scale="scale_attn_by_inverse_layer_idx",
    ),
    "gpt_neox": _single(
        "gpt_neox",
        "layers",
        _fused("attention", "query_key_value", "dense", "interleaved", head_dim="head_size"),
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    ),
    "granite": _llama_like(plain_head=False),  # scaled
    "llama": _llama_like(heads_divide=True),
    "m2m_100": _bart_like(plain_head=True),
    "marian": _bart_like(post_norm=True),
    "mbart": _bart_like(),
    "mistral": _llama_like(),
    "mpnet": _bert_like(
        "mpnet",
        "lm_head.decoder",
        AttentionPaths(
            "attention.attn",
            *(f"attention.attn.{name}" for name in "qkvo"),
            head_dim="attention_head_size",
        ),
        positions="after-padding",
        head_tensors=("lm_head.",),
    ),
    "mt5": _t5_like(plain_head=True, scaled_head=False),
    "olmo": _llama_like(),
    "olmo2": _llama_like(
        _named("self_attn", "q_proj", "k_proj", "v_proj", "o_proj", joint_norm=True)
    ),
    "opt": _single("model", "decoder.layers", _SELF_OUT, "fc1", "fc2", neurons="ffn_dim"),
    "pegasus": _bart_like(),
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
    "roberta": _roberta_like(),
    "smollm3": _llama_like(),
    "stablelm": _llama_like(head_dim=None),
    "t5": _t5_like(),
    "umt5": _t5_like(position_bias="each"),
    "xlm-roberta": _roberta_like(),
}
"""``model_type`` to its description."""

SUPPORTED: AbstractSet[str] = FAMILIES.keys()
"""Every ``model_type`` that can be read."""
