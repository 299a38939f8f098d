"""Jobs as command lines: what reproduces on a terminal what a page shows. No torch here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from prune_core.errors import PruneCoreError
from prune_core.jobs.base import Job, LoadModel, TextSpec
from prune_core.jobs.blocks import BlockAblation, BlockImportance, GreedyBlocks
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.exports import Cost, Export
from prune_core.jobs.heads import HeadImportance
from prune_core.jobs.neurons import NeuronDetails, NeuronImportance, NeuronProfile
from prune_core.jobs.weights import Histograms, LayerTable, ScoreHistogram
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.parts import HEAD_FIELDS, WHOLE
from prune_core.recipes.recipe import Recipe

MAX_NEURONS = 50
"""More dropped neurons than these go through a recipe file."""


def recipe_options(recipe: Recipe) -> list[str]:
    """``RECIPE OPTIONS`` of the command line for a recipe.

    A recipe with overrides or criterion arguments needs ``--recipe FILE``; its JSON is given as
    the file's text through the shell (``<(echo …)`` in bash).
    """
    many = len(recipe.drop_neurons) > MAX_NEURONS
    if recipe.overrides or recipe.criterion_args or recipe.allocation_args or many:
        return ["--recipe", f"<(echo {shlex.quote(recipe.to_json())})"]
    options = [
        *("--criterion", recipe.criterion),
        *("--pattern", recipe.pattern),
        *("--allocation", recipe.allocation),
        *("--sparsity", repr(recipe.sparsity)),
    ]
    if recipe.reconstruction != "none":
        options += ["--reconstruction", recipe.reconstruction]
    options += _calibration_options(recipe)
    for name in HEAD_FIELDS.values():
        if pairs := getattr(recipe, name):
            options += [_flag(name), _pairs(pairs)]
    options += _neuron_options(recipe)
    for name in WHOLE:
        if blocks := getattr(recipe, name):
            options += [_flag(name), ",".join(str(block) for block in blocks)]
    return options


def _neuron_options(recipe: Recipe) -> list[str]:
    """A share and named neurons stand together in one option."""
    share = recipe.neurons
    given = [] if share is None else [repr(share.fraction)]
    given += [_pairs(recipe.drop_neurons)] if recipe.drop_neurons else []
    options = ["--drop-neurons", ",".join(given)] if given else []
    if share is not None:
        options += ["--neuron-method", share.method, "--neuron-scope", share.scope]
    return [*options, "--compensate"] if recipe.compensate else options


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    return ",".join(f"{block}:{part}" for block, part in pairs)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _calibration_options(recipe: Recipe) -> list[str]:
    """What differs from the defaults; nothing for a recipe that reads no calibration text."""
    options: list[str] = []
    chosen, default = recipe.calibration, Calibration()
    if chosen.text != default.text:
        options += _option("--calibration", _text_value(chosen.text))
    for name in ("windows", "seq_len", "skip", "seed", "mode"):
        if getattr(chosen, name) != getattr(default, name):
            options += [f"--calibration-{name.replace('_', '-')}", str(getattr(chosen, name))]
    return options


def _text_value(text: TextSpec) -> str:
    """A preset's name, a path, or for pasted text the name of a file to save it in."""
    return "text.txt" if text.kind == "inline" else text.value


def _option(name: str, value: str) -> list[str]:
    """An option with free text as its value: one that begins with a dash would pass for another."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def compare_line(
    source: str, recipes: Mapping[str, Recipe], text: TextSpec, seq_len: int, windows: int
) -> str:
    """The command that compares recipes as the Compare page does, quoted for a shell (bash)."""
    files = [f"<(echo {shlex.quote(recipe.to_json())})" for recipe in recipes.values()]
    words = _option("--text", _text_value(text))
    words += ["--seq-len", str(seq_len), "--windows", str(windows)]
    begin = ["python -m prune_core compare", shlex.quote(source), "--recipes", *files]
    return " ".join([*begin, *(shlex.quote(word) for word in words)])


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
        case BlockImportance() | BlockAblation() | GreedyBlocks():
            words = ["importance", job.source, "--of", "blocks", "--method"]
            match job:
                case BlockAblation():
                    words += ["ablation", *(["--halves"] if job.parts != ("block",) else [])]
                case GreedyBlocks():
                    words += ["greedy", "--steps", str(job.steps)]
                    words += ["--ends"] if job.ends else []
                case _:
                    words += ["block-influence"]
            words += _option("--text", _text_value(job.text))
            words += ["--seq-len", str(job.seq_len), "--windows", str(job.windows)]
        case NeuronImportance():
            words = ["importance", job.source, "--of", "neurons", "--method", job.method]
            words += _option("--text", _text_value(job.text))
            words += ["--seq-len", str(job.seq_len), "--windows", str(job.windows)]
        case NeuronProfile():
            chosen = job.calibration
            words = ["importance", job.source, "--of", "neurons"]
            words += _option("--text", _text_value(chosen.text))
            words += ["--seq-len", str(chosen.seq_len), "--windows", str(chosen.windows)]
        case NeuronDetails():
            words = ["importance", job.source, "--of", "neurons"]
            words += ["--neuron", f"{job.block}:{job.neuron}"]
            words += _option("--text", _text_value(job.text))
            words += ["--seq-len", str(job.seq_len), "--windows", str(job.windows)]
        case Export():
            words = ["export", job.source, *recipe_options(job.recipe)]
            words += ["--format", job.format, *_option("--to", job.folder)]
            words += ["--overwrite"] if job.overwrite else []
            words += _option("--text", _text_value(job.text))
            words += ["--seq-len", str(job.seq_len), "--windows", str(job.windows)]
        case Cost():
            words = ["cost", job.source, *recipe_options(job.recipe)]
            words += ["--repeats", str(job.repeats)]
        case HeadImportance():
            words = ["importance", job.source, "--of", "heads", "--method", job.method]
            if job.method != "weight-norm":
                words += _option("--text", _text_value(job.text))
                words += ["--seq-len", str(job.seq_len), "--windows", str(job.windows)]
            words += ["--normalize"] if job.normalize and job.method == "gradient" else []
        case LayerTable(scored=True) | ScoreHistogram():
            words = ["inspect", job.source, "--scores", job.recipe.criterion]
            words += _calibration_options(job.recipe)
        case LayerTable() | Histograms() | LoadModel():
            words = ["inspect", job.source]
        case _:
            raise PruneCoreError(f"There is no command for {type(job).__name__}.")
    quoted = [word if word.startswith("<(echo ") else shlex.quote(word) for word in words]
    return " ".join(["python -m prune_core", *quoted])
