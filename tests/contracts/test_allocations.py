"""What every registered allocation must do with the needs that it declares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prune_core.allocation import ALLOCATIONS, AllocationRequest, Cuts, Part
from prune_core.errors import RecipeError
from prune_core.patterns import parse_pattern
from prune_core.recipes.recipe import Recipe

PARTS = {
    "a": Part(6, 10, 0, "attn.q"),
    "b": Part(10, 6, 0, "mlp.down"),
    "c": Part(3, 7, 1, "attn.q"),
    "d": Part(20, 30, 2, "mlp.down"),
}
every_allocation = pytest.mark.parametrize("name", list(ALLOCATIONS))


def scores() -> dict[str, np.ndarray]:
    """Of each layer, ascending."""
    draw = np.random.default_rng(5)
    drawn = {name: draw.random(part.numel, dtype=np.float32) for name, part in PARTS.items()}
    return {name: np.sort(row) for name, row in drawn.items()}


def known(multipliers: dict[str, float]) -> dict[str, Any]:
    """Something for every need that an allocation may declare."""
    return {
        "multipliers": multipliers,
        "roles": {part.role for part in PARTS.values()},
        "blocks": range(3),
        "ordered": (scores(), {}),
        "outliers": lambda m: [0.1 / m, 0.4 / m, 0.2 / m],
        "increases": ((0.4, 0.8), [[1, 9], [0.1, 2], [0.2, 3]]),
    }


def answer(name: str, sparsity: float, pattern: str = "") -> Cuts:
    entry = ALLOCATIONS[name]
    rule = parse_pattern(pattern or entry.pattern or "per-layer")
    shares = {"manual": {"0": 0.5}, "per-role": {"attn.q": 2.0}}.get(name, {})
    needed = {need: known(shares)[need] for need in entry.needs}
    return entry.fn(AllocationRequest(PARTS, rule, sparsity), **needed)


@every_allocation
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.83, 1.0])
def test_the_whole_is_as_sparse_as_asked(name: str, sparsity: float) -> None:
    total, rule = sum(part.numel for part in PARTS.values()), parse_pattern("per-layer")
    cuts = answer(name, sparsity)
    removed = 0
    for layer, part in PARTS.items():
        usual = rule.cut(part.rows, part.columns, sparsity)
        cut = cuts.counts.get(layer, usual)
        assert 0 <= cut <= rule.places(part.rows, part.columns)
        removed += rule.removed(part.rows, part.columns, cut)
    # to one weight, or where each layer rounds for itself to half of one for each
    assert abs(removed - sparsity * total) <= (0.5 if cuts.counts else 0.5 * len(PARTS))
    assert set(cuts.counts) in (set(), set(PARTS)) and set(cuts.full) <= set(PARTS)


@every_allocation
def test_the_same_is_answered_twice(name: str) -> None:
    before = scores()
    first, again = answer(name, 0.6), answer(name, 0.6)
    assert first == again
    assert all(np.array_equal(before[layer], row) for layer, row in scores().items())


@every_allocation
def test_what_it_may_be_combined_with_is_what_a_recipe_takes(name: str) -> None:
    entry = ALLOCATIONS[name]
    for pattern in ("per-layer", "per-row", "block:2"):
        fits = entry.pattern in ("", pattern)
        if fits:
            recipe = Recipe(pattern=pattern, allocation=name, sparsity=0.5)
            assert recipe.reads_calibration == ("increases" in entry.needs)
            assert answer(name, 0.5, pattern).counts.keys() <= PARTS.keys()
        else:
            with pytest.raises(RecipeError):
                Recipe(pattern=pattern, allocation=name, sparsity=0.5)
    if entry.pattern:
        assert Recipe("wanda", allocation=name).pattern == entry.pattern


def test_a_part_that_the_model_does_not_have_is_named() -> None:
    rule = parse_pattern("per-layer")
    with pytest.raises(RecipeError, match=r"no cross\.q"):
        ALLOCATIONS["per-role"].fn(
            AllocationRequest(PARTS, rule, 0.5), {"cross.q": 1.0}, {"attn.q"}
        )
    with pytest.raises(RecipeError, match="no block 3"):
        ALLOCATIONS["manual"].fn(AllocationRequest(PARTS, rule, 0.5), {"3": 1.0}, range(3))
