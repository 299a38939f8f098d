"""What every registered pattern must do, for the names that it offers."""

from __future__ import annotations

import numpy as np
import pytest

from prune_core.errors import RecipeError
from prune_core.patterns import PATTERNS, example_patterns, parse_pattern
from prune_core.recipes.recipe import Recipe

ROWS, COLUMNS = 16, 32
every_name = pytest.mark.parametrize("name", example_patterns())


def scores() -> np.ndarray:
    """With ties, and none below 0."""
    drawn = np.random.default_rng(7).random((ROWS, COLUMNS), dtype=np.float32)
    drawn[3:6] = np.round(drawn[3:6], 1)
    return drawn


@pytest.mark.parametrize("kind", list(PATTERNS))
def test_every_pattern_offers_names_that_it_reads(kind: str) -> None:
    offered = PATTERNS[kind].fn.examples
    assert offered
    for name in offered:
        assert parse_pattern(name).name == name
        assert type(parse_pattern(name)) is PATTERNS[kind].fn
        assert hash(parse_pattern(name)) == hash(PATTERNS[kind].fn.read(name.partition(":")[2]))
    with pytest.raises(RecipeError):
        parse_pattern(f"{kind}:x")
    with pytest.raises(RecipeError, match="unknown pattern"):
        parse_pattern(f"{kind}:")


@every_name
def test_ranks_are_places_and_scores_only_read(name: str) -> None:
    pattern, given = parse_pattern(name), scores()
    before = given.copy()
    assert pattern.fits(ROWS, COLUMNS)
    ranks = pattern.rank(given)
    assert ranks.shape == given.shape and ranks.dtype == np.int32
    assert np.array_equal(given, before)
    assert np.array_equal(ranks, pattern.rank(given.copy()))
    assert ranks.min() == 0 and ranks.max() == pattern.places(ROWS, COLUMNS) - 1


@every_name
def test_a_cut_removes_what_it_says(name: str) -> None:
    pattern, given = parse_pattern(name), scores()
    ranks, places = pattern.rank(given), pattern.places(ROWS, COLUMNS)
    for cut in sorted({0, 1, places // 2, places}):
        assert int((ranks < cut).sum()) == pattern.removed(ROWS, COLUMNS, cut)
        assert np.array_equal(pattern.keep(given, cut), ranks >= cut)
    for share in (0.0, *([0.25, 1.0] if pattern.sparsity is None else [pattern.sparsity])):
        cut = pattern.cut(ROWS, COLUMNS, share)
        removed = pattern.removed(ROWS, COLUMNS, cut)
        assert abs(removed - share * ROWS * COLUMNS) <= pattern.removed(ROWS, COLUMNS, 1) / 2


@every_name
def test_a_recipe_takes_it(name: str) -> None:
    pattern, recipe = parse_pattern(name), Recipe().with_pattern(name)
    assert recipe.pattern == name and recipe.kept_of == pattern.kept_of
    assert recipe.sparsity == (pattern.sparsity or 0.0)


@every_name
@pytest.mark.parametrize("side", [0, 1])
def test_what_dropped_parts_leave(name: str, side: int) -> None:
    """By a mask counted place by place, where whole groups or parts of them are gone."""
    pattern, given = parse_pattern(name), scores()
    assert pattern.left_shape(ROWS, COLUMNS, ((), ())) == (ROWS, COLUMNS)
    assert pattern.gaps(pattern.rank(given), ((), ())) is None
    assert pattern.lifted(pattern.rank(given), ((), ())) is None
    assert not pattern.counts_by_hand(ROWS, COLUMNS, ((), ()))
    height, width = pattern.group
    gone: list[tuple[int, ...]] = [(), ()]
    gone[side] = tuple(range(2 * pattern.group[side]))
    rows, columns = pattern.left_shape(ROWS, COLUMNS, (gone[0], gone[1]))
    assert rows % height == 0 and columns % width == 0
    left = ROWS - len(gone[0]), COLUMNS - len(gone[1])
    if not pattern.counts_by_hand(ROWS, COLUMNS, (gone[0], gone[1])):
        assert pattern.removed(rows, columns, pattern.places(rows, columns)) == left[0] * left[1]
    ranks = pattern.rank(given)
    gaps = pattern.gaps(ranks, (gone[0], gone[1]))
    if gaps is not None:
        taken = np.zeros(given.shape, dtype=bool)
        taken[list(gone[0])] = True
        taken[:, list(gone[1])] = True
        assert set(gaps.reshape(-1)) <= set(ranks[taken])
