"""Whether two texts share a run of tokens: calibration and evaluation must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.errors import TextError

if TYPE_CHECKING:
    from torch import Tensor

RUN = 32
"""Tokens in a row that two texts must share before it counts as overlap: chance does not."""


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
            "{shared} of the {total} evaluation tokens are in the calibration text too; choose "
            "another calibration text, or skip that part of it.",
            shared=shared,
            total=total,
        )
