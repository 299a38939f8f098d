"""Budget solver: the largest removal that keeps a promise, per method and over all of them.

"At most 5 % worse" brackets each method's measured curve and confirms the answer on text that the
search did not see. "At most 60 MB" needs no search: a bitmask file's size follows from the count of
survivors; the least removal that fits is measured, and the method that loses least by it wins.
What measures is handed in, so that this module knows neither torch nor the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prune_core.errors import Cancelled, PruneCoreError
from prune_core.models.weight_counts import added_share, counts_of
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import Value, exact, method_of, smallest_file
from prune_core.sweeps.limits import BudgetError, Promise, Worse, worse_of
from prune_core.sweeps.records import Run
from prune_core.sweeps.search import bracket

EVALUATIONS = 8
"""Most measurements for one method, the confirmation among them."""

TOLERANCE = 0.009
"""The answer lies at most this far below the sparsity where the measured curve breaks the promise:
with seven measurements bisection alone reaches it from any curve."""

Measure = Callable[[Recipe], Mapping[str, Any]]
Listener = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class FileSize:
    """What decides the size of a bitmask file: survivors as stored, and one bit a weight.

    Attributes:
        parameters: all of the model.
        prunable: those in its layers.
        bytes_dense: all weights as stored.
        zeros: prunable weights that are zero in the loaded model. A recipe that removes as many
            may choose just these, so a removal is only counted on for what it goes beyond them.
    """

    parameters: int
    prunable: int
    bytes_dense: int
    zeros: int = 0

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> FileSize | None:
        """As a run's numbers know it; None where the run removed nothing or is not measured so."""
        counts = counts_of(numbers)
        if counts is not None and numbers.get("bytes_dense"):
            total, prunable = counts.parameters, counts.prunable
            return cls(total, prunable, numbers["bytes_dense"], counts.zeros_before)
        removed, share = sum((numbers.get("removed") or {}).values()), numbers.get("sparsity")
        if not removed or not share or not numbers.get("bytes_dense"):
            return None
        return cls(numbers["parameters"], round(removed / share), numbers["bytes_dense"])

    def at(self, sparsity: float) -> Value:
        """Bytes of the smaller of the bitmask file (an estimate) and the dense file (exact).

        ``sparsity``: zero afterwards, over all prunable weights; no less than is zero already.
        """
        width = self.bytes_dense / self.parameters
        zeros = max(sparsity * self.prunable, self.zeros)
        sparse = (self.parameters - zeros) * width + self.prunable / 8
        if sparse >= self.bytes_dense:
            return exact(self.bytes_dense, "dense")
        return exact(sparse, "bitmask")

    def sparsity_for(self, limit: float) -> float | None:
        """The least sparsity, to four places, whose file fits; None if none does."""
        if self.at(0.0).value <= limit:
            return 0.0
        width = self.bytes_dense / self.parameters
        minimum = (self.parameters * width + self.prunable / 8 - limit) / (self.prunable * width)
        share = math.ceil(minimum * 1e4) / 1e4
        return share if share <= 1 else None


@dataclass(frozen=True, slots=True)
class Family:
    """A method's recipes by how much they remove.

    Attributes:
        method: see ``axes.method_of``.
        base: any recipe of it; its sparsity is replaced. None where only ``steps`` exist.
        steps: recipes from the least removal to the largest, where sparsity is no dial (N:M,
            dropped parts).
    """

    method: tuple[str, ...]
    base: Recipe | None = None
    steps: tuple[Recipe, ...] = ()


def families(recipes: Sequence[Recipe]) -> list[Family]:
    """Methods of these recipes, in their order; recipes that remove nothing belong to none.

    Those that share a method and have no dial of sparsity become steps, in the order given.
    """
    by_method: dict[tuple[str, ...], Family] = {}
    for recipe in recipes:
        if recipe.is_dense:
            continue
        method = method_of(recipe)
        dial = recipe.sparsity > 0 and recipe.kept_of is None and not recipe.removes_structure
        if dial and not recipe.overrides:
            by_method.setdefault(method, Family(method, base=recipe))
        else:
            steps = by_method.get(method, Family(method)).steps
            by_method[method] = Family(method, steps=(*steps, recipe))
    return list(by_method.values())


@dataclass(frozen=True, slots=True)
class Answer:
    """What keeps the promise with one method.

    Attributes:
        method: which.
        state: ``kept`` (a removal keeps it), ``none`` (no removal does), ``dense`` (nothing has to
            go), ``failed``.
        recipe: the largest removal that keeps it (least one that fits, for a size), else None.
        sparsity: counted, of that recipe.
        added: of the prunable weights, those that are zero by that recipe alone.
        worse: measured where the search looked.
        confirmed: the same on held-out text; None where there is none or it failed.
        verdict: of the confirmation: ``kept``, ``broken``, ``unclear`` or empty.
        size: bytes on disk.
        broken_at: least removal measured to break the promise, as the recipe's sparsity.
        evaluations: measurements made, the confirmation among them; reused: runs used instead.
        error: one sentence where ``failed``, or why there is no confirmation.
    """

    method: tuple[str, ...]
    state: str
    recipe: Recipe | None = None
    sparsity: float = 0.0
    worse: Worse | None = None
    confirmed: Worse | None = None
    verdict: str = ""
    size: Value | None = None
    broken_at: float | None = None
    evaluations: int = 0
    reused: int = 0
    error: str = ""
    added: float = 0.0


@dataclass(frozen=True, slots=True)
class Solution:
    """All answers, and the best: the largest removal kept, or for a size the least loss."""

    promise: Promise
    answers: tuple[Answer, ...]
    best: Answer | None


def solve(
    promise: Promise,
    methods: Sequence[Family],
    measure: Measure,
    *,
    confirm: Measure | None = None,
    finished_runs: Sequence[Run] = (),
    size: FileSize | None = None,
    listener: Listener | None = None,
) -> Solution:
    """Find what keeps a promise.

    Args:
        promise: of perplexity or size.
        methods: what may be done; see :func:`families`.
        measure: numbers of ``engine.jobs.Evaluate`` for a recipe.
        confirm: the same on held-out text.
        finished_runs: finished runs on the text of ``measure``: evaluations for nothing.
        size: of the model's files; a size promise needs it for methods with a dial.
        listener: given ``method``, ``sparsity`` and ``evaluations`` before each measurement.

    Raises:
        BudgetError: there is no method, or a size is promised and ``size`` is missing.
        Cancelled: by ``measure`` or ``confirm``.
    """
    if not methods:
        raise BudgetError("there is no method to try; name at least one criterion.")
    if promise.kind == "size" and size is None:
        raise BudgetError("the size of this model's files is not known; run a cell of it first.")
    answers = []
    for family in methods:
        search = _Search(promise, family, measure, confirm, finished_runs, size, listener)
        try:
            answers.append(search.answer())
        except Cancelled:
            raise
        except PruneCoreError as error:
            failed = Answer(family.method, "failed", error=error.sentence)
            answers.append(replace(failed, evaluations=search.evaluations))
    return Solution(promise, tuple(answers), _best(promise, answers))


def joined(promise: Promise, answers: Sequence[Answer]) -> Solution:
    """A solution of answers that were found one by one.

    Raises:
        BudgetError: there are none.
    """
    if not answers:
        raise BudgetError("there is no method to try; name at least one criterion.")
    return Solution(promise, tuple(answers), _best(promise, answers))


def _best(promise: Promise, answers: Sequence[Answer]) -> Answer | None:
    """A promise that held-out text surely breaks is kept only if nothing else is."""
    kept_answers = [a for a in answers if a.state == "kept"]
    sound = [a for a in kept_answers if a.verdict != "broken"] or kept_answers

    def price(answer: Answer) -> float:
        worse = answer.confirmed or answer.worse
        return worse.share if worse else math.inf

    if promise.kind == "size":
        return min(sound, key=price, default=None)
    return max(sound, key=lambda answer: (answer.added, -price(answer)), default=None)


class _Search:
    """One method's search."""

    def __init__(
        self,
        promise: Promise,
        family: Family,
        measure: Measure,
        confirm: Measure | None,
        finished_runs: Sequence[Run],
        size: FileSize | None,
        listener: Listener | None,
    ) -> None:
        self.promise, self.family, self.size = promise, family, size
        self._measure, self._confirm, self._listener = measure, confirm, listener
        self.evaluations = 0
        self.reused = 0
        self.numbers: dict[str, Mapping[str, Any]] = {
            run.cell.recipe.fingerprint: run.numbers
            for run in finished_runs
            if run.state == "done" and method_of(run.cell.recipe) == family.method
        }
        self.finished_recipes = [run.cell.recipe for run in finished_runs]

    def answer(self) -> Answer:
        if self.promise.kind == "size":
            return self._by_size()
        if self.family.base is not None:
            return self._by_dial(self.family.base)
        return self._by_steps(self.family.steps)

    def worse(self, recipe: Recipe) -> Worse:
        """Measured, or as a run has it."""
        numbers = self.numbers.get(recipe.fingerprint)
        if numbers is None:
            numbers = self._call(self._measure, recipe)
            self.numbers[recipe.fingerprint] = numbers
        return worse_of(numbers)

    def _call(self, measure: Measure, recipe: Recipe) -> Mapping[str, Any]:
        if self._listener is not None:
            place = {"method": self.family.method, "sparsity": recipe.sparsity}
            self._listener({**place, "evaluations": self.evaluations})
        self.evaluations += 1
        return measure(recipe)

    def _by_dial(self, base: Recipe) -> Answer:
        def at(sparsity: float) -> Recipe:
            return replace(base, sparsity=sparsity)

        def loss(sparsity: float) -> float:
            return math.log1p(self.worse(at(sparsity)).share)

        losses = {
            recipe.sparsity: math.log1p(worse_of(self.numbers[recipe.fingerprint]).share)
            for recipe in self.finished_recipes
            if recipe.fingerprint in self.numbers and at(recipe.sparsity) == recipe
        }
        self.reused = len(losses)
        limit = EVALUATIONS - (self._confirm is not None)
        ends = bracket(
            loss, self.promise.loss, known_losses=losses, tolerance=TOLERANCE, evaluations=limit
        )
        if not ends.low:
            return self._no_answer(ends.high)
        return self._answer(at(ends.low), ends.high)

    def _by_steps(self, steps: Sequence[Recipe]) -> Answer:
        """Bisection over the steps; more removal is taken to be worse."""
        self.reused = sum(recipe.fingerprint in self.numbers for recipe in steps)
        low, high = -1, len(steps)
        while high - low > 1:
            middle = (low + high) // 2
            if self.worse(steps[middle]).share <= self.promise.limit:
                low = middle
            else:
                high = middle
        broken = steps[high].sparsity if high < len(steps) else None
        return self._no_answer(broken) if low < 0 else self._answer(steps[low], broken)

    def _by_size(self) -> Answer:
        assert self.size is not None  # solve has checked
        if self.size.at(0.0).value <= self.promise.limit:
            return Answer(self.family.method, "dense", Recipe(), size=self.size.at(0.0))
        fitting: Recipe | None = None
        if self.family.base is not None:
            share = self.size.sparsity_for(self.promise.limit)
            fitting = None if share is None else replace(self.family.base, sparsity=share)
        for step in self.family.steps:
            if fitting is None and self._bytes(step).value <= self.promise.limit:
                fitting = step
        if fitting is None:
            return self._no_answer(None)
        self.reused = int(fitting.fingerprint in self.numbers)
        return self._answer(fitting, None)

    def _bytes(self, recipe: Recipe) -> Value:
        assert self.size is not None
        numbers = self.numbers.get(recipe.fingerprint)
        file_size = smallest_file(numbers) if numbers is not None else None
        zero_share = (
            numbers.get("zeros_after", numbers.get("sparsity")) if numbers is not None else None
        )
        return file_size or self.size.at(recipe.sparsity if zero_share is None else zero_share)

    def _no_answer(self, broken_at: float | None) -> Answer:
        least = self.size.at(1.0) if self.size and self.promise.kind == "size" else None
        return Answer(
            self.family.method,
            "none",
            size=least,
            broken_at=broken_at,
            evaluations=self.evaluations,
            reused=self.reused,
        )

    def _answer(self, recipe: Recipe, broken_at: float | None) -> Answer:
        has_loss = True
        try:
            measured: Worse | None = self.worse(recipe)
        except BudgetError:  # an encoder has a size, but no perplexity
            if self.promise.kind != "size":
                raise
            measured, has_loss = None, False
        confirmed, verdict, error = None, "", ""
        if self._confirm is not None and has_loss:
            try:
                confirmed = worse_of(self._call(self._confirm, recipe))
            except Cancelled:
                raise
            except PruneCoreError as problem:
                error = problem.sentence
            if confirmed is not None and self.promise.kind == "worse":
                verdict = confirmed.state(self.promise.limit)
        numbers = self.numbers[recipe.fingerprint]
        zero_share = numbers.get("sparsity")
        return Answer(
            self.family.method,
            "kept",
            recipe,
            recipe.sparsity if zero_share is None else float(zero_share),
            measured,
            confirmed,
            verdict,
            self._bytes(recipe) if self.size is not None else None,
            broken_at,
            self.evaluations,
            self.reused,
            error,
            added_share(numbers) if zero_share is not None else recipe.sparsity,
        )
