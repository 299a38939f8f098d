"""What a run costs and what it is worth, as values with intervals; what may share one picture.

Pure: runs in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prune_core.errors import PruneCoreError
from prune_core.evaluation.estimate import Z95, safe_exp
from prune_core.evaluation.metrics import METRICS, qualities
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.parts import STRUCTURE
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence
from prune_core.sweeps.records import Cell, Run

COSTS = ("nonzero", "bytes", "decode", "prefill", "memory")
"""Axes of cost: non-zero parameters, bytes on disk, tokens per second, peak bytes of memory."""

QUALITIES = qualities()
"""Axes of quality: metrics that compare with the dense model as one number, see ``METRICS``."""

MORE_IS_BETTER = frozenset(
    {"decode", "prefill", *(x for x in QUALITIES if METRICS[x].more_is_better)}
)

LOSS = "nll"
"""What :func:`paired` compares window by window: mean losses."""

SAME_LOSS = 1e-4
"""Dense losses of one window, in nats, that differ by no more come from the same tokens."""


class UnlikeRunsError(PruneCoreError):
    """Runs were measured in different ways: side by side their numbers would mislead."""


@dataclass(frozen=True, slots=True)
class Value:
    """A number with its 95 % interval.

    Attributes:
        value: best estimate.
        low, high: interval; both equal ``value`` where it is counted or computed, not sampled.
        form: for bytes, the file: ``dense``, ``shrunk`` (both exact) or ``bitmask`` (survivors
            and one bit a weight: an estimate); else empty.
    """

    value: float
    low: float
    high: float
    form: str = ""

    @property
    def is_estimate(self) -> bool:
        """A size that no written file has confirmed."""
        return self.form == "bitmask"


def exact(value: float, form: str = "") -> Value:
    """A value without an interval."""
    return Value(float(value), float(value), float(value), form)


def smallest_file(numbers: Mapping[str, Any]) -> Value | None:
    """Bytes on disk in the smallest form there is for a run's recipe."""
    forms = (("dense", "bytes_dense"), ("shrunk", "bytes_shrunk"), ("bitmask", "bytes_sparse"))
    files = [(numbers[key], form) for form, key in forms if numbers.get(key) is not None]
    return exact(*min(files, key=lambda pair: pair[0])) if files else None


def cost_value(run: Run, axis: str) -> Value | None:
    """A run's place on an axis of :data:`COSTS`; None where it was not measured."""
    if axis == "bytes":
        return smallest_file(run.numbers)
    number = run.numbers.get({"memory": "peak_memory"}.get(axis, axis))
    if isinstance(number, Mapping):
        return Value(float(number["median"]), float(number["low"]), float(number["high"]))
    return None if number is None else exact(number)


def dense_cost(numbers: Mapping[str, Any], axis: str) -> Value | None:
    """The dense model's place on an axis of size, as any run of it knows it; None on the others.

    Its own zeros count as a run's do. Runs of versions that did not count them know only what the
    dense model has as it stands.
    """
    if axis == "nonzero":
        count = numbers.get("nonzero_dense", numbers.get("parameters"))
        return None if count is None else exact(count)
    if axis != "bytes" or numbers.get("bytes_dense") is None:
        return None
    plain, sparse = numbers["bytes_dense"], numbers.get("bytes_sparse_dense")
    if sparse is not None and sparse < plain:
        return exact(sparse, "bitmask")
    return exact(plain, "dense")


def quality_value(run: Run, axis: str, dense_loss: float | None = None) -> Value | None:
    """A run's place on an axis of :data:`QUALITIES`; None where it is not known or not finite.

    Args:
        run: a finished run.
        axis: which.
        dense_loss: mean loss of the dense model on the windows of the run that read most of them.
            A perplexity is then that answer with this run's paired difference added, so that runs
            which stopped earlier stand on the same ground.
    """
    numbers = run.numbers
    # a sweep that looks more than once allows for it by a wider interval
    factor = float((numbers.get("interval") or {}).get("factor") or Z95)
    metric = METRICS[axis]
    if metric.paired == LOSS:  # its exponent: the interval is that of the paired difference
        value, error = numbers.get(axis), numbers.get(METRICS["delta_nll"].error)
        low, high = numbers.get(metric.low), numbers.get(metric.high)
        if dense_loss is not None and numbers.get("delta_nll") is not None:
            best = dense_loss + numbers["delta_nll"]
            value = safe_exp(best)
            low, high = (
                (None, None)
                if error is None
                else (safe_exp(best - factor * error), safe_exp(best + factor * error))
            )
    else:
        value, error = numbers.get(axis), numbers.get(metric.error)
        low, high = numbers.get(metric.low), numbers.get(metric.high)
        if low is None and value is not None and error is not None:
            low, high = value - factor * error, value + factor * error
    if value is None or not math.isfinite(value):
        return None
    if low is None or high is None:
        return exact(value)
    return Value(float(value), float(low), float(high))


def method_of(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe does apart from how much: the same for all points of one line of a picture.

    Names in order: criterion and pattern, what differs from the plain choices, parts removed.
    """
    names: list[str] = []
    if recipe.removes_weights:
        names += [recipe.criterion, recipe.pattern]
        names += [recipe.allocation] if recipe.allocation != "uniform" else []
        names += [f"+{recipe.reconstruction}"] if recipe.reconstruction != "none" else []
        arguments = {**recipe.criterion_args, **recipe.allocation_args}
        arguments.pop("value", None)  # of a threshold: it is the amount
        names += [f"{name}={arguments[name]:g}" for name in sorted(arguments)]
        calibration = recipe.calibration
        if calibration != Calibration():
            text_name = "text" if calibration.text.kind == "inline" else calibration.text.value
            names.append(f"{text_name} {calibration.windows}x{calibration.seq_len}")
            names += [calibration.mode] if calibration.mode != "auto" else []
        names += ["overrides"] if recipe.overrides else []
    names += [part.removeprefix("drop_") for part in STRUCTURE if getattr(recipe, part)]
    if recipe.neurons is not None:
        names += ["neurons", *([recipe.neurons.method] if not recipe.drop_neurons else [])]
    names += ["compensated"] if recipe.compensate else []
    return tuple(dict.fromkeys(names))


# ---- what may share one picture --------------------------------------------------------------


def protocol_of(run: Run) -> dict[str, Any]:
    """How a run was measured, as far as it decides whether its numbers compare with others'."""
    protocol, cell = run.numbers.get("protocol") or {}, run.cell
    return {
        "model": protocol.get("model_fingerprint") or cell.source,
        "text": f"{cell.text.kind}:{cell.text.value}",
        "seq_len": protocol.get("seq_len") or cell.seq_len,
        "windows": cell.windows,
        "dtype": protocol.get("dtype") or "",
    }


def alike_groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs parted into those that may share a picture, the largest group first."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if unlike(group[0], run) is None:
                group.append(run)
                break
        else:
            groups.append([run])
    return sorted(groups, key=len, reverse=True)


def unlike(first: Run, second: Run) -> str | None:
    """The first field of the protocol in which two runs differ, or None.

    The texts are compared by what the dense model lost on each window: it tells apart what a
    file's name cannot, and finds that a run which stopped early read the same windows.
    """
    ours, theirs = protocol_of(first), protocol_of(second)
    for name, mine in ours.items():
        if mine != theirs[name]:
            return name
    one, other = (run.numbers.get("window_nll_dense") or [] for run in (first, second))
    apart = any(abs(a - b) > SAME_LOSS for a, b in zip(one, other, strict=False))
    return "text" if apart else None


def check_alike(runs: Sequence[Run]) -> None:
    """Refuse runs that may not share one picture.

    Raises:
        UnlikeRunsError: two were measured in different ways; the message says in what.
    """
    for run in runs[1:]:
        name = unlike(runs[0], run)
        if name is not None:
            one, other = protocol_of(runs[0])[name], protocol_of(run)[name]
            what = {"seq_len": "window length", "windows": "number of windows"}.get(name, name)
            if one != other:
                raise UnlikeRunsError(
                    "these runs were not measured alike: they differ in {what} ({one} and "
                    "{other}); choose runs of one model, text, window length, number of windows "
                    "and dtype.",
                    what=Sentence(what),
                    one=one,
                    other=other,
                )
            raise UnlikeRunsError(
                "these runs were not measured alike: they differ in {what}; choose runs of one "
                "model, text, window length, number of windows and dtype.",
                what=Sentence(what),
            )


def paired(first: Run, second: Run) -> tuple[float, float] | None:
    """Mean and standard error of a loss difference (first - second) over the windows both read.

    Both answered the same tokens, so hard and easy windows cancel: this tells two recipes apart
    where their two intervals overlap. None below two common windows.
    """
    ours, theirs = (run.numbers.get("window_nll") or [] for run in (first, second))
    n = min(len(ours), len(theirs))
    if n < 2:
        return None
    apart = [a - b for a, b in zip(ours[:n], theirs[:n], strict=True)]
    mean = sum(apart) / n
    spread = sum((d - mean) ** 2 for d in apart) / (n - 1)
    return mean, math.sqrt(spread / n)


def same_question(cell: Cell, run: Run) -> bool:
    """A finished run answers what ``cell`` asks, whatever its recipe: it need not be measured."""
    other = run.cell
    return (
        run.state == "done"
        and other.source == cell.source
        and other.text == cell.text
        and other.seq_len == cell.seq_len
        and other.windows == cell.windows
    )
