"""Grids: what a sweep is to measure, as a small YAML file or from the page. No torch here."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from prune_core.criteria import CRITERIA
from prune_core.errors import GridError, PruneCoreError, RecipeError
from prune_core.models.sources import parse_source
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.checks import checked_sparsity
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES, NeuronShare
from prune_core.recipes.recipe import ALLOCATIONS, RECONSTRUCTIONS, Recipe, choices_read_calibration
from prune_core.sweeps.records import Cell

MAX_CELLS = 20_000
SPEED = 1000.0
"""Tokens per second of an evaluation of a small model on two cores: only for a rough estimate."""

FIRST_WINDOWS = 2
"""Windows of the first look at every cell, where the grid asks for an interval."""

MAX_BYTES = 1_000_000
PRESET_TEXTS = ("grimm", "andersen")
_PLURAL = {
    "model": "models",
    "text": "texts",
    "criterion": "criteria",
    "pattern": "patterns",
    "allocation": "allocations",
    "reconstruction": "reconstructions",
    "sparsity": "sparsities",
}


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of what is listed is one cell.

    Attributes:
        name: what the user calls it; two grids that differ in nothing else are equal.
        models: as the command line names them.
        texts: presets or files to measure on.
        criteria, patterns, allocations, reconstructions: registered names. A pattern N:M has one
            sparsity, so it gives one cell in place of one for each sparsity.
        sparsities: shares of the weights, of what dropped parts leave.
        heads: heads to drop, ``BLOCK:HEAD,…`` each; empty for none.
        neurons: shares of the neurons to drop.
        neuron_method, neuron_scope: how they are chosen; see :class:`NeuronShare`.
        blocks: blocks to drop, ``BLOCK,…`` each; empty for none.
        calibration: for criteria that read a text.
        seq_len: tokens of a window.
        windows: windows of the text, at most.
        cost: measure speed and memory of every cell too.
        interval: half the width of the 95 % interval, as a share of the perplexity, that suffices
            on the front: then a few windows are measured everywhere first, and more only where
            it is not clear what the front is. None: all windows everywhere.
    """

    name: str = ""
    models: tuple[str, ...] = ()
    texts: tuple[str, ...] = ("grimm",)
    criteria: tuple[str, ...] = ("magnitude",)
    patterns: tuple[str, ...] = ("per-layer",)
    allocations: tuple[str, ...] = ("uniform",)
    reconstructions: tuple[str, ...] = ("none",)
    sparsities: tuple[float, ...] = (0.0,)
    heads: tuple[str, ...] = ("",)
    neurons: tuple[float, ...] = (0.0,)
    neuron_method: str = NEURON_METHODS[0]
    neuron_scope: str = NEURON_SCOPES[0]
    blocks: tuple[str, ...] = ("",)
    calibration: Calibration = field(default_factory=Calibration)
    seq_len: int = 512
    windows: int = 8
    cost: bool = False
    interval: float | None = None

    def __post_init__(self) -> None:
        for name in _LISTS:
            values = tuple(dict.fromkeys(getattr(self, name)))
            if not values:
                raise GridError(f"the grid is empty: {name} lists nothing.")
            object.__setattr__(self, name, values)
        for model in self.models:
            try:
                parse_source(model)
            except PruneCoreError as error:
                raise GridError(str(error)) from None
        for what, known in _KNOWN.items():
            for name in getattr(self, what):
                _check_name(what, name, known)
        _check_name("neuron_method", self.neuron_method, NEURON_METHODS)
        _check_name("neuron_scope", self.neuron_scope, NEURON_SCOPES)
        for share in (*self.sparsities, *self.neurons):
            try:
                checked_sparsity(share)
            except RecipeError as error:
                raise GridError(str(error)) from None
        for value, low, high, what in (
            (self.seq_len, 2, 2**20, "seq_len"),
            (self.windows, 1, 4096, "windows"),
        ):
            if type(value) is not int or not low <= value <= high:
                raise GridError(f"{what} must be a whole number from {low} to {high}.")
        if self.interval is not None and not (
            isinstance(self.interval, int | float) and 0 < self.interval < 1
        ):
            raise GridError("interval is a share of the perplexity between 0 and 1, such as 0.02.")
        count = math.prod(len(getattr(self, name)) for name in _LISTS)
        if count > MAX_CELLS:
            raise GridError(
                f"this grid has {count:,} cells, which would take about "
                f"{_duration(count * self.windows * self.seq_len / SPEED)} (an estimate, for a "
                f"small model on two cores); the most is {MAX_CELLS:,}: list fewer values."
            )
        self._expand()

    def cells(self) -> list[Cell]:
        """All cells, ordered so that what one needs is there for the next: by model, text and
        method, the lowest sparsity first.

        Combinations that cannot be, such as a global allocation per row, are left out.
        """
        return self._expand()[0]

    @property
    def left_out(self) -> list[str]:
        """Why combinations are left out, one sentence each."""
        return self._expand()[1]

    def _expand(self) -> tuple[list[Cell], list[str]]:
        found: dict[str, Cell] = {}
        reasons: dict[str, None] = {}
        for source, text in itertools.product(self.models, self.texts):
            place = (parse_source(source).text, text_of(text))
            for recipe in self._recipes(reasons):
                cell = Cell(place[0], recipe, place[1], self.seq_len, self.windows, self.cost)
                found.setdefault(cell.key, cell)
        if not found:
            raise GridError(next(iter(reasons), "the grid is empty."))
        return list(found.values()), list(reasons)

    def _recipes(self, reasons: dict[str, None]) -> Iterator[Recipe]:
        for heads, blocks, share in itertools.product(self.heads, self.blocks, self.neurons):
            try:
                parts = _structure(heads, blocks)
            except ValueError:
                raise GridError(
                    f"heads are BLOCK:HEAD,… and blocks BLOCK,…; got {heads or blocks!r}."
                ) from None
            for criterion, pattern, allocation, repair in itertools.product(
                self.criteria, self.patterns, self.allocations, self.reconstructions
            ):
                for sparsity in sorted(self.sparsities):
                    try:
                        yield self._recipe(
                            criterion, pattern, allocation, repair, sparsity, share, parts
                        )
                    except RecipeError as error:
                        reasons[str(error)] = None

    def _recipe(
        self,
        criterion: str,
        pattern: str,
        allocation: str,
        repair: str,
        sparsity: float,
        share: float,
        parts: Mapping[str, Any],
    ) -> Recipe:
        plain = Recipe(sparsity=sparsity).with_pattern(pattern)
        if not plain.sparsity:  # nothing to choose: one dense cell, or the structure alone
            criterion, pattern, allocation, repair = ("magnitude", "per-layer", "uniform", "none")
        reads = choices_read_calibration(criterion, allocation, repair, neurons=bool(share))
        return Recipe(
            criterion=criterion,
            pattern=pattern,
            allocation=allocation,
            sparsity=plain.sparsity,
            reconstruction=repair,
            neurons=NeuronShare(share, self.neuron_method, self.neuron_scope) if share else None,
            calibration=self.calibration if reads else Calibration(),
            **parts,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; :meth:`from_dict` reads it."""
        data = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in data.items()}

    @property
    def fingerprint(self) -> str:
        """Equal for grids that ask for the same."""
        content = {key: v for key, v in self.to_dict().items() if key != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    @classmethod
    def from_dict(cls, data: Any) -> Grid:
        """Read a mapping such as a YAML file holds; single values stand for lists of one.

        ``sparsities`` may also be ``{from: 0.1, to: 0.8, step: 0.1}``.

        Raises:
            GridError: not a mapping, an unknown key or name (the nearest known one is named), a
                value of the wrong kind, an empty grid or one too large.
        """
        if not isinstance(data, Mapping) or not data:
            raise GridError("a grid is a mapping such as 'criteria: [magnitude, wanda]'.")
        known = {f.name for f in fields(cls)}
        content: dict[str, Any] = {}
        for key, given in data.items():
            name = _PLURAL.get(str(key), str(key))
            if name not in known:
                raise GridError(f"the grid has an unknown key {key!r}{_nearest(name, known)}")
            if name in _LISTS:
                content[name] = _listed(name, given)
            elif name == "calibration":
                content[name] = _calibration(given)
            else:
                content[name] = given
        if "models" not in content:
            raise GridError("the grid names no model; add 'models: [smollm2-135m]'.")
        try:
            return cls(**content)
        except TypeError as error:
            raise GridError(f"the grid is not readable: {error}.") from None

    @classmethod
    def from_yaml(cls, text: str) -> Grid:
        """Read a grid from YAML.

        Raises:
            GridError: not YAML, or see :meth:`from_dict`.
        """
        import yaml

        try:
            return cls.from_dict(yaml.safe_load(text))
        except yaml.YAMLError as error:
            place = getattr(error, "problem_mark", None)
            where = f" (line {place.line + 1})" if place is not None else ""
            raise GridError(f"the grid is not valid YAML{where}.") from None

    @classmethod
    def from_file(cls, path: str | Path) -> Grid:
        """Read a grid from a YAML file.

        Raises:
            GridError: it cannot be read, or see :meth:`from_dict`.
        """
        try:
            with Path(path).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise GridError(f"the file {path} is too large for a grid.")
            return cls.from_yaml(content.decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise GridError(f"the grid {path} cannot be read: {reason}.") from None


_LISTS = (
    *("models", "texts", "criteria", "patterns", "allocations", "reconstructions"),
    *("sparsities", "heads", "neurons", "blocks"),
)
_KNOWN: Mapping[str, Sequence[str]] = {
    "criteria": tuple(CRITERIA),
    "allocations": ALLOCATIONS,
    "reconstructions": RECONSTRUCTIONS,
}
_PATTERNS = ("per-layer", "per-row", "nm:2:4", "block:4")


def text_of(name: str) -> TextSpec:
    """A preset's name, or a file's path."""
    return TextSpec("preset" if name in PRESET_TEXTS else "file", name)


def _check_name(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        kind = {"criteria": "criterion"}.get(what, what.removesuffix("s").replace("_", " "))
        raise GridError(f"unknown {kind} {name!r}{_nearest(str(name), known)}")


def _nearest(name: str, known: Sequence[str] | set[str]) -> str:
    near = get_close_matches(name, sorted(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}."


def _listed(name: str, given: Any) -> tuple[Any, ...]:
    if isinstance(given, Mapping) and name == "sparsities":
        return _steps(given)
    values = list(given) if isinstance(given, list | tuple) else [given]
    numbers = name in ("sparsities", "neurons")
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if numbers and not number:
            raise GridError(f"{name} are numbers from 0 to 1, got {value!r}.")
        if not numbers and isinstance(value, Mapping | list | tuple):
            raise GridError(f"{name} lists names, got {value!r}.")
    if numbers:
        return tuple(float(value) for value in values)
    none = (None, False, "none", "") if name in ("heads", "blocks") else ()
    named = tuple("" if value in none else str(value) for value in values)
    for value in named:
        if name == "patterns":
            try:
                Recipe().with_pattern(value)
            except RecipeError as error:
                near = get_close_matches(value, _PATTERNS, 1, 0.5)
                more = f" Did you mean {near[0]}?" if near else ""
                raise GridError(f"{error}{more}") from None
    return named


def _steps(given: Mapping[str, Any]) -> tuple[float, ...]:
    try:
        low, high, step = (float(given[key]) for key in ("from", "to", "step"))
        count = int((high - low) / step + 1e-9) + 1
        if set(given) != {"from", "to", "step"} or step <= 0 or not 1 <= count <= MAX_CELLS:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise GridError(
            "sparsities are a list, or {from: 0.1, to: 0.8, step: 0.1} with a step above 0."
        ) from None
    return tuple(round(low + index * step, 9) for index in range(count))


def _calibration(given: Any) -> Calibration:
    if not isinstance(given, Mapping):
        raise GridError("calibration is a mapping such as {text: andersen, windows: 32}.")
    content = dict(given)
    known = {f.name for f in fields(Calibration)}
    for key in content:
        if key not in known:
            raise GridError(f"calibration has an unknown key {key!r}{_nearest(str(key), known)}")
    if isinstance(content.get("text"), str):
        content["text"] = text_of(content["text"])
    try:
        return Calibration(**content)
    except (RecipeError, TypeError) as error:
        raise GridError(f"calibration: {error}") from None


def _structure(heads: str, blocks: str) -> dict[str, Any]:
    pairs = [pair.split(":") for pair in heads.split(",") if pair]
    return {
        "drop_heads": tuple((int(block), int(head)) for block, head in pairs),
        "drop_blocks": tuple(int(block) for block in blocks.split(",") if block),
    }


def _duration(seconds: float) -> str:
    for unit, size in (("years", 31_557_600), ("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def estimated_seconds(grid: Grid) -> float:
    """Roughly how long a grid takes; an estimate, for a small model on two cores."""
    return len(grid.cells()) * grid.windows * grid.seq_len / SPEED
