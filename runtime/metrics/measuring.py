"""Metrics of any pairs of stimulus and picture, in blocks that fit the memory; what is kept is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from . import Metric
from .base import Array, FloatArray
from .crossed import Groups, Index, cross_features, cross_pairs, mean_columns
from .extractors import Features
from .kept import Kept, code_identity, key_of
from .sources import Float32, Pair, Source

# Pictures are measured so many at a time, or fewer where they are large: a thousand of 512 px would not fit a laptop's
# memory as float32.
BLOCK = 32
_PIXELS = 2 * BLOCK * 512 * 512
# What a process that is killed has to measure again, at most; one that is interrupted has nothing to.
_SAVE_EVERY = 10 * BLOCK

Values = dict[str, NDArray[np.float64]]
OnProgress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossing:
    """Pictures that exchange their stimuli within groups.

    Attributes
    ----------
    stimuli
        The n different ones.
    pictures, which
        m pictures, and the stimulus (0 to n - 1) of each.
    groups
        Numbers of stimuli; see :func:`~.permutation.groups_of`.
    rows
        Of each stimulus, its row among those that an extractor knows the truth of.
    """

    stimuli: Sequence[Source]
    pictures: Sequence[Source]
    which: Index
    groups: Groups
    rows: Sequence[int]


class Measuring:
    """Looks up what is kept, then measures the rest in blocks.

    Parameters
    ----------
    extractors
        Opened, by name: all that the metrics need.
    kept
        Saved now and then; the last time is the caller's.
    """

    def __init__(self, extractors: Mapping[str, Features], kept: Kept) -> None:
        self._extractors, self._kept = extractors, kept
        self._digests: dict[Source, str] = {}
        self._on_progress: OnProgress | None = None
        self._done = self._total = self._saved = 0

    def measure(
        self,
        metrics: Sequence[Metric],
        pairs: Mapping[str, Sequence[Pair]],
        ids: Mapping[str, Sequence[str]],
        rows: Mapping[str, Sequence[int]],
        on_progress: OnProgress | None = None,
    ) -> tuple[dict[str, Values], tuple[str, ...]]:
        """The value of every pair.

        Parameters
        ----------
        metrics
            Those whose extractors are there.
        pairs, ids, rows
            Of each kind of picture: the pairs, each one's stimulus id (the same for pairs of one stimulus) and its row
            among those that extractors know the truth of.
        on_progress
            Called with the number of finished measurements and of those to be made now.

        Returns
        -------
        Kind -> metric -> (n,) values, and why metrics are left out.
        """
        of_images = [metric for metric in metrics if self._of_images(metric)]
        needed = dict.fromkeys(metric.needs for metric in metrics if metric not in of_images)
        all_pairs = [pair for those in pairs.values() for pair in those] if of_images else []
        missing_pairs = [p for p in dict.fromkeys(all_pairs) if any(self._value(m, p) is None for m in of_images)]
        missing = {name: self._missing(name, pairs) for name in needed}
        self._begin(len(missing_pairs) + sum(map(len, missing.values())), on_progress)
        self._measure_pairs(of_images, missing_pairs)
        for name, sources in missing.items():
            self._extract(name, sources)
        found: dict[str, Values] = {kind: {} for kind in pairs}
        notes = []
        for metric in metrics:
            by_kind = {kind: self._values(metric, those, ids[kind], rows[kind]) for kind, those in pairs.items()}
            broken = [kind for kind, values in by_kind.items() if not np.isfinite(values).all()]
            if broken:  # such as features of a network that overflowed; the other metrics are worth having
                notes.append(f"{metric.name} was left out: it is NaN or infinite for some pictures of {broken[0]}.")
                continue
            for kind, values in by_kind.items():
                found[kind][metric.name] = values
        return found, tuple(notes)

    def cross(
        self,
        metrics: Sequence[Metric],
        crossings: Mapping[str, Crossing],
        on_progress: OnProgress | None = None,
    ) -> dict[str, dict[str, list[FloatArray]]]:
        """What the pictures of each group would be worth as reconstructions of each of its stimuli.

        The metrics were measured before with the same pictures, and are finite.

        Returns
        -------
        Kind -> metric -> (k, k) of each group, stimuli by pictures, means over the pictures of one stimulus.
        """
        of_images = [metric for metric in metrics if self._of_images(metric)]
        work = [(crossing, group) for crossing in crossings.values() for group in crossing.groups] if of_images else []
        todo = [(crossing, group) for crossing, group in work if self._lacks(of_images, *_members(crossing, group))]
        sizes = [len(stimuli) * len(pictures) for stimuli, pictures in (_members(*one) for one in todo)]
        self._begin(sum(sizes), on_progress)
        for (crossing, group), size in zip(todo, sizes, strict=True):
            self._cross_images(of_images, *_members(crossing, group))
            self._tell(size)
        return {
            kind: {metric.name: self._crossed(metric, crossing) for metric in metrics}
            for kind, crossing in crossings.items()
        }

    def digest(self, source: Source) -> str:
        """The source's digest, computed once."""
        if source not in self._digests:
            self._digests[source] = source.digest()
        return self._digests[source]

    def _of_images(self, metric: Metric) -> bool:
        return self._extractors[metric.needs].of_pictures is None

    def _values(
        self, metric: Metric, pairs: Sequence[Pair], ids: Sequence[str], rows: Sequence[int]
    ) -> NDArray[np.float64]:
        if self._of_images(metric):
            return self._kept.rows(_identity(metric), [self._key(*pair) for pair in pairs])
        found = self._rows(metric.needs, [picture for _, picture in pairs])
        truth = self._truth(metric.needs, [stimulus for stimulus, _ in pairs], rows)
        if not (np.isfinite(truth).all() and np.isfinite(found).all()):
            return np.full(len(pairs), np.nan)
        return metric(truth, found, ids)

    def _crossed(self, metric: Metric, crossing: Crossing) -> list[FloatArray]:
        if not self._of_images(metric):
            truth = self._truth(metric.needs, crossing.stimuli, crossing.rows)
            found = self._rows(metric.needs, crossing.pictures)
            return cross_features(metric, truth, found, crossing.which, crossing.groups)
        matrices = []
        for group in crossing.groups:
            stimuli, pictures = _members(crossing, group)
            keys = [self._key(stimulus, picture) for stimulus in stimuli for picture in pictures]
            values = self._kept.rows(_identity(metric), keys).reshape(len(stimuli), len(pictures))
            place = {number: index for index, number in enumerate(group.tolist())}
            which = np.array([place[number] for number in crossing.which.tolist() if number in place], np.intp)
            matrices.append(mean_columns(values, which, len(group)))
        return matrices

    def _truth(self, name: str, stimuli: Sequence[Source], rows: Sequence[int]) -> Array:
        truth = self._extractors[name].truth
        return self._rows(name, stimuli) if truth is None else truth[list(rows)]

    def _rows(self, name: str, sources: Sequence[Source]) -> Array:
        return self._kept.rows(self._features_identity(name), [self._key(source) for source in sources])

    def _measure_pairs(self, metrics: Sequence[Metric], pairs: Sequence[Pair]) -> None:
        for block, images in _blocks(pairs, lambda pair: (pair[0].image(), pair[1].image())):
            for places in _of_one_shape(images):
                stimuli, pictures = (np.stack([images[place][side] for place in places]) for side in (0, 1))
                for metric in metrics:
                    values = metric(stimuli, pictures, ())
                    for place, value in zip(places, values, strict=True):
                        self._kept.put(_identity(metric), self._key(*block[place]), value)
            self._tell(len(block))

    def _cross_images(
        self, metrics: Sequence[Metric], stimuli: Sequence[Source], pictures: Sequence[Source]
    ) -> None:
        truth, found = [one.image() for one in stimuli], [one.image() for one in pictures]
        for metric in metrics:
            if not self._lacks([metric], stimuli, pictures):
                continue
            values = cross_pairs(metric, truth, found)
            for stimulus, row in zip(stimuli, values, strict=True):
                for picture, value in zip(pictures, row, strict=True):
                    if self._value(metric, (stimulus, picture)) is None:
                        self._kept.put(_identity(metric), self._key(stimulus, picture), value)

    def _lacks(self, metrics: Sequence[Metric], stimuli: Sequence[Source], pictures: Sequence[Source]) -> bool:
        return any(
            self._value(metric, (stimulus, picture)) is None
            for metric in metrics
            for stimulus in stimuli
            for picture in pictures
        )

    def _extract(self, name: str, sources: Sequence[Source]) -> None:
        features = self._extractors[name]
        for block, images in _blocks(sources, lambda source: (source.image(),)):
            assert features.of_pictures is not None  # only such extractors have pictures to go through
            for places in _of_one_shape(images):
                rows = np.asarray(features.of_pictures(np.stack([images[place][0] for place in places])))
                if rows.shape[:1] != (len(places),):
                    raise ShapeError(
                        f"the features {name!r} of {len(places)} images have shape {rows.shape}: return one row per "
                        "image"
                    )
                for place, row in zip(places, rows, strict=True):
                    self._kept.put(self._features_identity(name), self._key(block[place]), row)
            self._tell(len(block))

    def _missing(self, name: str, pairs: Mapping[str, Sequence[Pair]]) -> list[Source]:
        knows_truth = self._extractors[name].truth is not None
        sources = [one for those in pairs.values() for pair in those for one in (pair[1:] if knows_truth else pair)]
        first = {self._key(source): source for source in sources if self._row(name, source) is None}
        return list(first.values())  # equal pictures once

    def _value(self, metric: Metric, pair: Pair) -> Array | None:
        return self._kept.get(_identity(metric), self._key(*pair))

    def _row(self, name: str, source: Source) -> Array | None:
        return self._kept.get(self._features_identity(name), self._key(source))

    def _features_identity(self, name: str) -> str:
        return f"{code_identity()} features {name} {self._extractors[name].identity}"

    def _key(self, *sources: Source) -> bytes:
        return key_of(*(self.digest(source) for source in sources))

    def _begin(self, total: int, on_progress: OnProgress | None) -> None:
        self._done, self._total, self._saved, self._on_progress = 0, total, 0, on_progress
        if total:
            self._tell(0)

    def _tell(self, n_more: int) -> None:
        self._done += n_more
        if self._done - self._saved >= _SAVE_EVERY:
            self._kept.save(all_used=False)
            self._saved = self._done
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _members(crossing: Crossing, group: Index) -> tuple[list[Source], list[Source]]:
    """The stimuli of a group, and the pictures of those stimuli in their order."""
    numbers = set(group.tolist())
    pictures = [one for one, number in zip(crossing.pictures, crossing.which.tolist(), strict=True) if number in numbers]
    return [crossing.stimuli[number] for number in group.tolist()], pictures


def _identity(metric: Metric) -> str:
    function = metric.function
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{code_identity()} metric {metric.name} {function.__module__}.{name}"


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
        if block and (len(block) == BLOCK or pixels + size > _PIXELS):
            yield block, images
            block, images, pixels = [], [], 0
        block.append(item)
        images.append(found)
        pixels += size
    if block:
        yield block, images


def _of_one_shape(images: Sequence[tuple[Float32, ...]]) -> list[list[int]]:
    """The places of those that can be stacked."""
    places: dict[Any, list[int]] = {}
    for place, found in enumerate(images):
        places.setdefault(tuple(image.shape for image in found), []).append(place)
    return list(places.values())
