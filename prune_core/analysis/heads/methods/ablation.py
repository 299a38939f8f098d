"""Ablation: the loss without a head."""

from __future__ import annotations

from typing import Any

from prune_core.analysis.heads.methods import HeadRequest, HeadScores
from prune_core.jobs.blocks import COST_UNITS
from prune_core.jobs.heads import HEAD_METHODS


@HEAD_METHODS.register(
    "ablation",
    needs=frozenset({"text", "loss"}),
    place=20,
    texts={
        "en": {
            "title": "Ablation",
            "measures": "The loss without the head minus the dense loss, measured head by head: "
            "exact, and signed. Below zero the model does better without it.",
        },
        "zh": {
            "title": "消融",
            "measures": "去掉该头后的损失减去稠密损失，逐头测量：精确且带符号。小于零表示没有它模"
            "型反而更好。",
        },
    },
)
def ablation(request: HeadRequest) -> HeadScores:
    """Score each head by the loss without it minus the dense loss, signed."""
    from prune_core.analysis.heads.ablation import head_costs

    def so_far(event: dict[str, Any]) -> dict[str, Any]:
        counters = {k: event[k] for k in ("stage", "done", "total", "seconds_left")}
        unit = COST_UNITS[event["metric"]]
        return {**counters, "sites": request.sites(event["mean"]), "unit": unit}

    costs = head_costs(request.handle, request.windows, request.progress.through(so_far))
    return HeadScores(costs["mean"], COST_UNITS[costs["metric"]], costs["stderr"])
