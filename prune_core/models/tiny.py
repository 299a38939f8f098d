"""Random models of every supported family, small enough for tests and demos; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

from prune_core.models.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, NEURONS, CONTEXT = 32, 4, 2, 12, 80, 256
SPREAD = 0.3  # of the weights: wide enough that pruning visibly changes the loss
PAD, BOS, EOS, MASK = 0, 1, 2, 3
VOCABULARY = 4 + 256

# heads x head width differs from the hidden size wherever a family allows it: a weight read
# transposed then has the wrong shape
_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": NEURONS,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": CONTEXT,
}
_BERT_LIKE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": NEURONS,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
}
_BART_LIKE: dict[str, Any] = {
    "d_model": HIDDEN,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": NEURONS,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": CONTEXT,
    "decoder_start_token_id": EOS,
    "forced_eos_token_id": None,
}
_T5_LIKE: dict[str, Any] = {
    "d_model": HIDDEN,
    "d_kv": HEAD_DIM,
    "d_ff": NEURONS,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": HEADS,
    "n_positions": CONTEXT,
    "decoder_start_token_id": PAD,
}
_GPT_LIKE: dict[str, Any] = {
    "n_embd": HIDDEN,
    "n_inner": NEURONS,
    "n_layer": 2,
    "n_head": HEADS,
    "n_positions": CONTEXT,
}
# RoBERTa counts positions from the row of padding on
_AFTER_PADDING: dict[str, Any] = _BERT_LIKE | {"max_position_embeddings": CONTEXT + PAD + 1}
# families that name their sizes otherwise, or need more of them than others of their kind
_CONFIGS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": HIDDEN, "n_layer": 2, "n_head": HEADS},
    "camembert": _AFTER_PADDING,
    "codegen": _GPT_LIKE | {"n_head": 2 * HEADS, "rotary_dim": 4},  # several heads in a quarter
    "cohere": _LLAMA_LIKE | {"logit_scale": 0.5},
    "deberta-v2": _BERT_LIKE
    | {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "distilbert": {
        "dim": HIDDEN,
        "hidden_dim": NEURONS,
        "n_layers": 2,
        "n_heads": HEADS,
        "max_position_embeddings": CONTEXT,
    },
    "electra": _BERT_LIKE | {"embedding_size": 24},
    "falcon": _BERT_LIKE | {"ffn_hidden_size": NEURONS},
    "gemma2": _LLAMA_LIKE | {"query_pre_attn_scalar": HEAD_DIM, "sliding_window": CONTEXT // 4},
    "gemma3_text": _LLAMA_LIKE
    | {
        "query_pre_attn_scalar": HEAD_DIM,
        "sliding_window": CONTEXT // 4,
        "layer_types": ["sliding_attention", "full_attention"],
        "final_logit_softcapping": 30.0,
    },
    "gpt2": _GPT_LIKE,
    "gpt_bigcode": _GPT_LIKE,
    "gpt_neo": {
        "hidden_size": HIDDEN,
        "intermediate_size": NEURONS,
        "num_layers": 2,
        "num_heads": HEADS,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
        "max_position_embeddings": CONTEXT,
    },
    "gpt_neox": _BERT_LIKE,
    "gptj": _GPT_LIKE | {"rotary_dim": 4},
    "granite": _LLAMA_LIKE
    | {
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "led": {name: size for name, size in _BART_LIKE.items() if name != "max_position_embeddings"}
    | {
        "max_encoder_position_embeddings": CONTEXT,
        "max_decoder_position_embeddings": CONTEXT,
        "attention_window": 8,
    },
    "longformer": _AFTER_PADDING | {"attention_window": 16},
    "m2m_100": _BART_LIKE | {"scale_embedding": True},
    "marian": _BART_LIKE | {"scale_embedding": True},
    "modernbert": _BERT_LIKE | {"local_attention": 16},
    "mpnet": _BERT_LIKE | {"max_position_embeddings": CONTEXT + 2, "pad_token_id": BOS},
    "mpt": {"d_model": HIDDEN, "n_layers": 2, "n_heads": HEADS, "max_seq_len": CONTEXT},
    "mt5": _T5_LIKE | {"feed_forward_proj": "gated-gelu"},
    "opt": {
        "hidden_size": HIDDEN,
        "ffn_dim": NEURONS,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "max_position_embeddings": CONTEXT,
    },
    "phi": _LLAMA_LIKE | {"head_dim": HIDDEN // HEADS},
    "roberta": _AFTER_PADDING,
    "t5": _T5_LIKE,
    "umt5": _T5_LIKE,
    "xlm-roberta": _AFTER_PADDING,
}


def tiny_model(model_type: str, *, head: bool | None = None, **overrides: Any) -> PreTrainedModel:
    """A random model of a supported family; the same weights at each call.

    Args:
        model_type: one of ``prune_core.models.families.SUPPORTED``.
        head: with an output head; by default language models have one and encoders have none.
        overrides: configuration attributes in place of the tiny ones.

    Returns:
        In evaluation mode, without gradients; the global random state is as before.

    Raises:
        KeyError: an unsupported ``model_type``.
    """
    family = FAMILIES[model_type]
    kind = family.kind
    with_head = kind != "encoder" if head is None else head
    special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    settings = {"vocab_size": VOCABULARY} | special | _sizes(model_type) | overrides
    config = AutoConfig.for_model(model_type, **settings)
    heads = {
        "decoder": AutoModelForCausalLM,
        "encoder": AutoModelForMaskedLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }
    with torch.random.fork_rng(devices=[]):
        model = (heads[kind] if with_head else AutoModel).from_config(config)
    _fill(model, torch.Generator().manual_seed(0))
    if family.scaled_head:  # undo the head's 1 / sqrt(hidden), or every prediction is uniform
        with torch.no_grad():
            model.shared.weight.mul_(config.d_model**0.5)
    return model.eval().requires_grad_(False)


def _sizes(model_type: str) -> dict[str, Any]:
    """Tiny sizes under the names of a family's configuration; those of Llama's where it has none
    of its own."""
    family = FAMILIES[model_type]
    kinds = {"decoder": _LLAMA_LIKE, "encoder": _BERT_LIKE, "encoder-decoder": _BART_LIKE}
    sizes = _CONFIGS.get(model_type, kinds[family.kind])
    if family.stacks[0].head_dim is None:
        sizes = {name: value for name, value in sizes.items() if name != "head_dim"}
    return sizes


def _fill(model: nn.Module, generator: torch.Generator) -> None:
    """Random matrices; norms and biases moved a little, so that none is 1 or 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.requires_grad:  # sinusoids
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(SPREAD * noise)
            else:
                parameter.add_(0.1 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer.copy_(SPREAD * torch.randn(buffer.shape, generator=generator))


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """One token per byte of UTF-8, and four special ones: decoding gives back any text exactly."""
    special = {"<|pad|>": PAD, "<|bos|>": BOS, "<|endoftext|>": EOS, "<|mask|>": MASK}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = special | {letter: len(special) + i for i, letter in enumerate(letters)}
    backend = Tokenizer(models.BPE(vocab=words, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    pad, bos, eos, mask = special
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        mask_token=mask,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _tiny(model_type: str, **overrides: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return tiny_model(model_type, **overrides), tiny_tokenizer()


TINY: Mapping[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]] = {
    "tiny-gpt2": partial(_tiny, "gpt2", n_layer=3),
    "tiny-llama": partial(_tiny, "llama", num_hidden_layers=4),
    "tiny-opt": partial(_tiny, "opt"),
    "tiny-neox": partial(_tiny, "gpt_neox"),
    "tiny-bert": partial(_tiny, "bert"),
    "tiny-t5": partial(_tiny, "t5"),
}
"""Presets made on the spot."""
