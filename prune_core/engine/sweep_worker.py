"""Measures cells of a sweep in whatever process an executor chose."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from prune_core.errors import PruneCoreError
from prune_core.sweeps.store.portable import cell_from_dict

_core: Any = None

_lock = threading.Lock()


def measure_cell(cell: Mapping[str, Any], windows: int, threads: int) -> dict[str, Any]:
    """Measure a cell; runs in a worker.

    Args:
        cell: as ``portable.cell_to_dict`` gives it.
        windows: how many of the text's windows.
        threads: of torch; the same everywhere makes the numbers the same to the last bit.

    Returns:
        ``numbers``, or ``error``, one sentence: what is wrong with the cell itself.
    """
    import torch

    from prune_core.engine.core import Core
    from prune_core.jobs.sweeps import MeasureCell

    global _core
    request = cell_from_dict(cell)
    job = MeasureCell(
        request.source, request.recipe, request.text, request.seq_len, windows, cost=request.cost
    )
    # a cluster's worker may run tasks side by side; the model's working copy is one
    with _lock:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            if _core is None:
                _core = Core()
            numbers = _core.run(job)
            return {"numbers": {**numbers, "warnings": list(_core.warnings(request.source))}}
        except PruneCoreError as error:
            return {"error": error.sentence}
        finally:
            torch.set_num_threads(before)
