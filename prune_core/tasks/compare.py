"""Jobs that compare recipes: what each does to the blocks."""

from __future__ import annotations

import time
from typing import Any

import torch

from prune_core.errors import RecipeError
from prune_core.jobs.compare import BlockDamage, MaskOverlap
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out
from prune_core.tasks.weights import keep_mask

MEASURES = ("output", "loss")


@answers(BlockDamage)
def block_damage(
    loaded: LoadedModel, job: BlockDamage, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a BlockDamage job; see ``prune_core.jobs.compare.BlockDamage``.

    Raises:
        RecipeError: an unknown measure, or a loss of a model that has none.
        PruneCoreError: the recipe or the text does not fit; ``Cancelled`` among them.
    """
    from prune_core.analysis.blocks.damage import loss_damage, output_damage

    if job.measure not in MEASURES:
        raise RecipeError(
            "unknown measure {measure!r}; use {known:or}.", measure=job.measure, known=MEASURES
        )
    if job.measure == "loss" and not loaded.handle.info.has_language_head:
        raise RecipeError("This model is an encoder without a loss; measure the blocks' outputs.")
    started = time.perf_counter()
    windows = loaded.windows(job.text, job.seq_len, job.windows)
    plan = work_out(loaded, job.recipe, progress)
    loaded.copy.apply(plan, progress)
    dense, running = (loaded.dense, loaded.dense_runner), progress.stage("blocks")
    found: dict[str, Any]
    if job.measure == "loss":
        increase = loss_damage(*dense, loaded.copy, plan, windows, progress=running)
        found = {"increase": increase}
    else:
        found = dict(output_damage(*dense, loaded.copy, windows, progress=running))
    return {
        "measure": job.measure,
        **found,
        "tokens": sum(len(window) for window in windows),
        "windows": len(windows),
        "seconds": time.perf_counter() - started,
    }


@answers(MaskOverlap)
def mask_overlap(
    loaded: LoadedModel, job: MaskOverlap, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a MaskOverlap job; see ``prune_core.jobs.compare.MaskOverlap``."""
    from prune_core.analysis.weights.scores import jaccard, overlap

    ours, theirs = (work_out(loaded, recipe, progress) for recipe in (job.recipe, job.other))
    rows: list[dict[str, Any]] = []
    total = {"numel": 0, "ours": 0, "theirs": 0, "both": 0, "either": 0}
    comparing = progress.stage("overlap", len(loaded.handle.structure.layers))
    chance = 0.0  # weights that independent masks of these counts would share
    for index, (name, layer) in enumerate(loaded.handle.structure.layers.items()):
        progress.check("Cancelled while masks were compared.")
        masks = [keep_mask(loaded, plan, name) for plan in (ours, theirs)]
        whole = torch.ones(layer.out_features, layer.in_features, dtype=torch.bool)
        first, second = (whole if mask is None else mask for mask in masks)
        counts = {"numel": layer.numel, **overlap(first, second)}
        chance += counts["ours"] * counts["theirs"] / max(layer.numel, 1)
        total = {key: total[key] + counts[key] for key in total}
        place = {"name": name, "block": layer.block, "role": layer.role}
        rows.append({**place, **counts, "jaccard": jaccard(counts["both"], counts["either"])})
        comparing.step(index + 1)
    either = total["ours"] + total["theirs"] - chance
    return {
        "layers": rows,
        "total": {**total, "jaccard": jaccard(total["both"], total["either"])},
        "by_chance": chance / either if either else None,
    }
