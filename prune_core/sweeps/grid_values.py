"""Reads what a grid's YAML says into values; refuses the rest by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from prune_core.errors import GridError, RecipeError
from prune_core.patterns import example_patterns
from prune_core.recipes.calibration import PRESET_TEXTS, Calibration, TextSpec
from prune_core.recipes.choices import OWN_PATTERN
from prune_core.recipes.form import Form
from prune_core.recipes.forms import forms_of
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence

MAX_CELLS = 20_000

ROWS = {form.grid: form for form in forms_of("weights", "structure") if form.grid}
"""Rows of a recipe's fields by the grid's key."""

_NUMBERED = ("criterion_args", "allocation_args", "overrides")

_UNITS = (
    ("{count:.0f} years", 31_557_600),
    ("{count:.0f} days", 86_400),
    ("{count:.0f} hours", 3600),
    ("{count:.0f} minutes", 60),
)


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


def check_name(what: str, name: str, names: Collection[str]) -> None:
    """Refuse a name that is not known, with the nearest that is."""
    if name not in names:
        kind = {"criteria": "criterion"}.get(what, what.removesuffix("s").replace("_", " "))
        raise GridError(
            "unknown {kind} {name!r}; {near}",
            kind=Sentence(kind),
            name=name,
            near=nearest(str(name), names),
        )


def nearest(name: str, names: Collection[str]) -> Sentence:
    """The known name that is nearest, or all of them."""
    if near := get_close_matches(name, sorted(names), 1, 0.5):
        return Sentence("did you mean {near}?", near=near[0])
    return Sentence("known are {known:list}.", known=sorted(names))


def as_tuple(name: str, content: Any) -> tuple[Any, ...]:
    """A list of a grid, or its one value, as a tuple."""
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
    none = (None, False, "none", "") if name in ROWS and ROWS[name].as_text else ()
    names = tuple("" if value in none else str(value) for value in values)
    for value in names:
        if name in ROWS and ROWS[name].as_text:
            value_said(ROWS[name], value)
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


def calibration_of(value: Any) -> Calibration:
    """The calibration that a grid says."""
    if not isinstance(value, Mapping):
        raise GridError("calibration is a mapping such as {text: andersen, windows: 32}.")
    content = dict(value)
    keys = {f.name for f in fields(Calibration)}
    for key in content:
        if key not in keys:
            near = nearest(str(key), keys)
            raise GridError("calibration has an unknown key {key!r}; {near}", key=key, near=near)
    if isinstance(content.get("text"), str):
        content["text"] = text_of(content["text"])
    try:
        return Calibration(**content)
    except (RecipeError, TypeError) as error:
        raise GridError("calibration: {error}", error=error) from None


def value_said(form: Form, value: Any) -> Any:
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


def duration(seconds: float) -> Sentence:
    """Seconds in the unit that a reader wants."""
    for template, size in _UNITS:
        if seconds >= 2 * size:
            return Sentence(template, count=seconds / size)
    return Sentence("{count:.0f} seconds", count=seconds)
