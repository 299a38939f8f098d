"""Recipe: everything that decides what goes, as plain data. No torch here: the web process uses it.

A recipe is what a session owns, what a link carries and what a cached number is filed under.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from prune_core.allocation import ALLOCATIONS as ALLOCATIONS
from prune_core.criteria import CRITERIA
from prune_core.errors import RecipeError
from prune_core.patterns import parse_pattern
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.checks import (
    checked_blocks,
    checked_pairs,
    checked_sparsity,
    checked_text,
)
from prune_core.recipes.choices import (
    OWN_PATTERN,
    RECONSTRUCTIONS,
    allocation_taking,
    choices_read_calibration,
    own_pattern,
)
from prune_core.recipes.parts import HEAD_FIELDS, PAIRED, STRUCTURE, WHOLE, NeuronShare
from prune_core.sentences import Sentence

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """Names and numbers only; the registries give them meaning.

    What nothing could ever read is dropped, so that recipes that ask for the same are equal: a
    calibration, arguments that are the default or of another allocation, a share of 0 neurons.
    What only waits for another value stays (an allocation at sparsity 0). Arguments that a
    criterion does not take are refused where they are used, never dropped.

    Attributes:
        criterion: registered criterion.
        pattern: ``own``, the criterion's own (with global ranking ``per-layer``), which is
            replaced by its name: ``per-layer``, ``per-row``, ``nm:N:M`` (N of every M consecutive
            inputs kept) or ``block:B``, squares of B x B weights that go together, ranked by the
            mean of their scores (``block:B:max``: by the largest).
        allocation: ``uniform``, ``global``, ``per-role``, ``manual``, ``erk``, ``owl`` or
            ``sensitivity``; see ``prune_core.allocation``.
        allocation_args: ``per-role``: role to its share relative to the others (1 where not
            named); ``manual``: the same by block index; ``owl``: ``m`` and ``spread``.
        sparsity: fraction removed of all prunable weights, 0 to 1. With ``nm:N:M`` it must be
            1 - N/M (``Recipe.for_pattern`` fills it in).
        criterion_args: keyword arguments of the criterion.
        overrides: sparsity of single parts in place of the allocated one; keys are
            ``role:ROLE``, ``block:INDEX`` or ``layer:NAME``, the narrowest wins.
        drop_heads: (block, head) pairs of query heads whose output is removed.
        drop_cross_heads: the same of a decoder's attention to the encoder.
        drop_neurons: (block, neuron) pairs of intermediate neurons that are removed.
        drop_blocks: blocks that pass on what they are given.
        drop_attention: blocks that lose their self-attention.
        drop_mlp: blocks that lose their MLP.
        neurons: a share of the neurons that goes beside those named; None for none.
        compensate: what dropped neurons gave on average over the calibration text is added to the
            bias of their ``down`` layer (FLAP, arXiv 2312.11983).
        reconstruction: repair of the surviving weights; ``none`` or ``sparsegpt``.
        calibration: text and size of the statistics; read only where something needs them.
    """

    criterion: str = "magnitude"
    pattern: str = OWN_PATTERN
    allocation: str = "uniform"
    sparsity: float = 0.0
    criterion_args: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, float] = field(default_factory=dict)
    drop_heads: tuple[tuple[int, int], ...] = ()
    reconstruction: str = "none"
    calibration: Calibration = field(default_factory=Calibration)
    allocation_args: Mapping[str, float] = field(default_factory=dict)
    drop_neurons: tuple[tuple[int, int], ...] = ()
    drop_blocks: tuple[int, ...] = ()
    drop_attention: tuple[int, ...] = ()
    drop_mlp: tuple[int, ...] = ()
    neurons: NeuronShare | None = None
    compensate: bool = False
    drop_cross_heads: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", checked_sparsity(self.sparsity))
        checked_text(self.criterion, "the criterion")
        self._resolve_pattern()
        kept = self.kept_of
        if kept is not None:
            n, m = kept
            if not math.isclose(self.sparsity, 1 - n / m, abs_tol=1e-6) and self.sparsity != 0.0:
                raise RecipeError(
                    "nm:{n}:{m} means sparsity {expected:.3g}, got {sparsity:.3g}.",
                    n=n,
                    m=m,
                    expected=1 - n / m,
                    sparsity=self.sparsity,
                )
            if self.allocation != "uniform" and self.sparsity:
                raise RecipeError("N:M removes the same share everywhere; use allocation uniform.")
            if self.overrides:
                raise RecipeError("N:M removes the same share everywhere; it takes no overrides.")
        if self.allocation not in ALLOCATIONS:
            raise RecipeError(
                "unknown allocation {allocation!r}; use {known:or}.",
                allocation=self.allocation,
                known=ALLOCATIONS,
            )
        only = ALLOCATIONS[self.allocation].pattern
        if only and self.pattern != only and kept is None:
            raise RecipeError(
                "global ranking compares weights of all layers; use per-layer with it."
            )
        if self.reconstruction not in RECONSTRUCTIONS:
            raise RecipeError(
                "unknown reconstruction {reconstruction!r}; use {known:or}.",
                reconstruction=self.reconstruction,
                known=RECONSTRUCTIONS,
            )
        self._check_arguments()
        self._check_parts()
        if not self.may_read_calibration:
            object.__setattr__(self, "calibration", Calibration())
        self._check_threshold()
        if self.is_sequential and "ordered" in ALLOCATIONS[self.allocation].needs:
            raise RecipeError(
                "global ranking needs all scores at once; with a reconstruction or sequential "
                "calibration use another allocation."
            )
        for key, value in self.overrides.items():
            if str(key).split(":", 1)[0] not in ("role", "block", "layer") or ":" not in str(key):
                raise RecipeError(
                    "unknown override {key!r}; use role:…, block:… or layer:….", key=key
                )
            checked_sparsity(value, Sentence("the override {key}", key=key))
        overrides = {str(key): float(value) for key, value in self.overrides.items()}
        object.__setattr__(self, "overrides", overrides)
        object.__setattr__(self, "criterion_args", self._plain_criterion_args())

    def _resolve_pattern(self) -> None:
        """The pattern's name in its one spelling, the criterion's own where none is named."""
        if self.pattern in (None, "", OWN_PATTERN):
            own = own_pattern(self.criterion, self.allocation)
            object.__setattr__(self, "pattern", own)
        checked_text(self.pattern, "the pattern")
        object.__setattr__(self, "pattern", parse_pattern(self.pattern).name)

    def _plain_criterion_args(self) -> dict[str, Any]:
        """Arguments without those that are the default; whole numbers of others are floats."""
        defaults = CRITERIA[self.criterion].defaults if self.criterion in CRITERIA else {}
        plain: dict[str, Any] = {}
        for name, value in self.criterion_args.items():
            default = defaults.get(name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and default is not None and value == default:
                continue
            # no number that large is taken; the sentence of who refuses it names it as it is
            if number and isinstance(default, float) and abs(value) < 2**63:
                value = float(value)
            plain[name] = value
        return plain

    def _check_parts(self) -> None:
        for name in PAIRED:
            what = "neuron" if name == "drop_neurons" else "head"
            object.__setattr__(self, name, checked_pairs(getattr(self, name), what))
        for name in WHOLE:
            object.__setattr__(self, name, checked_blocks(getattr(self, name)))
        self._check_neurons()

    def _check_neurons(self) -> None:
        if isinstance(self.neurons, Mapping):
            try:
                object.__setattr__(self, "neurons", NeuronShare(**self.neurons))
            except TypeError as error:
                raise RecipeError(
                    "the share of neurons is not readable: {error}.", error=error
                ) from None
        if self.neurons is not None and not isinstance(self.neurons, NeuronShare):
            raise RecipeError("the share of neurons must map names to values.")
        if not isinstance(self.compensate, bool):
            raise RecipeError(
                "compensate must be true or false, got {compensate!r}.", compensate=self.compensate
            )
        # what removes nothing must not part equal recipes
        if self.neurons is not None and not self.neurons.fraction:
            object.__setattr__(self, "neurons", None)
        if self.compensate and not self.removes_neurons:
            object.__setattr__(self, "compensate", False)

    def _check_arguments(self) -> None:
        for name in ("criterion_args", "overrides", "allocation_args"):
            if not isinstance(getattr(self, name), Mapping):
                raise RecipeError("{name} must map names to values.", name=name)
        if isinstance(self.calibration, Mapping):
            try:
                object.__setattr__(self, "calibration", Calibration(**self.calibration))
            except TypeError as error:
                raise RecipeError(
                    "the calibration is not readable: {error}.", error=error
                ) from None
        if not isinstance(self.calibration, Calibration):
            raise RecipeError("the calibration must map names to values.")
        self._check_allocation_args()

    def _check_allocation_args(self) -> None:
        known = ALLOCATIONS[self.allocation].defaults if self.allocation in ALLOCATIONS else {}
        for name, value in self.allocation_args.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RecipeError(
                    "the allocation argument {name} must be a number, got {value!r}.",
                    name=name,
                    value=value,
                )
            if not math.isfinite(value) or not 0 <= value <= 1000:
                raise RecipeError(
                    "the allocation argument {name} must lie between 0 and 1000, got {value}.",
                    name=name,
                    value=value,
                )
            # what another allocation takes waits in a session and is dropped here
            fits = self.allocation == "per-role" or allocation_taking(str(name)) is not None
            if not fits:
                index = [Sentence("a block's index")]
                takes = index if self.allocation == "manual" else list(known)
                if takes:
                    raise RecipeError(
                        "the allocation {allocation} has no argument {name!r}; it takes "
                        "{takes:list}.",
                        allocation=self.allocation,
                        name=str(name)[:40],
                        takes=takes,
                    )
                raise RecipeError(
                    "the allocation {allocation} has no argument {name!r}; it takes none.",
                    allocation=self.allocation,
                    name=str(name)[:40],
                )
        object.__setattr__(self, "allocation_args", self._plain_allocation_args())

    def _plain_allocation_args(self) -> dict[str, float]:
        """Arguments of this allocation that are not its defaults, in one spelling."""
        defaults, plain = ALLOCATIONS[self.allocation].defaults, {}
        for key, value in self.allocation_args.items():
            owner = allocation_taking(str(key))
            if owner != self.allocation and (owner or self.allocation != "per-role"):
                continue
            name = str(int(key)) if self.allocation == "manual" else str(key)
            if value != defaults.get(name, 1.0):  # a share that is not named is 1
                plain[name] = float(value)
        return plain

    def _check_threshold(self) -> None:
        if self.cut_value is None:
            return
        if self.sparsity or self.pattern != "per-layer" or self.allocation != "uniform":
            raise RecipeError(
                "a threshold cuts by value: it takes sparsity 0, the pattern per-layer and the "
                "allocation uniform."
            )
        if self.reconstruction != "none":
            raise RecipeError("a threshold cuts by value; it takes no reconstruction.")

    @property
    def cut_value(self) -> float | None:
        """|w| below which weights go, where the criterion is ``threshold`` and has a value."""
        value = self.criterion_args.get("value") if self.criterion == "threshold" else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return None
        return float(value)

    @property
    def removes_weights(self) -> bool:
        """True if single weights go (not only heads)."""
        return bool(self.sparsity) or any(self.overrides.values()) or self.cut_value is not None

    @property
    def is_sequential(self) -> bool:
        """True if each block is calibrated on what the pruned blocks before it give."""
        mode = self.calibration.mode
        return mode == "sequential" or (mode == "auto" and self.reconstruction != "none")

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """(N, M) of an ``nm:N:M`` pattern, else None."""
        return parse_pattern(self.pattern).kept_of

    @property
    def is_dense(self) -> bool:
        """True if nothing is removed."""
        return not self.removes_weights and not self.removes_structure

    @property
    def removes_structure(self) -> bool:
        """True if heads, neurons, blocks or parts of blocks go."""
        return self.neurons is not None or any(getattr(self, name) for name in STRUCTURE)

    @property
    def parts_dropped(self) -> dict[str, int]:
        """How many named ``head`` (of any attention), ``neuron`` and ``block`` parts go."""
        heads = len(self.drop_heads) + len(self.drop_cross_heads)
        return {"head": heads, "neuron": len(self.drop_neurons), "block": len(self.drop_blocks)}

    @property
    def removes_neurons(self) -> bool:
        """True if intermediate neurons go, named or as a share."""
        return bool(self.drop_neurons) or self.neurons is not None

    @property
    def reads_neurons(self) -> bool:
        """True if what neurons do on the calibration text decides something."""
        return self.neurons is not None or self.compensate

    @property
    def reads_calibration(self) -> bool:
        """True if a calibration text decides what goes or what stays in its place.

        Raises:
            UnknownNameError: no such criterion.
        """
        if not self.removes_weights:
            return self.reads_neurons
        return choices_read_calibration(
            self.criterion,
            self.allocation if self.sparsity else "uniform",  # nothing to allocate
            self.reconstruction,
            neurons=self.reads_neurons,
            criterion_args=self.criterion_args,
        )

    @property
    def may_read_calibration(self) -> bool:
        """True if what is chosen reads a calibration text once there is anything to remove."""
        if self.criterion not in CRITERIA:  # another version's criterion keeps what it brought
            return True
        return choices_read_calibration(
            self.criterion,
            self.allocation,
            self.reconstruction,
            neurons=self.reads_neurons,
            criterion_args=self.criterion_args,
        )

    @property
    def computes_weights(self) -> bool:
        """True if weights are computed block by block for this very recipe, not cut from ranks.

        Raises:
            UnknownNameError: no such criterion.
        """
        if not self.removes_weights:
            return False
        scored = bool(CRITERIA[self.criterion].needs_for(self.criterion_args))
        return self.reconstruction != "none" or (self.is_sequential and scored)

    def with_heads_of(self, block: int) -> Recipe:
        """The same recipe with all heads of one block kept."""
        kept: dict[str, Any] = {
            name: tuple(pair for pair in getattr(self, name) if pair[0] != block)
            for name in HEAD_FIELDS.values()
        }
        return replace(self, **kept)

    def with_pattern(self, pattern: str) -> Recipe:
        """The same recipe under another pattern; N:M brings its own sparsity."""
        named = isinstance(pattern, str) and pattern not in ("", OWN_PATTERN)
        share = parse_pattern(pattern).sparsity if named else None
        if share is not None:
            return replace(
                self,
                pattern=pattern,
                sparsity=share,
                allocation="uniform",
                allocation_args={},
                overrides={},
            )
        return replace(self, pattern=pattern)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the schema version; lists in place of tuples."""
        data = asdict(self)
        for name in PAIRED:
            data[name] = [list(pair) for pair in data[name]]
        if self.calibration == Calibration():
            del data["calibration"]  # recipes without one keep the fingerprint they had
        elif self.calibration.mode == "auto":
            del data["calibration"]["mode"]
        for name in WHOLE:
            data[name] = list(data[name])
        for name in ("allocation_args", *STRUCTURE[1:], "neurons", "compensate"):
            if not data[name]:
                del data[name]
        return {"schema": SCHEMA_VERSION, **data}

    def to_json(self) -> str:
        """Canonical JSON: equal recipes give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what :meth:`to_dict` wrote.

        Raises:
            RecipeError: another schema version, an unknown field or a value out of range.
        """
        content = dict(data)
        schema = content.pop("schema", None)
        if schema != SCHEMA_VERSION:
            raise RecipeError(
                "this recipe has schema {schema!r}; this version of Prunescope reads schema "
                "{known}.",
                schema=schema,
                known=SCHEMA_VERSION,
            )
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(content) - known)
        if unknown:
            raise RecipeError("unknown field in the recipe: {unknown:list}.", unknown=unknown)
        try:
            return cls(**content)
        except RecipeError:  # a ValueError too, but a whole sentence already
            raise
        except (TypeError, AttributeError, ValueError, OverflowError) as error:
            raise RecipeError("the recipe is not readable: {error}.", error=error) from None

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what :meth:`to_json` wrote; see :meth:`from_dict`."""
        try:
            data = json.loads(text.removeprefix("\ufeff"))  # Windows editors put it before
        except (ValueError, RecursionError) as error:
            raise RecipeError("the recipe is not valid JSON: {error}.", error=error) from None
        if not isinstance(data, dict):
            raise RecipeError("the recipe is not a JSON object.")
        return cls.from_dict(data)

    @property
    def fingerprint(self) -> str:
        """Short hash: a cache key and a file name."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]
