"""A recipe as options of the command line, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prune_core.errors import RecipeError
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.form import Form, value_of
from prune_core.recipes.forms import BY_FIELD, FORMS
from prune_core.recipes.notation import write_plain
from prune_core.recipes.recipe import Recipe

_LONG = 60_000
"""Characters of one option: a system takes 131,071 in one argument."""


def option_words(recipe: Recipe, forms: Iterable[Form] = FORMS) -> list[str]:
    """A recipe as options of the command line, not quoted.

    What weights go by is always named, and so is a calibration text that is read; of other fields
    what is not the default.

    Args:
        recipe: a calibration text that was pasted becomes ``text.txt``, a file to save it in.
        forms: rows to say; all of them if not given.
    """
    always = {"criterion", "pattern", "allocation", "sparsity"}
    texts: dict[str, list[str]] = {}
    for form in forms:
        value = value_of(recipe, form.field)
        option = form.option or BY_FIELD["criterion_args"].option
        if form.field == "calibration.text":
            value = value if value.kind != "inline" else TextSpec("file", "text.txt")
            needed = recipe.may_read_calibration
        elif form.field.startswith("neurons."):
            needed = recipe.neurons is not None
        else:
            needed = form.field in always or value != form.default
        if not needed:
            continue
        if isinstance(value, bool):
            texts[option] = []
        elif form.field == "criterion_args.value":
            texts.setdefault(option, []).append(f"value={value!r}")
        elif form.field == "neurons.fraction":  # beside named ones, in one option
            texts[option] = [write_plain(value), *texts.get(option, [])]
        else:
            texts.setdefault(option, []).append(form.write(value))
    words: list[str] = []
    for option, parts in texts.items():
        for text in _pieces(",".join(parts)) if parts else [None]:
            if text is None:
                words.append(option)
            elif text.startswith("-"):  # it would pass for another option
                words.append(f"{option}={text}")
            else:
                words += [option, text]
    return words


def _pieces(text: str) -> list[str]:
    """A long list in several texts that are short enough for one argument each."""
    pieces: list[str] = []
    while len(text) > _LONG:
        end = text.rfind(",", 0, _LONG)
        if end < 0:
            break
        pieces.append(text[:end])
        text = text[end + 1 :]
    return [*pieces, text]


def option_values(said: Mapping[str, Any], forms: Iterable[Form] = FORMS) -> dict[str, Any]:
    """Values by field of what options of the command line say.

    Args:
        said: text, or a list of texts, or a number by option; None or missing where not said.
        forms: rows that may be said.

    Raises:
        RecipeError: a text that its field cannot be; the sentence names the option.
    """
    values: dict[str, Any] = {}
    for form in forms:
        value = said.get(form.option) if form.option else None
        if value is None:
            continue
        if form.option == "--drop-neurons":
            value = _neurons(_joined(value), form)
        elif isinstance(value, str | list | tuple):
            value = form.read(_joined(value), form.option)
        values[form.field] = value
    return values


def _joined(said: Any) -> str:
    return said if isinstance(said, str) else ",".join(said)


def _neurons(text: str, form: Form) -> Any:
    """The share, or the named neurons, of an option that says both."""
    parts = [part for part in (part.strip() for part in text.split(",")) if part]
    pairs = [part for part in parts if ":" in part]
    shares = [part for part in parts if ":" not in part]
    if len(shares) > 1:
        raise RecipeError(
            "{option} takes one share of all neurons, got {count}.",
            option=form.option,
            count=len(shares),
        )
    for part in parts:
        numbers = part.split(":", 1) if ":" in part else []
        if not (all(x.isdecimal() for x in numbers) if numbers else _is_share(part)):
            raise RecipeError(
                "{option} takes a share from 0 to 1, BLOCK:NEURON pairs such as 0:3,5:1, or both, "
                "got {part!r}.",
                option=form.option,
                part=part,
            )
    if form.field == "drop_neurons":
        return form.read(",".join(pairs), form.option)
    return float(shares[0]) if shares else None


def _is_share(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False
