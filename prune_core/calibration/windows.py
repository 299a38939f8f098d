"""Which tokens calibrate, and that none of them is a token the model is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prune_core.errors import TextError
from prune_core.recipes.calibration import Calibration
from prune_core.texts.reading import read_text
from prune_core.texts.windows import token_windows

if TYPE_CHECKING:
    from torch import Tensor


def calibration_windows(
    tokenizer: Any, calibration: Calibration, max_context: int, start: Sequence[int] = ()
) -> Tensor:
    """Token windows of a calibration text, (windows, seq_len) int64.

    Fewer windows than asked for are taken where the text has no more, and shorter ones where nobody
    chose a length and the model's context is shorter than the usual one.

    Args:
        tokenizer: of the model.
        calibration: which text and how much of it.
        max_context: most tokens the model was built for.
        start: what each window starts with.

    Raises:
        TextError: no text, not one whole window of it, or windows longer than the context.
    """
    import torch

    text = read_text(calibration.text)
    if calibration.seq_len == Calibration().seq_len:
        calibration = replace(calibration, seq_len=min(calibration.seq_len, max_context))
    # told here, so that the sentence does not pass for one about the evaluation's windows
    if calibration.seq_len > max_context:
        raise TextError(
            "Calibration windows of {seq_len} tokens are longer than the model's context of "
            "{context}; choose shorter calibration windows.",
            seq_len=calibration.seq_len,
            context=max_context,
        )
    everything = calibration.windows if calibration.seed is None else 2**31
    windows = token_windows(
        tokenizer,
        text,
        seq_len=calibration.seq_len,
        windows=everything,
        skip_tokens=calibration.skip,
        max_context=max_context,
        ends=(start, ()),
    )
    if windows.shape[1] < calibration.seq_len:
        raise TextError(
            "The calibration text has {tokens} tokens, fewer than one window of {seq_len}; choose "
            "a longer text or shorter windows.",
            tokens=windows.shape[1],
            seq_len=calibration.seq_len,
        )
    if calibration.seed is None:
        return windows
    generator = torch.Generator().manual_seed(calibration.seed)
    order = torch.randperm(len(windows), generator=generator)[: calibration.windows]
    return windows[order.sort().values]
