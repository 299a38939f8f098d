"""Frontiers and solutions as plain data for machines, and in one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.sweeps.axes import Value
from prune_core.sweeps.budget import Answer, Solution
from prune_core.sweeps.frontier import Frontier, Point
from prune_core.sweeps.limits import Promise, Worse
from prune_core.words.numbers import counted_share, error_in, measured, percent_measured, size


def frontier_to_dict(frontier: Frontier) -> dict[str, Any]:
    """Every field of a frontier; methods are lists of names, points know their state."""
    return {
        "cost": frontier.cost,
        "quality": frontier.quality,
        "points": [_point(point) for point in frontier.points],
        "dense": None if frontier.dense is None else _point(frontier.dense),
        "front": [_point(point) for point in frontier.front],
        "knee": None if frontier.knee is None else _point(frontier.knee),
        "knee_by": "largest distance below the chord of the front, costs and perplexity by "
        "their logarithms, both axes scaled to 1",
        "dominated": [
            {"method": list(method), "by": [list(other) for other in by]}
            for method, by in frontier.dominated.items()
        ],
        "unclear": list(frontier.unclear),
        "left_out": list(frontier.left_out),
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "run": point.run,
        "method": list(point.method),
        "sparsity": point.sparsity,
        "added": point.added,
        "state": point.state,
        "beaten_by": [list(method) for method in point.beaten_by],
        **_value("cost", point.cost),
        **_value("quality", point.quality),
        "recipe": point.recipe.to_dict(),
        "fingerprint": point.recipe.fingerprint,
    }


def _value(name: str, value: Value) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: value.value,
        f"{name}_low": value.low,
        f"{name}_high": value.high,
    }
    if value.form:
        fields |= {f"{name}_form": value.form, f"{name}_is_estimate": value.is_estimate}
    return fields


def solution_to_dict(solution: Solution) -> dict[str, Any]:
    """Every field of a solution, with its sentence."""
    best = solution.best
    return {
        "budget": {"kind": solution.promise.kind, "limit": solution.promise.limit},
        "answers": [_answer(answer) for answer in solution.answers],
        "best": None if best is None else _answer(best),
        "sentence": sentence(solution),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    recipe = answer.recipe
    return {
        "method": list(answer.method),
        "state": answer.state,
        "sparsity": answer.sparsity,
        "added": answer.added,
        "recipe": None if recipe is None else recipe.to_dict(),
        "fingerprint": None if recipe is None else recipe.fingerprint,
        "asked_sparsity": None if recipe is None else recipe.sparsity,
        **_worse(answer.worse),
        "held_out": None if answer.confirmed is None else _worse(answer.confirmed),
        "verdict": answer.verdict or None,
        "broken_at": answer.broken_at,
        "bytes": None if answer.size is None else answer.size.value,
        "bytes_form": None if answer.size is None else answer.size.form,
        "evaluations": answer.evaluations,
        "reused": answer.reused,
        "error": answer.error or None,
    }


def _worse(worse: Worse | None) -> dict[str, Any]:
    if worse is None:
        return {"worse": None, "worse_low": None, "worse_high": None, "tokens": None}
    return {
        "worse": worse.share,
        "worse_low": worse.low,
        "worse_high": worse.high,
        "tokens": worse.tokens,
    }


def promised(promise: Promise) -> str:
    """A promise in words."""
    if promise.kind == "size":
        return f"at most {promise.limit / 1e6:g} MB on disk"
    return f"at most {100 * promise.limit:g} % worse perplexity"


def sentence(solution: Solution) -> str:
    """The best answer, in one plain English sentence."""
    best, target = solution.best, promised(solution.promise)
    if best is None:
        states = {answer.state for answer in solution.answers}
        if states == {"failed"}:
            return f"No method could be measured: {solution.answers[0].error}"
        if "dense" in states:
            zeros = [a for a in solution.answers if a.size is not None and a.size.is_estimate]
            form = ", packed without the zeros that it has already" if zeros else ""
            return f"The dense model itself keeps {target}{form}; nothing has to go."
        smallest = [a.size.value for a in solution.answers if a.size and a.state == "none"]
        if solution.promise.kind == "size" and smallest:
            return (
                f"No recipe keeps {target}: with every prunable weight gone the file is still "
                f"{size(min(smallest))}."
            )
        return f"No removal keeps {target}: only the dense model does."
    text = f"{' '.join(best.method)} removes {removal(best.sparsity, best.added)}"
    if solution.promise.kind == "size" and best.size is not None:
        kind = "by estimate" if best.size.is_estimate else "exactly"
        text += f" and is {size(best.size.value)}, {kind}"
    if best.worse is not None:
        text += f", at {spoken_worse(_worse(best.worse))} perplexity"
    if best.confirmed is None:
        return f"{text}; not confirmed on held-out text{f': {best.error}' * bool(best.error)}"
    ends = {
        "kept": ": the promise holds there too.",
        "unclear": ": the interval reaches across the promise.",
        "broken": ": there the promise is broken.",
        "": ".",
    }
    return f"{text}; on held-out text {spoken_worse(_worse(best.confirmed))}{ends[best.verdict]}"


def removal(sparsity: float, added: float) -> str:
    """A removal, and what of it is one: ``50 % of the prunable weights``, more where zeros were.

    Args:
        sparsity: removed, over all prunable weights.
        added: of the prunable weights, those that are zero by the removal alone.
    """
    text = f"{counted_share(sparsity)} of the prunable weights"
    if sparsity > 0 and added == 0:
        return f"{text} (all of them were zero before: nothing is gained)"
    if sparsity - added > 1e-9:
        return f"{text} ({counted_share(added)} were not zero before)"
    return text


def spoken_worse(worse: Mapping[str, Any]) -> str:
    """``4.21 % worse (3.90 to 4.52)``, from the fields of an answer."""
    low, high = worse["worse_low"], worse["worse_high"]
    error = error_in(low, high)
    text = f"{percent_measured(worse['worse'], error)} worse"
    if error is None:
        return text
    return f"{text} ({percent_measured(low, error)} to {percent_measured(high, error)})"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of :func:`frontier_to_dict` points for a terminal."""
    head = f"{'':9} {'removed':>9} {'added':>9} {'cost':>16} {'quality':>12}"
    lines = [f"{head}  {'95 % interval':22} method"]
    for row in rows:
        method = " ".join(row["method"]) or "dense"
        low, high = row["quality_low"], row["quality_high"]
        error = error_in(low, high)
        interval = "" if error is None else f"{measured(low, error)} to {measured(high, error)}"
        shares = f"{counted_share(row['sparsity']):>9} {counted_share(row['added']):>9}"
        cost = f"{row['cost']:,.0f}" if row["cost"] >= 1000 else measured(row["cost"])
        lines.append(
            f"{row['state']:9} {shares} {cost:>16} {measured(row['quality'], error):>12}"
            f"  {interval:22} {method}"
        )
    return "\n".join(lines)
