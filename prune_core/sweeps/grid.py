"""Grids: what a sweep is to measure, as a small YAML file or from the page. No torch here."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from prune_core.criteria import CRITERIA
from prune_core.errors import GridError, PruneCoreError, RecipeError
from prune_core.models.sources import parse_source
from prune_core.patterns import example_patterns
from prune_core.recipes.calibration import PRESET_TEXTS, Calibration, TextSpec
from prune_core.recipes.checks import checked_sparsity
from prune_core.recipes.forms import BY_FIELD, Form, forms_of, recipe_of
from prune_core.recipes.parts import NEURON_METHOD, NEURON_METHODS, NEURON_SCOPES
from prune_core.recipes.recipe import (
    ALLOCATIONS,
    OWN_PATTERN,
    RECONSTRUCTIONS,
    Recipe,
    own_pattern,
)
from prune_core.sentences import Sentence
from prune_core.sweeps.records import Cell

MAX_CELLS = 20_000
SPEED = 1000.0
"""Tokens per second of an evaluation of a small model on two cores: only for a rough estimate."""

FIRST_WINDOWS = 2
"""Windows of the first look at every cell, where the grid asks for an interval."""

MAX_BYTES = 1_000_000
_ROWS = {form.grid: form for form in forms_of("weights", "structure") if form.grid}
"""Rows of a recipe's fields by the grid's key."""

_PLURAL = {"model": "models", "text": "texts"} | {
    form.field: key for key, form in _ROWS.items() if "." not in form.field
}
"""A key that may be said in place of the grid's own: that of the recipe's field."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of what is listed is one cell.

    Attributes:
        name: what the user calls it; two grids that differ in nothing else are equal.
        models: as the command line names them.
        texts: presets or files to measure on.
        criteria, patterns, allocations, reconstructions: registered names. A pattern N:M has one
            sparsity, so it gives one cell in place of one for each sparsity; ``own`` is the one
            that each criterion is meant for.
        sparsities: shares of the weights, of what dropped parts leave.
        heads: heads to drop, ``BLOCK:HEAD,…`` each; empty for none.
        neurons: shares of the neurons to drop.
        neuron_method, neuron_scope: how they are chosen; see :class:`NeuronShare`.
        blocks: blocks to drop, ``BLOCK,…`` each; empty for none.
        criterion_args, allocation_args: ``NAME=NUMBER,…`` each, as ``--criterion-arg`` takes them;
            empty for the defaults. Criteria that do not take an argument are left out with it.
        overrides: ``PART=SHARE,…`` each, as ``--override`` takes them; empty for none.
        drop_cross_heads, drop_neurons: ``BLOCK:PART,…`` each; empty for none.
        drop_attention, drop_mlp: ``BLOCK,…`` each; empty for none.
        compensate: add what dropped neurons gave to the bias of their layer.
        calibration: for criteria that read a text. A preset that a cell is measured on is replaced
            there by the other one.
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
    patterns: tuple[str, ...] = (OWN_PATTERN,)
    allocations: tuple[str, ...] = ("uniform",)
    reconstructions: tuple[str, ...] = ("none",)
    sparsities: tuple[float, ...] = (0.0,)
    heads: tuple[str, ...] = ("",)
    neurons: tuple[float, ...] = (0.0,)
    neuron_method: str = NEURON_METHOD
    neuron_scope: str = NEURON_SCOPES[0]
    blocks: tuple[str, ...] = ("",)
    calibration: Calibration = field(default_factory=Calibration)
    seq_len: int = 512
    windows: int = 8
    cost: bool = False
    interval: float | None = None
    criterion_args: tuple[str, ...] = ("",)
    allocation_args: tuple[str, ...] = ("",)
    overrides: tuple[str, ...] = ("",)
    drop_cross_heads: tuple[str, ...] = ("",)
    drop_neurons: tuple[str, ...] = ("",)
    drop_attention: tuple[str, ...] = ("",)
    drop_mlp: tuple[str, ...] = ("",)
    compensate: tuple[bool, ...] = (False,)

    def __post_init__(self) -> None:
        for name in _LISTS:
            values = tuple(dict.fromkeys(getattr(self, name)))
            if not values:
                raise GridError("the grid is empty: {name} lists nothing.", name=name)
            object.__setattr__(self, name, values)
        for model in self.models:
            try:
                parse_source(model)
            except PruneCoreError as error:
                raise GridError(error.sentence) from None
        for what, names in _KNOWN.items():
            for name in getattr(self, what):
                _check_name(what, name, names)
        self._name_own_pattern()
        _check_name("neuron_method", self.neuron_method, NEURON_METHODS)
        _check_name("neuron_scope", self.neuron_scope, NEURON_SCOPES)
        for share in (*self.sparsities, *self.neurons):
            try:
                checked_sparsity(share)
            except RecipeError as error:
                raise GridError(error.sentence) from None
        for value, low, high, what in (
            (self.seq_len, 2, 2**20, "seq_len"),
            (self.windows, 1, 4096, "windows"),
        ):
            if type(value) is not int or not low <= value <= high:
                raise GridError(
                    "{what} must be a whole number from {low} to {high}.",
                    what=what,
                    low=low,
                    high=high,
                )
        if self.interval is not None and not (
            isinstance(self.interval, int | float) and 0 < self.interval < 1
        ):
            raise GridError("interval is a share of the perplexity between 0 and 1, such as 0.02.")
        count = math.prod(len(getattr(self, name)) for name in _LISTS)
        if count > MAX_CELLS:
            raise GridError(
                "this grid has {count:,} cells, which would take about {time} (an estimate, for a "
                "small model on two cores); the most is {most:,}: list fewer values.",
                count=count,
                time=_duration(count * self.windows * self.seq_len / SPEED),
                most=MAX_CELLS,
            )
        self._expand()

    def cells(self) -> list[Cell]:
        """All cells, ordered so that what one needs is there for the next: by model, text and
        method, the lowest sparsity first.

        Combinations that cannot be, such as a global allocation per row, are left out.
        """
        return self._expand()[0]

    @property
    def left_out(self) -> list[Sentence]:
        """Why combinations are left out, one sentence each."""
        return self._expand()[1]

    def _expand(self) -> tuple[list[Cell], list[Sentence]]:
        cells: dict[str, Cell] = {}
        reasons: dict[Sentence, None] = {}
        recipes = list(self._recipes(reasons))
        for source, text in itertools.product(self.models, self.texts):
            place = (parse_source(source).text, text_of(text))
            calibration = self._calibration_for(place[1])
            for plain in recipes:
                recipe = replace(plain, calibration=calibration)
                cell = Cell(place[0], recipe, place[1], self.seq_len, self.windows, self.cost)
                cells.setdefault(cell.key, cell)
        if not cells:
            raise GridError(next(iter(reasons), Sentence("the grid is empty.")))
        return list(cells.values()), list(reasons)

    def _name_own_pattern(self) -> None:
        """Where all criteria have the same own pattern it is named: such grids stay equal to those
        that name it."""
        own = {own_pattern(name) for name in self.criteria}
        if len(own) == 1:
            patterns = [next(iter(own)) if x == OWN_PATTERN else x for x in self.patterns]
            object.__setattr__(self, "patterns", tuple(dict.fromkeys(patterns)))

    def _combinations(self) -> Iterator[dict[str, Any]]:
        """Every combination of what is listed, as values of a recipe by field."""
        choices: dict[str, list[Any]] = {}
        for key in _ORDER:
            form = _ROWS[key]
            choices[form.field] = [_value(form, value) for value in getattr(self, key)]
        choices["sparsity"].sort()
        for values in itertools.product(*choices.values()):
            yield dict(zip(choices, values, strict=True))

    def _recipes(self, reasons: dict[Sentence, None]) -> Iterator[Recipe]:
        for values in self._combinations():
            try:
                yield self._recipe(values)
            except RecipeError as error:
                reasons[error.sentence] = None

    def _calibration_for(self, text: TextSpec) -> Calibration:
        if self.calibration.text != text or text.kind != "preset":
            return self.calibration
        other = next(name for name in PRESET_TEXTS if name != text.value)
        return replace(self.calibration, text=TextSpec("preset", other))

    def _recipe(self, values: Mapping[str, Any]) -> Recipe:
        """One combination.

        Raises:
            RecipeError: it cannot be.
        """
        values = dict(values)
        plain = Recipe(sparsity=values["sparsity"]).with_pattern(values["pattern"])
        values["sparsity"] = plain.sparsity
        by_value = values["criterion"] == "threshold" and values["criterion_args"].get("value")
        if not plain.sparsity and not any(values["overrides"].values()) and not by_value:
            # nothing to choose: one dense cell, or the structure alone
            values = {f: v for f, v in values.items() if BY_FIELD[f].group != "weights"}
        if values["neurons.fraction"]:
            values |= {"neurons.method": self.neuron_method, "neurons.scope": self.neuron_scope}
        recipe = recipe_of(values)
        defaults = CRITERIA[recipe.criterion].defaults
        for name in recipe.criterion_args:
            if name not in defaults:
                none = Sentence("it takes none")
                takes = Sentence("it takes {known:list}", known=defaults) if defaults else none
                raise RecipeError(
                    "the criterion {criterion} has no argument {name!r}; {takes}.",
                    criterion=recipe.criterion,
                    name=name,
                    takes=takes,
                )
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Plain data; :meth:`from_dict` reads it."""
        data = asdict(self)
        for key in _ADDED:  # grids without them keep the fingerprint they had
            if len(data[key]) == 1 and not data[key][0]:
                del data[key]
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
        keys = {f.name for f in fields(cls)}
        content: dict[str, Any] = {}
        for key, value in data.items():
            name = _PLURAL.get(str(key), str(key))
            if name not in keys:
                near = _nearest(name, keys)
                raise GridError("the grid has an unknown key {key!r}; {near}", key=key, near=near)
            if name in _LISTS:
                content[name] = _as_tuple(name, value)
            elif name == "calibration":
                content[name] = _calibration(value)
            else:
                content[name] = value
        if "models" not in content:
            raise GridError("the grid names no model; add 'models: [smollm2-135m]'.")
        try:
            return cls(**content)
        except TypeError as error:
            raise GridError("the grid is not readable: {error}.", error=error) from None

    @classmethod
    def from_yaml(cls, text: str) -> Grid:
        """Read a grid from YAML.

        Raises:
            GridError: not YAML, or see :meth:`from_dict`.
        """
        return cls.from_dict(read_yaml(text))

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
                raise GridError("the file {path} is too large for a grid.", path=path)
            return cls.from_yaml(content.decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or Sentence("it is not text")
            raise GridError(
                "the grid {path} cannot be read: {reason}.", path=path, reason=reason
            ) from None


_ADDED = (
    *("criterion_args", "allocation_args", "overrides", "drop_cross_heads", "drop_neurons"),
    *("drop_attention", "drop_mlp", "compensate"),
)
"""Lists that earlier versions did not know."""

_ORDER = (
    *("heads", "blocks", "drop_cross_heads", "drop_neurons", "drop_attention", "drop_mlp"),
    *("neurons", "compensate", "criteria", "criterion_args", "patterns", "allocations"),
    *("allocation_args", "reconstructions", "overrides", "sparsities"),
)
"""Keys of what is combined, the last one changing first."""

_LISTS = ("models", "texts", *_ORDER)
_KNOWN: Mapping[str, Collection[str]] = {
    "criteria": CRITERIA,
    "allocations": ALLOCATIONS,
    "reconstructions": RECONSTRUCTIONS,
}
_NUMBERED = ("criterion_args", "allocation_args", "overrides")


def read_yaml(text: str) -> Any:
    """What a grid's YAML holds.

    Raises:
        GridError: not YAML; the sentence names the line.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else Sentence(" (line {line})", line=place.line + 1)
        raise GridError("the grid is not valid YAML{where}.", where=where) from None


def text_of(name: str) -> TextSpec:
    """A preset's name, or a file's path."""
    return TextSpec("preset" if name in PRESET_TEXTS else "file", name)


def _check_name(what: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        kind = {"criteria": "criterion"}.get(what, what.removesuffix("s").replace("_", " "))
        raise GridError(
            "unknown {kind} {name!r}; {near}",
            kind=Sentence(kind),
            name=name,
            near=_nearest(str(name), names),
        )


def _nearest(name: str, names: Collection[str]) -> Sentence:
    if near := get_close_matches(name, sorted(names), 1, 0.5):
        return Sentence("did you mean {near}?", near=near[0])
    return Sentence("known are {known:list}.", known=sorted(names))


def _as_tuple(name: str, content: Any) -> tuple[Any, ...]:
    if isinstance(content, Mapping) and name == "sparsities":
        return _steps(content)
    values = list(content) if isinstance(content, list | tuple) else [content]
    if name == "compensate":
        if not all(isinstance(value, bool) for value in values):
            raise GridError("compensate lists true or false, got {values!r}.", values=values)
        return tuple(values)
    if name in _NUMBERED:
        values = [
            ",".join(f"{key}={number}" for key, number in value.items())
            if isinstance(value, Mapping)
            else value
            for value in values
        ]
    numbers = name in ("sparsities", "neurons")
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if numbers and not number:
            raise GridError(
                "{name} are numbers from 0 to 1, got {value!r}.", name=name, value=value
            )
        if not numbers and isinstance(value, Mapping | list | tuple):
            raise GridError("{name} lists names, got {value!r}.", name=name, value=value)
    if numbers:
        return tuple(float(value) for value in values)
    none = (None, False, "none", "") if name in _ROWS and _ROWS[name].as_text else ()
    names = tuple("" if value in none else str(value) for value in values)
    for value in names:
        if name in _ROWS and _ROWS[name].as_text:
            _value(_ROWS[name], value)
        if name == "patterns":
            try:
                Recipe().with_pattern(value)
            except RecipeError as error:
                near = get_close_matches(value, [OWN_PATTERN, *example_patterns()], 1, 0.5)
                if not near:
                    raise GridError(error.sentence) from None
                raise GridError("{error} Did you mean {near}?", error=error, near=near[0]) from None
    return names


def _steps(value: Mapping[str, Any]) -> tuple[float, ...]:
    try:
        low, high, step = (float(value[key]) for key in ("from", "to", "step"))
        count = int((high - low) / step + 1e-9) + 1
        if set(value) != {"from", "to", "step"} or step <= 0 or not 1 <= count <= MAX_CELLS:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise GridError(
            "sparsities are a list, or {from: 0.1, to: 0.8, step: 0.1} with a step above 0."
        ) from None
    return tuple(round(low + index * step, 9) for index in range(count))


def _calibration(value: Any) -> Calibration:
    if not isinstance(value, Mapping):
        raise GridError("calibration is a mapping such as {text: andersen, windows: 32}.")
    content = dict(value)
    keys = {f.name for f in fields(Calibration)}
    for key in content:
        if key not in keys:
            near = _nearest(str(key), keys)
            raise GridError("calibration has an unknown key {key!r}; {near}", key=key, near=near)
    if isinstance(content.get("text"), str):
        content["text"] = text_of(content["text"])
    try:
        return Calibration(**content)
    except (RecipeError, TypeError) as error:
        raise GridError("calibration: {error}", error=error) from None


def _value(form: Form, value: Any) -> Any:
    """What a grid lists under the key of a row, as the field's value.

    Raises:
        GridError: it is nothing that the field can be; the sentence names the key.
    """
    if not form.as_text:
        return value
    try:
        return form.read(value, form.grid)
    except RecipeError as error:
        raise GridError(error.sentence) from None


_UNITS = (
    ("{count:.0f} years", 31_557_600),
    ("{count:.0f} days", 86_400),
    ("{count:.0f} hours", 3600),
    ("{count:.0f} minutes", 60),
)


def _duration(seconds: float) -> Sentence:
    for template, size in _UNITS:
        if seconds >= 2 * size:
            return Sentence(template, count=seconds / size)
    return Sentence("{count:.0f} seconds", count=seconds)


def estimated_seconds(grid: Grid) -> float:
    """Roughly how long a grid takes; an estimate, for a small model on two cores."""
    return len(grid.cells()) * grid.windows * grid.seq_len / SPEED
