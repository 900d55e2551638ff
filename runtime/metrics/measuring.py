"""Metrics of pairs of picture files; what did not change since it was measured is not measured again.

Each extractor's metrics are measured in one of three ways, which differ in what is kept: values of pairs where features
are the images themselves or too large to keep, values of whole sets where such features are compared with those of
other pictures, and features everywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..files import hash_of_json, sha256_of
from ..images import read_image, to_float
from .base import Array, Metric
from .extractors import Features
from .kept import Kept, code_identity, key_of
from .spool import Spool

# Pictures are measured so many at a time: a thousand of 512 px would not fit a laptop's memory as float32.
_BLOCK = 32
# What a process that is killed has to measure again, at most; one that is interrupted has nothing to.
_SAVE_EVERY = 10 * _BLOCK

Values = dict[str, NDArray[np.float64]]
Pair = tuple[Path, Path]  # stimulus, picture
Pairs = Mapping[str, Sequence[Pair]]  # of each kind of picture
OnProgress = Callable[[int, int], None]
T = TypeVar("T")


def measure_pairs(
    metrics: Sequence[Metric],
    extractors: Mapping[str, Features],
    pairs: Pairs,
    ids: Sequence[str],
    kept: Path,
    *,
    rows: Sequence[int] | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[dict[str, Values], tuple[str, ...]]:
    """Measure every pair by every metric.

    Parameters
    ----------
    metrics
        Those whose extractors are there.
    extractors
        Name to features, as :data:`.extractors.EXTRACTORS` opens them.
    pairs
        Kind -> pairs of files, as many of each kind and in the same order. All pictures of a block of 32 have one size.
    ids
        Of each pair's stimulus, the same where the same picture was shown.
    kept
        The file of what was measured before; it is written also where measuring is stopped. Features that are not kept
        lie in a nameless file beside it for as long as they are needed.
    rows
        Of each pair, the row of what an extractor knows to be true; None: in order.
    on_progress
        Called with the number of finished measurements and of those to be made now.

    Returns
    -------
    Kind -> metric -> values, and why metrics are left out.

    Raises
    ------
    FileError
        A picture is damaged.
    """
    store = _Store(Kept(kept), kept.parent, on_progress)
    finished = False
    try:
        found = _measure(metrics, extractors, pairs, ids, list(range(len(ids))) if rows is None else rows, store)
        finished = True
        return found
    finally:  # what was measured until an interruption is kept too
        store.kept.save(all_used=finished)


def _measure(
    metrics: Sequence[Metric],
    extractors: Mapping[str, Features],
    pairs: Pairs,
    ids: Sequence[str],
    rows: Sequence[int],
    store: _Store,
) -> tuple[dict[str, Values], tuple[str, ...]]:
    ways: dict[tuple[str, type[_Way]], _Way] = {}
    way_of: dict[str, _Way] = {}
    for metric in metrics:
        features = extractors[metric.needs]
        way = _way(metric, features)
        if (metric.needs, way) not in ways:
            ways[metric.needs, way] = way(metric.needs, features, pairs, ids, rows, store)
        way_of[metric.name] = ways[metric.needs, way]
        way_of[metric.name].metrics.append(metric)
    store.begin(sum(one.n_missing() for one in ways.values()))
    for one in ways.values():
        one.measure()
    found: dict[str, Values] = {kind: {} for kind in pairs}
    notes = []
    for metric in metrics:
        by_kind = {kind: way_of[metric.name].values(metric, kind) for kind in pairs}
        broken = [kind for kind, values in by_kind.items() if not np.isfinite(values).all()]
        if broken:  # such as features of a network that overflowed; the other metrics are worth having
            notes.append(f"{metric.name} was left out: it is NaN or infinite for some pictures of {broken[0]}.")
            continue
        for kind, values in by_kind.items():
            found[kind][metric.name] = values
    return found, tuple(notes)


def _way(metric: Metric, features: Features) -> type[_Way]:
    if features.of_pictures is None:
        return _PairValues
    if features.keep:
        return _FeatureRows
    return _SetValues if metric.compares_pictures else _PairValues


class _Store:
    """What is kept, by the hashes of files, and how far measuring is."""

    def __init__(self, kept: Kept, folder: Path, on_progress: OnProgress | None) -> None:
        self.kept, self.folder, self._on_progress = kept, folder, on_progress
        self._digests: dict[Path, str] = {}
        self._done = self._total = self._saved = 0

    def digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = sha256_of(path)
        return self._digests[path]

    def key(self, *paths: Path) -> bytes:
        return key_of(*map(self.digest, paths))

    def begin(self, total: int) -> None:
        self._total = total
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

    def __init__(
        self, name: str, features: Features, pairs: Pairs, ids: Sequence[str], rows: Sequence[int], store: _Store
    ) -> None:
        self._name, self._features, self._pairs = name, features, pairs
        self._ids, self._rows, self._store = ids, rows, store
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


class _PairValues(_Way):
    """Each pair's values are kept: features are the images themselves, or too large."""

    def _missing(self) -> list[Pair]:
        pairs = dict.fromkeys(pair for those in self._pairs.values() for pair in those)
        return [p for p in pairs if any(self._kept(metric, p) is None for metric in self.metrics)]

    def _kept(self, metric: Metric, pair: Pair) -> Array | None:
        return self._store.kept.get(self._identity(metric), self._store.key(*pair))

    def n_missing(self) -> int:
        return len(self._missing())

    def measure(self) -> None:
        for block in _blocks(self._missing()):
            truth = self._look(_images([stimulus for stimulus, _ in block]))
            found = self._look(_images([picture for _, picture in block]))
            for metric in self.metrics:
                for pair, value in zip(block, _values(metric, truth, found, ()), strict=True):
                    self._store.kept.put(self._identity(metric), self._store.key(*pair), value)
            self._store.tell(len(block))

    def values(self, metric: Metric, kind: str) -> Array:
        keys = [self._store.key(*pair) for pair in self._pairs[kind]]
        return self._store.kept.rows(self._identity(metric), keys)


class _SetValues(_Way):
    """The values of a whole set of pairs are kept: each depends on other pictures, whose features are too large."""

    def _missing(self) -> list[str]:
        return [kind for kind in self._pairs if any(self._is_missing(metric, kind) for metric in self.metrics)]

    def _is_missing(self, metric: Metric, kind: str) -> bool:
        return any(self._store.kept.get(self._identity(metric), key) is None for key in self._keys(kind))

    def _files(self, kinds: Sequence[str]) -> list[Path]:
        files = [path for kind in kinds for pair in self._pairs[kind] for path in pair]
        return list({self._store.key(path): path for path in files}.values())  # equal files once

    def n_missing(self) -> int:
        return len(self._files(self._missing()))

    def measure(self) -> None:
        kinds = self._missing()
        files, key = self._files(kinds), self._store.key
        if not files:
            return
        row_of = {key(path): row for row, path in enumerate(files)}
        with Spool(self._store.folder) as spool:
            for block in _blocks(files):
                spool.add(self._look(_images(block)))
                self._store.tell(len(block))
            for kind in kinds:
                truth = spool.rows([row_of[key(stimulus)] for stimulus, _ in self._pairs[kind]])
                found = spool.rows([row_of[key(picture)] for _, picture in self._pairs[kind]])
                for metric in self.metrics:
                    for place, value in zip(self._keys(kind), _values(metric, truth, found, self._ids), strict=True):
                        self._store.kept.put(self._identity(metric), place, value)

    def _keys(self, kind: str) -> list[bytes]:
        """One key for each pair of a kind, which changes with any of them."""
        digests = [[*map(self._store.digest, pair)] for pair in self._pairs[kind]]
        whole = hash_of_json([digests, list(self._ids)])
        return [key_of(whole, f"{row:064x}") for row in range(len(digests))]

    def values(self, metric: Metric, kind: str) -> Array:
        return self._store.kept.rows(self._identity(metric), self._keys(kind))


class _FeatureRows(_Way):
    """Each picture's features are kept, and metrics are computed of them anew."""

    @property
    def _of_features(self) -> str:
        return f"{code_identity()} features {self._name} {self._features.identity}"

    def _missing(self) -> list[Path]:
        knows_truth = self._features.truth is not None
        files = [p for those in self._pairs.values() for pair in those for p in (pair[1:] if knows_truth else pair)]
        kept, key = self._store.kept, self._store.key
        return list({key(p): p for p in files if kept.get(self._of_features, key(p)) is None}.values())

    def n_missing(self) -> int:
        return len(self._missing())

    def measure(self) -> None:
        for block in _blocks(self._missing()):
            for path, row in zip(block, self._look(_images(block)), strict=True):
                self._store.kept.put(self._of_features, self._store.key(path), row)
            self._store.tell(len(block))

    def values(self, metric: Metric, kind: str) -> Array:
        kept, key = self._store.kept, self._store.key
        found = kept.rows(self._of_features, [key(picture) for _, picture in self._pairs[kind]])
        if self._features.truth is not None:
            truth = self._features.truth[list(self._rows)]
        else:
            truth = kept.rows(self._of_features, [key(stimulus) for stimulus, _ in self._pairs[kind]])
        return _values(metric, truth, found, self._ids)


def _values(metric: Metric, truth: Array, found: Array, ids: Sequence[str]) -> Array:
    if not (np.isfinite(truth).all() and np.isfinite(found).all()):
        return np.full(len(truth), np.nan)
    return metric(truth, found, ids)


def _blocks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + _BLOCK] for start in range(0, len(items), _BLOCK)]


def _images(paths: Sequence[Path]) -> NDArray[np.float32]:
    return to_float(np.stack([read_image(path) for path in paths]))
