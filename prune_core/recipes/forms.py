"""The forms that a recipe is written in: one row for each field, one reader and one writer of each.

A recipe is JSON, a session's values and the query of a link, options of the command line, keys of a
grid, and words for people. All of them loop over :data:`FORMS`: a new field of a recipe needs a row
here and can then be said everywhere. No torch and no Streamlit here.

Texts of lists have one grammar in all forms: ``0:3,5:1`` for parts of blocks, ``3,5`` for blocks,
``role:mlp.down=0.3,block:2=0.5`` for numbers by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prune_core.criteria import CRITERIA
from prune_core.errors import RecipeError
from prune_core.patterns import PATTERNS
from prune_core.recipes.calibration import (
    CALIBRATION_MODES,
    MAX_CALIBRATION_WINDOWS,
    PRESET_TEXTS,
    Calibration,
    TextSpec,
    usual_text,
)
from prune_core.recipes.checks import MAX_DIGITS
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES, NeuronShare
from prune_core.recipes.recipe import ALLOCATIONS, OWN_PATTERN, RECONSTRUCTIONS, Recipe

Values = Mapping[str, Any]
"""Values of a recipe by field, as :attr:`Form.field` names it."""

Reader = Callable[[str, str], Any]
"""(text, what it was said with) -> value; refuses other text with one sentence."""

GROUPS = ("weights", "structure", "calibration")
MAX_CUT = 1e6
MAX_SEED = 2**63 - 1
MAX_LINK_SEED = 2**31 - 1
"""More than a browser's number field holds would break the page."""
_WHOLE = re.compile(r"^-?\d+$", re.ASCII)
_LONG = 60_000
"""Characters of one option: a system takes 131,071 in one argument."""


# ---- readers and writers ---------------------------------------------------------------------


def read_pairs(text: str, where: str) -> tuple[tuple[int, int], ...]:
    """``0:3,5:1`` as pairs of a block and a part of it.

    Args:
        text: what was said; empty for none.
        where: what it was said with, for the sentence of an error: an option or a key.

    Raises:
        RecipeError: not of that form, or a number longer than any model has use for.
    """
    pairs = []
    for pair in filter(None, text.split(",")):
        block, _, part = pair.strip().partition(":")
        if not (block.isdecimal() and part.isdecimal()):
            what = "NEURON" if "neuron" in where else "HEAD"
            raise RecipeError(
                "{where} takes BLOCK:{what} pairs such as 0:3,5:1, got {pair!r}.",
                where=where,
                what=what,
                pair=pair,
            )
        pairs.append((_index(block, where), _index(part, where)))
    return tuple(pairs)


def read_indices(text: str, where: str) -> tuple[int, ...]:
    """``3,5`` as indices of blocks; see :func:`read_pairs`."""
    parts = [part.strip() for part in text.split(",") if part]
    for part in parts:
        if not part.isdecimal():
            raise RecipeError(
                "{where} takes the indices of blocks such as 3,5, got {part!r}.",
                where=where,
                part=part,
            )
    return tuple(_index(part, where) for part in parts)


def _index(digits: str, where: str) -> int:
    """Digits as a number.

    Raises:
        RecipeError: more of them than any model has use for; Python reads no number of thousands.
    """
    digits = digits.lstrip("0") or "0"
    if len(digits) > MAX_DIGITS:
        raise RecipeError(
            "{where} takes numbers of at most {most} digits, got one of {count}.",
            where=where,
            most=MAX_DIGITS,
            count=len(digits),
        )
    return int(digits)


def read_numbers(text: str, where: str) -> dict[str, float | int]:
    """``power=0.5,seed=3`` as numbers by name; what is written as a whole number stays one.

    Raises:
        RecipeError: not of that form, or not finite.
    """
    numbers: dict[str, float | int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.rpartition("=")
        try:
            numbers[name] = int(number) if _WHOLE.match(number) else float(number)
            fits = bool(name) and math.isfinite(numbers[name])
        except (ValueError, OverflowError):
            fits = False
        if not fits:
            raise RecipeError(
                "{where} takes NAME=NUMBER such as power=0.5, got {part!r}.",
                where=where,
                part=part[:60],
            )
    return numbers


def read_overrides(text: str, where: str) -> dict[str, float]:
    """``role:mlp.down=0.3,block:2=0.5`` as sparsities of single parts.

    Raises:
        RecipeError: not of that form, or no override of a recipe.
    """
    numbers = read_numbers(text, where)
    return dict(Recipe(overrides=numbers).overrides)


def number_between(low: float, high: float) -> Reader:
    """A reader of numbers within bounds."""

    def read(text: str, where: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise RecipeError(
                "{where} takes a number from {low:g} to {high:g}, got {text!r}.",
                where=where,
                low=low,
                high=high,
                text=text,
            )
        return number

    return read


def whole_between(low: int, high: int, *, optional: bool = False) -> Reader:
    """A reader of whole numbers within bounds; an empty text is None where it is optional."""

    def read(text: str, where: str) -> int | None:
        if optional and not text:
            return None
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise RecipeError(
                "{where} takes a whole number from {low} to {high}, got {text!r}.",
                where=where,
                low=low,
                high=high,
                text=text[:60],
            )
        return number

    return read


def one_of(options: Collection[str]) -> Reader:
    """A reader of names."""

    def read(text: str, where: str) -> str:
        if text not in options:
            raise RecipeError(
                "{where} takes {options:list}; got {text!r}.",
                where=where,
                options=options,
                text=text[:60],
            )
        return text

    return read


def read_flag(text: str, where: str) -> bool:
    """``1`` or ``true`` as True, ``0`` or ``false`` as False."""
    if text.lower() not in ("1", "0", "true", "false"):
        raise RecipeError("{where} takes 1 or 0, got {text!r}.", where=where, text=text[:60])
    return text.lower() in ("1", "true")


def read_name(text: str, where: str) -> str:
    """Any name: whether it is known is for whoever looks it up to say, with the nearest one."""
    return text


def read_pattern(text: str, where: str) -> str:
    """A pattern by name; ``own`` for the criterion's."""
    Recipe().with_pattern(text)
    return text


def read_text_name(text: str, where: str) -> TextSpec | None:
    """A preset's name, else the path of a file; None for an empty text: the usual one."""
    return TextSpec("preset" if text in PRESET_TEXTS else "file", text) if text else None


def _read_preset(text: str, where: str) -> TextSpec | None:
    # a link must not make a server read a file
    return read_text_name(one_of(("", *PRESET_TEXTS))(text, where), where)


def _read_link_pattern(text: str, where: str) -> str:
    # a session holds the pattern itself: its widget shows it
    if text in ("", OWN_PATTERN):
        raise RecipeError(
            "{where} takes the name of a pattern, got {text!r}.", where=where, text=text
        )
    return read_pattern(text, where)


def write_pairs(pairs: Sequence[tuple[int, int]]) -> str:
    """What :func:`read_pairs` reads."""
    return ",".join(f"{block}:{part}" for block, part in pairs)


def write_indices(blocks: Sequence[int]) -> str:
    """What :func:`read_indices` reads."""
    return ",".join(map(str, blocks))


def write_numbers(numbers: Mapping[str, float | int]) -> str:
    """What :func:`read_numbers` reads, exactly."""
    return ",".join(f"{name}={number!r}" for name, number in sorted(numbers.items()))


def write_plain(value: object) -> str:
    """A name or number in the shortest text that reads as exactly this value; None is empty."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "" if value is None else str(value)


def _write_text_name(text: TextSpec | None) -> str:
    """A preset's name or a path; pasted text has neither."""
    return "" if text is None or text.kind == "inline" else text.value


# ---- the rows --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """How one field of a recipe is said.

    Attributes:
        field: of :class:`Recipe`; of what it holds after a dot: ``calibration.windows``.
        group: one of :data:`GROUPS`.
        key: in a session and in a link's query.
        read: from text.
        write: to text.
        option: of the command line; empty where another field's option says it too.
        help: of that option.
        metavar: of that option; empty for a switch.
        many: the option may be given several times.
        grid: key of a grid file, which lists values; ``calibration`` holds its fields by name.
        as_text: a session holds the text, not the value: what it stands for is a list, or chosen
            by itself where the text is empty.
        by_itself: value that stands for one chosen when it is known what is measured.
        from_link: reads a link's text, where not all that a person may say is taken from a link.
        bound: its widget writes it into the address itself.
    """

    field: str
    group: str
    key: str
    read: Reader
    write: Callable[[Any], str] = write_plain
    option: str = ""
    help: str = ""
    metavar: str = ""
    many: bool = False
    grid: str = ""
    as_text: bool = False
    by_itself: object = ...
    from_link: Reader | None = None
    bound: bool = False

    @property
    def default(self) -> Any:
        """Of a recipe that nothing is said about."""
        return value_of(Recipe(), self.field)

    @property
    def session_default(self) -> Any:
        """What a session starts with."""
        return self.to_session(self.default if self.by_itself is ... else self.by_itself)

    def to_session(self, value: Any) -> Any:
        """A field's value as a session holds it."""
        return self.write(value) if self.as_text else value

    def from_session(self, held: Any) -> Any:
        """The field's value of what a session holds."""
        return self.read(str(held), self.key) if self.as_text else held

    def session_of(self, text: str) -> Any:
        """A link's text as a session holds it.

        Raises:
            RecipeError: it is nothing that this field can be.
        """
        return self.to_session((self.from_link or self.read)(text, self.key))

    @property
    def words(self) -> str:
        """Key of its name for people in the catalogue."""
        return f"compare.field_{self.field.replace('.', '_')}"


_WHOLE_PARTS = "blocks, such as 3,5"

FORMS: tuple[Form, ...] = (
    Form(
        "criterion",
        "weights",
        "criterion",
        read_name,
        option="--criterion",
        metavar="NAME",
        help="scores the weights; the lowest go: " + ", ".join(sorted(CRITERIA)),
        grid="criteria",
        from_link=one_of(CRITERIA),
    ),
    Form(
        "criterion_args",
        "weights",
        "arguments",
        read_numbers,
        write_numbers,
        option="--criterion-arg",
        metavar="NAME=NUMBER",
        help="setting of the criterion, such as power=0.5; may be repeated",
        many=True,
        grid="criterion_args",
        as_text=True,
    ),
    Form(
        "criterion_args.value",  # of a threshold: a session keeps it while another one is chosen
        "weights",
        "cut",
        number_between(0.0, MAX_CUT),
    ),
    Form(
        "pattern",
        "weights",
        "pattern",
        read_pattern,
        option="--pattern",
        metavar="NAME",
        help=f"{', '.join(entry.spelling for entry in PATTERNS.values())}; default: own, "
        "the criterion's "
        f"({', '.join(name for name in CRITERIA if CRITERIA[name].pattern == 'per-row')}: per-row; "
        "others: per-layer)",
        grid="patterns",
        from_link=_read_link_pattern,
    ),
    Form(
        "allocation",
        "weights",
        "allocation",
        one_of(ALLOCATIONS),
        option="--allocation",
        metavar="NAME",
        help="shares the sparsity over the layers: " + ", ".join(ALLOCATIONS),
        grid="allocations",
    ),
    Form(
        "allocation_args",
        "weights",
        "shares",
        read_numbers,
        write_numbers,
        option="--allocation-arg",
        metavar="NAME=NUMBER",
        help="setting of the allocation, such as m=7 (owl), attn.q=0.5 (per-role) or 3=0.5 "
        "(manual, a block); may be repeated",
        many=True,
        grid="allocation_args",
        as_text=True,
    ),
    Form(
        "sparsity",
        "weights",
        "sparsity",
        number_between(0.0, 1.0),
        option="--sparsity",
        metavar="SHARE",
        help="0 to 1; N:M brings its own",
        grid="sparsities",
        bound=True,
    ),
    Form(
        "overrides",
        "weights",
        "overrides",
        read_overrides,
        write_numbers,
        option="--override",
        metavar="PART=SHARE",
        help="sparsity of a part: role:mlp.down=0.3, block:2=0.5 or layer:NAME=0.1; may be "
        "repeated",
        many=True,
        grid="overrides",
        as_text=True,
    ),
    Form(
        "reconstruction",
        "weights",
        "reconstruction",
        one_of(RECONSTRUCTIONS),
        option="--reconstruction",
        metavar="NAME",
        help="repairs the weights that stay: " + " or ".join(RECONSTRUCTIONS),
        grid="reconstructions",
    ),
    Form(
        "drop_heads",
        "structure",
        "heads",
        read_pairs,
        write_pairs,
        option="--drop-heads",
        metavar="B:H,…",
        help="query heads to remove",
        many=True,
        grid="heads",
        as_text=True,
    ),
    Form(
        "drop_cross_heads",
        "structure",
        "cross_heads",
        read_pairs,
        write_pairs,
        option="--drop-cross-heads",
        metavar="B:H,…",
        help="those of cross-attention",
        many=True,
        grid="drop_cross_heads",
        as_text=True,
    ),
    Form(
        "drop_neurons",
        "structure",
        "neurons",
        read_pairs,
        write_pairs,
        option="--drop-neurons",
        metavar="FRACTION|B:N,…",
        help="a share of the MLP neurons, 0 to 1, least important first; or single ones; or both",
        many=True,
        grid="drop_neurons",
        as_text=True,
    ),
    Form(
        "neurons.fraction",
        "structure",
        "neuron_share",
        number_between(0.0, 1.0),
        option="--drop-neurons",
        grid="neurons",
    ),
    Form(
        "neurons.method",
        "structure",
        "neuron_method",
        one_of(NEURON_METHODS),
        option="--neuron-method",
        metavar="NAME",
        help=f"{', '.join(NEURON_METHODS)}; of a share",
        grid="neuron_method",
    ),
    Form(
        "neurons.scope",
        "structure",
        "neuron_scope",
        one_of(NEURON_SCOPES),
        option="--neuron-scope",
        metavar="NAME",
        help="block (each loses the share) or global",
        grid="neuron_scope",
    ),
    Form(
        "compensate",
        "structure",
        "compensate",
        read_flag,
        option="--compensate",
        help="add what dropped neurons gave on average to the bias of their layer",
        grid="compensate",
    ),
    Form(
        "drop_blocks",
        "structure",
        "drop_blocks",
        read_indices,
        write_indices,
        option="--drop-blocks",
        metavar="B,…",
        help="blocks to remove",
        many=True,
        grid="blocks",
        as_text=True,
    ),
    Form(
        "drop_attention",
        "structure",
        "drop_attention",
        read_indices,
        write_indices,
        option="--drop-attention",
        metavar="B,…",
        help="blocks that lose only their attention",
        many=True,
        grid="drop_attention",
        as_text=True,
    ),
    Form(
        "drop_mlp",
        "structure",
        "drop_mlp",
        read_indices,
        write_indices,
        option="--drop-mlp",
        metavar="B,…",
        help="blocks that lose only their MLP",
        many=True,
        grid="drop_mlp",
        as_text=True,
    ),
    Form(
        "calibration.text",
        "calibration",
        "cal_text",
        read_text_name,
        _write_text_name,
        option="--calibration",
        metavar="FILE",
        help="text for what needs one: a preset or a file; default: andersen, or grimm where "
        "andersen is --text",
        grid="calibration",
        as_text=True,
        by_itself=None,
        from_link=_read_preset,
    ),
    Form(
        "calibration.windows",
        "calibration",
        "cal_windows",
        whole_between(1, MAX_CALIBRATION_WINDOWS),
        option="--calibration-windows",
        metavar="N",
        help=f"windows of --calibration, 1 to {MAX_CALIBRATION_WINDOWS}; default: 32",
        grid="calibration",
    ),
    Form(
        "calibration.seq_len",
        "calibration",
        "cal_seq_len",
        whole_between(0, 2**20),
        option="--calibration-seq-len",
        metavar="TOKENS",
        help="tokens in a window of --calibration, at most the model's context; default: 512, or "
        "the context where that is shorter",
        grid="calibration",
        by_itself=0,
    ),
    Form(
        "calibration.skip",
        "calibration",
        "cal_skip",
        whole_between(0, 2**40),
        option="--calibration-skip",
        metavar="TOKENS",
        help="tokens of --calibration left out at its start; default: 0",
        grid="calibration",
    ),
    Form(
        "calibration.seed",
        "calibration",
        "cal_seed",
        whole_between(0, MAX_SEED, optional=True),
        option="--calibration-seed",
        metavar="N",
        help="draw the windows of --calibration at random; the same number draws the same",
        grid="calibration",
        as_text=True,
        from_link=whole_between(0, MAX_LINK_SEED, optional=True),
    ),
    Form(
        "calibration.mode",
        "calibration",
        "cal_mode",
        one_of(CALIBRATION_MODES),
        option="--calibration-mode",
        metavar="NAME",
        help="auto, dense or sequential: one block at a time",
        grid="calibration",
    ),
)
"""One row for each field; the order is that of the options and of what people read."""

BY_FIELD: Mapping[str, Form] = {form.field: form for form in FORMS}
BY_KEY: Mapping[str, Form] = {form.key: form for form in FORMS}


def forms_of(*groups: str) -> list[Form]:
    """Rows of some groups."""
    return [form for form in FORMS if form.group in groups]


# ---- between recipes and values --------------------------------------------------------------


def value_of(recipe: Recipe, field: str) -> Any:
    """The value of a field, whether the recipe holds what it belongs to or not."""
    holder, _, name = field.rpartition(".")
    match holder:
        case "":
            value = getattr(recipe, name)
            if field != "criterion_args" or recipe.cut_value is None:
                return value
            return {key: number for key, number in value.items() if key != "value"}
        case "neurons":
            return getattr(recipe.neurons or NeuronShare(0.0), name)
        case "criterion_args":
            return recipe.cut_value or 0.0
        case _:
            return getattr(recipe.calibration, name)


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


# ---- the query of a link ---------------------------------------------------------------------


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


# ---- options of the command line -------------------------------------------------------------


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


def recipe_of_options(said: Mapping[str, Any], text: TextSpec | None = None) -> Recipe:
    """The recipe that options say; see :func:`option_values` and :func:`recipe_of`."""
    return recipe_of(option_values(said), text)


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
