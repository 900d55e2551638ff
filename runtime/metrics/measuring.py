"""Metrics of pairs of pictures; what did not change since it was measured is not measured again.

Each extractor's metrics are measured in one of three ways, which differ in what is kept: values of pairs where features
are the images themselves or too large to keep, values of whole sets where such features are compared with those of
other pictures, and features everywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..files import hash_of_json
from .base import Array, FloatArray, Metric
from .crossed import Groups, Index, cross_features, cross_pairs, mean_columns
from .extractors import Features
from .kept import Kept, code_identity, key_of
from .sources import Float32, Pair, Source
from .spool import Spool

# Pictures are measured so many at a time, or fewer where they are large: a thousand of 512 px would not fit a laptop's
# memory as float32.
_BLOCK = 32
_PIXELS = 2 * _BLOCK * 512 * 512
# What a process that is killed has to measure again, at most; one that is interrupted has nothing to.
_SAVE_EVERY = 10 * _BLOCK

Values = dict[str, NDArray[np.float64]]
Crossed = dict[str, list[FloatArray]]
OnProgress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pictures of one kind, each with its stimulus.

    Attributes
    ----------
    pairs
        Stimulus and picture.
    ids
        Of each pair's stimulus, the same where the same picture was shown.
    rows
        Of each pair's stimulus, the row of what an extractor knows to be true.
    groups
        Of stimuli, numbered as `ids` first name them, that exchange their pictures; none: nothing is exchanged. See
        :func:`~.permutation.groups_of`.
    """

    pairs: Sequence[Pair]
    ids: Sequence[str]
    rows: Sequence[int]
    groups: Groups = ()

    @property
    def which(self) -> Index:
        """The number of each pair's stimulus."""
        number = {name: index for index, name in enumerate(dict.fromkeys(self.ids))}
        return np.array([number[name] for name in self.ids], np.intp)

    @property
    def firsts(self) -> list[int]:
        """One pair of each stimulus."""
        return [int(place) for place in np.unique(self.which, return_index=True)[1]]

    def group(self, stimuli: Index) -> tuple[list[Source], list[Source], Index]:
        """The stimuli of a group; its pictures, and which of these stimuli each belongs to."""
        shown = {number: self.pairs[first][0] for number, first in enumerate(self.firsts)}
        place = {number: index for index, number in enumerate(stimuli.tolist())}
        members = [(pair[1], place[n]) for pair, n in zip(self.pairs, self.which.tolist(), strict=True) if n in place]
        return [shown[n] for n in place], [one for one, _ in members], np.array([n for _, n in members], np.intp)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """What was measured.

    Attributes
    ----------
    values
        Kind -> metric -> (n,) values of its pairs.
    crossed
        Kind -> metric -> of each group, (k, k): at [i, j] what the pictures of the j-th stimulus would be worth as
        reconstructions of the i-th; means where it has several. Empty where there are no groups.
    notes
        Why metrics are left out.
    """

    values: dict[str, Values]
    crossed: dict[str, Crossed]
    notes: tuple[str, ...]


def measure_pairs(
    metrics: Sequence[Metric],
    extractors: Mapping[str, Features],
    sets: Mapping[str, Pairs],
    kept: Path,
    *,
    on_progress: OnProgress | None = None,
    on_exchange: OnProgress | None = None,
) -> Measurements:
    """Measure every pair by every metric, and every picture of a group with every stimulus of it.

    Parameters
    ----------
    metrics
        Those whose extractors are there.
    extractors
        Name to features, as :data:`.extractors.EXTRACTORS` opens them.
    sets
        Kind -> its pairs.
    kept
        The file of what was measured before; it is written also where measuring is stopped. Features that are not kept
        lie in a nameless file beside it for as long as they are needed.
    on_progress, on_exchange
        Called with the number of finished measurements and of those to be made now; the second one for pictures that
        are compared with other stimuli.

    Raises
    ------
    FileError
        A picture is damaged.
    """
    store = _Store(Kept(kept), kept.parent)
    finished = False
    try:
        found = _measure(metrics, extractors, sets, store, on_progress, on_exchange)
        finished = True
        return found
    finally:  # what was measured until an interruption is kept too
        store.kept.save(all_used=finished)


def _measure(
    metrics: Sequence[Metric],
    extractors: Mapping[str, Features],
    sets: Mapping[str, Pairs],
    store: _Store,
    on_progress: OnProgress | None,
    on_exchange: OnProgress | None,
) -> Measurements:
    ways: dict[tuple[str, type[_Way]], _Way] = {}
    way_of: dict[str, _Way] = {}
    for metric in metrics:
        features = extractors[metric.needs]
        way = _way(metric, features)
        if (metric.needs, way) not in ways:
            ways[metric.needs, way] = way(metric.needs, features, sets, store)
        way_of[metric.name] = ways[metric.needs, way]
        way_of[metric.name].metrics.append(metric)
    store.begin(sum(one.n_missing() for one in ways.values()), on_progress)
    for one in ways.values():
        one.measure()
    values: dict[str, Values] = {kind: {} for kind in sets}
    good, notes = [], []
    for metric in metrics:
        by_kind = {kind: way_of[metric.name].values(metric, kind) for kind in sets}
        broken = [kind for kind, of_kind in by_kind.items() if not np.isfinite(of_kind).all()]
        if broken:  # such as features of a network that overflowed; the other metrics are worth having
            notes.append(f"{metric.name} was left out: it is NaN or infinite for some pictures of {broken[0]}.")
            continue
        good.append(metric)
        for kind, of_kind in by_kind.items():
            values[kind][metric.name] = of_kind
    for one in ways.values():
        one.metrics = [metric for metric in one.metrics if metric in good]
    store.begin(sum(one.n_exchanges() for one in ways.values()), on_exchange)
    for one in ways.values():
        one.exchange()
    crossed = {
        kind: {metric.name: way_of[metric.name].crossed(metric, kind) for metric in good} if those.groups else {}
        for kind, those in sets.items()
    }
    return Measurements(values=values, crossed=crossed, notes=tuple(notes))


def _way(metric: Metric, features: Features) -> type[_Way]:
    if features.of_pictures is None:
        return _PairValues
    if features.keep:
        return _FeatureRows
    return _SetValues if metric.compares_pictures else _PairValues


class _Store:
    """What is kept, by the hashes of pictures, and how far measuring is."""

    def __init__(self, kept: Kept, folder: Path) -> None:
        self.kept, self.folder = kept, folder
        self._on_progress: OnProgress | None = None
        self._digests: dict[Source, str] = {}
        self._done = self._total = self._saved = 0

    def digest(self, source: Source) -> str:
        if source not in self._digests:
            self._digests[source] = source.digest()
        return self._digests[source]

    def key(self, *sources: Source) -> bytes:
        return key_of(*map(self.digest, sources))

    def begin(self, total: int, on_progress: OnProgress | None) -> None:
        self._done, self._total, self._saved, self._on_progress = 0, total, 0, on_progress
        if total:
            self.tell(0)

    def tell(self, n_more: int) -> None:
        self._done += n_more
        if self._done - self._saved >= _SAVE_EVERY:
            self.kept.save(all_used=False)
            self._saved = self._done
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


class _Way(ABC):
    """How some metrics of one extractor are measured."""

    def __init__(self, name: str, features: Features, sets: Mapping[str, Pairs], store: _Store) -> None:
        self._name, self._features, self._sets, self._store = name, features, sets, store
        self.metrics: list[Metric] = []

    @abstractmethod
    def n_missing(self) -> int:
        """How many measurements are to be made."""

    @abstractmethod
    def measure(self) -> None:
        """Make them."""

    @abstractmethod
    def values(self, metric: Metric, kind: str) -> Array:
        """The values of a kind's pairs (n,); NaN where features are not finite."""

    @abstractmethod
    def crossed(self, metric: Metric, kind: str) -> list[FloatArray]:
        """Of each group of a kind (k, k), stimuli by pictures; where the values are finite."""

    def n_exchanges(self) -> int:
        """How many comparisons with other stimuli are to be made after :meth:`measure`."""
        return 0

    def exchange(self) -> None:
        """Make them."""
        return

    def _identity(self, metric: Metric) -> str:
        """Changes with anything that changes a metric's values."""
        function = metric.function
        name = getattr(function, "__qualname__", type(function).__qualname__)
        computed = "" if self._features.of_pictures is None else f" {self._name} {self._features.identity}"
        return f"{code_identity()} metric {metric.name} {function.__module__}.{name}{computed}"

    def _look(self, images: Array) -> Array:
        look = self._features.of_pictures
        if look is None:
            return images
        rows = np.asarray(look(images))
        if rows.shape[:1] != (len(images),):
            raise ShapeError(
                f"the features {self._name!r} of {len(images)} images have shape {rows.shape}: return one row per image"
            )
        return rows

    def _looked(self, sources: Sequence[Source]) -> Iterator[tuple[list[Source], Array]]:
        """Pictures of one size, a few at a time, with their features."""
        for block, images in _blocks(sources, lambda source: (source.image(),)):
            for places in _of_one_size(images):
                yield [block[place] for place in places], self._look(np.stack([images[place][0] for place in places]))


class _PairValues(_Way):
    """Each pair's values are kept: features are the images themselves, or too large."""

    def _missing(self) -> list[Pair]:
        pairs = dict.fromkeys(pair for those in self._sets.values() for pair in those.pairs)
        return [p for p in pairs if any(self._kept(metric, p) is None for metric in self.metrics)]

    def _kept(self, metric: Metric, pair: Pair) -> Array | None:
        return self._store.kept.get(self._identity(metric), self._store.key(*pair))

    def _keep(self, metric: Metric, pair: Pair, value: Any) -> None:
        self._store.kept.put(self._identity(metric), self._store.key(*pair), value)

    def n_missing(self) -> int:
        return len(self._missing())

    def measure(self) -> None:
        for block, images in _blocks(self._missing(), lambda pair: (pair[0].image(), pair[1].image())):
            for places in _of_one_size(images):
                truth, found = (self._look(np.stack([images[place][side] for place in places])) for side in (0, 1))
                for metric in self.metrics:
                    for place, value in zip(places, _values(metric, truth, found, ()), strict=True):
                        self._keep(metric, block[place], value)
            self._store.tell(len(block))

    def values(self, metric: Metric, kind: str) -> Array:
        keys = [self._store.key(*pair) for pair in self._sets[kind].pairs]
        return self._store.kept.rows(self._identity(metric), keys)

    def _exchanges(self) -> list[tuple[list[Source], list[Source]]]:
        """The groups of which something is missing: stimuli and pictures."""
        groups = [those.group(group)[:2] for those in self._sets.values() for group in those.groups]
        return [one for one in groups if any(self._kept(m, pair) is None for m in self.metrics for pair in _each(*one))]

    def n_exchanges(self) -> int:
        return sum(len(stimuli) * len(pictures) for stimuli, pictures in self._exchanges())

    def exchange(self) -> None:
        for stimuli, pictures in self._exchanges():
            truth, found = ([self._look(one.image()[None])[0] for one in those] for those in (stimuli, pictures))
            for metric in self.metrics:
                if all(self._kept(metric, pair) is not None for pair in _each(stimuli, pictures)):
                    continue
                for pair, value in zip(
                    _each(stimuli, pictures), cross_pairs(metric, truth, found).ravel(), strict=True
                ):
                    if self._kept(metric, pair) is None:
                        self._keep(metric, pair, value)
            self._store.tell(len(stimuli) * len(pictures))

    def crossed(self, metric: Metric, kind: str) -> list[FloatArray]:
        found = []
        for group in self._sets[kind].groups:
            stimuli, pictures, which = self._sets[kind].group(group)
            keys = [self._store.key(*pair) for pair in _each(stimuli, pictures)]
            values = self._store.kept.rows(self._identity(metric), keys).reshape(len(stimuli), len(pictures))
            found.append(mean_columns(values, which, len(stimuli)))
        return found


class _SetValues(_Way):
    """The values of a whole set of pairs are kept: each depends on other pictures, whose features are too large."""

    def _missing(self) -> list[str]:
        return [kind for kind in self._sets if any(self._is_missing(metric, kind) for metric in self.metrics)]

    def _is_missing(self, metric: Metric, kind: str) -> bool:
        wanted = [(self._identity(metric), key) for key in self._keys(kind)]
        if self._sets[kind].groups:
            wanted += [(self._crossed_identity(metric), key) for key in self._crossed_keys(kind)]
        return any([self._store.kept.get(*one) is None for one in wanted])

    def _sources(self, kinds: Sequence[str]) -> list[Source]:
        sources = [source for kind in kinds for pair in self._sets[kind].pairs for source in pair]
        return list({self._store.key(source): source for source in sources}.values())  # equal pictures once

    def n_missing(self) -> int:
        return len(self._sources(self._missing()))

    def measure(self) -> None:
        kinds = self._missing()
        sources, key = self._sources(kinds), self._store.key
        if not sources:
            return
        row_of: dict[bytes, int] = {}
        with Spool(self._store.folder) as spool:
            for block, rows in self._looked(sources):
                row_of.update(zip(map(key, block), range(len(row_of), len(row_of) + len(block)), strict=True))
                spool.add(rows)
                self._store.tell(len(block))
            for kind in kinds:
                those = self._sets[kind]
                truth, found = (spool.rows([row_of[key(pair[side])] for pair in those.pairs]) for side in (0, 1))
                for metric in self.metrics:
                    for place, value in zip(self._keys(kind), _values(metric, truth, found, those.ids), strict=True):
                        self._store.kept.put(self._identity(metric), place, value)
                if those.groups:
                    self._cross(kind, truth[those.firsts], found)

    def _cross(self, kind: str, truth: Array, found: Array) -> None:
        """Keep what every picture would be worth as one of another stimulus: a column for each stimulus's pictures."""
        those = self._sets[kind]
        finite = bool(np.isfinite(truth).all() and np.isfinite(found).all())
        for metric in self.metrics:
            columns = np.full((len(truth), max(map(len, those.groups))), np.nan)
            matrices = cross_features(metric, truth, found, those.which, those.groups) if finite else []
            for group, matrix in zip(those.groups, matrices, strict=finite):
                columns[group, : len(group)] = matrix.T
            for key, column in zip(self._crossed_keys(kind), columns, strict=True):
                self._store.kept.put(self._crossed_identity(metric), key, column)

    def _keys(self, kind: str) -> list[bytes]:
        """One key for each pair of a kind, which changes with any of them."""
        return _numbered(hash_of_json(self._content(kind)), len(self._sets[kind].pairs))

    def _crossed_keys(self, kind: str) -> list[bytes]:
        """One key for each stimulus of a kind, which changes with any pair and with the groups."""
        those = self._sets[kind]
        whole = hash_of_json([self._content(kind), [group.tolist() for group in those.groups]])
        return _numbered(whole, len(those.firsts))

    def _content(self, kind: str) -> list[Any]:
        those = self._sets[kind]
        return [[[*map(self._store.digest, pair)] for pair in those.pairs], list(those.ids)]

    def _crossed_identity(self, metric: Metric) -> str:
        return f"crossed {self._identity(metric)}"

    def values(self, metric: Metric, kind: str) -> Array:
        return self._store.kept.rows(self._identity(metric), self._keys(kind))

    def crossed(self, metric: Metric, kind: str) -> list[FloatArray]:
        columns = self._store.kept.rows(self._crossed_identity(metric), self._crossed_keys(kind))
        return [columns[group, : len(group)].T for group in self._sets[kind].groups]


class _FeatureRows(_Way):
    """Each picture's features are kept, and metrics are computed of them anew."""

    @property
    def _of_features(self) -> str:
        return f"{code_identity()} features {self._name} {self._features.identity}"

    def _missing(self) -> list[Source]:
        knows_truth = self._features.truth is not None
        pairs = [pair for those in self._sets.values() for pair in those.pairs]
        sources = [source for pair in pairs for source in (pair[1:] if knows_truth else pair)]
        kept, key = self._store.kept, self._store.key
        return list({key(one): one for one in sources if kept.get(self._of_features, key(one)) is None}.values())

    def n_missing(self) -> int:
        return len(self._missing())

    def measure(self) -> None:
        for block, rows in self._looked(self._missing()):
            for source, row in zip(block, rows, strict=True):
                self._store.kept.put(self._of_features, self._store.key(source), row)
            self._store.tell(len(block))

    def _rows(self, sources: Sequence[Source]) -> Array:
        return self._store.kept.rows(self._of_features, [self._store.key(source) for source in sources])

    def _truth(self, those: Pairs, places: Sequence[int]) -> Array:
        if self._features.truth is not None:
            return self._features.truth[[those.rows[place] for place in places]]
        return self._rows([those.pairs[place][0] for place in places])

    def values(self, metric: Metric, kind: str) -> Array:
        those = self._sets[kind]
        found = self._rows([picture for _, picture in those.pairs])
        return _values(metric, self._truth(those, range(len(those.pairs))), found, those.ids)

    def crossed(self, metric: Metric, kind: str) -> list[FloatArray]:
        those = self._sets[kind]
        truth, found = self._truth(those, those.firsts), self._rows([picture for _, picture in those.pairs])
        return cross_features(metric, truth, found, those.which, those.groups)


def _values(metric: Metric, truth: Array, found: Array, ids: Sequence[str]) -> Array:
    if not (np.isfinite(truth).all() and np.isfinite(found).all()):
        return np.full(len(truth), np.nan)
    return metric(truth, found, ids)


def _each(stimuli: Sequence[Source], pictures: Sequence[Source]) -> list[Pair]:
    """Every stimulus with every picture."""
    return [(stimulus, picture) for stimulus in stimuli for picture in pictures]


def _numbered(whole: str, n: int) -> list[bytes]:
    return [key_of(whole, f"{row:064x}") for row in range(n)]


def _blocks(
    items: Sequence[T], read: Callable[[T], tuple[Float32, ...]]
) -> Iterator[tuple[list[T], list[tuple[Float32, ...]]]]:
    """Items with their pictures, as many at a time as the memory holds."""
    block: list[T] = []
    images: list[tuple[Float32, ...]] = []
    pixels = 0
    for item in items:
        found = read(item)
        size = sum(image.shape[1] * image.shape[2] for image in found)
        if block and (len(block) == _BLOCK or pixels + size > _PIXELS):
            yield block, images
            block, images, pixels = [], [], 0
        block.append(item)
        images.append(found)
        pixels += size
    if block:
        yield block, images


def _of_one_size(images: Sequence[tuple[Float32, ...]]) -> list[list[int]]:
    """The places of those that can be stacked."""
    places: dict[Any, list[int]] = {}
    for place, found in enumerate(images):
        places.setdefault(tuple(image.shape for image in found), []).append(place)
    return list(places.values())
