"""The commands on tiny models whose results ``tests.goldens`` keeps: every method on every family.

Nothing of prune_core is imported, so that it may be moved freely.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any


@dataclass(frozen=True)
class Case:
    """Commands that run one after the other in a folder of their own.

    Attributes:
        name: what differences are reported under.
        commands: arguments of ``python -m prune_core``, without ``--json``.
        files: contents by name, written into the folder first.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """What the cases of a tiny model have to know about it.

    Attributes:
        blocks: how many it has, those of an encoder before those of a decoder.
        layer: name of one prunable layer of block 1.
        cross: blocks with cross-attention.
        biased: its MLPs have biases or may get some, so that dropped neurons can be compensated.
    """

    blocks: int
    layer: str
    cross: tuple[int, ...] = ()
    biased: bool = True


FAMILIES = {
    "tiny-gpt2": Family(3, "transformer.h.1.mlp.c_fc"),
    "tiny-llama": Family(4, "model.layers.1.mlp.up_proj"),
    "tiny-opt": Family(2, "model.decoder.layers.1.fc1"),
    "tiny-neox": Family(2, "gpt_neox.layers.1.mlp.dense_h_to_4h"),
    "tiny-bert": Family(2, "encoder.layer.1.intermediate.dense"),
    "tiny-t5": Family(
        5, "encoder.block.1.layer.1.DenseReluDense.wi", cross=(2, 3, 4), biased=False
    ),
}
CRITERIA = ("magnitude", "random", "threshold", "wanda", "ria", "taylor", "fisher", "sparsegpt")
NEURON_METHODS = ("mean-activation", "firing", "weighted", "fluctuation")

_WORDS = (
    *("the", "a", "king", "queen", "miller", "fox", "river", "garden", "old"),
    *("young", "went", "came", "saw", "took", "gave", "said", "to", "of"),
    *("and", "with", "under", "over", "before", "after", "golden", "green", "small"),
    *("daughter", "bread", "water", "stone", "bird", "night", "day", "but", "so"),
    *("then", "never", "always", "his", "her", "it", "was", "had"),
)


def text(seed: int, words: int = 1200) -> str:
    """Sentences of lower-case words without digits; the same for the same seed."""
    state, sentences, sentence = seed, [], []
    for _ in range(words):
        state = (1103515245 * state + 12345) % 2**31
        sentence.append(_WORDS[(state >> 12) % len(_WORDS)])
        if len(sentence) > 5 and (state >> 20) % 5 == 0:
            sentences.append(" ".join(sentence).capitalize() + ".")
            sentence = []
    return " ".join(sentences)


def numbered(lines: int = 150) -> str:
    """Sentences full of numbers, which some tokenizers split into digits and others do not."""
    rows = ((n, 1000 + 37 * n, 1890 + n) for n in range(1, lines + 1))
    return "\n".join(f"{n}. In {year} the king counted {coins:,} coins." for n, coins, year in rows)


TEXTS = {
    "text.txt": text(1),
    "calibration.txt": text(2),
    "held_out.txt": text(3),
    "numbered.txt": numbered(),
}
READ = ("--text", "text.txt", "--seq-len", "48", "--windows", "3")
LEARN = (
    *("--calibration", "calibration.txt"),
    *("--calibration-windows", "4", "--calibration-seq-len", "40"),
)
_CALIBRATION = {
    "text": {"kind": "file", "value": "calibration.txt"},
    "windows": 4,
    "seq_len": 40,
}


def recipe(**fields: Any) -> str:
    """A recipe as JSON; what is not named is left to the defaults."""
    return json.dumps({"schema": 1, **fields})


def tiny_cases() -> Iterator[Case]:
    """All cases of the tiny families."""
    for model, family in FAMILIES.items():
        for name, options in _options(family).items():
            yield Case(f"{model}: evaluate {name}", (("evaluate", model, *options, *READ),))
        for name, content in _recipes(family).items():
            command = ("evaluate", model, "--recipe", "recipe.json", *READ)
            yield Case(
                f"{model}: evaluate, file, {name}", (command,), {"recipe.json": recipe(**content)}
            )
        yield from _long(model)
        yield from _inspections(model)
        yield from _importance(model)
        yield from _comparisons(model, family)
        yield from _sweeps(model)
        yield from _generations(model)
        yield from _exports(model, family)
        yield from _costs(model, family)


# ---- evaluate --------------------------------------------------------------------------------


def _options(family: Family) -> dict[str, tuple[str, ...]]:
    """Options of the command line by name of the case."""
    half = ("--sparsity", "0.5")
    # named, because wanda and ria were per layer by default when the record was made
    by_layer = (*half, "--pattern", "per-layer")
    cases: dict[str, tuple[str, ...]] = {"dense": (), "defaults": half, "all": ("--sparsity", "1")}
    for criterion, pattern in product(CRITERIA, ("per-layer", "per-row")):
        # another sparsity than 0.5: a count that must be rounded
        options = ("--criterion", criterion, "--pattern", pattern, "--sparsity", "0.37", *LEARN)
        cases[f"{criterion} {pattern}"] = options
    for criterion, pattern in product(("magnitude", "ria"), ("nm:2:4", "nm:1:4")):
        cases[f"{criterion} {pattern}"] = ("--criterion", criterion, "--pattern", pattern, *LEARN)
    for criterion, pattern in product(("magnitude", "wanda"), ("block:4", "block:4:max")):
        options = ("--criterion", criterion, "--pattern", pattern, *half, *LEARN)
        cases[f"{criterion} {pattern}"] = options
    for criterion, allocation in (
        *product(("magnitude", "wanda"), ("global", "erk", "owl", "sensitivity")),
        ("taylor", "global"),
    ):
        options = ("--criterion", criterion, "--allocation", allocation, *by_layer, *LEARN)
        cases[f"{criterion} {allocation}"] = options
    for criterion, pattern in (
        *(("magnitude", "per-layer"), ("wanda", "per-row"), ("sparsegpt", "per-row")),
        *(("sparsegpt", "nm:2:4"), ("random", "block:4")),
    ):
        options = ("--criterion", criterion, "--pattern", pattern, *half, *LEARN)
        cases[f"{criterion} {pattern}, repaired"] = (*options, "--reconstruction", "sparsegpt")
    for name, more in {
        "sequential": ("--calibration-mode", "sequential"),
        "drawn windows": ("--calibration-seed", "7"),
        "skipped tokens": ("--calibration-skip", "100"),
    }.items():
        cases[f"wanda, {name}"] = ("--criterion", "wanda", *by_layer, *LEARN, *more)
    repaired_dense = ("--reconstruction", "sparsegpt", "--calibration-mode", "dense")
    cases["sparsegpt, repaired, dense"] = ("--criterion", "sparsegpt", *half, *LEARN)
    cases["sparsegpt, repaired, dense"] += repaired_dense
    sequential_owl = ("--allocation", "owl", "--calibration-mode", "sequential")
    cases["ria owl, sequential"] = ("--criterion", "ria", *by_layer, *LEARN, *sequential_owl)
    return cases | _structure(family)


def _structure(family: Family) -> dict[str, tuple[str, ...]]:
    last = str(family.blocks - 1)
    cases: dict[str, tuple[str, ...]] = {
        "heads": ("--drop-heads", f"0:1,{last}:3"),
        "all heads of a block": ("--drop-heads", "0:0,0:1,0:2,0:3"),
        "cross heads": ("--drop-cross-heads", f"{last}:1"),
        "neurons": ("--drop-neurons", "0:3,1:7,1:9"),
        "blocks": ("--drop-blocks", last),
        "first block": ("--drop-blocks", "0"),
        "attention": ("--drop-attention", "1"),
        "mlp": ("--drop-mlp", last),
        "neurons, compensated": ("--drop-neurons", "0:3,1:7", "--compensate", *LEARN),
    }
    for method in NEURON_METHODS:
        share = ("--drop-neurons", "0.3", "--neuron-method", method, *LEARN)
        cases[f"share by {method}"] = share
        cases[f"share by {method}, global"] = (*share, "--neuron-scope", "global")
    compensated = ("--drop-neurons", "0.25", "--neuron-method", "fluctuation", "--compensate")
    cases["share, compensated"] = (*compensated, *LEARN)
    everything: tuple[str, ...] = (
        *("--criterion", "wanda", "--pattern", "per-row", "--sparsity", "0.4"),
        *("--drop-heads", "0:1", "--drop-mlp", last, "--drop-neurons", "0.2,0:5"),
        *(("--compensate",) if family.biased else ()),
    )
    cases["everything"] = (*everything, *LEARN)
    cases["everything, repaired"] = (*everything, *LEARN, "--reconstruction", "sparsegpt")
    return cases


def _recipes(family: Family) -> dict[str, dict[str, Any]]:
    """What only a recipe file can say."""
    learned = {"calibration": _CALIBRATION}
    half = {"sparsity": 0.5}
    wanda = {"criterion": "wanda", "pattern": "per-row", **half, **learned}
    roles = {"mlp.up": 2.0, "attn.o": 0.5, "mlp.down": 0.0}
    by_role = {"allocation": "per-role", "allocation_args": roles}
    by_block = {"allocation": "manual", "allocation_args": {"0": 0.5, "1": 2.0}}
    overrides = {"role:mlp.down": 0.7, "block:1": 0.2, f"layer:{family.layer}": 0.9}
    repaired = {"criterion": "sparsegpt", "reconstruction": "sparsegpt", **learned}
    return {
        "random, seed": {"criterion": "random", **half, "criterion_args": {"seed": 5}},
        "taylor, signed": {
            "criterion": "taylor",
            **half,
            "criterion_args": {"signed": 1},
            **learned,
        },
        "ria, power": {
            "criterion": "ria",
            "pattern": "per-layer",
            **half,
            "criterion_args": {"power": 1.0},
            **learned,
        },
        "threshold": {"criterion": "threshold", "criterion_args": {"value": 0.2}},
        "per-role": half | by_role,
        "per-role, wanda per-row": wanda | by_role,
        "manual": half | by_block,
        "owl, arguments": wanda
        | {"allocation": "owl", "allocation_args": {"m": 3.0, "spread": 0.15}},
        "overrides": {**half, "overrides": overrides},
        "overrides only": {"sparsity": 0.0, "overrides": {"role:attn.o": 0.5}},
        "overrides, global": {**half, "allocation": "global", "overrides": overrides},
        "overrides, repaired": {**half, **repaired, "overrides": overrides},
    }


def _long(model: str) -> Iterator[Case]:
    """Windows as long as the context, and the same again from what the first run left on disk."""
    options = ("--criterion", "wanda", "--pattern", "per-row", "--sparsity", "0.5", *LEARN)
    long = ("--text", "text.txt", "--seq-len", "256", "--windows", "2")
    command = ("evaluate", model, *options, *long)
    other = ("evaluate", model, *options, *long, "--drop-heads", "1:0")
    yield Case(f"{model}: evaluate long windows, from caches", (command, command, other))


# ---- looking at a model ----------------------------------------------------------------------


def _inspections(model: str) -> Iterator[Case]:
    yield Case(f"{model}: inspect", (("inspect", model),))
    for criterion in CRITERIA:
        command = ("inspect", model, "--scores", criterion, *LEARN)
        yield Case(f"{model}: inspect, {criterion}", (command,))
    sequential = ("--scores", "wanda", *LEARN, "--calibration-mode", "sequential")
    yield Case(f"{model}: inspect, wanda, sequential", (("inspect", model, *sequential),))


_IMPORTANCE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "heads": (
        *(("--method", method) for method in ("weight-norm", "confidence", "entropy")),
        ("--method", "gradient"),
        ("--method", "ablation"),
        ("--method", "gradient", "--normalize"),
        ("--lowest", "0.3"),
        ("--lowest", "0.3", "--scope", "global"),
        ("--method", "entropy", "--lowest", "0.4", "--scope", "global"),
    ),
    "neurons": (
        *(("--method", method) for method in (*NEURON_METHODS, "activation")),
        ("--lowest", "0.1"),
        ("--method", "fluctuation", "--lowest", "0.1", "--scope", "global"),
        ("--neuron", "1:5"),
    ),
    "blocks": (
        *(("--method", method) for method in ("block-influence", "angular", "ablation", "greedy")),
        ("--method", "angular", "--run", "2"),
        ("--method", "ablation", "--halves"),
        ("--method", "greedy", "--ends"),
        ("--method", "greedy", "--ends", "--steps", "1"),
    ),
    "layers": tuple(("--method", method) for method in (*CRITERIA, "ablation")),
}


def _importance(model: str) -> Iterator[Case]:
    for of, choices in _IMPORTANCE.items():
        for options in choices:
            command = ("importance", model, "--of", of, *options, *READ)
            yield Case(f"{model}: importance of {of} {' '.join(options)}", (command,))


# ---- several recipes -------------------------------------------------------------------------


def _compared(family: Family) -> dict[str, str]:
    last = family.blocks - 1
    half = {"pattern": "per-row", "sparsity": 0.5}
    return {
        "a.json": recipe(criterion="magnitude", **half),
        "b.json": recipe(criterion="wanda", **half, calibration=_CALIBRATION),
        "c.json": recipe(pattern="nm:2:4", sparsity=0.5, drop_heads=[[0, 1]]),
        "d.json": recipe(
            criterion="sparsegpt",
            **half,
            reconstruction="sparsegpt",
            calibration=_CALIBRATION,
            drop_mlp=[last],
        ),
    }


def _comparisons(model: str, family: Family) -> Iterator[Case]:
    files = _compared(family)
    for chosen, options in {
        "ab": ("--blocks", "output"),
        "abc": ("--blocks", "loss", "--block-windows", "1"),
        "abcd": (),
    }.items():
        names = [f"{letter}.json" for letter in chosen]
        command = ("compare", model, "--recipes", *names, *options, *READ)
        kept = {name: files[name] for name in names}
        yield Case(f"{model}: compare {' '.join([*chosen, *options])}", (command,), kept)


def grid(**more: Any) -> str:
    """A grid of a sweep; JSON is YAML."""
    learned = {"text": "calibration.txt", "windows": 4, "seq_len": 40}
    plain = {"texts": ["text.txt"], "seq_len": 48, "windows": 4, "calibration": learned}
    return json.dumps(plain | more)


def _sweeps(model: str) -> Iterator[Case]:
    store = ("--store", "runs.sqlite")
    weights = grid(
        models=[model],
        criteria=["magnitude", "wanda", "random"],
        patterns=["per-layer", "per-row", "nm:2:4"],
        sparsities=[0.2, 0.5],
    )
    parts = grid(models=[model], heads=["none", "0:1"], neurons=[0, 0.2], blocks=["none", "1"])
    narrowed = grid(
        models=[model],
        criteria=["magnitude", "random"],
        sparsities={"from": 0.2, "to": 0.6, "step": 0.2},
        interval=0.1,
        windows=8,
    )
    sweep = ("sweep", "grid.yaml", *store)
    similar = ("--quality", "similarity") if model == "tiny-bert" else ("--quality", "kl")
    yield Case(
        f"{model}: sweep of weights, frontier",
        (
            sweep,
            ("frontier", *store),
            ("frontier", model, *store, "--cost", "bytes", *similar),
            ("sweep", "parts.yaml", *store),
            ("frontier", *store),
            ("runs", *store, "wanda"),
        ),
        {"grid.yaml": weights, "parts.yaml": parts},
    )
    yield Case(
        f"{model}: sweep by interval", (sweep, ("frontier", *store)), {"grid.yaml": narrowed}
    )
    budget = ("frontier", model, "--budget", "5%", *READ, *LEARN)
    tried = ("--criteria", "magnitude,wanda", "--pattern", "per-layer,nm:2:4")
    held_out = ("--held-out", "held_out.txt")
    yield Case(f"{model}: frontier, budget", ((*budget, *tried), (*budget, *held_out)))
    size = ("frontier", model, "--budget", "200kB", *READ, "--criteria", "magnitude,random")
    yield Case(f"{model}: frontier, size", (size,))


# ---- answers and files -----------------------------------------------------------------------


def _generations(model: str) -> Iterator[Case]:
    command = ("generate", model, "--prompt", "The king had a daughter", "--sparsity", "0.5")
    short = (*command, "--max-new-tokens", "16")
    drawn = ("--temperature", "1.3", "--top-p", "0.7")
    for name, options in {
        "greedy": ("--greedy",),
        "drawn": ("--seed", "3"),
        "drawn, hot": ("--seed", "4", *drawn),
        "chat": ("--chat", "--greedy"),
        "without neurons": ("--greedy", "--drop-neurons", "0.2", *LEARN),
        "without a block": ("--greedy", "--drop-blocks", "1"),
    }.items():
        yield Case(f"{model}: generate {name}", ((*short, *options),))


def _fitting_parts(family: Family) -> tuple[str, ...]:
    """Heads that a shrunk file can leave out: as many of each attention, whole groups."""
    heads = ",".join(f"{block}:{head}" for block in range(family.blocks) for head in (0, 1))
    cross = ",".join(f"{block}:{head}" for block in family.cross for head in (0, 1))
    return ("--drop-heads", heads, *(("--drop-cross-heads", cross) if cross else ()))


def _exports(model: str, family: Family) -> Iterator[Case]:
    last = str(family.blocks - 1)
    repaired = ("--criterion", "sparsegpt", "--reconstruction", "sparsegpt", "--sparsity", "0.5")
    compensate = ("--compensate",) if family.biased else ()
    share = ("--drop-neurons", "0.25", "--neuron-method", "fluctuation")
    neurons = (*share, *compensate, *LEARN)
    half, fitting = ("--sparsity", "0.5"), _fitting_parts(family)
    for name, form, options in (
        ("half", "masked", half),
        ("parts", "masked", ("--drop-heads", "0:1", "--drop-mlp", last, *neurons)),
        ("block", "masked", ("--drop-blocks", last)),
        ("repaired", "masked", (*repaired, *LEARN)),
        ("neurons", "shrunk", neurons),
        ("heads", "shrunk", (*half, *fitting)),
        ("block", "shrunk", ("--drop-blocks", last)),
        ("neurons, block", "shrunk", (*neurons, "--drop-blocks", last)),
        ("heads, neurons, block", "shrunk", (*fitting, *neurons, "--drop-blocks", last)),
        ("half", "compressed", half),
        ("nm:2:4", "compressed", ("--pattern", "nm:2:4")),
    ):
        to = ("--format", form, "--to", "export", "--repeats", "0")
        command = ("export", model, *options, *to, *READ)
        yield Case(f"{model}: export {form}, {name}", (command,))


def _costs(model: str, family: Family) -> Iterator[Case]:
    last = str(family.blocks - 1)
    fitting = _fitting_parts(family)
    for name, options in {
        "dense": (),
        "half": ("--sparsity", "0.5"),
        "nm:2:4": ("--pattern", "nm:2:4"),
        "heads": fitting,
        "parts": ("--drop-heads", "0:1", "--drop-neurons", "0.2", "--drop-blocks", last, *LEARN),
    }.items():
        yield Case(f"{model}: cost {name}", (("cost", model, *options, "--repeats", "0"),))
