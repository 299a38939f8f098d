"""Gram matrices of layer inputs and the inverse factor that second-order criteria read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

DAMPING = 0.01
"""Of the Hessian's mean diagonal, added to it (arXiv 2301.00774)."""


class Hessians:
    """H = 2/n X^T X of the inputs of one block's layers, one for layers that read one tensor."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, ...], Tensor] = {}
        self._tokens: dict[tuple[str, ...], int] = {}

    def add(self, names: tuple[str, ...], inputs: Tensor) -> None:
        """Take in (tokens, in) inputs of the layers ``names``."""
        if names not in self._totals:
            self._totals[names] = inputs.new_zeros(inputs.shape[1], inputs.shape[1])
        self._tokens[names] = self._tokens.get(names, 0) + inputs.shape[0]
        add_gram(self._totals[names], inputs)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(list(self._totals))

    def take(self, names: tuple[str, ...]) -> Tensor:
        """The Hessian (in, in) on the CPU; it is not kept."""
        return fill_symmetric(self._totals.pop(names)).cpu() * (2 / self._tokens[names])


def add_gram(total: Tensor, inputs: Tensor) -> None:
    """Add X^T X to the lower triangle of ``total``, by panels: half of it need not be computed."""
    width = total.shape[0]
    panel = max(256, -(-width // 4))
    for start in range(0, width, panel):
        stop = min(start + panel, width)
        total[start:, start:stop].addmm_(inputs[:, start:].T, inputs[:, start:stop])


def fill_symmetric(total: Tensor) -> Tensor:
    """The whole of what :func:`add_gram` gathered in the lower triangle."""
    return total.tril() + total.tril(-1).T


def inverse_factor(hessian: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Upper Cholesky factor U of the damped Hessian's inverse, H^-1 = U^T U.

    Args:
        hessian: (in, in) float32, X^T X up to a factor.

    Returns:
        U (in, in) float32; dead inputs (in,) bool, whose diagonal is 0; whether the Hessian was
        too nearly singular for the usual damping, which was raised.
    """
    dead = hessian.diagonal() == 0
    damping, raised = DAMPING, False
    mean = float(hessian.diagonal().double().mean())
    for dtype in (torch.float32, torch.float64, *[torch.float64] * 6):
        damped = hessian.to(dtype, copy=True)
        diagonal = damped.diagonal()
        diagonal[dead] = 1
        diagonal += damping * (mean or 1.0)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            inverse = torch.cholesky_inverse(factor)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not int(failed) and bool(torch.isfinite(upper).all()):
                return upper.float(), dead, raised
        if dtype == torch.float64:
            damping, raised = damping * 10, True
    # a diagonal Hessian: nothing is known of how inputs go together
    rest = hessian.diagonal().double().clamp_min(mean or 1.0)
    return torch.diag(rest.rsqrt()).float(), dead, True
