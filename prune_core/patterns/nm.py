"""N:M: keep n of every m consecutive inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from prune_core.errors import RecipeError
from prune_core.patterns.base import (
    PATTERNS,
    AnyRanks,
    Gone,
    Pattern,
    Ranks,
    Scores,
    checked_sparsity,
    sortable,
)

_VALUES = re.compile(r"(\d{1,4}):(\d{1,4})")


@PATTERNS.register(
    "nm",
    reference="https://arxiv.org/abs/2102.04010",
    spelling="nm:N:M",
    place=20,
    texts={
        "en": {
            "title": "{n}:{m} (keep {n} of {m})",
            "short": "{n}:{m}",
            "measures": "N of every M consecutive inputs are kept, as in `nm:2:4`.",
        },
        "zh": {
            "title": "{n}:{m}（每 {m} 个保留 {n} 个）",
            "short": "{n}:{m}",
            "measures": "每 M 个连续输入保留 N 个，如 `nm:2:4`。",
        },
    },
)
@dataclass(frozen=True)
class NM(Pattern):
    """Keep ``n`` of every ``m`` consecutive weights of a row (arXiv 2102.04010)."""

    examples: ClassVar[tuple[str, ...]] = ("nm:2:4", "nm:4:8", "nm:1:4")
    as_reached: ClassVar[bool] = True

    n: int
    m: int

    @classmethod
    def read(cls, values: str) -> NM | None:
        """``N:M``.

        Raises:
            RecipeError: nothing of a group would go, or all of it.
        """
        match = _VALUES.fullmatch(values)
        if not match:
            return None
        n, m = int(match.group(1)), int(match.group(2))
        if not 0 < n < m:
            raise RecipeError(
                "nm:{n}:{m} must keep at least 1 and fewer than all {m} weights.", n=n, m=m
            )
        return cls(n, m)

    @property
    def name(self) -> str:
        """``nm:N:M``."""
        return f"nm:{self.n}:{self.m}"

    @property
    def kept_of(self) -> tuple[int, int]:
        """N of every M."""
        return self.n, self.m

    @property
    def group(self) -> tuple[int, int]:
        """M columns of one row."""
        return 1, self.m

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

    def left_shape(self, rows: int, columns: int, gone: Gone) -> tuple[int, int]:
        """Groups stay where they are in the whole layer: they have their places in every row."""
        return rows - len(gone[0]), columns

    def counts_by_hand(self, rows: int, columns: int, gone: Gone) -> bool:
        """A dropped column leaves a group of fewer."""
        return bool(gone[1])

    def gaps(self, ranks: AnyRanks, gone: Gone) -> AnyRanks | None:
        """None: see :meth:`lifted`."""
        return None

    def lifted(self, ranks: AnyRanks, gone: Gone) -> AnyRanks | None:
        """Ranks counted from the top of each group among what is left, so that N of them stay."""
        if not gone[1]:
            return None
        rows, columns = ranks.shape
        left = np.ones(columns, dtype=bool)
        left[list(gone[1])] = False
        groups = np.where(left, ranks.astype(np.float32), np.float32(-1))
        groups = groups.reshape(rows, columns // self.m, self.m)
        higher = (groups[..., None, :] > groups[..., :, None]).sum(-1)
        return (self.m - 1 - higher).reshape(rows, columns).astype(ranks.dtype)
