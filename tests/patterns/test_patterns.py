"""Patterns against a stable sort written out naively: exact counts, ties by position."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from prune_core.allocation import global_counts
from prune_core.errors import RecipeError
from prune_core.patterns import NM, Blocks, Pattern, PerLayer, PerRow, num_pruned, parse_pattern
from prune_core.recipes.recipe import Recipe

SHARES = [0.0, 0.25, 0.29, 0.5, 1.0]


def naive_rank(groups: np.ndarray) -> np.ndarray:
    order = np.argsort(groups, axis=-1, kind="stable")
    ranks = np.empty(groups.shape, dtype=np.int32)
    for row, places in enumerate(order):
        for rank, place in enumerate(places):
            ranks[row, place] = rank
    return ranks


def oracle(name: str, scores: np.ndarray) -> np.ndarray:
    if name == "per-layer":
        groups = scores.reshape(1, -1)
    elif name == "per-row":
        groups = scores
    else:
        groups = scores.reshape(-1, int(name.rsplit(":", 1)[1]))
    return naive_rank(groups).reshape(scores.shape)


# few distinct values: ties everywhere, as in a quantized model; negative scores and zeros too
scores_with_ties = arrays(
    np.float32,
    some.tuples(some.integers(1, 5), some.sampled_from([8, 16, 24])),
    elements=some.sampled_from([-1.5, -0.0, 0.0, 0.25, 1.0, 3.0]),
)


@pytest.mark.parametrize("name", ["per-layer", "per-row", "nm:2:4", "nm:1:4", "nm:4:8"])
@settings(max_examples=60)
@given(scores=scores_with_ties)
def test_ranks_are_a_stable_sort(name: str, scores: np.ndarray) -> None:
    clean = scores + np.float32(0)  # -0.0 and 0.0 are the same score
    assert np.array_equal(parse_pattern(name).rank(clean), oracle(name, clean))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("pattern", [PerLayer(), PerRow()])
@pytest.mark.parametrize("constant", [True, False])
def test_counts_are_exact(pattern: Pattern, share: float, constant: bool) -> None:
    scores = np.random.default_rng(0).random((7, 30), dtype=np.float32)
    if constant:
        scores[:] = 0.5
    cut = pattern.cut(7, 30, share)
    gone = int((pattern.rank(scores) < cut).sum())
    assert gone == pattern.removed(7, 30, cut)
    assert gone == (round(210 * share) if isinstance(pattern, PerLayer) else 7 * round(30 * share))


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (4, 8), (3, 4)])
def test_nm_keeps_n_of_every_m(n: int, m: int) -> None:
    scores = np.random.default_rng(1).random((6, 16), dtype=np.float32)
    pattern = NM(n, m)
    cut = pattern.cut(6, 16, 1 - n / m)
    kept = pattern.rank(scores) >= cut
    assert (kept.reshape(-1, m).sum(axis=1) == n).all()
    assert int((~kept).sum()) == pattern.removed(6, 16, cut)
    # the n largest of each group
    for group, mask in zip(scores.reshape(-1, m), kept.reshape(-1, m), strict=True):
        assert set(group[mask]) == set(sorted(group)[-n:])


def test_ties_go_by_position_lower_index_first() -> None:
    assert PerRow().rank(np.ones((2, 4), np.float32)).tolist() == [[0, 1, 2, 3]] * 2
    assert PerLayer().rank(np.ones((2, 2), np.float32)).tolist() == [[0, 1], [2, 3]]
    assert NM(2, 4).rank(np.ones((1, 8), np.float32)).tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]


def test_nm_refuses_another_sparsity_and_shapes_it_does_not_fit() -> None:
    assert NM(2, 4).cut(3, 8, 0.0) == 0
    with pytest.raises(RecipeError, match=r"2:4 means sparsity 0\.5"):
        NM(2, 4).cut(3, 8, 0.3)
    assert not NM(2, 4).fits(3, 10)
    assert NM(2, 4).fits(3, 12)


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.5, math.inf, "abc", True, None])
def test_a_bad_sparsity_is_refused_at_the_core(bad: object) -> None:
    with pytest.raises(RecipeError):
        num_pruned(10, bad)  # type: ignore[arg-type]
    with pytest.raises(RecipeError):
        Recipe(sparsity=bad)  # type: ignore[arg-type]


def test_rounding_is_to_the_nearest() -> None:
    assert num_pruned(100, 0.29) == 29
    assert num_pruned(576, 0.3) == 173


@settings(max_examples=80)
@given(
    layers=some.lists(
        arrays(np.float32, some.integers(1, 30), elements=some.sampled_from([0.0, 0.5, 1.0, 7.0])),
        min_size=1,
        max_size=5,
    ),
    share=some.floats(0, 1),
)
def test_global_counts_are_a_stable_sort_of_everything(
    layers: list[np.ndarray], share: float
) -> None:
    everything = np.concatenate(layers)
    owner = np.repeat(np.arange(len(layers)), [x.size for x in layers])
    gone = owner[np.argsort(everything, kind="stable")[: round(everything.size * share)]]
    expected = np.bincount(gone, minlength=len(layers)).tolist()
    counts = global_counts({str(i): np.sort(x) for i, x in enumerate(layers)}, share)
    assert list(counts.values()) == expected


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize(("rows", "columns", "size"), [(6, 10, 2), (4, 12, 4), (2, 2, 1)])
def test_blocks_are_a_stable_sort_of_squares(
    rows: int, columns: int, size: int, pooling: str
) -> None:
    scores = np.random.default_rng(rows).integers(0, 4, (rows, columns)).astype(np.float32)
    pattern = parse_pattern(f"block:{size}:{pooling}")
    pool = np.mean if pooling == "avg" else np.max
    squares = [(r, c) for r in range(0, rows, size) for c in range(0, columns, size)]
    order = sorted(squares, key=lambda s: pool(scores[s[0] : s[0] + size, s[1] : s[1] + size]))
    ranks = pattern.rank(scores)
    for place, (r, c) in enumerate(order):
        assert (ranks[r : r + size, c : c + size] == place).all()
    cut = pattern.cut(rows, columns, 0.4)
    assert cut == round(0.4 * len(squares))
    assert int((ranks < cut).sum()) == pattern.removed(rows, columns, cut) == cut * size**2


def test_mean_and_largest_rank_blocks_apart() -> None:
    scores = np.array([[9, 0, 3, 3], [0, 0, 3, 3]], dtype=np.float32)
    assert Blocks(2, "avg").rank(scores)[0].tolist() == [0, 0, 1, 1]
    assert Blocks(2, "max").rank(scores)[0].tolist() == [1, 1, 0, 0]
    assert not Blocks(2).fits(3, 4) and not Blocks(2).fits(4, 3)
