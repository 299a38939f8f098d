"""A report's numbers as CSV and its recipes as files in a zip."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from prune_core.evaluation.metrics import kept_fields
from prune_core.models.weight_counts import added_share
from prune_core.reporting.content import Content
from prune_core.reporting.telling import command
from prune_core.sweeps.axes import smallest_file
from prune_core.sweeps.records import Run

_PLAIN = (*kept_fields(), "parameters", "nonzero", "nonzero_dense", "bytes_dense")
_PROTOCOL: tuple[str, ...] = (
    "seq_len",
    "windows",
    "tokens",
    "dtype",
    "device",
    "threads",
    "torch",
    "transformers",
)


def csv_bytes(content: Content) -> bytes:
    """All runs, one a line, with intervals and conditions (UTF-8 with BOM, for spreadsheets).

    Cells that a spreadsheet would run as a formula get a leading apostrophe.
    """
    names = {option.run.id: option.name for option in content.options}
    states = {p.run: p.state for p in (*content.found.points, *content.found.front)}
    rows = [_row(run, names.get(run.id, ""), states.get(run.id, "")) for run in content.runs]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({k: _safe(v) for k, v in row.items()} for row in rows)
    return out.getvalue().encode("utf-8-sig")


def _row(run: Run, option: str, state: str) -> dict[str, Any]:
    recipe, numbers = run.cell.recipe, run.numbers
    protocol, file = numbers.get("protocol") or {}, smallest_file(numbers)
    rates: dict[str, Any] = {}
    for name in ("prefill", "decode"):
        found = numbers.get(name)
        for part in ("median", "low", "high"):
            rates[f"{name}_{part}"] = found[part] if isinstance(found, Mapping) else None
    text = run.cell.text
    return {
        "run": run.id,
        "option": option,
        "front": state,
        "model": run.cell.source,
        "criterion": recipe.criterion if recipe.removes_weights else "",
        "pattern": recipe.pattern if recipe.removes_weights else "",
        "allocation": recipe.allocation if recipe.removes_weights else "",
        "reconstruction": recipe.reconstruction,
        "sparsity_asked": recipe.sparsity,
        "sparsity": numbers.get("sparsity"),
        "sparsity_of_model": numbers.get("sparsity_of_model"),
        "zeros_before": numbers.get("zeros_before"),
        "added": added_share(numbers),
        "zeros_after": numbers.get("zeros_after"),
        **{name: numbers.get(name) for name in _PLAIN},
        "bytes_smallest": None if file is None else int(file.value),
        "bytes_form": "" if file is None else file.form,
        **rates,
        "peak_memory": numbers.get("peak_memory"),
        "text": "inline" if text.kind == "inline" else text.value,
        **{name: protocol.get(name) for name in _PROTOCOL},
        "recipe": recipe.fingerprint,
        "finished": run.finished,
        "note": run.note,
    }


def _safe(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{cell}"
    return "" if cell is None else cell


def recipes_zip(content: Content) -> bytes:
    """The options' recipes, and all others under ``all/``, with the commands that measure them."""
    out = io.BytesIO()
    named = {option.run.id: option.name for option in content.options}
    lines = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for option in content.options:
            archive.writestr(f"{option.name}.json", _json(option.run))
            lines += [f"{option.name}: {command(option.run)}", ""]
        for run in content.runs:
            if run.id not in named and not run.cell.recipe.is_dense:
                archive.writestr(f"all/{run.cell.recipe.fingerprint}.json", _json(run))
        archive.writestr("commands.txt", "\n".join(lines))
    return out.getvalue()


def _json(run: Run) -> str:
    return json.dumps(run.cell.recipe.to_dict(), indent=2, ensure_ascii=False) + "\n"
