"""Shares by part: relative to each other, for each role or each block."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from prune_core.allocation.base import ALLOCATIONS, AllocationRequest, Cuts, Parts, check_known
from prune_core.allocation.shares import cuts_of, scaled


def by_role(multipliers: Mapping[str, float], parts: Parts, target: float) -> dict[str, float]:
    """Shares in proportion to a multiplier for each role; 1 where none is given."""
    return scaled({n: multipliers.get(p.role, 1.0) for n, p in parts.items()}, parts, target)


def by_hand(multipliers: Mapping[str, float], parts: Parts, target: float) -> dict[str, float]:
    """Shares in proportion to a multiplier for each block index (as text); 1 where none is."""
    return scaled({n: multipliers.get(str(p.block), 1.0) for n, p in parts.items()}, parts, target)


@ALLOCATIONS.register(
    "per-role",
    needs=frozenset({"multipliers", "roles"}),
    place=20,
    texts={
        "en": {
            "title": "By role",
            "short": "shares by role",
            "measures": "shares relative to each other, for each role: a table in the Studio, "
            "`allocation_args` of a recipe file.",
        },
        "zh": {
            "title": "按角色",
            "short": "按角色分配",
            "measures": "按角色的相对份额：工作室中的表格，或方案文件中的 `allocation_args`。",
        },
    },
)
def per_role(
    request: AllocationRequest, multipliers: Mapping[str, float], roles: Collection[str]
) -> Cuts:
    """Share by the multiplier of each layer's role.

    Raises:
        RecipeError: a role that the model does not have.
    """
    check_known(set(multipliers) - set(roles))
    return cuts_of(by_role(multipliers, request.parts, request.sparsity), request)


@ALLOCATIONS.register(
    "manual",
    needs=frozenset({"multipliers", "blocks"}),
    place=30,
    texts={
        "en": {
            "title": "By hand",
            "short": "shares by hand",
            "measures": "shares relative to each other, for each block: a table in the Studio, "
            "`allocation_args` of a recipe file.",
        },
        "zh": {
            "title": "手动",
            "short": "手动分配",
            "measures": "按块的相对份额：工作室中的表格，或方案文件中的 `allocation_args`。",
        },
    },
)
def manual(
    request: AllocationRequest, multipliers: Mapping[str, float], blocks: Collection[int]
) -> Cuts:
    """Share by the multiplier of each layer's block.

    Raises:
        RecipeError: a block that the model does not have.
    """
    check_known({f"block {index}" for index in multipliers if int(index) not in blocks})
    by_block = {str(int(index)): share for index, share in multipliers.items()}
    return cuts_of(by_hand(by_block, request.parts, request.sparsity), request)
