"""Which tokens calibrate, and that none of them is a token the model is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prune_core.errors import TextError
from prune_core.recipe import Calibration
from prune_core.texts import read_text, token_windows

if TYPE_CHECKING:
    from torch import Tensor

RUN = 32
"""Tokens in a row that two texts must share before it counts as overlap: chance does not."""


def calibration_windows(
    tokenizer: Any, chosen: Calibration, max_context: int, start: Sequence[int] = ()
) -> Tensor:
    """Token windows of a calibration text, (windows, seq_len) int64.

    Args:
        tokenizer: of the model.
        chosen: which text and how much of it.
        max_context: most tokens the model was built for.
        start: what each window starts with.

    Fewer windows than asked for are taken where the text has no more.

    Raises:
        TextError: no text, not one whole window of it, or windows longer than the context.
    """
    import torch

    text = read_text(chosen.text)
    # told here, so that the sentence does not pass for one about the evaluation's windows
    if chosen.seq_len > max_context:
        raise TextError(
            f"Calibration windows of {chosen.seq_len} tokens are longer than the model's context "
            f"of {max_context}; choose shorter calibration windows."
        )
    everything = chosen.windows if chosen.seed is None else 2**31
    found = token_windows(
        tokenizer,
        text,
        seq_len=chosen.seq_len,
        windows=everything,
        skip_tokens=chosen.skip,
        max_context=max_context,
        ends=(start, ()),
    )
    if found.shape[1] < chosen.seq_len:
        raise TextError(
            f"The calibration text has {found.shape[1]} tokens, fewer than one window of "
            f"{chosen.seq_len}; choose a longer text or shorter windows."
        )
    if chosen.seed is None:
        return found
    generator = torch.Generator().manual_seed(chosen.seed)
    order = torch.randperm(len(found), generator=generator)[: chosen.windows]
    return found[order.sort().values]


def check_apart(calibration: Tensor, evaluation: list[Tensor]) -> None:
    """Refuse a calibration text that holds tokens of the evaluation text.

    Args:
        calibration: (windows, seq_len).
        evaluation: windows, (seq,) each.

    Raises:
        TextError: evaluation tokens stand in runs of ``RUN`` tokens (or a whole shorter window)
            that the calibration text has too; with their number.
    """
    import numpy as np

    shared, total = 0, sum(len(w) for w in evaluation)
    for length in sorted({min(RUN, len(w), calibration.shape[1]) for w in evaluation}):
        runs = {
            row[start : start + length].tobytes()
            for row in calibration.numpy()
            for start in range(calibration.shape[1] - length + 1)
        }
        for window in evaluation:
            if min(RUN, len(window), calibration.shape[1]) != length:
                continue
            tokens = window.numpy()
            covered = np.zeros(len(tokens), dtype=bool)
            for start in range(len(tokens) - length + 1):
                if tokens[start : start + length].tobytes() in runs:
                    covered[start : start + length] = True
            shared += int(covered.sum())
    if shared:
        raise TextError(
            f"{shared} of the {total} evaluation tokens are in the calibration text too; "
            "choose another calibration text, or skip that part of it."
        )
