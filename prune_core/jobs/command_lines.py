"""Jobs as command lines: what reproduces on a terminal what a page shows. No torch here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from prune_core.errors import PruneCoreError
from prune_core.jobs.base import Job, LoadModel, TextSpec
from prune_core.jobs.blocks import BlockAblation, BlockImportance, GreedyBlocks
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.exports import Cost, Export
from prune_core.jobs.heads import HeadImportance
from prune_core.jobs.neurons import NeuronDetails, NeuronImportance, NeuronProfile
from prune_core.jobs.weights import Histograms, LayerTable, ScoreHistogram
from prune_core.recipes.forms import BY_FIELD, forms_of
from prune_core.recipes.options import option_words
from prune_core.recipes.packing import pack
from prune_core.recipes.recipe import Recipe


def recipe_options(recipe: Recipe) -> list[str]:
    """``RECIPE OPTIONS`` of the command line for a recipe."""
    return option_words(recipe)


def _text_value(text: TextSpec) -> str:
    """A preset's name, a path, or for pasted text the name of a file to save it in."""
    return "text.txt" if text.kind == "inline" else text.value


def _option(name: str, value: str) -> list[str]:
    """An option with free text as its value: one that begins with a dash would pass for another."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def compare_line(
    source: str, recipes: Mapping[str, Recipe], text: TextSpec, seq_len: int, windows: int
) -> str:
    """The command that compares recipes as the Compare page does, quoted for a shell."""
    words = ["--slots", pack(recipes), *_option("--text", _text_value(text))]
    words += ["--seq-len", str(seq_len), "--windows", str(windows)]
    return " ".join(
        ["python -m prune_core compare", *(shlex.quote(word) for word in (source, *words))]
    )


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
            words += option_words(
                job.recipe, [BY_FIELD["criterion_args"], *forms_of("calibration")]
            )
        case LayerTable() | Histograms() | LoadModel():
            words = ["inspect", job.source]
        case _:
            raise PruneCoreError("There is no command for {kind}.", kind=type(job).__name__)
    return " ".join(["python -m prune_core", *(shlex.quote(word) for word in words)])
