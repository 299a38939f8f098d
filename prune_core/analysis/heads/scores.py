"""Importance of attention heads, and what a head looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import RecipeError, TextError
from prune_core.evaluation.loss import mean_loss
from prune_core.models.clone import clone_shared
from prune_core.models.structure import Attention, Block, Structure
from prune_core.progress import NONE, Progress
from prune_core.sentences import Sentence

Site = tuple[Block, Attention]


def attention_sites(structure: Structure, kind: str) -> list[Site]:
    """Every block's attention of one kind, ``self`` or ``cross``, in forward order."""
    sites = []
    for block in structure.blocks:
        attention = block.attention_of(kind)
        if attention is not None:
            sites.append((block, attention))
    return sites


def all_sites(structure: Structure) -> list[Site]:
    """Self- and cross-attention.

    Raises:
        RecipeError: the model has no attention.
    """
    sites = attention_sites(structure, "self") + attention_sites(structure, "cross")
    if not sites:
        raise RecipeError("This model has no attention heads.")
    return sites


def weight_norm_scores(model: nn.Module, structure: Structure) -> list[list[float]]:
    """||W_o,h|| * ||W_v,h|| for every head: needs no text.

    Returns:
        One row per site of :func:`all_sites`, one Frobenius-norm product per query head; heads of
        one group share their value norm.
    """
    rows = []
    for _block, attention in all_sites(structure):
        output = structure.layers[attention.o].weight(model).float()
        value = structure.layers[attention.v.layer].weight(model).float()
        scores = []
        for head in range(attention.num_heads):
            start, stop = attention.v.rows[head // attention.group_size]
            product = output[:, attention.columns(head)].norm() * value[start:stop].norm()
            scores.append(float(product))
        rows.append(scores)
    return rows


@contextmanager
def head_gates(model: nn.Module, sites: list[Site]) -> Iterator[list[Tensor]]:
    """While open, every head's output is multiplied by its gate, 1 at first; yields the gates.

    The gate sits on the input of the output projection, where heads lie side by side. ``model``
    must be a clone of its own. The hooks always come off.
    """
    device = next(model.parameters()).device
    gates = [torch.ones(a.num_heads, device=device, requires_grad=True) for _, a in sites]

    def hook_for(attention: Attention, gate: Tensor) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            spread = gate.to(args[0].dtype).repeat_interleave(attention.head_dim)
            return (args[0] * spread, *args[1:])

        return hook

    hooks = []
    try:
        for (_, attention), gate in zip(sites, gates, strict=True):
            module = model.get_submodule(attention.o)
            hooks.append(module.register_forward_pre_hook(hook_for(attention, gate)))
        yield gates
    finally:
        for handle in hooks:
            handle.remove()


def gradient_scores(
    model: nn.Module,
    structure: Structure,
    windows: list[Tensor],
    *,
    normalize: bool = False,
    progress: Progress = NONE,
) -> list[list[float]]:
    """Michel et al. 2019 (arXiv 1905.10650), equation 2: I_h = mean over x of |d loss / d gate_h|.

    One forward and one backward per window; a window is a sample.

    Args:
        model: the dense model, without gradients on its parameters; it is not changed.
        structure: of the model.
        windows: (seq,) token windows.
        normalize: divide each site's scores by their L2 norm, as in the paper.
        progress: (windows done, windows); a cancel is seen before each window.

    Returns:
        One row per site of :func:`all_sites`, in nats per unit of gate.

    Raises:
        Cancelled: by ``progress``.
    """
    view = clone_shared(model)
    sites = all_sites(structure)
    device = next(view.parameters()).device
    sums = [torch.zeros(a.num_heads, dtype=torch.float64) for _, a in sites]
    with head_gates(view, sites) as gates, torch.enable_grad():
        for index, tokens in enumerate(windows):
            progress.check("Cancelled while heads were scored.")
            loss = mean_loss(view, structure, tokens[None].to(device))
            for total, gradient in zip(sums, torch.autograd.grad(loss, gates), strict=True):
                total += gradient.detach().cpu().double().abs()
            progress.step(index + 1, len(windows))
    rows = [total / len(windows) for total in sums]
    if normalize:
        rows = [row / row.norm().clamp_min(1e-30) for row in rows]
    return [row.tolist() for row in rows]


PROBES = 32
"""Random directions in which the bend of an encoder's embedding is probed."""


def curvature_scores(
    model: nn.Module,
    structure: Structure,
    windows: list[Tensor],
    *,
    progress: Progress = NONE,
) -> list[list[float]]:
    """For encoders without a language head: the predicted 1 - cosine of the sentence embedding.

    At the dense model the distance 1 - cos(e, e_dense) and its gradient are zero; its second-order
    term without head h is |P de/dgate_h|^2 / (2 |e|^2), where P takes away the part along e. The
    norm is estimated by :data:`PROBES` random signs v with a fixed seed, E[(v P de/dgate)^2], one
    backward pass each (Hutchinson).

    Args:
        model: the dense model; it is not changed.
        structure: of the model.
        windows: (seq,) token windows.
        progress: (windows done, windows); a cancel is seen before each window.

    Returns:
        One row per site of :func:`all_sites`, in units of 1 - cosine.

    Raises:
        Cancelled: by ``progress``.
    """
    view = clone_shared(model)
    base: Any = getattr(view, "base_model", view)
    sites = all_sites(structure)
    device = next(view.parameters()).device
    draw = torch.Generator().manual_seed(0)
    sums = [torch.zeros(a.num_heads, dtype=torch.float64) for _, a in sites]
    with head_gates(view, sites) as gates, torch.enable_grad():
        for index, tokens in enumerate(windows):
            progress.check("Cancelled while heads were scored.")
            embedding = base(input_ids=tokens[None].to(device)).last_hidden_state[0].mean(dim=0)
            unit = (embedding / embedding.norm()).detach()
            for probe in range(PROBES):
                signs = torch.randint(0, 2, embedding.shape, generator=draw).to(embedding) * 2 - 1
                direction = signs - (signs @ unit) * unit
                keep = probe + 1 < PROBES
                gradients = torch.autograd.grad(embedding @ direction, gates, retain_graph=keep)
                for total, gradient in zip(sums, gradients, strict=True):
                    bend = (gradient.detach() / embedding.detach().norm()).cpu().double()
                    total += bend**2 / (2 * PROBES)
            progress.step(index + 1, len(windows))
    return [(total / len(windows)).tolist() for total in sums]


@torch.inference_mode()
def attention_pattern(
    model: nn.Module, structure: Structure, tokens: Tensor, block: int, kind: str
) -> Tensor:
    """softmax(QK^T / sqrt(d_k)) of every head of one block.

    Args:
        model: dense or pruned; not changed (attention weights need eager attention, which a clone
            is switched to).
        structure: of the model.
        tokens: (1, seq); an encoder-decoder reads the same tokens with its decoder.
        block: flat index.
        kind: ``self`` or ``cross``.

    Returns:
        (heads, queries, keys), rows sum to 1.

    Raises:
        RecipeError: the block has no attention of this kind.
        TextError: the model gave no attention weights.
    """
    owner = structure.blocks[block] if 0 <= block < len(structure.blocks) else None
    attention = None
    if owner is not None:
        attention = owner.attention_of(kind)
    if owner is None or attention is None:
        raise RecipeError(
            "Block {block} of this model has no {kind}-attention.", block=block, kind=Sentence(kind)
        )
    view: Any = clone_shared(model)
    view.set_attn_implementation("eager")
    arguments: dict[str, Any] = {"output_attentions": True}
    if structure.kind == "encoder-decoder":
        arguments["decoder_input_ids"] = tokens
    output = view(input_ids=tokens, **arguments)
    field = "attentions"
    if structure.kind == "encoder-decoder":
        field = "cross_attentions" if kind == "cross" else f"{owner.stack}_attentions"
    maps = getattr(output, field, None)
    if not maps or maps[owner.number] is None:
        raise TextError("This model gives no attention weights.")
    return maps[owner.number][0].float().cpu()
