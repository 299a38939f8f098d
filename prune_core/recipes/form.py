"""What a row of the table of forms holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prune_core.recipes.notation import Reader, write_plain
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe


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
