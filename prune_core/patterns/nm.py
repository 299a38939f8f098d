"""N:M: keep n of every m consecutive inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune_core.errors import RecipeError
from prune_core.patterns.base import Ranks, Scores, sortable
from prune_core.recipes.checks import checked_sparsity


@dataclass(frozen=True, slots=True)
class NM:
    """Keep ``n`` of every ``m`` consecutive weights of a row (arXiv 2102.04010)."""

    n: int
    m: int

    def fits(self, rows: int, columns: int) -> bool:
        """Whole groups only."""
        return columns % self.m == 0

    def rank(self, scores: Scores) -> Ranks:
        """Place within the group of m; ties by column."""
        groups = sortable(scores).reshape(-1, self.m)
        ranks = np.zeros(groups.shape, dtype=np.int32)
        # m - 1 vector comparisons per place beat sorting many tiny rows
        for place in range(self.m):
            for other in range(self.m):
                if other < place:
                    ranks[:, place] += groups[:, other] <= groups[:, place]
                elif other > place:
                    ranks[:, place] += groups[:, other] < groups[:, place]
        return ranks.reshape(scores.shape)

    def cut(self, rows: int, columns: int, sparsity: float) -> int:
        """M - n, or nothing at sparsity 0.

        Raises:
            RecipeError: any other sparsity.
        """
        if checked_sparsity(sparsity) == 0.0:
            return 0
        if abs(sparsity - (1 - self.n / self.m)) > 1e-6:
            raise RecipeError(
                "{n}:{m} means sparsity {expected:.3g}, got {sparsity:.3g}.",
                n=self.n,
                m=self.m,
                expected=1 - self.n / self.m,
                sparsity=sparsity,
            )
        return self.m - self.n

    def removed(self, rows: int, columns: int, cut: int) -> int:
        """``cut`` of every m."""
        return rows * columns // self.m * cut

    def places(self, rows: int, columns: int) -> int:
        """M."""
        return self.m
