"""The command line: the library without a browser. Each verb runs one job, inline.

With ``--json`` standard output holds one JSON object and nothing else. The exit code is 0 only on
success; errors are one sentence on standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from prune_core import (
    cli_checks,
    cli_compare,
    cli_export,
    cli_frontier,
    cli_importance,
    cli_neurons,
    cli_report,
    cli_sweep,
)
from prune_core.engine.jobs import (
    Evaluate,
    Generate,
    Job,
    LayerTable,
    TextSpec,
)
from prune_core.errors import Cancelled, PruneCoreError, RecipeError
from prune_core.models.weight_counts import WeightCounts, removed_in_words, zeros_in_words
from prune_core.recipe import (
    ALLOCATIONS,
    RECONSTRUCTIONS,
    Calibration,
    Recipe,
)
from prune_core.words.numbers import counted_share, error_in, measured, with_error

if TYPE_CHECKING:
    from prune_core.engine.core import Core

Result = dict[str, Any]

QUANTILES = ("q01", "q25", "q50", "q75", "q99")
"""Of |w|, in every row of ``inspect``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    try:
        try:
            return _main(arguments)
        finally:  # at the end of the program it is too late for a sentence; --help ends it too
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has enough, as with | head
        cli_checks.leave_output()
        return 128 + 13  # what a shell shows of SIGPIPE
    except OSError as error:
        cli_checks.leave_output()
        _say(f"The answer could not be written: {error.strerror or error}.")
        return 1


def _main(arguments: Sequence[str] | None) -> int:
    parsed = command_parser().parse_args(arguments)
    try:
        result: Result = parsed.verb(parsed)
    except KeyboardInterrupt:
        _say("Cancelled.")
        return 130
    except PruneCoreError as error:
        _say(str(error))
        return 130 if isinstance(error, Cancelled) else 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _say(f"{error.strerror or error}{where}.")
        return 1
    if parsed.json:
        print(json.dumps(_finite(result), allow_nan=False))
    else:
        parsed.show(result)
    return 0


def _say(sentence: str) -> None:
    """One line on standard error, in place of a progress line that may stand there."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{sentence}", file=sys.stderr)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


# ---- options ---------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, where argparse would print the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:]}; --help says what is possible.\n")


def command_parser() -> argparse.ArgumentParser:
    """The parser of the command line; ``verb`` of what it returns runs the command."""
    parser = _Parser(prog="python -m prune_core", description="Prunescope without a browser.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(
        name: str, run: Callable[..., Result], show: Callable[[Result], None], help_text: str
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(verb=run, show=show)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        return sub

    sub = verb("fetch", _fetch, _show_fetch, "Get or verify preset models and texts.")
    sub.add_argument("names", nargs="*", metavar="NAME", help="default: smollm2-135m and grimm")

    sub = verb("inspect", _inspect, _show_rows, "Statistics of every layer of a model.")
    sub.add_argument("model", metavar="MODEL")
    sub.add_argument("--scores", metavar="CRITERION", help="what a criterion gives each layer too")
    _calibration_options(sub)

    cli_importance.add_verb(verb, _text_options)

    sub = verb("evaluate", _evaluate, _show_evaluation, "Apply a recipe and measure it on a text.")
    sub.add_argument("model", metavar="MODEL")
    _recipe_options(sub)
    _text_options(sub, windows=16, seq_len=512)

    sub = verb("compare", cli_compare.run, cli_compare.show, "Two to four recipes side by side.")
    cli_compare.options(sub)
    _text_options(sub, windows=16, seq_len=512)

    sub = verb(
        "frontier",
        cli_frontier.run,
        cli_frontier.show,
        "Which runs of a store nothing beats, or what keeps a budget.",
    )
    cli_frontier.options(sub)
    _calibration_options(sub)
    _text_options(sub, windows=8, seq_len=512)

    sub = verb(
        "sweep",
        cli_sweep.sweep,
        cli_sweep.show_sweep,
        "Measure a grid, cell by cell, into a store.",
    )
    cli_sweep.sweep_options(sub)

    sub = verb(
        "runs", cli_sweep.runs, cli_sweep.show_runs, "List, search, note, delete and move runs."
    )
    cli_sweep.runs_options(sub)

    sub = verb(
        "report", cli_report.run, cli_report.show, "Slides, a page and tables from a store's runs."
    )
    cli_report.options(sub)

    sub = verb("generate", _generate, _show_generation, "Continue a prompt, dense and pruned.")
    sub.add_argument("model", metavar="MODEL")
    _recipe_options(sub)
    sub.add_argument("--prompt", required=True, metavar="TEXT", help="what both models continue")
    sub.add_argument(
        "--max-new-tokens",
        type=int,
        default=64,
        metavar="TOKENS",
        help="most tokens that each answer gets, 1 to 1024; default: 64",
    )
    sub.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same number draws the same text again, 0 to 2^63 - 1; default: 0",
    )
    sub.add_argument("--greedy", action="store_true", help="always the likeliest token")
    sub.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="0.01 to 10: above 1 unlikely tokens come more often, below 1 less; default: 0.8",
    )
    sub.add_argument(
        "--top-p",
        type=float,
        default=0.95,
        metavar="P",
        help="draw from the likeliest tokens that have this probability together, above 0 to 1; "
        "default: 0.95",
    )
    sub.add_argument("--chat", action="store_true", help="wrap the prompt in the chat template")

    cli_export.add_verbs(verb, _recipe_options, _text_options)
    return parser


def _text_options(
    sub: argparse.ArgumentParser, *, windows: int, seq_len: int, use: str = "to measure the model"
) -> None:
    sub.add_argument(
        "--text",
        default="grimm",
        metavar="FILE",
        help=f"what is read {use}: a text preset or a file; default: grimm",
    )
    sub.add_argument(
        "--seq-len",
        type=int,
        default=seq_len,
        metavar="TOKENS",
        help=f"tokens in a window of --text, at most the model's context; default: {seq_len}",
    )
    sub.add_argument(
        "--windows",
        type=int,
        default=windows,
        metavar="N",
        help=f"windows of --text from its start on, 1 to 4096; default: {windows}",
    )


def _recipe_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--recipe", metavar="FILE", help="a recipe as JSON; replaces the options below"
    )
    sub.add_argument(
        "--criterion",
        default="magnitude",
        metavar="NAME",
        help="scores the weights; the lowest go: " + ", ".join(_criteria()),
    )
    sub.add_argument("--pattern", default="per-layer", help="per-layer, per-row, nm:N:M or block:B")
    sub.add_argument("--allocation", default="uniform", help=", ".join(ALLOCATIONS))
    sub.add_argument("--reconstruction", default="none", help=" or ".join(RECONSTRUCTIONS))
    sub.add_argument("--sparsity", type=float, help="0 to 1; N:M brings its own")
    _calibration_options(sub)
    sub.add_argument("--drop-heads", default="", metavar="B:H,…", help="query heads to remove")
    sub.add_argument(
        "--drop-cross-heads", default="", metavar="B:H,…", help="those of cross-attention"
    )
    cli_neurons.recipe_options(sub)
    sub.add_argument("--drop-blocks", default="", metavar="B,…", help="blocks to remove")
    sub.add_argument("--drop-attention", default="", metavar="B,…", help="only their attention")
    sub.add_argument("--drop-mlp", default="", metavar="B,…", help="only their MLP")


def _calibration_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--calibration",
        default="andersen",
        metavar="FILE",
        help="text for criteria that need one: a preset or a file; default: andersen",
    )
    sub.add_argument(
        "--calibration-windows",
        type=int,
        default=32,
        metavar="N",
        help="windows of --calibration, 1 to 4096; default: 32",
    )
    sub.add_argument(
        "--calibration-seq-len",
        type=int,
        default=512,
        metavar="TOKENS",
        help="tokens in a window of --calibration, at most the model's context; default: 512",
    )
    sub.add_argument(
        "--calibration-skip",
        type=int,
        default=0,
        metavar="TOKENS",
        help="tokens of --calibration left out at its start; default: 0",
    )
    sub.add_argument(
        "--calibration-mode", default="auto", help="auto, dense or sequential: one block at a time"
    )
    sub.add_argument("--calibration-seed", type=int, help="draw the windows at random")


def _recipe(parsed: argparse.Namespace) -> Recipe:
    file = parsed.recipe
    recipe = _recipe_from_options(parsed) if file is None else _recipe_file(file)
    _criterion(recipe.criterion)  # a misspelled one is told even where nothing is to be ranked
    return recipe


def _recipe_file(name: str) -> Recipe:
    if not name.strip():
        raise RecipeError("--recipe names no file; give the path of a recipe as JSON.")
    try:
        return Recipe.from_json(Path(name).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise RecipeError(f"the recipe {name} is not UTF-8 text; save it as JSON.") from None


def _recipe_from_options(parsed: argparse.Namespace) -> Recipe:
    sparsity = parsed.sparsity
    if sparsity is None:
        sparsity = Recipe().with_pattern(parsed.pattern).sparsity
    share, pairs = cli_neurons.neuron_share(parsed)
    return Recipe(
        criterion=parsed.criterion,
        pattern=parsed.pattern,
        allocation=parsed.allocation,
        sparsity=sparsity,
        drop_heads=_parts(parsed.drop_heads, "--drop-heads"),
        drop_cross_heads=_parts(parsed.drop_cross_heads, "--drop-cross-heads"),
        drop_neurons=pairs,
        neurons=share,
        compensate=parsed.compensate,
        drop_blocks=_indices(parsed.drop_blocks, "--drop-blocks"),
        drop_attention=_indices(parsed.drop_attention, "--drop-attention"),
        drop_mlp=_indices(parsed.drop_mlp, "--drop-mlp"),
        reconstruction=parsed.reconstruction,
        calibration=_calibration(parsed),
    )


def _parts(text: str, option: str) -> tuple[tuple[int, int], ...]:
    found = []
    for pair in filter(None, text.split(",")):
        block, _, part = pair.strip().partition(":")
        if not (block.isdecimal() and part.isdecimal()):
            what = option.removeprefix("--drop-").removeprefix("cross-").removesuffix("s").upper()
            raise RecipeError(f"{option} takes BLOCK:{what} pairs such as 0:3,5:1, got {pair!r}.")
        found.append((cli_checks.index_of(block, option), cli_checks.index_of(part, option)))
    return tuple(found)


def _indices(text: str, option: str) -> tuple[int, ...]:
    found = [part.strip() for part in text.split(",") if part]
    for part in found:
        if not part.isdecimal():
            raise RecipeError(f"{option} takes the indices of blocks such as 3,5, got {part!r}.")
    return tuple(cli_checks.index_of(part, option) for part in found)


def _calibration(parsed: argparse.Namespace) -> Calibration:
    from prune_core.criteria import CRITERIA

    reads = CRITERIA[parsed.criterion].needs or parsed.allocation == "sensitivity"
    reads = reads or cli_neurons.neuron_share(parsed)[0] is not None or parsed.compensate
    if not reads and parsed.reconstruction == "none":
        return Calibration()  # nothing reads it: it must not part equal recipes
    return _given_calibration(parsed)


def _given_calibration(parsed: argparse.Namespace) -> Calibration:
    return Calibration(
        _named_text(parsed.calibration),
        parsed.calibration_windows,
        parsed.calibration_seq_len,
        parsed.calibration_seed,
        parsed.calibration_skip,
        parsed.calibration_mode,
    )


def _criteria() -> list[str]:
    from prune_core.criteria import CRITERIA

    return sorted(CRITERIA)


def _criterion(name: str) -> str:
    from prune_core.criteria import CRITERIA

    return CRITERIA[name].name  # an unknown one is told before a model is loaded


def _text(parsed: argparse.Namespace) -> TextSpec:
    return _named_text(parsed.text)


def _named_text(name: str) -> TextSpec:
    from prune_core.texts import TEXTS

    return TextSpec("preset" if name in TEXTS else "file", name)


# ---- verbs -----------------------------------------------------------------------------------


def _run(job: Job) -> Result:
    from prune_core.engine.core import Core

    return _run_on(Core(), job)


def _in_turn() -> Callable[[Job], Result]:
    """Runs jobs one after the other on models that are loaded once."""
    from prune_core.engine.core import Core

    core = Core()
    return lambda job: _run_on(core, job)


def _run_on(core: Core, job: Job) -> Result:
    """Run a job with its progress on a terminal; a core keeps the models that it loaded."""
    shows = sys.stderr.isatty()

    def emit(event: Result) -> None:
        if shows:
            done, total = event.get("done") or event.get("window"), event.get("total")
            total = total or event.get("windows")
            line = f"{event.get('stage', 'working')} {done or 0} / {total or '?'}"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    result = core.run(job, emit, lambda: False)
    if shows:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return result


def _fetch(parsed: argparse.Namespace) -> Result:
    from prune_core.assets.fetch import fetch_asset
    from prune_core.assets.manifest import project_manifest

    names = parsed.names or ["smollm2-135m", "grimm"]
    manifest = project_manifest()
    shows = sys.stderr.isatty()

    def progress(stage: str, done: int, total: int, unit: str) -> None:
        if shows:
            part = f"{done / total:.0%}" if total else f"{done} {unit}"
            print(f"\r\033[K{stage} {part}", end="", file=sys.stderr, flush=True)

    fetched = []
    for name in names:
        path = fetch_asset(name, verify=True, progress=progress)
        asset = manifest[name]
        if shows:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        fetched.append({"name": name, "path": str(path), "license": asset.license})
    return {"fetched": fetched}


def _inspect(parsed: argparse.Namespace) -> Result:
    job = LayerTable(parsed.model)
    if parsed.scores:
        recipe = Recipe(criterion=_criterion(parsed.scores), calibration=_given_calibration(parsed))
        job = LayerTable(parsed.model, recipe, scored=True)
    result = _run(job)
    for row in result["rows"]:
        row["shape"] = [row["rows"], row["columns"]]
        row["quantiles"] = {name: row[name] for name in QUANTILES}
    return result


def _evaluate(parsed: argparse.Namespace) -> Result:
    recipe = _recipe(parsed)
    result = _run(Evaluate(parsed.model, recipe, _text(parsed), parsed.seq_len, parsed.windows))
    for warning in cli_neurons.emptied_warnings(result):
        _say(warning)
    return {**result, "recipe": recipe.to_dict(), "fingerprint": recipe.fingerprint}


def _generate(parsed: argparse.Namespace) -> Result:
    return _run(
        Generate(
            parsed.model,
            _recipe(parsed),
            parsed.prompt,
            parsed.max_new_tokens,
            parsed.greedy,
            parsed.seed,
            parsed.temperature,
            parsed.top_p,
            parsed.chat,
        )
    )


# ---- for people ------------------------------------------------------------------------------


def _show_fetch(result: Result) -> None:
    for row in result["fetched"]:
        print(f"{row['name']}  {row['license']}  {row['path']}")


def _show_rows(result: Result) -> None:
    rows = result["rows"]
    scored = bool(rows) and "score_mean" in rows[0]
    head = f"{'layer':48} {'role':10} {'shape':>13} {'mean |w|':>10} {'std':>10} {'zeros':>8}"
    more = [f"{name:>11}" for name in ("mean score", "1 %", "50 %", "99 %", "largest")]
    print(" ".join([head, *(more if scored else [])]))
    for row in rows:
        shape = f"{row['rows']} x {row['columns']}"
        line = (
            f"{row['name']:48} {row['role']:10} {shape:>13} {row['mean_abs']:10.5f} "
            f"{row['std']:10.5f} {row['zeros']:8d}"
        )
        fields = ("mean", "q01", "q50", "q99", "max") if scored else ()
        print(" ".join([line, *(f"{row[f'score_{name}']:11.4g}" for name in fields)]))


def _within(value: float | None, error: float | None) -> str:
    return "not known" if value is None else with_error(value, error)


def _show_evaluation(result: Result) -> None:
    counts = WeightCounts(**result["counts"])
    print(f"removed       {removed_in_words(counts)}")
    print(f"              {counts.removed:,} of {counts.prunable:,} weights, counted")
    if result["sparsity_of_rest"] != result["sparsity"]:
        rest = counted_share(result["sparsity_of_rest"])
        print(f"              {rest} of what dropped parts leave")
    if zeros_in_words(counts):
        print(f"zeros         {zeros_in_words(counts)} (of the prunable weights)")
    if result["metric"] == "similarity":
        similarity = _within(result["similarity"], result["similarity_stderr"])
        print(f"similarity    {similarity} (cosine to the dense embedding)")
        if result["top1"] is not None:
            print(f"same class    {_within(result['top1'], result['top1_stderr'])} of the windows")
            kl = _within(result["kl"], result["kl_stderr"])
            print(f"KL            {kl} nats per window, of the classes")
    else:
        low, high = result["perplexity_low"], result["perplexity_high"]
        error = error_in(low, high)
        names = ("perplexity", "perplexity_dense")
        mine, dense = (measured(result[name], error) for name in names)
        print(f"perplexity    {mine}   (dense {dense})")
        if error is not None:
            print(f"95 % interval {measured(low, error)} to {measured(high, error)}")
        print(f"loss          {_within(result['nll'], result['nll_stderr'])} nats per token")
        change = _within(result["delta_nll"], result["delta_nll_stderr"])
        print(f"change        {change} nats per token, paired")
        short = f"; the merged tail hides about {result['kl_error']:.1g}"
        print(f"KL            {_within(result['kl'], result['kl_stderr'])} nats per token{short}")
        print(f"top-1 same    {_within(result['top1'], result['top1_stderr'])}")
    protocol = result["protocol"]
    print(
        f"measured on   {protocol['text']}, {protocol['windows']} x {protocol['seq_len']} tokens, "
        f"{protocol['dtype']}, {protocol['device']}"
    )
    if result["left_dense"]:
        print(f"left dense    {', '.join(result['left_dense'])} (the pattern does not fit)")
    seconds = result["seconds"]
    print("seconds       " + ", ".join(f"{k} {v:.2f}" for k, v in seconds.items()))


def _show_generation(result: Result) -> None:
    for name in ("dense", "pruned"):
        print(f"[{name}]\n{result[name]['text']}\n")
    parted = result["divergence"]
    print("The answers are equal." if parted is None else f"They part at token {parted + 1}.")
