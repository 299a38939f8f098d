"""A recipe as values by field, as the query of a link, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune_core.recipes.calibration import Calibration, TextSpec, usual_text
from prune_core.recipes.choices import OWN_PATTERN
from prune_core.recipes.form import value_of
from prune_core.recipes.forms import BY_FIELD, BY_KEY, FORMS, Values
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe


def values_of(recipe: Recipe) -> dict[str, Any]:
    """All values of a recipe, by field."""
    return {form.field: value_of(recipe, form.field) for form in FORMS}


def recipe_of(values: Values, text: TextSpec | None = None) -> Recipe:
    """The recipe that values say; fields that are missing or None have their default.

    Args:
        values: by field. Without a sparsity a pattern N:M brings its own.
        text: the calibration text where none is named; the usual one if that is None too.

    Raises:
        RecipeError: they are none that go together.
    """
    parts: dict[str, dict[str, Any]] = {"": {}, "neurons": {}, "calibration": {}}
    parts["criterion_args"] = {}
    for field, value in values.items():
        if value is not None:
            holder, _, name = field.rpartition(".")
            parts[holder][name] = value
    fields = parts[""]
    if cut := parts["criterion_args"].get("value"):
        fields["criterion_args"] = {**fields.get("criterion_args", {}), "value": cut}
    if share := parts["neurons"]:  # a misspelled method is told even where there is no share
        fields["neurons"] = NeuronShare(**{"fraction": 0.0, **share})
    chosen = parts["calibration"]
    if not chosen.get("seq_len", 1):
        del chosen["seq_len"]
    fields["calibration"] = Calibration(**{"text": text or usual_text(), **chosen})
    if "sparsity" not in fields and "pattern" in fields:
        fields["sparsity"] = Recipe().with_pattern(fields["pattern"]).sparsity
    return Recipe(**fields)


def recipe_that_waits(values: Values, text: TextSpec | None = None) -> Recipe:
    """The recipe of a session's or a link's values, where some wait for others to be chosen.

    A threshold's cut waits while another criterion or a sparsity is chosen; sparsity, allocation
    and overrides wait while the pattern is N:M, which decides them.
    """
    chosen = dict(values)
    if chosen.get("criterion") != "threshold" or chosen.get("sparsity"):
        chosen.pop("criterion_args.value", None)
    pattern = str(chosen.get("pattern") or OWN_PATTERN)
    if Recipe().with_pattern(pattern).kept_of is not None:
        for field in ("sparsity", "allocation", "allocation_args", "overrides"):
            chosen.pop(field, None)
    return recipe_of(chosen, text)


def link_texts(recipe: Recipe) -> dict[str, str]:
    """A recipe as the query of a link: what is not the default, by key.

    A calibration text that is no preset stays out: a file is one machine's, a pasted text too long.
    """
    texts: dict[str, str] = {}
    for form in FORMS:
        value = value_of(recipe, form.field)
        if value != form.default:
            texts[form.key] = form.write(value)
    text = recipe.calibration.text
    if text.kind != "preset":
        texts.pop(BY_FIELD["calibration.text"].key, None)
    return texts


def recipe_of_link(texts: Mapping[str, str]) -> Recipe:
    """What :func:`link_texts` wrote, now or in an earlier version.

    A link without a pattern means ``per-layer``, whatever the criterion: links of earlier versions
    leave it out.

    Raises:
        RecipeError: a text that its field cannot be, or fields that do not go together.
    """
    values = {form.field: form.default for form in FORMS if form.by_itself is ...}
    del values["sparsity"]  # N:M brings its own
    for key, text in texts.items():
        if form := BY_KEY.get(key):
            values[form.field] = form.from_session(form.session_of(text))
    return recipe_that_waits(values)
