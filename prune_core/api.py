"""The front door: load a model, prune it, measure it, write with it, write it down.

>>> import prune_core as pc
>>> model = pc.load("tiny-llama")
>>> pruned = model.prune(pc.Recipe(criterion="magnitude", sparsity=0.5))
>>> text = pc.TextSpec("inline", "A king had a daughter. " * 20)
>>> measured = pruned.evaluate(text, seq_len=32, windows=2)
>>> round(measured.sparsity, 2), measured.tokens
(0.5, 62)

Everything runs here, in the caller, by the same tasks as the pages and the command line, so the
numbers are theirs to the last bit. Errors that a user can cause are ``PruneCoreError``, one
sentence each. Nothing heavy is imported before a model is loaded. Models are not thread-safe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_core.criteria import CRITERIA as CRITERIA
from prune_core.errors import RecipeError
from prune_core.jobs.base import Job, LoadModel
from prune_core.jobs.blocks import BLOCK_METHODS, LayerImportance
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.exports import Export
from prune_core.jobs.heads import HeadImportance
from prune_core.jobs.neurons import NeuronImportance
from prune_core.models.info import ModelInfo
from prune_core.progress import Emit, Progress
from prune_core.recipes.calibration import Calibration as Calibration
from prune_core.recipes.calibration import TextSpec as TextSpec
from prune_core.recipes.recipe import Recipe as Recipe
from prune_core.texts.reading import text_named

if TYPE_CHECKING:
    from torch import nn

    from prune_core.engine.core import Core
    from prune_core.evaluation.evaluation import Evaluation
    from prune_core.sweeps.grid import Grid
    from prune_core.sweeps.records import Run

Text = str | Path | TextSpec
"""What is read: the name of a preset, else the path of a file; or a text spec."""

DENSE = Recipe()


@dataclass(frozen=True)
class Generation:
    """A continued prompt.

    Attributes:
        text: what this model wrote.
        dense: what the dense model wrote; None where it was not asked.
        divergence: index of the first token that differs; None where none does.
        numbers: everything, see ``prune_core.jobs.evaluate.Generate``.
    """

    text: str
    dense: str | None
    divergence: int | None
    numbers: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Importance:
    """How much parts of the dense model matter; a high score says much, but see ``method``.

    Attributes:
        of: ``heads``, ``neurons``, ``blocks`` or ``layers``.
        method: that scored them; by ``entropy`` a high score means that a head matters little.
        scores: by block and part, or by block or layer.
        numbers: everything, see the job's class in ``prune_core.jobs``.
    """

    of: str
    method: str
    scores: Sequence[Any] = field(repr=False)
    numbers: Mapping[str, Any] = field(repr=False)


class View(ABC):
    """A model as a recipe leaves it; what :class:`Model` and :class:`Pruned` share.

    Attributes:
        source: the model, as it was named.
        recipe: what is removed.
    """

    def __init__(self, source: str, recipe: Recipe) -> None:
        self.source, self.recipe = source, recipe

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r}, {self.recipe.fingerprint})"

    @abstractmethod
    def run(self, job: Job) -> dict[str, Any]:
        """Run any job of ``prune_core.jobs`` on the model; what it gives, as plain data.

        Raises:
            PruneCoreError: one sentence that says what is wrong.
        """

    def evaluate(
        self, text: Text = "grimm", *, windows: int = 16, seq_len: int = 512
    ) -> Evaluation:
        """Measure the model on a text, paired with the dense one.

        Args:
            text: what is read; the recipe's calibration text may not share tokens with it.
            windows: of the text from its start on, 1 to 4096.
            seq_len: tokens in a window, at most the model's context.

        Raises:
            PruneCoreError: the text or the recipe does not fit the model.
        """
        from prune_core.evaluation.evaluation import Evaluation

        result = self.run(Evaluate(self.source, self.recipe, _text(text), seq_len, windows))
        return Evaluation.from_dict(result)

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 64,
        greedy: bool = True,
        seed: int = 0,
        temperature: float = 0.8,
        top_p: float = 0.95,
        chat: bool = False,
        with_dense: bool = False,
    ) -> Generation:
        """Continue a prompt.

        Args:
            prompt: what is continued.
            max_new_tokens: most tokens of the answer.
            greedy: always the likeliest token; else drawn, with the three that follow.
            seed: the same number draws the same text.
            temperature: 0.01 to 10.
            top_p: draw from the likeliest tokens that have this probability together.
            chat: wrap the prompt in the model's chat template.
            with_dense: let the dense model write too.

        Raises:
            PruneCoreError: an encoder, an empty prompt, a number out of its range.
        """
        sampling = (greedy, seed, temperature, top_p)
        job = Generate(
            self.source, self.recipe, prompt, max_new_tokens, *sampling, chat, with_dense
        )
        result = self.run(job)
        dense = result["dense"]["text"] if with_dense else None
        return Generation(result["pruned"]["text"], dense, result["divergence"], result)

    def export(
        self,
        folder: str | Path,
        *,
        format: str = "masked",
        overwrite: bool = False,
        text: Text = "grimm",
        windows: int = 16,
        seq_len: int = 512,
        repeats: int = 0,
    ) -> Path:
        """Write a checkpoint that plain transformers loads; it is loaded again and compared.

        Args:
            folder: where to, made if it is not there.
            format: ``masked`` (zeros in place), ``shrunk`` (dropped parts cut out) or
                ``compressed`` (a bitmask in place of zeros).
            overwrite: replace an older export.
            text: what it is measured on, for its model card.
            windows: of the text.
            seq_len: tokens in a window.
            repeats: rounds of speed and memory, for its model card; 0 measures neither.

        Returns:
            The folder.

        Raises:
            PruneCoreError: the place or the format will not do; nothing is left behind.
        """
        measured = (_text(text), seq_len, windows, repeats)
        to = str(folder)
        job = Export(self.source, self.recipe, to, format, overwrite, *measured)
        return Path(self.run(job)["folder"])


class Model(View):
    """A dense model, loaded when it is first used.

    Args: as of :func:`load`.
    """

    def __init__(
        self,
        source: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        on_event: Emit | None = None,
    ) -> None:
        super().__init__(source, DENSE)
        self._place, self._progress = (device, dtype), Progress(on_event)

    @cached_property
    def core(self) -> Core:
        """Holds the loaded model and runs its jobs."""
        from prune_core.engine.core import Core

        return Core(*self._place)

    @property
    def info(self) -> ModelInfo:
        """What is known of the model: its layers, sizes, license, and warnings of loading it."""
        return self.core.loaded(self.source, self._progress).handle.info

    @cached_property
    def torch(self) -> nn.Module:
        """The dense model, in evaluation mode. Its tensors are shared: read them, never write."""
        from prune_core.models.clone import clone_shared

        return clone_shared(self.core.loaded(self.source, self._progress).handle.model)

    def run(self, job: Job) -> dict[str, Any]:
        """Run any job of ``prune_core.jobs`` on the model; see :meth:`View.run`."""
        return self.core.run(job, self._progress)

    def prune(self, recipe: Recipe) -> Pruned:
        """The model under a recipe, which is worked out when it is first needed.

        Any number of recipes may be pruned from one model; it stays as it is.

        Raises:
            PruneCoreError: no such criterion, or an argument that it does not take. What does not
                fit the model is refused where it is worked out.
        """
        from prune_core.pruning.ranks import check_arguments

        check_arguments(recipe.criterion, recipe.criterion_args)
        return Pruned(self, recipe)

    def importance(
        self,
        of: str = "heads",
        method: str | None = None,
        *,
        text: Text = "grimm",
        windows: int = 4,
        seq_len: int = 512,
    ) -> Importance:
        """Score parts of the dense model.

        Args:
            of: ``heads``, ``neurons``, ``blocks`` or ``layers``.
            method: heads: ``gradient`` (default), ``weight-norm``, ``ablation``, ``confidence``,
                ``entropy``; neurons: ``mean-activation`` (default), ``firing``, ``weighted``,
                ``fluctuation``; blocks: ``block-influence`` (default), ``angular``, ``ablation``,
                ``greedy``; layers: a criterion (default: ``magnitude``), ``ablation``.
            text: what is read.
            windows: of the text.
            seq_len: tokens in a window.

        Raises:
            RecipeError: no such parts.
            PruneCoreError: no such method, or the text does not fit the model.
        """
        from prune_core.analysis.blocks.methods import BlockRequest

        measured = (_text(text), seq_len, windows)
        match of, method:
            case "heads", _:
                method = method or "gradient"
                result = self.run(HeadImportance(self.source, method, *measured))
                # the first map is the one a decoder has; the others stand under "sites"
                scores = result["sites"][0]["scores"]
            case "neurons", _:
                method = method or "mean-activation"
                result = self.run(NeuronImportance(self.source, method, *measured))
                scores = result["scores"]
            case "blocks", _:
                method = method or next(iter(BLOCK_METHODS))
                asked = BlockRequest(self.source, *measured, self.run)
                result = dict(BLOCK_METHODS[method].fn(asked))
                scores = result["scores"]
            case "layers", "ablation":
                result = self.run(LayerImportance(self.source, "ablation", DENSE, *measured))
                scores = result["scores"]
            case "layers", _:
                method = method or "magnitude"
                recipe = Recipe(method, calibration=Calibration(_text(text), windows, seq_len))
                result = self.run(LayerImportance(self.source, "score", recipe, *measured))
                scores = result["scores"]
            case _:
                raise RecipeError(
                    "importance is of heads, neurons, blocks or layers, got {of!r}; choose one.",
                    of=of,
                )
        return Importance(of, method or "", scores, result)


class Pruned(View):
    """A model under a recipe; made by :meth:`Model.prune`.

    Attributes:
        model: the dense model that it was pruned from.
    """

    def __init__(self, model: Model, recipe: Recipe) -> None:
        super().__init__(model.source, recipe)
        self.model = model

    def run(self, job: Job) -> dict[str, Any]:
        """Run any job of ``prune_core.jobs`` on the model; see :meth:`View.run`."""
        return self.model.run(job)

    @cached_property
    def torch(self) -> nn.Module:
        """The pruned model, in evaluation mode; it stays as it is whatever is pruned after it.

        Pruned layers have weights of their own; everything else is shared with the dense model:
        read it, never write it.

        Raises:
            PruneCoreError: the recipe does not fit the model.
        """
        from prune_core.pruning.working_copy import pruned_module
        from prune_core.tasks.planning import work_out

        progress = self.model._progress
        loaded = self.model.core.loaded(self.source, progress)
        return pruned_module(loaded.handle, work_out(loaded, self.recipe, progress), progress)


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes:
        id: of the sweep, in its store.
        state: ``ended``, ``paused``, ``cancelled`` or ``stopped``.
        runs: one for each cell; ``numbers`` holds what was measured, ``error`` what went wrong.
    """

    id: str
    state: str
    runs: Sequence[Run] = field(repr=False)


def load(
    source: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    on_event: Emit | None = None,
) -> Model:
    """Load a model: fetched if needed, checked, in memory when this returns.

    Args:
        source: a preset, ``hub:OWNER/NAME[@REVISION]``, a folder or a ``.gguf`` file.
        device: ``cpu``, ``cuda``, ``mps``; None for ``PRUNE_DEVICE`` or the CPU.
        dtype: of the weights; None for ``PRUNE_DTYPE`` or float32.
        on_event: given each event of what takes long: a dict with ``stage``, ``done``, ``total``.

    Raises:
        PruneCoreError: no such model, or its files will not do.

    >>> load("tiny-gpt2").info.family
    'gpt2'
    """
    model = Model(source, device=device, dtype=dtype, on_event=on_event)
    model.run(LoadModel(source))
    return model


def sweep(
    grid: Grid | Mapping[str, Any] | str | Path,
    *,
    store: str | Path | None = None,
    executor: str = "inline",
    threads: int | None = None,
) -> Sweep:
    """Measure every cell of a grid into a store; equal grids go on where they stopped.

    Args:
        grid: what to measure, or the YAML file that says it; see docs/sweeps.md.
        store: a file or ``postgresql://USER@HOST/NAME``; None for ``PRUNE_STORE`` or the user's.
        executor: ``inline``, ``processes[:N]``, ``dask[:N]`` or ``dask://HOST:PORT``.
        threads: of torch in each worker; None shares the cores among them.

    Raises:
        GridError: the grid or the executor cannot be used.
        StoreError: the store cannot be used.
    """
    from prune_core.engine.sweep_worker import measure_cell
    from prune_core.sweeps.executors import parse_where
    from prune_core.sweeps.grid import Grid
    from prune_core.sweeps.run import run_sweep
    from prune_core.sweeps.store.journal import RunStore

    if isinstance(grid, str | Path):
        grid = Grid.from_file(grid)
    elif isinstance(grid, Mapping):
        grid = Grid.from_dict(dict(grid))
    where = parse_where(executor, threads)
    runs = RunStore(None if store is None else str(store))
    try:
        id = runs.add_sweep(grid)
        if runs.sweep(id).state != "active":
            runs.set_state(id, "active")
        state = run_sweep(runs, id, where, measure_cell)
        return Sweep(id, state, tuple(runs.runs(sweep=id)))
    finally:
        runs.close()


def _text(text: Text) -> TextSpec:
    return text if isinstance(text, TextSpec) else text_named(str(text))
