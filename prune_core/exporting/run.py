"""One export from recipe to a folder that was loaded again and measured."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig

from prune_core.errors import RecipeError
from prune_core.evaluation.estimate import safe_exp
from prune_core.evaluation.metrics import kept_fields
from prune_core.evaluation.scoring import run_window
from prune_core.exporting.card import model_card, shared_recipe, shared_source
from prune_core.exporting.compressed import read_compressed, write_compressed
from prune_core.exporting.cost import (
    checkpoint_of,
    cost_numbers,
    flops_per_token,
    parameter_counts,
    plain_copy,
    prompt,
    temporary_checkpoints,
    weight_bytes,
    write_weights,
)
from prune_core.exporting.formats import FORMATS
from prune_core.exporting.shrink import shrink
from prune_core.exporting.speed import REPEATS, measure_in_turn
from prune_core.exporting.write import (
    MEASURED,
    RECIPE,
    ExportError,
    check_space,
    write_folder,
)
from prune_core.models.handle import ModelHandle
from prune_core.models.reading import quiet
from prune_core.paths import PROJECT_ROOT
from prune_core.progress import NONE, Progress
from prune_core.recipes.recipe import Recipe

TOLERANCE, ROUNDINGS = 1e-3, 16
"""Largest difference, relative to the largest answer and to the perplexity, that rounding may
explain: the first, or so many units of a narrow dtype's last place. What sums fewer terms than the
file with its zeros rounds otherwise."""

STEPS = ("write", "load", "verify", "measure")

CANCELLED = "Cancelled while exporting; nothing was kept."


def export(
    handle: ModelHandle,
    pruned: nn.Module,
    recipe: Recipe,
    form: str,
    folder: Path,
    windows: Sequence[Tensor],
    screen: Mapping[str, Any],
    *,
    overwrite: bool,
    repeats: int = REPEATS,
    progress: Progress = NONE,
    resolved: Recipe | None = None,
) -> dict[str, Any]:
    """Write a checkpoint, load it with plain transformers, measure it, move it into place.

    Args:
        handle: the dense model.
        pruned: the working copy at ``recipe``.
        recipe: what was removed.
        form: one of :data:`FORMATS`.
        folder: the target.
        windows: token windows of the evaluation text, (seq,) each.
        screen: what the app measured on them: the result of ``engine.jobs.Evaluate``.
        overwrite: an existing export is replaced.
        repeats: of the measurement of speed and memory; 0 leaves them out.
        progress: the stages :data:`STEPS` and ``done``; a cancel is seen between the steps.
        resolved: the recipe with its share of neurons as named ones, if it has one.

    Returns:
        See ``engine.jobs.Export``.

    Raises:
        ExportError: the place cannot be written, or what was written does not answer like the
            model on screen; then nothing is kept.
        RecipeError: see :func:`prune_core.exporting.shrink.shrink`.
        Cancelled: by ``progress``; nothing is kept.
    """
    if form not in FORMATS:
        raise ExportError("unknown format {form!r}; use {known:or}.", form=form, known=FORMATS)
    result: dict[str, Any] = {"format": form, "repeats": repeats, "folder": str(folder)}
    cutting = resolved or recipe
    result["parts"] = cutting.parts_dropped

    def step(stage: str) -> None:
        progress.check(CANCELLED)
        progress.stage(stage).step(STEPS.index(stage), len(STEPS))

    def fill(place: Path) -> None:
        step("write")
        model, result["cut"] = _model_to_write(handle, pruned, cutting, form)
        result["library_format"] = _write(handle, model, recipe, form, place)
        del model
        step("load")
        again = _load(handle, place, result["library_format"])
        step("verify")
        result["difference"] = _difference(handle, pruned, again, windows[0])
        perplexity = _perplexity(handle, again, windows, progress)
        _same(handle, cutting, form, result["difference"], (perplexity, screen["perplexity"]))
        step("measure")
        result["exported"] = {
            **parameter_counts(again),
            "bytes": weight_bytes(place),
            "flops_per_token": flops_per_token(again),
            "perplexity": perplexity,
        }
        del again
        result["dense"] = {
            **parameter_counts(handle.model),
            "bytes": handle.info.bytes_in_memory,
            "flops_per_token": flops_per_token(handle.model),
            "perplexity": screen["perplexity_dense"],
        }
        result["screen"] = _screen_summary(screen)
        _measure_speed(handle, place, windows, result, progress)
        auto = checkpoint_of(handle, place).auto
        result["card"] = model_card(handle.info, recipe, result, auto)
        (place / "README.md").write_text(result["card"], encoding="utf-8")
        numbers = {k: v for k, v in result.items() if k not in ("card", "folder")}
        numbers["screen"] = _without_folders(numbers["screen"])
        (place / MEASURED).write_text(json.dumps(numbers, indent=2), encoding="utf-8")

    check_space(folder, _expected(handle, pruned, cutting, form))
    write_folder(folder, fill, overwrite=overwrite)
    result["files"] = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    progress.stage("done").step(len(STEPS), len(STEPS))
    return result


def _expected(handle: ModelHandle, pruned: nn.Module, recipe: Recipe, form: str) -> int:
    """About the bytes that the weights will take."""
    numbers = cost_numbers(handle, pruned, recipe)
    name = {"shrunk": "bytes_shrunk", "compressed": "bytes_sparse"}.get(form, "bytes_dense")
    return int(numbers[name] or numbers["bytes_dense"])


def _model_to_write(
    handle: ModelHandle, pruned: nn.Module, recipe: Recipe, form: str
) -> tuple[Any, bool]:
    """The model to write, and whether dropped parts are cut out of it."""
    if form != "masked":
        try:
            return shrink(pruned, handle.structure, recipe), recipe.removes_structure
        except RecipeError:
            if form == "shrunk":
                raise
    return plain_copy(handle, pruned), False


def _write(handle: ModelHandle, model: Any, recipe: Recipe, form: str, place: Path) -> str | None:
    """Everything but card and numbers; the compressed-tensors format, or None."""
    library_format = None
    with quiet():
        if form == "compressed":
            library_format = write_compressed(model, place)
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(place)
            if model.can_generate():
                model.generation_config.save_pretrained(place)
        else:
            model.save_pretrained(place)
    handle.tokenizer.save_pretrained(place)
    shared = json.dumps(shared_recipe(recipe), indent=2)
    (place / RECIPE).write_text(shared + "\n", encoding="utf-8")
    if handle.info.license.lower() == "apache-2.0":  # section 4a: a copy of the license
        shutil.copyfile(PROJECT_ROOT / "LICENSE", place / "LICENSE")
    return library_format


def _load(handle: ModelHandle, place: Path, library_format: str | None) -> Any:
    """What was written, as plain transformers (and compressed-tensors) give it."""
    dtype, kind = handle.model.dtype, type(handle.model)
    with quiet():
        if library_format is None:
            again: Any = kind.from_pretrained(place, dtype=dtype)
        else:
            auto: Any = getattr(transformers, checkpoint_of(handle, place).auto)
            again = auto.from_config(AutoConfig.from_pretrained(place), dtype=dtype)
            read_compressed(again, place, library_format)
            again.tie_weights()
    return again.eval().to(handle.model.device)


def _measure_speed(
    handle: ModelHandle,
    place: Path,
    windows: Sequence[Tensor],
    result: dict[str, Any],
    progress: Progress = NONE,
) -> None:
    """Adds ``bytes`` of a dense file, ``prefill``, ``decode`` and ``peak_memory`` of both."""
    tokens = prompt(handle, windows[0].tolist())
    result["prompt_tokens"] = len(tokens)
    for name in ("dense", "exported"):
        result[name] |= {"prefill": None, "decode": None, "peak_memory": None}
    if not result["repeats"]:
        return
    with temporary_checkpoints() as beside:
        write_weights(handle, None, Recipe(), beside / "dense")
        result["dense"]["bytes"] = weight_bytes(beside / "dense")
        speeds = measure_in_turn(
            {
                "dense": checkpoint_of(handle, beside / "dense"),
                "exported": checkpoint_of(handle, place, result["library_format"]),
            },
            tokens,
            repeats=result["repeats"],
            progress=progress.stage("measure"),
        )
    for name in ("dense", "exported"):
        for key in ("prefill", "decode", "peak_memory"):
            result[name][key] = speeds[name][key]


def _same(
    handle: ModelHandle,
    recipe: Recipe,
    form: str,
    difference: float,
    perplexities: tuple[float | None, float | None],
) -> None:
    """Refuse an export that is not the model on screen.

    Args:
        handle: the dense model.
        recipe: what was removed.
        form: of the export.
        difference: see :func:`_difference`.
        perplexities: of the file and on screen.
    """
    tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(handle.model.dtype).eps)
    close = difference <= tolerance
    ours, theirs = perplexities
    if ours is not None and theirs is not None:
        close = close and math.isclose(ours, theirs, rel_tol=tolerance)
    if close:
        return
    if form != "masked" or not recipe.drop_blocks:
        raise ExportError(
            "What was written does not answer like the model on screen; nothing was kept."
        )
    raise ExportError(
        "What was written does not answer like the model on screen (a dropped block of this family "
        "is not the same as one of zeros); export it as shrunk instead."
    )


def _without_folders(screen: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation as it goes with the files; see :func:`shared_source`."""
    protocol = dict(screen["protocol"])
    for name in ("model", "text"):
        protocol[name] = shared_source(protocol[name])
    return {**screen, "protocol": protocol}


def _screen_summary(screen: Mapping[str, Any]) -> dict[str, Any]:
    """What the card and the drawer need of an evaluation."""
    zeros = ("sparsity", "zeros_before", "added", "zeros_after", "counts")
    return {name: screen[name] for name in ("metric", *kept_fields(), "protocol", *zeros)}


def _answer(handle: ModelHandle, model: Any, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        if handle.structure.kind == "encoder-decoder":
            half = max(1, tokens.shape[1] // 2)
            output = model(input_ids=tokens[:, :half], decoder_input_ids=tokens[:, half:])
        else:
            output = model(input_ids=tokens)
    values: Tensor = output.logits if hasattr(output, "logits") else output.last_hidden_state
    return values.float().cpu()


def _difference(handle: ModelHandle, pruned: Any, again: Any, window: Tensor) -> float:
    """Largest difference of two models' answers, relative to the largest answer."""
    tokens = window[None, :128]
    ours, theirs = (
        _answer(handle, m, tokens.to(next(m.parameters()).device)) for m in (pruned, again)
    )
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-9))


def _perplexity(
    handle: ModelHandle, model: Any, windows: Sequence[Tensor], progress: Progress
) -> float | None:
    """Of the loaded file, by whole forward passes; None without a language head."""
    if not handle.info.has_language_head:
        return None
    total, count = 0.0, 0
    device = next(model.parameters()).device
    with torch.inference_mode():
        for window in windows:
            progress.check(CANCELLED)
            logits, targets = run_window(model, handle.structure, window[None].to(device))
            loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
            total += float(loss)
            count += len(targets)
    return safe_exp(total / count)
