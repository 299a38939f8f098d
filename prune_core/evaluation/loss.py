"""The mean loss of a model on windows, with its gradient where one is asked for."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.models.structure import Structure


def decoder_inputs(model: Any, labels: Tensor) -> Tensor:
    """What a decoder with an encoder is given to predict ``labels``: them, moved by one.

    As transformers does it for a loss: some families begin with a token of their own, mBART with
    the last of the labels.

    Args:
        model: an encoder-decoder.
        labels: (batch, seq) int64.

    Returns:
        (batch, seq) int64.
    """
    prepare = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if prepare is not None:
        moved: Tensor = prepare(labels=labels)
        return moved
    # M2M-100 and Blenderbot have no such method, and do this
    return F.pad(labels[:, :-1], (1, 0), value=model.config.decoder_start_token_id)


def mean_loss(model: nn.Module, structure: Structure, tokens: Tensor) -> Tensor:
    """Mean next-token loss of one window (1, seq), with its graph.

    Of a classifier: the loss of the class that the model itself gives; no text has labels here.
    """
    anything: Any = model
    if structure.classes:
        logits = anything(input_ids=tokens).logits.float()
        return F.cross_entropy(logits, logits.detach().argmax(-1))
    if structure.kind == "encoder-decoder":
        half = tokens.shape[-1] - tokens.shape[-1] // 2
        labels = tokens[:, half:]
        start = decoder_inputs(anything, labels)
        output = anything(input_ids=tokens[:, :half], decoder_input_ids=start, use_cache=False)
        return F.cross_entropy(output.logits[0].float(), labels[0])
    logits = anything(input_ids=tokens, use_cache=False).logits
    return F.cross_entropy(logits[0, :-1].float(), tokens[0, 1:])
