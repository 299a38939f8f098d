"""Attention(Q, K, V) = softmax(QK^T / sqrt(d_k)) V, step by step with one head's real numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from prune_core.errors import RecipeError, TextError
from prune_core.models.clone import clone_shared
from prune_core.models.structure import Structure
from prune_core.sentences import Sentence

NAME = "prunescope_steps"

_seen: dict[int, dict[str, Tensor]] = {}
"""By id of an attention module that is watched: what it was given and made of it."""


def _attention_tensors(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as its formula says, for transformers' table of implementations."""
    group = query.shape[1] // key.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    products = query @ keys.transpose(2, 3)
    scores = products * scale
    if softcap is not None:  # Gemma 2
        scores = torch.tanh(scores / softcap) * softcap
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = scores + attention_mask[..., : keys.shape[-2]]
    shares = torch.softmax(scores.float(), dim=-1).to(query.dtype)
    output = shares @ values
    if id(module) in _seen:
        _seen[id(module)].update(
            query=query,
            keys=keys,
            values=values,
            products=products,
            scaled=products * scale,
            scores=scores,
            shares=shares,
            output=output,
            scale=torch.tensor(scale, dtype=torch.float64),
        )
    return output.transpose(1, 2).contiguous(), shares


AttentionInterface.register(NAME, _attention_tensors)
AttentionMaskInterface.register(NAME, eager_mask)


@torch.inference_mode()
def attention_steps(
    model: nn.Module,
    structure: Structure,
    tokens: Tensor,
    block: int,
    head: int,
    query: int,
    kind: str = "self",
) -> dict[str, Any]:
    """One query token's attention in one head, every intermediate number.

    Args:
        model: dense or pruned; not changed.
        structure: of the model.
        tokens: (1, seq); an encoder-decoder reads the same tokens with its decoder.
        block: flat index.
        head: query head.
        query: place of the token that looks.
        kind: ``self`` or ``cross``.

    Returns:
        ``query`` (d_k,), ``keys`` and ``values`` (keys x d_k; positions turned in already where
        the model rotates them, shared within a group), ``products`` (q k_j), ``scaled`` (times
        ``scale``), ``scores`` (with soft cap, mask and position bias; None: minus infinity),
        ``shares`` (softmax), ``output`` (d_k,), as lists; ``scale``; ``width`` (d_k).

    Raises:
        RecipeError: the block has no attention of this kind, or not that head.
        TextError: no such token, or the model does not let its attention be watched.
    """
    owner = structure.blocks[block] if 0 <= block < len(structure.blocks) else None
    attention = None
    if owner is not None:
        attention = owner.attention_of(kind)
    if attention is None:
        raise RecipeError(
            "Block {block} of this model has no {kind}-attention.", block=block, kind=Sentence(kind)
        )
    if not 0 <= head < attention.num_heads:
        raise RecipeError(
            "Block {block} has {heads} heads; there is no head {head}.",
            block=block,
            heads=attention.num_heads,
            head=head,
        )
    if not 0 <= query < tokens.shape[1]:
        raise TextError(
            "the sentence has {tokens} tokens; there is no token {query}.",
            tokens=tokens.shape[1],
            query=query,
        )
    view: Any = clone_shared(model)
    module = view.get_submodule(attention.module)
    try:
        view.set_attn_implementation(NAME)
    except (ValueError, KeyError):
        raise TextError("This model does not let its attention be watched.") from None
    watched = {id(part): dict[str, Tensor]() for part in module.modules()}
    _seen.update(watched)
    try:
        arguments = {"decoder_input_ids": tokens} if structure.kind == "encoder-decoder" else {}
        view(input_ids=tokens, **arguments)
    finally:
        for key in watched:
            _seen.pop(key, None)
    record = next((entry for entry in watched.values() if entry), None)
    if record is None:
        raise TextError("This model does not let its attention be watched.")

    def row(name: str) -> list[float]:
        return [float(x) for x in record[name][0, head, query].float()]

    lowest = torch.finfo(record["scores"].dtype).min / 2
    return {
        "query": row("query"),
        "keys": record["keys"][0, head].float().tolist(),
        "values": record["values"][0, head].float().tolist(),
        "products": row("products"),
        "scaled": row("scaled"),
        "scores": [None if x <= lowest else x for x in row("scores")],
        "shares": row("shares"),
        "output": row("output"),
        "scale": float(record["scale"]),
        "width": record["query"].shape[-1],
    }
