"""Jobs as command lines: what reproduces on a terminal what a page shows. No torch here."""

from __future__ import annotations

import shlex

from prune_core.engine.jobs import (
    Evaluate,
    Generate,
    HeadImportance,
    Histograms,
    Job,
    LayerTable,
    LoadModel,
    TextSpec,
)
from prune_core.errors import PruneCoreError
from prune_core.recipe import Calibration, Recipe


def recipe_options(recipe: Recipe) -> list[str]:
    """``RECIPE OPTIONS`` of the command line for a recipe.

    A recipe with overrides or criterion arguments needs ``--recipe FILE``; its JSON is given as
    the file's text through the shell (``<(echo …)`` in bash).
    """
    if recipe.overrides or recipe.criterion_args or recipe.allocation_args:
        return ["--recipe", f"<(echo {shlex.quote(recipe.to_json())})"]
    options = [
        *("--criterion", recipe.criterion),
        *("--pattern", recipe.pattern),
        *("--allocation", recipe.allocation),
        *("--sparsity", repr(recipe.sparsity)),
    ]
    if recipe.reconstruction != "none":
        options += ["--reconstruction", recipe.reconstruction]
    chosen, default = recipe.calibration, Calibration()
    if chosen.text != default.text:
        options += _option("--calibration", _text_value(chosen.text))
    for name in ("windows", "seq_len", "skip", "seed", "mode"):
        if getattr(chosen, name) != getattr(default, name):
            options += [f"--calibration-{name.replace('_', '-')}", str(getattr(chosen, name))]
    if recipe.drop_heads:
        options += ["--drop-heads", ",".join(f"{b}:{h}" for b, h in recipe.drop_heads)]
    return options


def _text_value(text: TextSpec) -> str:
    """A preset's name, a path, or for pasted text the name of a file to save it in."""
    return "text.txt" if text.kind == "inline" else text.value


def _option(name: str, value: str) -> list[str]:
    """An option with free text as its value: one that begins with a dash would pass for another."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def command_line(job: Job) -> str:
    """The ``python -m prune_core`` command that computes what ``job`` computes, quoted for a shell.

    Raises:
        PruneCoreError: no verb of the command line computes this kind of job.
    """
    match job:
        case Evaluate():
            words = ["evaluate", job.source, *recipe_options(job.recipe)]
            words += _option("--text", _text_value(job.text))
            words += ["--seq-len", str(job.seq_len), "--windows", str(job.windows)]
        case Generate():
            words = ["generate", job.source, *recipe_options(job.recipe)]
            words += _option("--prompt", job.prompt)
            words += ["--max-new-tokens", str(job.max_new_tokens), "--seed", str(job.seed)]
            if job.greedy:
                words += ["--greedy"]
            else:
                words += ["--temperature", repr(job.temperature), "--top-p", repr(job.top_p)]
            words += ["--chat"] if job.chat else []
        case HeadImportance():
            words = ["importance", job.source, "--of", "heads", "--method", job.method]
            if job.method != "weight-norm":
                words += _option("--text", _text_value(job.text))
                words += ["--seq-len", str(job.seq_len), "--windows", str(job.windows)]
            words += ["--normalize"] if job.normalize else []
        case LayerTable() | Histograms() | LoadModel():
            words = ["inspect", job.source]
        case _:
            raise PruneCoreError(f"There is no command for {type(job).__name__}.")
    quoted = [word if word.startswith("<(echo ") else shlex.quote(word) for word in words]
    return " ".join(["python -m prune_core", *quoted])
