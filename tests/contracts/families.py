"""What can be done with a family, measured on a random model against plain transformers.

``python -m tests.contracts.families`` writes docs/families.md from these measurements (with names
of families only their rows); the tests compare it with them. The oracle uses nothing of prune_core
but the layout of ``Structure``: a model read by plain transformers from the folder, with hooks for
what is dropped and masks made here.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from prune_core.engine.core import Core
from prune_core.errors import PruneCoreError
from prune_core.exporting.formats import format_problem
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Export
from prune_core.models.families import FAMILIES
from prune_core.models.handle import ModelHandle
from prune_core.models.reading import quiet
from prune_core.models.structure import Structure
from prune_core.models.tiny import tiny_model, tiny_tokenizer
from prune_core.recipes.recipe import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
FEATURES = ("load", "weights", "heads", "neurons", "blocks", "masked", "shrunk", "compressed")
TEXT = TextSpec("inline", "A heron stood in the shallow water and did not move at all. " * 12)
TOKENS, WINDOWS = 32, 2
RELATIVE = 1e-5
SHARE = 0.4
WEIGHTS = {
    "per layer": Recipe(sparsity=SHARE),
    "per row": Recipe(sparsity=SHARE, pattern="per-row"),
    "global": Recipe(sparsity=SHARE, allocation="global"),
    "2:4": Recipe(sparsity=0.5, pattern="nm:2:4"),
}
AUTO = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}


@dataclass(frozen=True)
class Case:
    """One family as a folder on disk.

    Attributes:
        family: ``model_type``.
        folder: holds its random model and a tokenizer.
        core: loads and measures it.
        handle: of the loaded model.
        windows: of :data:`TEXT`, (seq,) each.
        scratch: for exports.
    """

    family: str
    folder: Path
    core: Core
    handle: ModelHandle
    windows: list[Tensor]
    scratch: Path

    def run(self, job: Any) -> dict[str, Any]:
        return self.core.run(job)

    def measured(self, recipe: Recipe) -> float:
        """What the program measures of a recipe: perplexity, or similarity of an encoder."""
        result = self.run(Evaluate(str(self.folder), recipe, TEXT, TOKENS, WINDOWS))
        return float(result["perplexity" if self.handle.info.has_language_head else "similarity"])

    def plain(self, folder: Path | None = None) -> Any:
        """A model as plain transformers reads it."""
        return plain_model(folder or self.folder, self.handle.structure.kind)

    def export(self, recipe: Recipe, form: str) -> Path:
        """Where a recipe's checkpoint was written, loaded again and compared by the program."""
        folder = self.scratch / f"{form}-{time.monotonic_ns()}"
        self.run(
            Export(str(self.folder), recipe, str(folder), form, False, TEXT, TOKENS, WINDOWS, 0)
        )
        return folder


def plain_model(folder: Path, kind: str) -> Any:
    with quiet():
        return getattr(transformers, AUTO[kind]).from_pretrained(folder).eval()


@contextlib.contextmanager
def case_of(family: str, folder: Path) -> Iterator[Case]:
    """A random model of a family, written by transformers and loaded by the program."""
    place = folder / "model"
    with quiet():
        tiny_model(family).save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_CACHE_DIR", str(folder / "cache"))
        patch.setenv("PRUNE_MODEL_ROOTS", str(folder))
        core = Core()
        loaded = core.loaded(str(place))
        windows = loaded.windows(TEXT, TOKENS, WINDOWS)
        yield Case(family, place, core, loaded.handle, windows, folder)


# ---- the oracle --------------------------------------------------------------------------------


def naive(model: Any, kind: str, windows: list[Tensor], dense: Any = None) -> float:
    """Perplexity by transformers' own losses; of an encoder its likeness to the dense model."""
    with torch.no_grad():
        if kind == "encoder":
            states = [
                [m(input_ids=w[None]).last_hidden_state[0].mean(0) for w in windows]
                for m in (model, dense)
            ]
            pairs = zip(*states, strict=True)
            return sum(float(torch.cosine_similarity(a, b, 0)) for a, b in pairs) / len(windows)
        total, count = 0.0, 0
        for window in windows:
            ids = labels = window[None]
            if kind == "encoder-decoder":
                half = len(window) - len(window) // 2
                ids, labels = window[None, :half], window[None, half:]
            predicted = labels.shape[1] - (kind == "decoder")
            total += float(model(input_ids=ids, labels=labels).loss) * predicted
            count += predicted
        return math.exp(total / count)


def lowest_gone(scores: Tensor, count: int) -> Tensor:
    """What stays of a flat tensor without its lowest; ties by position."""
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[scores.argsort(stable=True)[:count]] = False
    return keep


def naive_masks(weights: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    """What stays of (out, in) weights by magnitude."""
    if how == "global":
        flat = torch.cat([w.abs().flatten() for w in weights.values()])
        parts = lowest_gone(flat, round(SHARE * flat.numel())).split(
            [w.numel() for w in weights.values()]
        )
        return {n: p.view(w.shape) for (n, w), p in zip(weights.items(), parts, strict=True)}
    masks = {}
    for name, weight in weights.items():
        size = weight.abs()
        if how == "per layer":
            masks[name] = lowest_gone(size.flatten(), round(SHARE * size.numel())).view(size.shape)
        elif how == "per row":
            count = round(SHARE * size.shape[1])
            masks[name] = torch.stack([lowest_gone(row, count) for row in size])
        elif size.shape[1] % 4:
            masks[name] = torch.ones_like(size, dtype=torch.bool)
        else:
            groups = size.reshape(-1, 4)
            masks[name] = torch.stack([lowest_gone(g, 2) for g in groups]).view(size.shape)
    return masks


def own_name(name: str, model: nn.Module) -> str:
    """A module's name in a model that may stand without its head."""
    modules = dict(model.named_modules())
    while name not in modules:
        name = name.partition(".")[2]
        assert name
    return name


def naively_pruned(case: Case, how: str) -> Any:
    """Plain transformers' model with zeros where the smallest weights were."""
    model, structure = case.plain(), case.handle.structure
    weights = {}
    for name, layer in structure.layers.items():
        stored = model.get_submodule(own_name(name, model)).weight
        weights[name] = stored.detach().T if layer.transposed else stored.detach()
    for name, mask in naive_masks(weights, how).items():
        weights[name].mul_(mask)
    return model


def without_parts(model: Any, structure: Structure, recipe: Recipe) -> Any:
    """Hooks that take away what dropped heads, neurons and blocks would have given."""

    def silence(name: str, columns: list[int]) -> None:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            entering = args[0].clone()
            entering[..., columns] = 0
            return (entering, *args[1:])

        model.get_submodule(own_name(name, model)).register_forward_pre_hook(hook)

    def pass_on(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        entered = args[0] if args else kwargs["hidden_states"]
        return (entered, *output[1:]) if isinstance(output, tuple) else entered

    for pairs, kind in ((recipe.drop_heads, "self"), (recipe.drop_cross_heads, "cross")):
        for index, head in pairs:
            attention = structure.blocks[index].attention_of(kind)
            assert attention is not None
            width = attention.head_dim
            silence(attention.o, list(range(head * width, (head + 1) * width)))
    for index, neuron in recipe.drop_neurons:
        names = structure.blocks[index].layers
        (down,) = [n for n in names if structure.layers[n].role == "mlp.down"]
        silence(down, [neuron])
    for index in recipe.drop_blocks:
        place = own_name(structure.blocks[index].module, model)
        model.get_submodule(place).register_forward_hook(pass_on, with_kwargs=True)
    return model


def close(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=RELATIVE)


# ---- one check for each column of the table ----------------------------------------------------


def parts_recipe(structure: Structure, what: str) -> Recipe:
    """Some heads, neurons or a block, alike in all blocks so that a checkpoint can be smaller."""
    blocks = structure.blocks
    if what == "blocks":
        return Recipe(drop_blocks=(len(blocks) - 1,))
    if what == "neurons":
        return Recipe(drop_neurons=tuple((b.index, n) for b in blocks for n in (0, 5, 11)))
    attention = blocks[0].attention
    assert attention is not None
    size = attention.group_size if attention.num_kv_heads > 1 else 1
    return Recipe(
        drop_heads=tuple((b.index, h) for b in blocks for h in range(size)),
        drop_cross_heads=tuple((b.index, 0) for b in blocks if b.cross_attention),
    )


def check_load(case: Case) -> str:
    """The dense model's numbers are those of plain transformers."""
    kind, plain = case.handle.structure.kind, case.plain()
    assert close(case.measured(Recipe()), naive(plain, kind, case.windows, plain))
    return "yes"


def check_weights(case: Case) -> str:
    """Pruned by magnitude, per layer, per row, over all layers and as 2:4."""
    kind, dense = case.handle.structure.kind, case.plain()
    before = naive(dense, kind, case.windows, dense)
    for how, recipe in WEIGHTS.items():
        theirs = naive(naively_pruned(case, how), kind, case.windows, dense)
        assert close(case.measured(recipe), theirs), how
        assert not close(theirs, before), how
    return "yes"


def check_part(case: Case, what: str) -> str:
    """Dropped parts, against hooks in plain transformers."""
    kind, dense = case.handle.structure.kind, case.plain()
    recipe = parts_recipe(case.handle.structure, what)
    model = without_parts(case.plain(), case.handle.structure, recipe)
    theirs = naive(model, kind, case.windows, dense)
    assert close(case.measured(recipe), theirs), what
    assert not close(theirs, naive(dense, kind, case.windows, dense)), what
    return "yes"


def check_masked(case: Case) -> str:
    """Plain transformers reads a masked export and answers as the naively pruned model."""
    kind, dense = case.handle.structure.kind, case.plain()
    folder = case.export(WEIGHTS["per layer"], "masked")
    again = naive(case.plain(folder), kind, case.windows, dense)
    assert close(again, naive(naively_pruned(case, "per layer"), kind, case.windows, dense))
    recipe = parts_recipe(case.handle.structure, "blocks")
    if format_problem("masked", case.handle.info, recipe) is None:
        return "yes"
    return "weights, heads, neurons"


def check_shrunk(case: Case) -> str:
    """Which parts can be cut out, so that plain transformers reads the smaller model."""
    kind, dense = case.handle.structure.kind, case.plain()
    cut = []
    for what in ("heads", "neurons", "blocks"):
        recipe = parts_recipe(case.handle.structure, what)
        if format_problem("shrunk", case.handle.info, recipe) is not None:
            with pytest.raises(PruneCoreError):
                case.export(recipe, "shrunk")
            continue
        small = case.plain(case.export(recipe, "shrunk"))
        assert small.num_parameters() < dense.num_parameters(), what
        whole = without_parts(case.plain(), case.handle.structure, recipe)
        theirs = naive(whole, kind, case.windows, dense)
        assert close(naive(small, kind, case.windows, dense), theirs), what
        cut.append(what)
    return ", ".join(cut) or "no"


def check_compressed(case: Case) -> str:
    """The export without zeros is read by its library and answers as the model on screen."""
    case.export(WEIGHTS["2:4"], "compressed")
    return "yes"


CHECKS: dict[str, Callable[[Case], str]] = {
    "load": check_load,
    "weights": check_weights,
    **{what: partial(check_part, what=what) for what in ("heads", "neurons", "blocks")},
    "masked": check_masked,
    "shrunk": check_shrunk,
    "compressed": check_compressed,
}


# ---- the table ---------------------------------------------------------------------------------

HEAD = """# Families of models

Written by `python -m tests.contracts.families` from measurements on a random model of each family,
against plain transformers; a test compares every row. `weights`: pruned per layer, per row, over
all layers and as 2:4. `heads`, `neurons`, `blocks`: dropped. `masked`, `shrunk`, `compressed`: what
an export in that format may have lost; `weights, heads, neurons` is everything but whole blocks.
A family that is not listed is refused by its name.

"""


def table_row(cells: dict[str, str], family: str) -> str:
    kind = FAMILIES[family].kind
    return f"| {' | '.join((f'`{family}`', kind, *(cells[f] for f in FEATURES)))} |"


def page(rows: list[str]) -> str:
    """The whole of docs/families.md."""
    titles = ("family", "kind", *FEATURES)
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", *rows]
    return HEAD + "\n".join(lines) + "\n"


def rows_of_the_page() -> dict[str, str]:
    """The rows of docs/families.md by family."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.is_file() else []
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def main(chosen: list[str]) -> None:
    """Measure families, all without arguments, and write their rows."""
    torch.set_num_threads(1)
    rows = {name: row for name, row in rows_of_the_page().items() if name in FAMILIES}
    for family in chosen or sorted(FAMILIES):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, case_of(family, Path(folder)) as case:
            cells = {feature: check(case) for feature, check in CHECKS.items()}
        rows[family] = table_row(cells, family)
        sys.stdout.write(f"{rows[family]} {time.monotonic() - started:.1f} s\n")
        PAGE.write_text(page([rows[name] for name in sorted(rows)]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
