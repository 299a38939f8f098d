"""One dense pass over windows with whatever hooks a caller has hung on the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prune_core.evaluation.scoring import run_window
from prune_core.models.structure import Structure
from prune_core.progress import Progress


def run_windows(
    model: nn.Module,
    structure: Structure,
    windows: Sequence[Tensor],
    progress: Progress,
    after: Callable[[], None],
) -> None:
    """Run a model over windows for what its hooks see.

    Args:
        model: a clone of the dense model.
        structure: of the model.
        windows: (seq,) each.
        progress: (windows done, windows); a cancel is seen before each window.
        after: called after each window.

    Raises:
        Cancelled: by ``progress``.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        for done, window in enumerate(windows, start=1):
            progress.check("Cancelled while the text was read.")
            tokens = window[None].to(device)
            if structure.kind == "encoder":
                model(input_ids=tokens)  # it may have no head, so no logits either
            else:
                run_window(model, structure, tokens)
            after()
            progress.step(done, len(windows))
