"""Per-token scores of one window of text: loss, and divergence from the dense model.

Convention (docs/architecture.md): a window of L tokens gives a decoder L - 1 predictions. An
encoder-decoder reads the first half and is scored on the second. An encoder without a language
head gives one sentence embedding, the mean over its tokens; with a classification head also a
distribution over classes. No text has labels here: the class that the dense model gives stands for
the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.evaluation.agreement import Answer, agreement, likeliest
from prune_core.evaluation.loss import decoder_inputs
from prune_core.models.structure import Structure

TOP_K = 1024
"""Dense log-probabilities kept per token; the rest of the vocabulary is one remainder."""

TILE = 512
"""Words of the vocabulary that the output head is applied to at one time on a CPU: one product
with all of its weights runs at half the speed there (docs/benchmarks.md)."""

SLICE = 128
"""Positions whose logits exist at one time: 128 x 49,152 floats stay near the cache."""


@dataclass(frozen=True, slots=True)
class DenseWindow:
    """What is kept of the dense model's answer to one window.

    Attributes:
        losses: (predictions,) nats.
        top1: (predictions,) most likely next token; of a classifier (1,) most likely class.
        top_ids: (predictions, TOP_K) most likely next tokens; (1, classes) all classes.
        top_logp: (predictions, TOP_K) their log-probabilities.
        embedding: (hidden,) sentence embedding of an encoder, else empty.
    """

    losses: Tensor
    top1: Tensor
    top_ids: Tensor
    top_logp: Tensor
    embedding: Tensor


@dataclass(frozen=True, slots=True)
class WindowScore:
    """A pruned model's answer to one window, against the dense one's.

    Attributes:
        losses: (predictions,) nats.
        agreement: metric to (predictions,) float32, or (1,) of a classifier: see
            :data:`prune_core.evaluation.agreement.AGREEMENT`; empty where nothing is predicted.
        similarity: cosine of the sentence embeddings, encoders only.
    """

    losses: Tensor
    agreement: Mapping[str, Tensor]
    similarity: float | None


def predictions_per_window(structure: Structure, has_language_head: bool, seq_len: int) -> int:
    """How many predictions a window of ``seq_len`` tokens is scored on."""
    if not has_language_head:
        return 0
    return seq_len // 2 if structure.kind == "encoder-decoder" else seq_len - 1


def part_scores_alike(structure: Structure, config: Any) -> bool:
    """True if a leading part of a window is scored as it is in the whole window.

    So it is in a causal model, unless its rotary embedding follows the length of the input
    (LongRoPE, arXiv 2402.13753, and dynamic NTK scaling).

    Args:
        structure: of the model.
        config: of the model.
    """
    fields = getattr(config, "rope_parameters", None)
    fields = fields if isinstance(fields, dict) else {}
    # one for all layers, or one for each kind of them
    settings = [fields, *(value for value in fields.values() if isinstance(value, dict))]
    kinds = {str(entry.get("rope_type", entry.get("type"))) for entry in settings}
    return structure.kind == "decoder" and not kinds & {"longrope", "dynamic", "su"}


@contextmanager
def bare_head(model: nn.Module, structure: Structure) -> Iterator[nn.Module | None]:
    """While open, the output head passes hidden states through; yields the head, or None.

    Only where the logits are exactly ``head(hidden)``. It saves writing and reading the whole
    (seq, vocab) matrix. ``model`` must be a clone of its own.
    """
    if not structure.plain_head or structure.head_module is None:
        yield None
        return
    head = model.get_submodule(structure.head_module)
    head.__dict__["forward"] = _identity
    try:
        yield head
    finally:
        del head.__dict__["forward"]


def _identity(hidden: Tensor) -> Tensor:
    return hidden


def run_window(model: nn.Module, structure: Structure, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (or hidden states under ``bare_head``) that predict, and the tokens they predict."""
    if structure.kind == "encoder-decoder":
        half = tokens.shape[-1] - tokens.shape[-1] // 2
        labels = tokens[:, half:]
        start = decoder_inputs(model, labels)
        output = model(input_ids=tokens[:, :half], decoder_input_ids=start, use_cache=False)
        return output.logits[0], labels[0]
    output = model(input_ids=tokens, use_cache=False)
    return output.logits[0, :-1], tokens[0, 1:]


def _slices(
    model: nn.Module, structure: Structure, tokens: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Logits in slices of positions: (positions, float logits, targets)."""
    with bare_head(model, structure) as head:
        values, targets = run_window(model, structure, tokens)
    buffer: Tensor | None = None
    for start in range(0, targets.shape[0], SLICE):
        rows = slice(start, min(start + SLICE, targets.shape[0]))
        if head is None:
            yield rows, values[rows].float(), targets[rows]
            continue
        weight: Any = head.weight
        bias: Any = getattr(head, "bias", None)
        if buffer is None:
            buffer = values.new_empty(min(SLICE, targets.shape[0]), weight.shape[0])
        logits = buffer[: rows.stop - rows.start]
        for part in _tiles(weight):
            torch.mm(values[rows], weight[part].t(), out=logits[:, part])
        if bias is not None:
            logits += bias
        yield rows, logits.float(), targets[rows]


def _tiles(weight: Tensor) -> Iterator[slice]:
    """The rows of the output head that are applied together."""
    size = TILE if weight.device.type == "cpu" else weight.shape[0]
    for start in range(0, weight.shape[0], size):
        yield slice(start, min(start + size, weight.shape[0]))


def class_log_probabilities(model: Any, tokens: Tensor) -> Tensor:
    """Of a classifier's classes, (classes,) float32.

    Args:
        model: with a sequence-classification head.
        tokens: (1, seq) int64.
    """
    return torch.log_softmax(model(input_ids=tokens).logits[0].float(), dim=-1)


def _embedding_and_classes(
    model: nn.Module, structure: Structure, tokens: Tensor
) -> tuple[Tensor, Tensor | None]:
    """(hidden,) sentence embedding and, of a classifier, its class log-probabilities; one pass."""
    if not structure.classes:
        return sentence_embedding(model, tokens).cpu(), None
    base: Any = getattr(model, "base_model", model)
    hidden: list[Tensor] = []
    hook = base.register_forward_hook(lambda *a: hidden.append(a[2].last_hidden_state))
    try:
        classes = class_log_probabilities(model, tokens)
    finally:
        hook.remove()
    return hidden[0][0].float().mean(dim=0).cpu(), classes.cpu()


def sentence_embedding(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean over tokens of an encoder's last hidden states, (hidden,) float32.

    Args:
        model: dense or pruned.
        tokens: (1, seq) int64.
    """
    base: Any = getattr(model, "base_model", model)  # a masked-language head is not asked
    return base(input_ids=tokens).last_hidden_state[0].float().mean(dim=0)


@torch.inference_mode()
def dense_window(
    model: nn.Module,
    structure: Structure,
    tokens: Tensor,
    *,
    has_language_head: bool,
) -> DenseWindow:
    """Measure the dense model on one window.

    Args:
        model: a clone of the dense model.
        structure: of the model.
        tokens: (1, seq) int64.
        has_language_head: False gives an embedding instead of losses.
    """
    empty = torch.empty(0)
    if not has_language_head:
        none = torch.empty(0, dtype=torch.int64)
        embedding, classes = _embedding_and_classes(model, structure, tokens)
        if classes is None:
            return DenseWindow(empty, none, none.view(0, 0), empty.view(0, 0), embedding)
        everyone = torch.arange(len(classes))[None]
        return DenseWindow(empty, classes.argmax()[None], everyone, classes[None], embedding)
    losses, top1, ids, logp = [], [], [], []
    for _rows, logits, targets in _slices(model, structure, tokens):
        loss, normalizer = _loss(logits, targets)
        best, indices = logits.topk(min(TOP_K, logits.shape[-1]), dim=-1)
        losses.append(loss)
        top1.append(likeliest(logits))
        ids.append(indices)
        logp.append(best - normalizer[:, None])
    return DenseWindow(
        torch.cat(losses).cpu(),
        torch.cat(top1).cpu(),
        torch.cat(ids).cpu(),
        torch.cat(logp).cpu(),
        empty,
    )


@torch.inference_mode()
def token_losses(model: nn.Module, structure: Structure, tokens: Tensor) -> Tensor:
    """Loss of each prediction of one window, (predictions,) nats on the CPU.

    Args:
        model: a clone of its own, with a language head.
        structure: of the model.
        tokens: (1, seq) int64.
    """
    losses = [_loss(logits, targets)[0] for _, logits, targets in _slices(model, structure, tokens)]
    return torch.cat(losses).cpu()


def tiled_losses(hidden: Tensor, head: nn.Module, targets: Tensor, near: Tensor) -> Tensor | None:
    """Losses of many positions by tiles of the vocabulary, so that each weight is read once.

    No logit is kept: each tile adds ``exp(logit - shift)`` to the sums, where the shift is the
    target's own logit plus ``near``, so that a sum is e to the power of the loss minus ``near``.

    Args:
        hidden: (positions, hidden) float32, what the head is given.
        head: linear, (vocab, hidden).
        targets: (positions,) int64.
        near: (positions,) losses of about this size: the dense model's.

    Returns:
        (positions,) nats; None where losses are so far from ``near`` that float32 cannot tell.
    """
    weight: Any = head.weight
    bias: Any = getattr(head, "bias", None)
    own = (hidden * weight[targets]).sum(-1)
    if bias is not None:
        own += bias[targets]
    shift = (own + near)[:, None]
    sums = torch.zeros(len(hidden), dtype=widest(hidden.device), device=hidden.device)
    buffer = hidden.new_empty(0)
    for part in _tiles(weight):
        size = len(hidden) * (part.stop - part.start)
        buffer = hidden.new_empty(size) if buffer.numel() < size else buffer
        logits = buffer[:size].view(len(hidden), -1)
        torch.mm(hidden, weight[part].t(), out=logits)
        if bias is not None:
            logits += bias[part]
        sums += logits.sub_(shift).exp_().sum(-1)
    if not bool((torch.isfinite(sums) & (sums > 0)).all()):
        return None
    return (sums.log() + near).float()


def widest(device: torch.device) -> torch.dtype:
    """The widest float of a device: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each position and the log-sum-exp of its logits.

    cross_entropy's fused log-softmax is 3 times faster here than torch.logsumexp; the normalizer
    follows from it.
    """
    loss = F.cross_entropy(logits, targets, reduction="none")
    return loss, loss + logits.gather(1, targets[:, None])[:, 0]


@torch.inference_mode()
def score_window(
    model: nn.Module,
    structure: Structure,
    tokens: Tensor,
    dense: DenseWindow,
    *,
    on_logits: Callable[[slice, Tensor], None] | None = None,
) -> WindowScore:
    """Measure a pruned model on one window, or on a leading part of it.

    Args:
        model: the working copy.
        structure: of the model.
        tokens: (1, seq) int64; a causal model may be given fewer tokens than ``dense`` has.
        dense: the dense model's answer to the same window.
        on_logits: given each slice's (positions, vocab) logits, for checks; must not keep them.
    """
    if dense.embedding.numel():
        none = torch.empty(0)
        mine, classes = _embedding_and_classes(model, structure, tokens)
        cosine = float(F.cosine_similarity(mine.double(), dense.embedding.double(), dim=0))
        if classes is None:
            return WindowScore(none, {}, cosine)
        answer = Answer(classes[None], none.new_zeros(1), dense.top1, dense.top_ids, dense.top_logp)
        return WindowScore(none, agreement(answer, "classifier"), cosine)
    losses: list[Tensor] = []
    parts: dict[str, list[Tensor]] = {}
    for rows, logits, targets in _slices(model, structure, tokens):
        loss, normalizer = _loss(logits, targets)
        losses.append(loss)
        dense_parts = (dense.top1[rows], dense.top_ids[rows], dense.top_logp[rows])
        answer = Answer(logits, normalizer, *dense_parts)
        for name, values in agreement(answer, structure.kind).items():
            parts.setdefault(name, []).append(values)
        if on_logits is not None:
            on_logits(rows, logits)
    whole = {name: torch.cat(values) for name, values in parts.items()}
    return WindowScore(torch.cat(losses).cpu(), whole, None)
