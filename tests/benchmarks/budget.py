"""The budget solver against a fine grid, on SmolLM2-135M.

``python -m tests.benchmarks.budget [--write docs/benchmarks.md --append]``. Takes about five
minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prune_core.engine.core import Core
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.sweeps import Budget
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.limits import worse_of
from tests.benchmarks.core import SOURCE
from tests.benchmarks.methods import texts
from tests.benchmarks.report import header, options, publish

WINDOWS, SEQ_LEN = 8, 512
LIMIT = 0.05
STEP, REACH = 0.005, 0.02


def main() -> int:
    """Measure and publish."""
    chosen = options("The budget solver against a fine grid.")
    calibrate, evaluate = texts()
    core = Core()

    def ask(job: Any) -> Mapping[str, Any]:
        return core.run(job)

    base = Recipe(
        criterion="wanda", pattern="per-row", sparsity=0.5, calibration=Calibration(calibrate)
    )
    solved = ask(Budget(SOURCE, (base,), f"{100 * LIMIT:g}%", evaluate, SEQ_LEN, WINDOWS))
    answer = solved["answers"][0]
    found = answer["asked_sparsity"]
    shares = [
        round(found + STEP * n, 4) for n in range(-round(REACH / STEP), round(REACH / STEP) + 1)
    ]
    worse = {}
    for share in shares:
        numbers = ask(Evaluate(SOURCE, replace(base, sparsity=share), evaluate, SEQ_LEN, WINDOWS))
        worse[share] = worse_of(numbers).share
    kept = [share for share in shares if worse[share] <= LIMIT]
    best = max(kept, default=float("nan"))
    held = answer["held_out"] or {}
    lines = header("Budget")
    lines += [
        f"SmolLM2-135M, Wanda per row, {WINDOWS} x {SEQ_LEN} tokens, at most 5 % worse perplexity: "
        f"the solver says {found:.4f} after {answer['evaluations']} evaluations "
        f"({100 * answer['worse']:+.2f} % there; on held-out windows "
        f"{100 * held.get('worse', float('nan')):+.2f} %, "
        f"{100 * held.get('worse_low', float('nan')):+.2f} to "
        f"{100 * held.get('worse_high', float('nan')):+.2f}). A grid of step {STEP} around "
        f"it keeps the promise up to {best:.4f}: {abs(best - found):.4f} apart.",
        "",
        ", ".join(f"{share:.4f}: {100 * value:+.2f} %" for share, value in worse.items()),
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
