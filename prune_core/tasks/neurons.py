"""Jobs about neurons: what they do on a text, all of them at a glance, one of them closely."""

from __future__ import annotations

import time
from typing import Any

from prune_core.errors import RecipeError
from prune_core.jobs.neurons import NeuronDetails, NeuronImportance, NeuronProfile
from prune_core.progress import NONE, Progress
from prune_core.recipes.parts import NEURON_METHODS
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel


@answers(NeuronImportance)
def neuron_importance(
    loaded: LoadedModel, job: NeuronImportance, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a NeuronImportance job; see ``prune_core.jobs.neurons.NeuronImportance``.

    Raises:
        PruneCoreError: the text does not fit; ``Cancelled`` among them.
    """
    from prune_core.analysis.neurons.statistics import checked_method

    method = checked_method(job.method)
    loaded.neurons.check(Recipe())
    windows = loaded.windows(job.text, job.seq_len, job.windows)
    started = time.perf_counter()
    found = loaded.neurons.statistics(windows, progress=progress)
    scores = [row.tolist() for row in found.scores(method).values()]
    return {
        "method": method,
        "shape": [len(scores), max(len(row) for row in scores)],
        "blocks": list(found.blocks),
        "scores": scores,
        "dead": [int(row.sum()) for row in found.dead.values()],
        "rare": [int(row.sum()) for row in found.rare.values()],
        "tokens": found.tokens,
        "seconds": time.perf_counter() - started,
    }


@answers(NeuronProfile)
def neuron_profile(
    loaded: LoadedModel, job: NeuronProfile, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a NeuronProfile job; see ``prune_core.jobs.neurons.NeuronProfile``.

    Raises:
        PruneCoreError: the text does not fit; ``Cancelled`` among them.
    """
    from prune_core.analysis.neurons import profile as profile
    from prune_core.analysis.neurons.statistics import mlp_layers
    from prune_core.analysis.neurons.store import has_bias_place

    loaded.neurons.check(Recipe())
    started = time.perf_counter()
    found = loaded.neurons.statistics(loaded.calibration(job.calibration), progress=progress)
    structure, model = loaded.handle.structure, loaded.handle.model
    gated = bool(mlp_layers(structure, "mlp.gate", "mlp.gate_up"))
    place = has_bias_place(model, mlp_layers(structure, "mlp.down").values())
    return {
        **profile.neuron_profile(found, job.bins, progress),
        "gated": gated,
        "bias": place,
        "seconds": time.perf_counter() - started,
    }


@answers(NeuronDetails)
def neuron_details(
    loaded: LoadedModel, job: NeuronDetails, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a NeuronDetails job; see ``prune_core.jobs.neurons.NeuronDetails``.

    Raises:
        RecipeError: the model has no such neuron.
        PruneCoreError: a text does not fit; ``Cancelled`` among them.
    """
    from prune_core.analysis.neurons import details as details
    from prune_core.analysis.neurons.statistics import mlp_layers

    loaded.neurons.check(Recipe())
    structure, model = loaded.handle.structure, loaded.handle.model
    down = mlp_layers(structure, "mlp.down").get(job.block)
    if down is None or not 0 <= job.neuron < structure.layers[down].in_features:
        raise RecipeError(
            "this model has no neuron {neuron} in block {block}.",
            neuron=job.neuron,
            block=job.block,
        )
    started = time.perf_counter()
    found = loaded.neurons.statistics(loaded.calibration(job.calibration), progress=progress)
    block, k = structure.blocks[job.block], job.neuron
    scores, places = {}, {}
    for method in NEURON_METHODS:
        row = found.scores(method)[job.block]
        scores[method] = float(row[k])
        places[method] = int((row < row[k]).sum())
    windows = loaded.windows(job.text, job.seq_len, job.windows)
    tokens, values = loaded.neurons.activations(block, down, windows, progress=progress)
    written = details.what_it_writes(model, structure, block, down, k)
    return {
        "block": job.block,
        "neuron": k,
        "size": structure.layers[down].in_features,
        "scores": scores,
        "places": places,
        "mean": float(found.row("mean")[job.block][k]),
        "open": float(found.row("open")[job.block][k]),
        "dead": bool(found.dead[job.block][k]),
        "rare": bool(found.rare[job.block][k]),
        "raised": [[loaded.token_text(token), change] for token, change in written["raised"]],
        "lowered": [[loaded.token_text(token), change] for token, change in written["lowered"]],
        "reason": written["reason"],
        "passages": details.passages(tokens, values[:, :, k], loaded.token_text),
        "tokens": tokens.numel(),
        "seconds": time.perf_counter() - started,
    }
