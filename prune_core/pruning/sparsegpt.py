"""SparseGPT: choose what goes by the loss it costs, and let what stays make up for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prune_core.calibration.hessian import inverse_factor
from prune_core.patterns import Pattern

SLAB = 128
"""Input columns chosen and repaired together before the rest of the layer hears of it."""


def prune_together(
    weights: Sequence[Tensor],
    hessian: Tensor,
    pattern: Pattern,
    cuts: Sequence[int],
    masks: Sequence[Tensor | None],
) -> tuple[list[Tensor], list[Tensor], bool]:
    """Prune and repair layers that read the same input.

    Frantar and Alistarh 2023, arXiv 2301.00774: columns left to right; in each slab of 128 the
    weights of smallest w^2 / U_jj^2 go, and each column's error spreads over the columns to its
    right by the rows of U. N:M groups are chosen when their first column is reached.

    Args:
        weights: (out, in) each; not changed.
        hessian: (in, in) of their common input.
        pattern: what competes.
        cuts: of each layer, as ``pattern.cut`` gives them.
        masks: a fixed mask (True keeps) in place of the choice, or None.

    Returns:
        New weights, float32; masks; whether the damping had to be raised.
    """
    upper, dead, raised = inverse_factor(hessian)
    columns = hessian.shape[0]
    rows = [w.shape[0] for w in weights]
    # transposed: a column of the layer lies in one piece
    work = torch.cat([w.float() for w in weights]).T.contiguous()
    work[dead] = 0
    keep = torch.ones_like(work, dtype=torch.bool)
    ends = np.cumsum(rows).tolist()
    for mask, end, count in zip(masks, ends, rows, strict=True):
        if mask is not None:
            keep[:, end - count : end] = mask.T
    chooses = [mask is None for mask in masks]
    unit = pattern.group[1]
    width = min(columns, max(unit, SLAB // unit * unit))  # whole groups, whole squares
    diagonal = upper.diagonal()
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        slab, kept = work[start:stop], keep[start:stop]
        inner = upper[start:stop, start:stop].contiguous()
        if not pattern.as_reached:
            _choose(slab, kept, diagonal[start:stop], pattern, cuts, rows, chooses, start, columns)
        errors = torch.empty_like(slab)
        for j in range(stop - start):
            if pattern.as_reached and j % unit == 0:
                group = slice(j, j + unit)
                scale = diagonal[start + j : start + j + unit, None].square()
                scores = slab[group].square() / scale
                for cut, end, count, own in zip(cuts, ends, rows, chooses, strict=True):
                    if own:
                        part = scores[:, end - count : end].T.contiguous().numpy()
                        stays = torch.from_numpy(pattern.keep(part, cut)).T
                        kept[group, end - count : end] = stays
            torch.mul(slab[j], ~kept[j], out=errors[j])
            errors[j] /= inner[j, j]
            if j + 1 < stop - start:
                slab[j + 1 :].addr_(inner[j, j + 1 :], errors[j], alpha=-1)
        slab *= kept
        if stop < columns:
            work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    parts = [work[:, e - c : e].T.contiguous() for e, c in zip(ends, rows, strict=True)]
    kept_parts = [keep[:, e - c : e].T.contiguous() for e, c in zip(ends, rows, strict=True)]
    return parts, kept_parts, raised


def _choose(
    slab: Tensor,
    kept: Tensor,
    diagonal: Tensor,
    pattern: Pattern,
    cuts: Sequence[int],
    rows: Sequence[int],
    chooses: Sequence[bool],
    start: int,
    columns: int,
) -> None:
    """The masks of one slab; its cut is its share of the layer's, so that the whole is exact."""
    scores = slab.square() / diagonal[:, None].square()
    stop, end = start + slab.shape[0], 0
    for cut, count, own in zip(cuts, rows, chooses, strict=True):
        part = slice(end, end + count)
        end += count
        if not own:
            continue
        here = _cut_before(cut, stop, columns) - _cut_before(cut, start, columns)
        stays = pattern.keep(scores[:, part].T.contiguous().numpy(), here)
        kept[:, part] = torch.from_numpy(stays).T


def _cut_before(cut: int, column: int, columns: int) -> int:
    """Of a layer's cut, the part that its first ``column`` columns bear."""
    return round(cut * column / columns)
