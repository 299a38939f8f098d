"""Options that several verbs share, and what they say as recipes, texts and calibrations."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune_core.cli import checks
from prune_core.errors import RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.recipes.calibration import Calibration, apart, usual_text
from prune_core.recipes.choices import RECONSTRUCTIONS, allocation_taking
from prune_core.recipes.form import Form
from prune_core.recipes.forms import BY_FIELD, FORMS, forms_of
from prune_core.recipes.options import option_values
from prune_core.recipes.recipe import Recipe
from prune_core.recipes.values import recipe_of
from prune_core.texts.reading import text_named
from prune_core.texts.windows import STARTS


def text_options(
    sub: argparse.ArgumentParser, *, windows: int, seq_len: int, use: str = "to measure the model"
) -> None:
    """Add the options that name the text to measure on."""
    sub.add_argument(
        "--text",
        default="grimm",
        metavar="FILE",
        help=f"what is read {use}: a text preset or a file; default: grimm",
    )
    sub.add_argument(
        "--seq-len",
        type=int,
        default=seq_len,
        metavar="TOKENS",
        help=f"tokens in a window of --text, at most the model's context; default: {seq_len}",
    )
    sub.add_argument(
        "--windows",
        type=int,
        default=windows,
        metavar="N",
        help=f"windows of --text from its start on, 1 to 4096; default: {windows}",
    )
    sub.add_argument(
        "--bos",
        choices=STARTS,
        help="start each window with the beginning-of-sequence token; default: auto, which does so "
        "where the family needs it (Gemma)",
    )


def recipe_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that make a recipe."""
    sub.add_argument(
        "--recipe", metavar="FILE", help="a recipe as JSON; replaces the options below"
    )
    add_options(sub, FORMS)


def add_options(sub: argparse.ArgumentParser, forms: Iterable[Form]) -> None:
    """Add the options of some rows of a recipe's forms; what is not said is None."""
    for form in forms:
        if form.metavar:
            action = "append" if form.many else "store"
            sub.add_argument(form.option, action=action, metavar=form.metavar, help=form.help)
        elif form.help:
            sub.add_argument(form.option, action="store_true", default=None, help=form.help)


def said(parsed: argparse.Namespace) -> dict[str, Any]:
    """What the options of a recipe say, by option; None where one is not said."""
    options = {form.option for form in FORMS if form.option}
    words = {
        option: getattr(parsed, option.removeprefix("--").replace("-", "_"), None)
        for option in options
    }
    option = BY_FIELD["calibration.text"].option
    if (name := words[option]) is not None:
        words[option] = text_named(name)
    return words


def calibration_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that name the calibration text."""
    add_options(sub, forms_of("calibration"))


def recipe_from(parsed: argparse.Namespace) -> Recipe:
    """The recipe that the options, or a recipe file, say."""
    file = parsed.recipe
    if file is None:
        values = option_values(said(parsed))
        check_allocation_arguments(values)
        recipe = recipe_of(values, usual_text(_measured(parsed)))
    else:
        recipe = _recipe_file(file)
        if (text := _measured(parsed)) is not None:
            recipe = replace(recipe, calibration=apart(recipe.calibration, text))
    check_criterion(recipe)  # told even where nothing is to be ranked
    return recipe


def _measured(parsed: argparse.Namespace) -> TextSpec | None:
    """The text to measure on; None for a verb that measures on none."""
    return text_from(parsed) if hasattr(parsed, "text") else None


def check_criterion(recipe: Recipe) -> None:
    """Refuse a misspelled criterion and arguments that it does not take, before a model is loaded.

    Raises:
        UnknownNameError: no such criterion.
        RecipeError: an argument that it does not take.
    """
    known_criterion(recipe.criterion)
    if recipe.criterion_args:
        from prune_core.pruning.ranks import check_arguments

        check_arguments(recipe.criterion, recipe.criterion_args)


def check_allocation_arguments(values: dict[str, Any]) -> None:
    """Refuse an argument of another allocation, which a recipe would drop."""
    chosen = values.get("allocation") or Recipe().allocation
    for name in values.get("allocation_args") or {}:
        owner = allocation_taking(name)
        checks.belongs(
            True,
            f"{BY_FIELD['allocation_args'].option} {name}",
            owner in (None, chosen),
            f"--allocation {owner}",
        )


def _recipe_file(name: str) -> Recipe:
    if not name.strip():
        raise RecipeError("--recipe names no file; give the path of a recipe as JSON.")
    try:
        return Recipe.from_json(Path(name).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise RecipeError(
            "the recipe {name} is not UTF-8 text; save it as JSON.", name=name
        ) from None


def calibration_from(parsed: argparse.Namespace) -> Calibration:
    """The calibration as the options say it, whether anything reads it or not."""
    values = option_values(said(parsed), forms_of("calibration"))
    text = usual_text(_measured(parsed))
    repair = next(name for name in RECONSTRUCTIONS if name != "none")  # it reads a text
    return recipe_of({**values, "reconstruction": repair}, text).calibration


def known_criterion(name: str) -> str:
    """The name, if a criterion has it."""
    from prune_core.criteria import CRITERIA

    return CRITERIA[name].name  # an unknown one is told before a model is loaded


def text_from(parsed: argparse.Namespace) -> TextSpec:
    """The text to measure on."""
    return text_named(parsed.text)


def repeats(sub: argparse.ArgumentParser, default: int) -> None:
    """Add how often speed is measured."""
    sub.add_argument(
        "--repeats",
        type=int,
        default=default,
        metavar="N",
        help=f"rounds of speed and memory; 0: do not measure them; default: {default}",
    )
