"""What the removal of neurons costs on SmolLM2-135M, by method and by where they compete.

``python -m tests.benchmarks.neurons [--write docs/benchmarks.md --append]``. Takes about three
minutes on two cores. Nothing is timed.
"""

from __future__ import annotations

from prune_core.engine.core import Core
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES, NeuronShare
from prune_core.recipes.recipe import Recipe
from tests.benchmarks.core import SOURCE
from tests.benchmarks.report import header, options, publish, table

FRACTIONS = (0.1, 0.2)
SEQ_LEN, WINDOWS = 256, 8


def main() -> int:
    """Measure and publish."""
    chosen = options("What the removal of neurons costs.")
    core, text = Core(), TextSpec("preset", "grimm")

    def perplexity(recipe: Recipe) -> str:
        job = Evaluate(SOURCE, recipe, text, SEQ_LEN, WINDOWS)
        found = core.run(job)
        return f"{found['perplexity']:.2f}"

    rows = [
        [
            method,
            *(
                perplexity(Recipe(neurons=NeuronShare(fraction, method, scope)))
                for fraction in FRACTIONS
                for scope in NEURON_SCOPES
            ),
        ]
        for method in NEURON_METHODS
    ]
    heads = [f"{fraction:.0%}, {scope}" for fraction in FRACTIONS for scope in NEURON_SCOPES]
    lines = header("Neurons removed")
    lines += [
        f"Perplexity of SmolLM2-135M, float32, on {WINDOWS} x {SEQ_LEN} tokens of `grimm`; dense "
        f"{perplexity(Recipe())}. Calibration as the app has it.",
        "",
        *table(["", *heads], rows),
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
