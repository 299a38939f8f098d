"""Sort once, cut for ever: ranks of every layer, made once and memory-mapped from disk.

A rank is a weight's place within its competing group. Ranks are kept as float32, exact up to 2^24
places, because ``aten.threshold_backward`` then cuts and applies in one pass; layers with more
weights than that are kept as int32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_core.criteria import CRITERIA, LayerStats
from prune_core.disk_cache import DiskCache, Record, key_of
from prune_core.errors import ModelFileError, RecipeError
from prune_core.models.structure import Layer
from prune_core.patterns import Pattern, parse_pattern
from prune_core.progress import NONE, Progress
from prune_core.pruning.parts import LayerCut, Remaining
from prune_core.sentences import Sentence

if TYPE_CHECKING:
    from prune_core.calibration.statistics import Statistics

EXACT_FLOAT = 2**24
CACHE = DiskCache("ranks", 1, 6_000_000_000)
"""Ranks and sorted scores."""

REMAINING_BUDGET = 256_000_000
"""Bytes kept of where dropped parts leave gaps in ranks."""

_VERSION = 1
_NO_STATS = LayerStats()


@dataclass(frozen=True)
class RankedLayers:
    """Ranks of one (model, criterion, pattern).

    Attributes:
        fingerprint: decides the file.
        ranks: layer name to ranks in the weight's *stored* order and shape.
        left_dense: layers whose shape the pattern does not fit.
    """

    fingerprint: str
    ranks: Mapping[str, Tensor]
    left_dense: tuple[str, ...]


def layer_scores(
    model: nn.Module,
    layer: Layer,
    criterion: str,
    args: Mapping[str, Any],
    statistics: Statistics | None = None,
) -> Tensor:
    """Scores of one layer, (out, in) float32 on the CPU.

    Raises:
        RecipeError: an argument the criterion does not take, or statistics it lacks.
        ModelFileError: a score is not finite (a NaN or infinity in the weights).
    """
    stats = statistics.layers[layer.name] if statistics is not None else _NO_STATS
    return weight_scores(layer.name, layer.weight(model), criterion, args, stats)


def weight_scores(
    name: str, weight: Tensor, criterion: str, args: Mapping[str, Any], stats: LayerStats
) -> Tensor:
    """Scores of a weight (out, in), float32 on the CPU; see :func:`layer_scores`."""
    check_arguments(criterion, args)
    scores = CRITERIA[criterion].fn(weight, stats, **args).float().cpu()
    if not bool(torch.isfinite(scores).all()):
        raise ModelFileError(
            "The layer {name} has scores that are not finite; its weights hold NaN or Inf.",
            name=name,
        )
    return scores


def check_arguments(criterion: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments a criterion does not take, or of another type than its defaults.

    Raises:
        UnknownNameError: no such criterion.
        RecipeError: an argument is unknown or of the wrong type; named.
    """
    defaults = CRITERIA[criterion].defaults
    for name, value in args.items():
        if name not in defaults:
            none = Sentence("it takes none")
            takes = Sentence("it takes {known:list}", known=defaults) if defaults else none
            raise RecipeError(
                "the criterion {criterion} has no argument {name!r}; {takes}.",
                criterion=criterion,
                name=name,
                takes=takes,
            )
        default = defaults[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and (isinstance(default, float) or isinstance(value, int))
        if not fits or not abs(value) < 2**63:
            kind = "a number" if isinstance(default, float) else "a whole number"
            raise RecipeError(
                "{name} of the criterion {criterion} must be {kind}, got {value!r}.",
                name=name,
                criterion=criterion,
                kind=Sentence(kind),
                value=value,
            )


class RankStore:
    """Finds or makes ranks; holds the last few in memory-mapped form.

    Args:
        model: dense model; its layers are read, never written.
        layers: by name, in forward order.
        fingerprint: of the model.
        folder: where files go; None for the cache.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, Layer],
        fingerprint: str,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self.layers = layers
        self.fingerprint = fingerprint
        self._folder = folder
        self._ranked: dict[str, RankedLayers] = {}
        self._ordered: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
        self._records: dict[str, Record] = {}
        self._outliers: dict[str, list[float]] = {}
        self._remaining: dict[tuple[object, ...], Remaining] = {}

    def ranked(
        self,
        criterion: str,
        args: Mapping[str, Any],
        pattern: str,
        *,
        statistics: Statistics | None = None,
        progress: Progress = NONE,
    ) -> RankedLayers:
        """Ranks of every layer that the pattern fits: from memory, disk, or made now.

        Args:
            criterion: registered name.
            args: its keyword arguments.
            pattern: ``per-layer``, ``per-row``, ``nm:N:M``.
            statistics: what the criterion needs of a calibration text.
            progress: (layers done, layers); a cancel is seen between layers.

        Raises:
            ModelFileError: scores that are not finite.
            Cancelled: by ``progress``.
        """
        key = self._key("ranks", criterion, args, pattern, statistics)
        if key in self._ranked and self._intact(key):
            return self._ranked[key]
        rule = parse_pattern(pattern)
        fitting = [x for x in self.layers.values() if rule.fits(x.out_features, x.in_features)]
        unfit = tuple(n for n, x in self.layers.items() if x not in fitting)
        exact = all(x.numel <= EXACT_FLOAT for x in fitting)
        dtype = np.dtype(np.float32 if exact else np.int32)

        def make(layer: Layer, out: np.ndarray[Any, Any]) -> None:
            scores = layer_scores(self.model, layer, criterion, args, statistics).numpy()
            ranks = rule.rank(scores)
            out[:] = (ranks.T if layer.transposed else ranks).reshape(-1)

        flat = self._stored(key, fitting, dtype, make, progress)
        ranks = {}
        for layer, part in zip(fitting, flat, strict=True):
            shape = layer.stored_weight(self.model).shape
            ranks[layer.name] = part.view(shape)
        while len(self._ranked) >= 3:  # each holds the address space of one model
            oldest = next(iter(self._ranked))
            self._records.pop(oldest, None)
            self._ranked.pop(oldest)
        self._ranked[key] = RankedLayers(key, ranks, unfit)
        return self._ranked[key]

    def ordered(
        self,
        criterion: str,
        args: Mapping[str, Any],
        *,
        statistics: Statistics | None = None,
        progress: Progress = NONE,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Each layer's scores sorted ascending: what global ranking bisects.

        Raises:
            ModelFileError, Cancelled: see :meth:`ranked`.
        """
        key = self._key("ordered", criterion, args, "", statistics)
        if key not in self._ordered or not self._intact(key):

            def make(layer: Layer, out: np.ndarray[Any, Any]) -> None:
                scores = layer_scores(self.model, layer, criterion, args, statistics).numpy()
                if not CRITERIA[criterion].comparable and scores.size:
                    # global ranking then compares shares of the layer's mean
                    scores = scores / max(float(scores.mean(dtype=np.float64)), 1e-30)
                out[:] = np.sort(scores.reshape(-1))

            for other in self._ordered:
                self._records.pop(other, None)
            layers = list(self.layers.values())
            flat = self._stored(key, layers, np.dtype(np.float32), make, progress)
            self._ordered = {
                key: {x.name: part.numpy() for x, part in zip(layers, flat, strict=True)}
            }
        return self._ordered[key]

    def remaining(
        self, ranked: RankedLayers, pattern: Pattern, name: str, cut: LayerCut
    ) -> Remaining:
        """How a layer's ranks are cut where structure takes a part of it; remembered.

        Args:
            ranked: what :meth:`ranked` gave.
            pattern: theirs.
            name: of the layer.
            cut: its rows and columns that are gone.
        """
        key = (ranked.fingerprint, name, cut.rows, cut.columns)
        remaining = self._remaining.pop(key, None)
        if remaining is None:
            ranks = self.layers[name].from_stored(ranked.ranks[name])
            remaining = Remaining(ranks, pattern, cut)
            total = remaining.nbytes + sum(other.nbytes for other in self._remaining.values())
            while self._remaining and total > REMAINING_BUDGET:
                total -= self._remaining.pop(next(iter(self._remaining))).nbytes
        self._remaining[key] = remaining
        return remaining

    def outliers(
        self,
        criterion: str,
        args: Mapping[str, Any],
        m: float,
        *,
        statistics: Statistics | None = None,
    ) -> list[float]:
        """For each block, the share of its scores above ``m`` times the block's mean score.

        OWL, arXiv 2310.05175.

        Raises:
            ModelFileError: see :meth:`ranked`.
        """
        key = self._key(f"outliers {m}", criterion, args, "", statistics)
        if key not in self._outliers:
            shares = []
            for block in sorted({layer.block for layer in self.layers.values()}):
                scores = torch.cat(
                    [
                        layer_scores(self.model, layer, criterion, args, statistics).reshape(-1)
                        for layer in self.layers.values()
                        if layer.block == block
                    ]
                )
                limit = float(m * scores.mean(dtype=torch.float64))
                shares.append(float((scores > limit).double().mean()))
            self._outliers[key] = shares
        return self._outliers[key]

    def _key(
        self,
        what: str,
        criterion: str,
        args: Mapping[str, Any],
        pattern: str,
        statistics: Statistics | None,
    ) -> str:
        content = [_VERSION, what, self.fingerprint, criterion, dict(args), pattern]
        content += [statistics.fingerprint] if statistics is not None else []
        return key_of(content)

    def _intact(self, key: str) -> bool:
        """Whether what is in memory under a key is what was made; if not, it is forgotten."""
        record = self._records.get(key)
        if record is None or record.intact():
            return True
        del self._records[key]
        self._ranked.pop(key, None)
        self._ordered.pop(key, None)
        for place in [place for place in self._remaining if place[0] == key]:
            del self._remaining[place]
        return False

    def _stored(
        self,
        key: str,
        layers: list[Layer],
        dtype: np.dtype[Any],
        make: Callable[[Layer, np.ndarray[Any, Any]], None],
        progress: Progress,
    ) -> list[Tensor]:
        """One flat array per layer, in one file; kept in memory where the disk does not take it."""
        total = sum(x.numel for x in layers)
        record = CACHE.read(key, mapped=True, folder=self._folder)
        if record is None:
            values = np.empty(total, dtype=dtype)
            with CACHE.stream(key, values.nbytes, folder=self._folder) as stream:
                stream.add("values", dtype.name, (total,))
                for part in _filled(values, layers, make, progress):
                    stream.extend(part.data)
                is_on_disk = stream.keep()
            # its pages can be given back to the system, those of ``values`` cannot
            record = CACHE.read(key, mapped=True, folder=self._folder) if is_on_disk else None
            if record is None:
                return _split(torch.from_numpy(values), layers)
        self._records[key] = record
        return _split(record.tensors["values"], layers)


def _split(flat: Tensor, layers: list[Layer]) -> list[Tensor]:
    return list(flat.split([x.numel for x in layers]))


def _filled(
    values: np.ndarray[Any, Any],
    layers: list[Layer],
    make: Callable[[Layer, np.ndarray[Any, Any]], None],
    progress: Progress,
) -> Iterator[np.ndarray[Any, Any]]:
    """Fills ``values`` layer by layer; gives each layer's part, in order, as soon as it is made."""
    ends = np.cumsum([x.numel for x in layers])
    # numpy sorts outside the interpreter lock: threads share the cores
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        parts = [values[end - layer.numel : end] for layer, end in zip(layers, ends, strict=True)]
        waiting = [pool.submit(make, layer, out) for layer, out in zip(layers, parts, strict=True)]
        try:
            for count, (future, part) in enumerate(zip(waiting, parts, strict=True), start=1):
                progress.check("Cancelled while ranking weights.")
                future.result()
                yield part
                progress.step(count, len(layers))
        finally:
            for future in waiting:
                future.cancel()
