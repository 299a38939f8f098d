"""Heads judged by where they look: how sure a head is of one place, and how spread out it looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.analysis.heads.scores import all_sites
from prune_core.errors import TextError
from prune_core.models.clone import clone_shared
from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress


@torch.inference_mode()
def pattern_scores(
    model: nn.Module,
    structure: Structure,
    windows: Sequence[Tensor],
    method: str,
    *,
    progress: Progress = NONE,
) -> list[list[float]]:
    """Confidence or entropy of every head's attention on a text.

    Confidence (Voita et al. 2019, arXiv 1905.09418): mean over tokens of the largest attention
    weight; the first token, which many heads use as a sink, is left out as a query and as a place
    looked at. Entropy: mean over tokens of -sum p log p, in nats; the first token is left out as a
    query, where it has no choice.

    Args:
        model: dense; not changed (a clone runs with eager attention, which gives weights).
        structure: of the model.
        windows: (seq,) token windows, at least two tokens each, four of an encoder-decoder.
        method: ``confidence`` or ``entropy``.
        progress: (windows done, windows); a cancel is seen before each window.

    Returns:
        One row per site of :func:`prune_core.analysis.heads.scores.all_sites`.

    Raises:
        TextError: a window too short to compare places in, or the model gives no attention weights.
        Cancelled: by ``progress``.
    """
    # the first token of each stack is left out, so each needs another one; a window is halved
    # between encoder and decoder
    least = 4 if structure.kind == "encoder-decoder" else 2
    shortest = min((len(window) for window in windows), default=least)
    if shortest < least:
        raise TextError(
            "Attention patterns of this model need windows of at least {least} tokens, got "
            "{length}; choose longer ones.",
            least=least,
            length=shortest,
        )
    view: Any = clone_shared(model)
    view.set_attn_implementation("eager")
    sites = all_sites(structure)
    sums = [torch.zeros(a.num_heads, dtype=torch.float64) for _, a in sites]
    device = next(view.parameters()).device
    for index, window in enumerate(windows):
        progress.check("Cancelled while heads were scored.")
        maps = _maps(view, structure, window[None].to(device))
        for total, (block, attention) in zip(sums, sites, strict=True):
            weights = maps[attention.kind, block.stack][block.number]
            if weights is None:
                raise TextError("This model gives no attention weights.")
            total += _score(weights[0].cpu().double(), method)
        progress.step(index + 1, len(windows))
    return [(total / len(windows)).tolist() for total in sums]


def _maps(view: Any, structure: Structure, tokens: Tensor) -> dict[tuple[str, str], Any]:
    arguments: dict[str, Any] = {"output_attentions": True}
    if structure.kind == "encoder-decoder":
        half = tokens.shape[-1] - tokens.shape[-1] // 2
        inputs = {"input_ids": tokens[:, :half], "decoder_input_ids": tokens[:, half:]}
        output = view(**inputs, **arguments)
        return {
            ("self", "encoder"): output.encoder_attentions,
            ("self", "decoder"): output.decoder_attentions,
            ("cross", "decoder"): output.cross_attentions,
        }
    output = view(input_ids=tokens, **arguments)
    maps = getattr(output, "attentions", None)
    if not maps:
        raise TextError("This model gives no attention weights.")
    return {("self", structure.blocks[0].stack): maps}


def _score(weights: Tensor, method: str) -> Tensor:
    """Mean over queries of (heads, queries, keys) weights."""
    if method == "confidence":
        return weights[:, 1:, 1:].amax(dim=-1).mean(dim=-1)
    return torch.special.entr(weights[:, 1:]).sum(dim=-1).mean(dim=-1)
