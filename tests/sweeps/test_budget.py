"""Promises: read, searched for with few measurements, kept on text the search did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_core.errors import Cancelled, RecipeError
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.budget import (
    EVALUATIONS,
    TOLERANCE,
    FileSize,
    families,
    solve,
)
from prune_core.sweeps.limits import BudgetError, Promise, Worse, parse_promise, worse_of
from prune_core.sweeps.records import Cell, Run
from prune_core.sweeps.search import MOST, bracket

Curve = Callable[[float], float]
SIZE = FileSize(parameters=134_515_008, prunable=106_168_320, bytes_dense=538_060_032)


def crossing(curve: Curve, limit: float) -> float:
    """Where a monotone curve crosses the limit, by brute force."""
    return max((s / 10_000 for s in range(9501) if curve(s / 10_000) <= limit), default=0.0)


# ---- bracketing ------------------------------------------------------------------------------


@given(
    scale=st.floats(1e-3, 1e3),
    power=st.floats(0.3, 12),
    limit=st.floats(1e-3, 3.0),
    start=st.floats(0, 0.9),
)
def test_any_rising_curve_is_bracketed_within_eight_measurements(
    scale: float, power: float, limit: float, start: float
) -> None:
    def curve(s: float) -> float:  # a plateau, then anything from a cliff to a slow rise
        return scale * max(0.0, s - start) ** power

    found = bracket(curve, limit, tolerance=TOLERANCE, evaluations=EVALUATIONS - 1)
    assert len(found.measured) <= EVALUATIONS - 1
    assert curve(found.low) <= limit
    if found.high is None:
        assert MOST - found.low <= TOLERANCE + 1e-9
    else:
        assert curve(found.high) > limit
        assert found.high - found.low <= TOLERANCE + 1e-9
        assert abs(found.low - crossing(curve, limit)) <= TOLERANCE + 1e-4


@given(cliff=st.floats(0.001, 0.93), low=st.floats(0, 0.04), top=st.sampled_from([1.0, math.inf]))
def test_a_cliff_is_found(cliff: float, low: float, top: float) -> None:
    found = bracket(lambda s: low if s < cliff else top, 0.05, tolerance=TOLERANCE, evaluations=7)
    assert found.low < cliff
    assert found.high is not None
    assert cliff <= found.high <= found.low + TOLERANCE + 1e-4


@given(noise=st.lists(st.floats(-0.04, 0.04), min_size=7, max_size=7), power=st.floats(1, 6))
def test_a_noisy_curve_gives_a_measured_answer_that_keeps_the_limit(
    noise: list[float], power: float
) -> None:
    asked: dict[float, float] = {}

    def curve(s: float) -> float:
        asked[s] = s**power + noise[len(asked)]
        return asked[s]

    found = bracket(curve, 0.05, tolerance=TOLERANCE, evaluations=7)
    assert dict(found.measured) == asked
    assert found.low == 0 or asked[found.low] <= 0.05
    assert found.high is None or asked[found.high] > 0.05
    below = [s for s in asked if s < found.low]
    assert all(asked[s] <= 0.05 for s in below)


def test_what_is_known_is_not_measured_again() -> None:
    def curve(s: float) -> float:
        return 2 * s**3

    known = {s: curve(s) for s in (0.1, 0.2, 0.28, 0.3, 0.4)}
    found = bracket(curve, 0.05, known_losses=known, tolerance=TOLERANCE, evaluations=7)
    assert not set(found.measured) & set(known)
    assert len(found.measured) <= 3  # from a bracket of 0.02
    assert abs(found.low - 0.025 ** (1 / 3)) <= TOLERANCE
    enough = bracket(
        curve, 0.05, known_losses={0.29: 0.04, 0.295: 0.06}, tolerance=0.009, evaluations=7
    )
    assert (enough.low, enough.high, dict(enough.measured)) == (0.29, 0.295, {})


# ---- promises --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "promise"),
    [
        ("5%", Promise("worse", 0.05)),
        ("at most 5 % worse perplexity", Promise("worse", 0.05)),
        ("2,5 %", Promise("worse", 0.025)),
        ("60MB", Promise("size", 60e6)),
        ("0.5 GB", Promise("size", 5e8)),
        (" 64 MiB ", Promise("size", 64 * 2**20)),
    ],
)
def test_promises_are_read(text: str, promise: Promise) -> None:
    assert parse_promise(text) == promise


@pytest.mark.parametrize("text", ["", "5", "five %", "-5%", "60 apples", "nan%", "%", "1e9%"])
def test_what_is_no_promise_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BudgetError, match="5%") as refused:
        parse_promise(text)
    assert "\n" not in str(refused.value)


def test_zero_and_absurd_promises_are_refused() -> None:
    with pytest.raises(BudgetError, match="above zero"):
        parse_promise("0%")
    with pytest.raises(BudgetError, match="promises nothing"):
        parse_promise("999999999%")


def test_the_verdict_follows_the_interval() -> None:
    assert Worse(0.04, 0.03, 0.05).state(0.05) == "kept"
    assert Worse(0.04, 0.03, 0.06).state(0.05) == "unclear"
    assert Worse(0.07, 0.06, 0.08).state(0.05) == "broken"
    assert Worse(0.04, None, None).state(0.05) == "unclear"
    found = worse_of({"delta_nll": math.log(1.05), "delta_nll_stderr": 0.01, "tokens": 9})
    assert found.share == pytest.approx(0.05)
    assert found.low == pytest.approx(1.05 * math.exp(-0.0195996) - 1, rel=1e-4)
    with pytest.raises(BudgetError, match="encoder"):
        worse_of({"similarity": 0.9})


# ---- solving ---------------------------------------------------------------------------------


def numbers(recipe: Recipe, slope: Mapping[str, float], error: float = 0.001) -> dict[str, Any]:
    loss = slope[recipe.criterion] * recipe.sparsity**3
    return {
        "delta_nll": loss,
        "delta_nll_stderr": error,
        "sparsity": recipe.sparsity,
        "tokens": 4088,
    }


SLOPES = {"wanda": 1.0, "magnitude": 8.0, "random": 1e6}
METHODS = families(
    [
        Recipe(criterion="magnitude", sparsity=0.5),
        Recipe(criterion="wanda", pattern="per-row", sparsity=0.5),
        Recipe(criterion="random", sparsity=0.5),
    ]
)


def solved(text: str, **options: Any) -> Any:
    return solve(
        parse_promise(text),
        options.pop("methods", METHODS),
        options.pop("measure", lambda recipe: numbers(recipe, SLOPES)),
        size=SIZE,
        **options,
    )


def test_each_method_answers_and_the_largest_removal_wins() -> None:
    held_out = lambda recipe: numbers(recipe, {"wanda": 0.9, "magnitude": 30.0})  # noqa: E731
    solution = solved("5%", confirm=held_out)
    magnitude, wanda, random = solution.answers
    limit = math.log(1.05)
    assert 0 <= limit ** (1 / 3) - wanda.recipe.sparsity <= TOLERANCE
    assert 0 <= (limit / 8) ** (1 / 3) - magnitude.recipe.sparsity <= TOLERANCE
    assert wanda.verdict == "kept"
    assert magnitude.verdict == "broken"
    assert solution.best is wanda
    assert wanda.recipe.pattern == "per-row"
    assert (random.state, random.recipe) == ("none", None)
    assert random.broken_at is not None and random.broken_at <= TOLERANCE
    assert all(answer.evaluations <= EVALUATIONS for answer in solution.answers)


def test_runs_of_a_store_are_free() -> None:
    runs = [
        Run(str(s), "", Cell("m", recipe), "done", numbers(recipe, SLOPES))
        for s in (0.2, 0.3, 0.34, 0.36, 0.38, 0.4)
        for recipe in [Recipe(criterion="wanda", pattern="per-row", sparsity=s)]
    ]
    fresh = solved("5%", methods=METHODS[1:2]).best
    reused = solved("5%", methods=METHODS[1:2], finished_runs=runs).best
    assert reused.reused == 6
    assert reused.evaluations < fresh.evaluations
    assert abs(reused.sparsity - fresh.sparsity) <= TOLERANCE


def test_a_size_needs_no_search_and_the_least_loss_wins() -> None:
    asked: list[Recipe] = []

    def measure(recipe: Recipe) -> dict[str, Any]:
        asked.append(recipe)
        return numbers(recipe, SLOPES)

    solution = solved("400MB", measure=measure)
    best = solution.best
    assert best.recipe.criterion == "wanda"
    assert len(asked) == 3  # one for each method, for its price
    assert best.size.value <= 400e6
    assert best.size.is_estimate
    bigger = SIZE.at(best.recipe.sparsity - 0.0002)
    assert bigger.value > 400e6
    assert best.verdict == ""


def test_no_recipe_keeps_a_size_below_what_cannot_be_pruned() -> None:
    solution = solved("60MB")
    assert solution.best is None
    assert {a.state for a in solution.answers} == {"none"}
    assert solution.answers[0].size.value > 60e6
    assert all(a.evaluations == 0 for a in solution.answers)


def test_a_size_that_the_dense_model_has_asks_for_nothing() -> None:
    assert {a.state for a in solved("1GB").answers} == {"dense"}


def test_steps_are_bisected() -> None:
    steps = [Recipe(drop_blocks=tuple(range(3, 3 + n))) for n in range(1, 9)]
    asked: list[int] = []

    def measure(recipe: Recipe) -> dict[str, Any]:
        asked.append(len(recipe.drop_blocks))
        loss = 0.01 * len(recipe.drop_blocks)
        return {"delta_nll": loss, "delta_nll_stderr": 0.0, "sparsity": loss}

    solution = solve(Promise("worse", 0.05), families(steps), measure)
    assert len(solution.best.recipe.drop_blocks) == 4
    assert len(asked) == len(set(asked)) <= 4


def test_n_of_m_is_one_step() -> None:
    method = families([Recipe(criterion="wanda").with_pattern("nm:2:4")])
    assert solved("5%", methods=method).answers[0].state == "none"
    assert solved("50%", methods=method).answers[0].sparsity == 0.5


def test_a_method_that_fails_leaves_the_others() -> None:
    def measure(recipe: Recipe) -> dict[str, Any]:
        if recipe.criterion == "magnitude":
            raise RecipeError("no such thing.")
        return numbers(recipe, SLOPES)

    solution = solved("5%", measure=measure)
    assert solution.answers[0].state == "failed"
    assert solution.answers[0].error == "no such thing."
    assert solution.best.recipe.criterion == "wanda"


def test_a_cancel_ends_it_all() -> None:
    def measure(recipe: Recipe) -> dict[str, Any]:
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        solved("5%", measure=measure)


def test_no_method_or_an_unknown_size_is_one_sentence() -> None:
    with pytest.raises(BudgetError, match="at least one criterion"):
        solved("5%", methods=[])
    with pytest.raises(BudgetError, match="size"):
        solve(Promise("size", 1.0), METHODS, lambda recipe: {})


def test_the_size_of_a_file_is_never_above_dense() -> None:
    assert SIZE.at(0.0).form == "dense"
    half = SIZE.at(0.5)
    assert half.value == (134_515_008 - 53_084_160) * 4 + 106_168_320 / 8
    assert SIZE.sparsity_for(half.value) == 0.5
    assert SIZE.sparsity_for(1e6) is None
