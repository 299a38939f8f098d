"""Cells and runs as JSON: in the store, and as a file that another store takes in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from prune_core.errors import PruneCoreError, StoreError
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.records import Cell, Run

FORMAT = "prunescope run"
RUN_SCHEMA = 1
MAX_RUN_BYTES = 8_000_000

LEFT_OUT = ("strip",)
"""Fields of an evaluation that a run does not keep: text, which may be private and is long."""


def cell_to_dict(cell: Cell) -> dict[str, Any]:
    """Plain data; :func:`cell_from_dict` reads it."""
    return {**asdict(cell), "recipe": cell.recipe.to_dict()}


def cell_from_dict(data: Mapping[str, Any]) -> Cell:
    """Read what :func:`cell_to_dict` wrote.

    Raises:
        StoreError, RecipeError: a field is missing, unknown or of the wrong kind.
    """
    content = dict(data)
    unknown = sorted(set(content) - {f.name for f in fields(Cell)})
    if unknown:
        raise StoreError("unknown field in the cell: {unknown}.", unknown=unknown[0])
    try:
        content["recipe"] = Recipe.from_dict(content["recipe"])
        content["text"] = TextSpec(**content["text"])
        cell = Cell(**content)
    except (KeyError, TypeError) as error:
        raise StoreError("the cell is not readable: {error}.", error=error) from None
    whole = [cell.seq_len, cell.windows]
    words = [cell.source, cell.text.kind, cell.text.value]
    if not all(type(x) is int for x in whole) or not all(isinstance(x, str) for x in words):
        raise StoreError("the cell is not readable: a field is of the wrong kind.")
    return cell


def kept_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What a run keeps of an evaluation's result."""
    return {key: value for key, value in numbers.items() if key not in LEFT_OUT}


def run_to_dict(run: Run) -> dict[str, Any]:
    """A finished run as JSON that any reader takes, with the schema version.

    JSON has no infinity and no NaN: they are written as ``{"float": "inf"}``.
    """
    data = {f.name: getattr(run, f.name) for f in fields(Run)}
    data |= {"cell": cell_to_dict(run.cell), "numbers": _encoded(dict(run.numbers))}
    return {"format": FORMAT, "schema": RUN_SCHEMA, **data}


def run_from_dict(data: Any) -> Run:
    """Read what :func:`run_to_dict` wrote.

    Raises:
        StoreError: it is no run, from a newer version, unfinished or damaged.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise StoreError("this file holds no run of Prunescope.")
    if data.get("schema") != RUN_SCHEMA:
        raise StoreError(
            "this run has schema {schema!r}; this version of Prunescope reads schema {known}.",
            schema=data.get("schema"),
            known=RUN_SCHEMA,
        )
    content = {key: value for key, value in data.items() if key not in ("format", "schema")}
    if content.get("state") not in ("done", "failed"):
        raise StoreError("this run is not finished; only finished runs are taken in.")
    try:
        content["cell"] = cell_from_dict(content["cell"])
        numbers = content.get("numbers", {})
        if not isinstance(numbers, Mapping):
            raise TypeError("numbers must map names to values")
        content["numbers"] = _decoded(dict(numbers))
        run = Run(**content)
        words = [run.id, run.sweep, run.note, *([run.error] if run.error is not None else [])]
        times = [run.created, *([run.finished] if run.finished is not None else [])]
        if not all(isinstance(x, str) for x in words) or type(run.attempts) is not int:
            raise TypeError("a field is of the wrong kind")
        if not all(type(x) in (int, float) and math.isfinite(x) for x in times):
            raise TypeError("a time is not a number")
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError("this run is not readable: {error}.", error=error) from None
    return run


def run_from_bytes(content: bytes) -> Run:
    """Read an exported run's file; see :func:`run_from_dict`.

    Raises:
        StoreError: besides, not JSON or too large.
    """
    if len(content) > MAX_RUN_BYTES:
        raise StoreError(
            "this file has {size:.0f} MB; a run has less than 8 MB.", size=len(content) / 1e6
        )
    try:
        return run_from_dict(json.loads(content.decode("utf-8-sig")))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, PruneCoreError):
            raise
        raise StoreError("this file is no readable JSON; export the run again.") from None


def _encoded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, dict):
        return {str(key): _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"float"} and value["float"] in ("inf", "-inf", "nan"):
            return float(value["float"])
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value
