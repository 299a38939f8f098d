"""The form of a family's entry in the table of ``families``: where its layers and heads are, and
what else the program must know of it. No torch here.
"""

from __future__ import annotations

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
            all values; ``interleaved`` is for each key/value head its queries, its key and its
            value; ``quarters`` is four times a quarter of the queries, of the values and of the
            keys (CodeGen); ``separate`` is not fused.
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
        one_kv_head: values of configuration attributes with which all heads share one key/value
            head, whatever ``kv_heads`` says; empty: never.
        blocks: configuration attributes: number of blocks; all that the configuration has are set.
        neurons: configuration attribute: neurons of an MLP; None: it has no place for them.
        lists: configuration attributes with an entry for each block, beside those whose names say
            so (``layer_types``).
    """

    name: str
    container: str
    attention: AttentionPaths
    mlps: tuple[tuple[tuple[str, str], ...], ...]
    cross: AttentionPaths | None = None
    heads: str = "num_attention_heads"
    kv_heads: str | None = None
    head_dim: str | None = None
    one_kv_head: tuple[tuple[str, bool], ...] = ()
    blocks: tuple[str, ...] = ("num_hidden_layers",)
    neurons: str | None = "intermediate_size"
    lists: tuple[str, ...] = ()


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
        first_block: it has no norm before its attention, so that no other can take its place.
        repeated: configuration attribute that says a list for each block once more, as pairs of a
            pattern and how often it comes, and that list (GPT-Neo); empty: none.
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
    first_block: bool = False
    repeated: tuple[str, str] | tuple[()] = ()
    block_scale: str = ""
    longer_decoder: bool = True
    scaled_head: bool = False
    columns_first: bool = False
    pooler: bool = True
    head_tensors: tuple[str, ...] = ()
    sentencepiece: str = ""
