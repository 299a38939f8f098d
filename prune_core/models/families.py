"""The supported architectures, as data: where each keeps its blocks, layers and heads.

Read from the modeling files of transformers 5.23. No torch here: the web process and the file
checks read this table too. A new architecture is a new entry: whatever the rest of the program must
know of a family is a field of it (``layouts``), and nothing else asks for a family by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from prune_core.errors import UnknownArchitectureError
from prune_core.models.layouts import AttentionPaths, Family, Stack
from prune_core.models.sources import shown
from prune_core.sentences import Sentence


def _two_layers(up: str, down: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    return ((("mlp.up", up), ("mlp.down", down)),)


_GATED = (
    (("mlp.gate", "mlp.gate_proj"), ("mlp.up", "mlp.up_proj"), ("mlp.down", "mlp.down_proj")),
)


_GATE_UP = ((("mlp.gate_up", "mlp.gate_up_proj"), ("mlp.down", "mlp.down_proj")),)
_WI_WO = ((("mlp.gate_up", "mlp.Wi"), ("mlp.down", "mlp.Wo")),)
_GLOBAL = ("_global.weight",)
"""Projections for tokens that attend everywhere; no window here has one, so they are not pruned."""


def _named(module: str, q: str, k: str, v: str, o: str, **more: Any) -> AttentionPaths:
    """Separate projections that are children of the attention module."""
    q, k, v, o = (f"{module}.{name}" for name in (q, k, v, o))
    return AttentionPaths(module, q, k, v, o, **more)


def _fused(module: str, qkv: str, o: str, layout: str, **more: Any) -> AttentionPaths:
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
    prefix: str,
    head: str,
    attention: AttentionPaths = _BERT_ATTENTION,
    lists: tuple[str, ...] = (),
    **facts: Any,
) -> Family:
    mlps = _two_layers("intermediate.dense", "output.dense")
    stack = Stack("encoder", "encoder.layer", attention, mlps, lists=lists)
    return _encoder(prefix, head, stack, **facts)


def _roberta_like() -> Family:
    return _bert_like(
        "roberta", "lm_head.decoder", positions="after-padding", head_tensors=("lm_head.",)
    )


def _bart_like(
    prefix: str = "model",
    encoder: AttentionPaths = _SELF_OUT,
    lists: tuple[str, ...] = (),
    **facts: Any,
) -> Family:
    def stack(name: str, attention: AttentionPaths, **more: Any) -> Stack:
        return Stack(
            name,
            f"{name}.layers",
            attention,
            _two_layers("fc1", "fc2"),
            heads=f"{name}_attention_heads",
            blocks=(f"{name}_layers",),
            neurons=f"{name}_ffn_dim",
            **more,
        )

    # the head's logits get final_logits_bias added
    stacks = (
        stack("encoder", encoder, lists=lists),
        stack("decoder", _SELF_OUT, cross=_CROSS_OUT),
    )
    return Family("encoder-decoder", prefix, stacks, "lm_head", **({"plain_head": False} | facts))


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
    kv_heads: str | None = None,
    one_kv_head: tuple[tuple[str, bool], ...] = (),
    neurons: str | None = "intermediate_size",
    **facts: Any,
) -> Family:
    stack = Stack(
        "decoder",
        container,
        attention,
        _two_layers(up, down),
        heads=heads,
        kv_heads=kv_heads,
        one_kv_head=one_kv_head,
        neurons=neurons,
    )
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
    "bloom": _single(
        "transformer",
        "h",
        _fused("self_attention", "query_key_value", "dense", "interleaved"),
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
        heads="n_head",
        neurons=None,
    ),
    "camembert": _roberta_like(),
    "codegen": _single(
        "transformer",
        "h",
        _fused("attn", "qkv_proj", "out_proj", "quarters"),
        "mlp.fc_in",
        "mlp.fc_out",
        heads="n_head",
        neurons="n_inner",
    ),
    "cohere": _llama_like(plain_head=False),  # scaled
    # without share_att_key its blocks hold projections of positions, which are not read: refused
    "deberta-v2": _bert_like(
        "deberta",
        "cls.predictions.decoder",
        AttentionPaths(
            "attention.self",
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
            head_dim="attention_head_size",
        ),
        pooler=False,
        head_tensors=("cls.predictions.",),
    ),
    "distilbert": _distilbert(),
    "electra": _bert_like(
        "electra",
        "generator_lm_head",
        pooler=False,
        head_tensors=("generator_predictions.", "generator_lm_head."),
    ),
    "falcon": _single(
        "transformer",
        "h",
        _fused("self_attention", "query_key_value", "dense", "interleaved"),
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
        kv_heads="num_kv_heads",
        one_kv_head=(("multi_query", True), ("new_decoder_architecture", False)),
        neurons="ffn_hidden_size",
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
    "gpt_bigcode": _single(
        "transformer",
        "h",
        _fused("attn", "c_attn", "c_proj", "interleaved"),
        "mlp.c_fc",
        "mlp.c_proj",
        heads="n_head",
        one_kv_head=(("multi_query", True),),
        neurons="n_inner",
    ),
    "gpt_neo": _single(
        "transformer",
        "h",
        _named("attn.attention", "q_proj", "k_proj", "v_proj", "out_proj"),
        "mlp.c_fc",
        "mlp.c_proj",
        heads="num_heads",
        repeated=("attention_types", "attention_layers"),
    ),
    "gpt_neox": _single(
        "gpt_neox",
        "layers",
        _fused("attention", "query_key_value", "dense", "interleaved", head_dim="head_size"),
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    ),
    "glm4": _llama_like(mlps=_GATE_UP),
    "gptj": _single(
        "transformer",
        "h",
        _named("attn", "q_proj", "k_proj", "v_proj", "out_proj"),
        "mlp.fc_in",
        "mlp.fc_out",
        heads="n_head",
        neurons="n_inner",
    ),
    "granite": _llama_like(plain_head=False),  # scaled
    "led": _bart_like(
        "led",
        AttentionPaths(
            "self_attn.longformer_self_attn",
            "self_attn.longformer_self_attn.query",
            "self_attn.longformer_self_attn.key",
            "self_attn.longformer_self_attn.value",
            "self_attn.output",
        ),
        ("attention_window",),
        post_norm=True,
        embeddings=_GLOBAL,
    ),
    "llama": _llama_like(heads_divide=True),
    "longformer": _bert_like(
        "longformer",
        "lm_head.decoder",
        replace(_BERT_ATTENTION, head_dim="head_dim"),
        ("attention_window",),
        positions="after-padding",
        embeddings=_GLOBAL,
        head_tensors=("lm_head.",),
    ),
    "m2m_100": _bart_like(plain_head=True),
    "marian": _bart_like(post_norm=True),
    "mbart": _bart_like(),
    "mistral": _llama_like(),
    "modernbert": _encoder(
        "model",
        "decoder",
        Stack("encoder", "layers", _fused("attn", "Wqkv", "Wo", "concatenated"), _WI_WO),
        post_norm=False,
        first_block=True,
        pooler=False,
        head_tensors=("head.", "decoder."),
    ),
    "mpnet": _bert_like(
        "mpnet",
        "lm_head.decoder",
        _named("attention.attn", "q", "k", "v", "o", head_dim="attention_head_size"),
        positions="after-padding",
        head_tensors=("lm_head.",),
    ),
    "mpt": _single(
        "transformer",
        "blocks",
        _fused("attn", "Wqkv", "out_proj", "concatenated"),
        "ffn.up_proj",
        "ffn.down_proj",
        heads="n_heads",
        neurons=None,
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
        _GATE_UP,
    ),
    "qwen2": _llama_like(),
    "qwen3": _llama_like(),
    "roberta": _roberta_like(),
    "smollm3": _llama_like(),
    "stablelm": _llama_like(head_dim=None),
    "starcoder2": _llama_like(mlps=_two_layers("mlp.c_fc", "mlp.c_proj")),
    "t5": _t5_like(),
    "umt5": _t5_like(position_bias="each"),
    "xlm-roberta": _roberta_like(),
}
"""``model_type`` to its description."""

SUPPORTED: AbstractSet[str] = FAMILIES.keys()
"""Every ``model_type`` that can be read."""

_EXPERTS = Sentence("its MLPs are experts that a router chooses from, which are no parts here")
_STATES = Sentence("its blocks hold state spaces or other recurrences in place of attention")
_LINEAR = Sentence("some of its blocks hold linear attention or convolutions, which have no heads")
_SHARED = Sentence("all its blocks are one whose weights are used again and again")

REFUSED: Mapping[str, Sentence] = {
    **dict.fromkeys(
        ("dbrx", "deepseek_v2", "deepseek_v3", "ernie4_5_moe", "glm4_moe", "gpt_oss", "granitemoe"),
        _EXPERTS,
    ),
    **dict.fromkeys(("mixtral", "nllb-moe", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe"), _EXPERTS),
    "switch_transformers": _EXPERTS,
    **dict.fromkeys(("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba"), _STATES),
    **dict.fromkeys(("mamba", "mamba2", "nemotron_h", "recurrent_gemma", "rwkv"), _STATES),
    **dict.fromkeys(("xlstm", "zamba", "zamba2"), _STATES),
    **dict.fromkeys(("kimi_linear", "lfm2", "minimax", "olmo_hybrid", "qwen3_next"), _LINEAR),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text"), _LINEAR),
    "albert": _SHARED,
}
"""``model_type`` to why it cannot be pruned by what is here."""


def unsupported(model_type: str | None) -> UnknownArchitectureError:
    """The refusal of an architecture, with the reason where it is known.

    Args:
        model_type: that is not supported; None: the configuration names none.
    """
    if model_type is not None and model_type in REFUSED:
        return UnknownArchitectureError(
            "Architecture {named} cannot be pruned here: {reason}; choose a model of another "
            "architecture.",
            named=model_type,
            reason=REFUSED[model_type],
        )
    return UnknownArchitectureError(
        "Architecture {named} is not supported; supported are {known:list}.",
        named=shown(model_type) if model_type is not None else "none",
        known=sorted(SUPPORTED),
    )
