"""The front: what nothing beats, what is certain of it, and what may not share a picture."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_core.evaluation.estimate import safe_exp
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import (
    UnlikeRunsError,
    alike_groups,
    check_alike,
    cost_value,
    method_of,
    paired,
    quality_value,
    smallest_file,
)
from prune_core.sweeps.frontier import DOMINATED, FRONT, TIE, UNCLEAR, frontier
from prune_core.sweeps.records import Cell, Run

DENSE_LOSSES = (3.0, 3.4, 2.9, 3.1)
PARAMETERS = 1_000_000


def run(
    criterion: str,
    sparsity: float,
    delta: float,
    *,
    wobble: float = 0.0,
    nonzero: int | None = None,
    windows: int = 4,
    seq_len: int = 512,
    text: str = "grimm",
    dense: tuple[float, ...] = DENSE_LOSSES,
    model: str = "f00d",
    **cost: Any,
) -> Run:
    """A finished run whose loss is ``delta`` above dense, ``wobble`` more or less by window."""
    losses = [loss + delta + wobble * (-1) ** i for i, loss in enumerate(dense)]
    apart = [a - b for a, b in zip(losses, dense, strict=True)]
    mean = sum(apart) / len(apart)
    spread = math.sqrt(sum((a - mean) ** 2 for a in apart) / (len(apart) - 1) / len(apart))
    level = sum(dense) / len(dense)
    numbers = {
        "sparsity": sparsity,
        "perplexity": safe_exp(level + mean),
        "perplexity_low": safe_exp(level + mean - 1.959964 * spread),
        "perplexity_high": safe_exp(level + mean + 1.959964 * spread),
        "perplexity_dense": math.exp(level),
        "delta_nll": mean,
        "delta_nll_stderr": spread,
        "kl": delta,
        "kl_stderr": 0.01,
        "top1": 1 - delta / 10,
        "top1_stderr": 0.01,
        "window_nll": losses,
        "window_nll_dense": list(dense),
        "protocol": {"model_fingerprint": model, "seq_len": seq_len, "dtype": "float32"},
        "parameters": PARAMETERS,
        "nonzero": round(PARAMETERS * (1 - sparsity)) if nonzero is None else nonzero,
        "bytes_dense": 4 * PARAMETERS,
        "bytes_sparse": 4 * PARAMETERS * (1 - sparsity) + PARAMETERS / 8,
        "bytes_shrunk": 4 * PARAMETERS,
        **cost,
    }
    recipe = Recipe(criterion=criterion, sparsity=sparsity)
    cell = Cell("tiny", recipe, TextSpec("preset", text), seq_len, windows)
    return Run(f"{criterion}-{sparsity}", "s", cell, "done", numbers)


def state(found: Any, name: str) -> str:
    return next(point.state for point in found.points if point.run == name)


def curves() -> list[Run]:
    return [
        run(criterion, s / 10, slope * (s / 10) ** 3)
        for criterion, slope in (("wanda", 1.0), ("magnitude", 4.0), ("random", 50.0))
        for s in range(1, 9)
    ]


def test_the_best_method_is_the_front_and_the_others_are_told() -> None:
    found = frontier(curves())
    assert {point.method[0] for point in found.front[:-1]} == {"wanda"}
    assert found.front[-1] is found.dense
    assert [p.cost.value for p in found.front] == sorted(p.cost.value for p in found.front)
    assert found.dominated == {
        ("magnitude", "per-layer"): (("wanda", "per-row"),),
        ("random", "per-layer"): (("magnitude", "per-layer"), ("wanda", "per-row")),
    }
    assert found.unclear == ()


@given(
    spots=st.lists(
        st.tuples(st.floats(0, 0.9), st.floats(0, 5)), min_size=1, max_size=25, unique=True
    )
)
def test_the_front_is_what_brute_force_finds(spots: list[tuple[float, float]]) -> None:
    runs = [
        Run(f"{i}", "s", r.cell, r.state, r.numbers)
        for i, r in enumerate(run("wanda", round(s, 4), d) for s, d in spots)
    ]
    found = frontier(runs)
    places = [
        (p.run, p.cost.value, p.quality.value)
        for p in (*found.points, found.dense)
        if p is not None
    ]
    tie = TIE * PARAMETERS
    front = {
        name
        for name, x, y in places
        if not any(
            (x2 - x <= tie and y2 < y) or (x2 - x < -tie and y2 <= y)
            for other, x2, y2 in places
            if other != name
        )
    }
    assert {p.run for p in found.front} == front
    assert all(p.state == FRONT for p in found.front)


def test_overlapping_intervals_are_told_apart_by_pairs_or_left_unclear() -> None:
    # windows differ by far more than recipes do, but in the same way: the pair is certain
    ours, theirs = run("wanda", 0.5, 0.10, wobble=0.2), run("magnitude", 0.5, 0.11, wobble=0.2)
    assert ours.numbers["perplexity_high"] > theirs.numbers["perplexity"]
    assert paired(theirs, ours) == pytest.approx((0.01, 0.0), abs=1e-9)
    assert state(frontier([ours, theirs]), theirs.id) == DOMINATED
    noisy = run("magnitude", 0.5, 0.11, wobble=-0.2)
    found = frontier([ours, noisy])
    assert state(found, noisy.id) == UNCLEAR
    assert found.unclear == (noisy.id, ours.id)
    assert found.dominated == {}
    # on another axis there are no pairs: the intervals decide
    assert state(frontier([ours, theirs], quality="kl"), theirs.id) == UNCLEAR


def test_rounding_of_rows_is_a_tie() -> None:
    better = run("wanda", 0.3, 0.1, nonzero=700_000 + round(TIE * PARAMETERS / 2))
    worse = run("magnitude", 0.3, 0.2, nonzero=700_000)
    assert state(frontier([better, worse]), worse.id) == DOMINATED
    larger = run("wanda", 0.3, 0.1, nonzero=700_000 + round(TIE * PARAMETERS * 2))
    assert state(frontier([larger, worse]), worse.id) == FRONT


def test_the_knee_is_where_the_front_bends() -> None:
    # flat until 0.5, then steep
    runs = [run("wanda", s / 10, 0.01 * s + 3 * max(0, s / 10 - 0.5)) for s in range(1, 10)]
    found = frontier(runs)
    assert found.knee is not None
    assert found.knee.sparsity == 0.5
    assert frontier(runs[:1]).knee is None
    straight = [  # log perplexity falls in line with log cost: no bend
        run("wanda", round(1 - 0.8**i, 9), 0.1 * i) for i in range(1, 6)
    ]
    assert frontier(straight).knee is None


def test_more_is_better_on_axes_of_speed_and_agreement() -> None:
    speed = {"median": 100.0, "low": 95.0, "high": 105.0}
    slow = run("magnitude", 0.5, 1.2, decode=speed)
    fast = run("wanda", 0.5, 0.1, decode={k: 2 * v for k, v in speed.items()})
    found = frontier([slow, fast], "decode", "top1")
    assert state(found, slow.id) == DOMINATED
    assert [p.run for p in found.front] == [fast.id]
    assert found.dense is None  # nobody has measured its speed
    close = run("wanda", 0.5, 0.1, decode={"median": 104.0, "low": 99.0, "high": 109.0})
    assert state(frontier([slow, close], "decode", "top1"), slow.id) == UNCLEAR


def test_bytes_are_the_smallest_file_and_say_what_it_is() -> None:
    assert smallest_file({"bytes_dense": 8, "bytes_sparse": 9, "bytes_shrunk": 8}).form == "dense"
    estimate = smallest_file({"bytes_dense": 8, "bytes_sparse": 5, "bytes_shrunk": 8})
    assert (estimate.value, estimate.is_estimate) == (5, True)
    cut = smallest_file({"bytes_dense": 8, "bytes_sparse": 7, "bytes_shrunk": 6})
    assert (cut.form, cut.is_estimate) == ("shrunk", False)
    assert smallest_file({}) is None


def test_runs_without_a_place_are_named() -> None:
    lost = run("random", 0.8, 1000.0)
    assert lost.numbers["perplexity"] == pytest.approx(math.inf)
    found = frontier([run("wanda", 0.5, 0.1), lost])
    assert found.left_out == (lost.id,)
    assert frontier([lost], "memory").left_out == (lost.id,)
    unfinished = Run("x", "s", lost.cell, "failed", {}, "no.")
    assert frontier([unfinished]).points == ()
    assert frontier([]).dense is None


def test_a_dense_run_is_the_dense_point() -> None:
    dense = run("magnitude", 0.0, 0.0)
    found = frontier([dense, run("wanda", 0.5, 0.1)])
    assert found.dense is not None and found.dense.run == dense.id
    assert [p.run for p in found.points] == ["wanda-0.5"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": "beef"}, "model"),
        ({"seq_len": 256}, "window length"),
        ({"text": "andersen"}, "text"),
        ({"windows": 8}, "number of windows"),
        ({"dense": (3.0, 3.4, 2.0, 3.1)}, "text"),
    ],
)
def test_unlike_runs_are_refused_and_parted(change: dict[str, Any], word: str) -> None:
    runs = [run("wanda", 0.5, 0.1), run("wanda", 0.6, 0.2), run("random", 0.5, 0.9, **change)]
    with pytest.raises(UnlikeRunsError, match=word) as refused:
        frontier(runs)
    assert "\n" not in str(refused.value)
    assert [len(group) for group in alike_groups(runs)] == [2, 1]
    for group in alike_groups(runs):
        check_alike(group)


def test_a_run_that_stopped_early_stands_on_the_ground_of_the_longest() -> None:
    whole = run("wanda", 0.5, 0.1)
    early = run("magnitude", 0.5, 0.3, dense=DENSE_LOSSES[:2])
    found = frontier([whole, early])
    point = next(p for p in found.points if p.run == early.id)
    assert point.quality.value == pytest.approx(math.exp(3.1 + 0.3))
    assert early.numbers["perplexity"] == pytest.approx(math.exp(3.2 + 0.3))
    assert point.state == DOMINATED


def test_methods_are_what_a_recipe_does_apart_from_how_much() -> None:
    assert method_of(Recipe()) == ()
    assert method_of(Recipe(criterion="wanda", sparsity=0.2)) == ("wanda", "per-row")
    rich = Recipe(
        criterion="ria",
        criterion_args={"power": 0.3},
        allocation="owl",
        sparsity=0.5,
        reconstruction="sparsegpt",
        calibration=Calibration(TextSpec("preset", "grimm"), 8, 128),
        drop_blocks=(3,),
    )
    assert method_of(rich) == (
        *("ria", "per-row", "owl", "+sparsegpt", "power=0.3", "grimm 8x128", "blocks"),
    )
    some = [Recipe(sparsity=s, criterion=c) for s, c in itertools.product((0.1, 0.5), ("ria",))]
    assert len({method_of(recipe) for recipe in some}) == 1


def test_values_carry_their_intervals() -> None:
    one = run("wanda", 0.5, 0.1, wobble=0.05)
    value = quality_value(one, "kl")
    assert value is not None
    assert (value.low, value.high) == pytest.approx((0.1 - 0.0195996, 0.1 + 0.0195996), rel=1e-4)
    place = cost_value(one, "nonzero")
    assert place is not None and place.low == place.high == 500_000
