"""The jobs that a session's choices stand for."""

from __future__ import annotations

from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.ui.session.keys import value
from prune_core.ui.session.language import t
from prune_core.ui.session.recipe_state import evaluation_settings, text_spec

EVALUATE, GENERATE = "studio_evaluate", "studio_generate"


def evaluate_job(model: ModelInfo, recipe: Recipe) -> Evaluate:
    """What the gauges show."""
    return Evaluate(model.source, recipe, text_spec(), **evaluation_settings())


def generate_job(model: ModelInfo, recipe: Recipe) -> Generate:
    """What the answers show."""
    return Generate(
        model.source,
        recipe,
        prompt=str(value("prompt")) or t("studio.prompt_default"),
        max_new_tokens=int(value("new_tokens")),
        greedy=value("sampling") == "greedy",
        seed=int(value("seed")),
        chat=bool(value("chat")) and model.has_chat_template,
    )
