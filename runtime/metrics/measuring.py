"""Metrics of any pairs of stimulus and picture, in blocks that fit the memory; what is kept is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..files import hash_of_json
from . import Metric
from .base import Array, FloatArray
from .crossed import Groups, Index, cross_features, cross_pairs, mean_columns
from .extractors import Features
from .kept import Kept, code_identity, key_of
from .sources import Float32, Pair, Source
from .spool import Spool

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
class PairSet:
    """Pairs of one kind.

    Attributes
    ----------
    pairs
        Stimulus and picture.
    ids
        Of each pair's stimulus, the same for pairs of one stimulus.
    rows
        Of each pair's stimulus, its row among those that an extractor knows the truth of.
    """

    pairs: Sequence[Pair]
    ids: Sequence[str]
    rows: Sequence[int]


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
    folder
        Where features lie for a while that are too many for the memory.
    """

    def __init__(self, extractors: Mapping[str, Features], kept: Kept, folder: Path) -> None:
        self._extractors, self._kept, self._folder = extractors, kept, folder
        self._digests: dict[Source, str] = {}
        self._on_progress: OnProgress | None = None
        self._done = self._total = self._saved = 0

    def measure(
        self,
        metrics: Sequence[Metric],
        sets: Mapping[str, PairSet],
        crossings: Mapping[str, Crossing] = MappingProxyType({}),
        on_progress: OnProgress | None = None,
    ) -> tuple[dict[str, Values], tuple[str, ...]]:
        """The value of every pair.

        Parameters
        ----------
        metrics
            Those whose extractors are there.
        sets
            Kind -> pairs.
        crossings
            Those that :meth:`cross` will be asked for, by kind: what needs features that are not kept is computed here.
        on_progress
            Called with the number of finished measurements and of those to be made now.

        Returns
        -------
        Kind -> metric -> (n,) values, and why metrics are left out.
        """
        of_pairs = [metric for metric in metrics if self._is_of_pairs(metric)]
        of_sets = [metric for metric in metrics if self._is_of_sets(metric)]
        needed = dict.fromkeys(metric.needs for metric in metrics if metric not in of_pairs and metric not in of_sets)
        all_pairs = list(dict.fromkeys(pair for those in sets.values() for pair in those.pairs))
        missing_pairs = {m.name: [pair for pair in all_pairs if self._value(m, pair) is None] for m in of_pairs}
        missing_sets = {
            name: self._missing_sets([metric for metric in of_sets if metric.needs == name], sets, crossings)
            for name in dict.fromkeys(metric.needs for metric in of_sets)
        }
        missing = {name: self._missing(name, sets) for name in needed}
        images = [metric for metric in of_pairs if self._extractors[metric.needs].of_pictures is None]
        image_pairs = list(dict.fromkeys(pair for metric in images for pair in missing_pairs[metric.name]))
        others = [metric for metric in of_pairs if metric not in images]
        total = len(image_pairs) + sum(len(missing_pairs[metric.name]) for metric in others)
        total += sum(len(_sources_of(those.values())) for those in missing_sets.values())
        self._begin(total + sum(map(len, missing.values())), on_progress)
        self._measure_pairs(images, image_pairs)
        for metric in others:
            self._measure_pairs([metric], missing_pairs[metric.name])
        for name, those in missing_sets.items():
            self._measure_sets([metric for metric in of_sets if metric.needs == name], those, crossings)
        for name, sources in missing.items():
            self._extract(name, sources)
        found: dict[str, Values] = {kind: {} for kind in sets}
        notes = []
        for metric in metrics:
            by_kind = {kind: self._values(metric, those) for kind, those in sets.items()}
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

        The metrics were measured before, with these pictures and crossings, and are finite.

        Returns
        -------
        Kind -> metric -> (k, k) of each group, stimuli by pictures, means over the pictures of one stimulus.
        """
        of_pairs = [metric for metric in metrics if self._is_of_pairs(metric)]
        work = [_members(crossing, group) for crossing in crossings.values() for group in crossing.groups]
        todo = [members for members in work if any(self._lacks(metric, *members) for metric in of_pairs)]
        sizes = [len(stimuli) * len(pictures) for stimuli, pictures in todo]
        self._begin(sum(sizes), on_progress)
        for members, size in zip(todo, sizes, strict=True):
            self._cross_group([metric for metric in of_pairs if self._lacks(metric, *members)], *members)
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

    def _values(self, metric: Metric, those: PairSet) -> NDArray[np.float64]:
        if self._is_of_pairs(metric):
            return self._kept.rows(self._identity(metric), [self._key(*pair) for pair in those.pairs])
        if self._is_of_sets(metric):
            return self._kept.rows(self._identity(metric), self._set_keys(those))
        found = self._rows(metric.needs, [picture for _, picture in those.pairs])
        truth = self._truth(metric.needs, [stimulus for stimulus, _ in those.pairs], those.rows)
        if not (np.isfinite(truth).all() and np.isfinite(found).all()):
            return np.full(len(those.pairs), np.nan)
        return metric(truth, found, those.ids)

    def _crossed(self, metric: Metric, crossing: Crossing) -> list[FloatArray]:
        if self._is_of_sets(metric):
            columns = self._kept.rows(self._crossed_identity(metric), self._crossed_keys(crossing))
            return [columns[group, : len(group)].T for group in crossing.groups]
        if not self._is_of_pairs(metric):
            truth = self._truth(metric.needs, crossing.stimuli, crossing.rows)
            found = self._rows(metric.needs, crossing.pictures)
            return cross_features(metric, truth, found, crossing.which, crossing.groups)
        matrices = []
        for group in crossing.groups:
            stimuli, pictures = _members(crossing, group)
            keys = [self._key(stimulus, picture) for stimulus in stimuli for picture in pictures]
            values = self._kept.rows(self._identity(metric), keys).reshape(len(stimuli), len(pictures))
            place = {number: index for index, number in enumerate(group.tolist())}
            which = np.array([place[number] for number in crossing.which.tolist() if number in place], np.intp)
            matrices.append(mean_columns(values, which, len(group)))
        return matrices

    def _is_of_pairs(self, metric: Metric) -> bool:
        """Whether its values are kept, pair by pair: features are the images themselves, or too large."""
        features = self._extractors[metric.needs]
        return features.of_pictures is None or (not features.keep and not metric.compares_pictures)

    def _is_of_sets(self, metric: Metric) -> bool:
        """Whether its values are kept for a whole set of pairs: each depends on others, and features are too large."""
        return metric.compares_pictures and not self._extractors[metric.needs].keep

    def _truth(self, name: str, stimuli: Sequence[Source], rows: Sequence[int]) -> Array:
        truth = self._extractors[name].truth
        return self._rows(name, stimuli) if truth is None else truth[list(rows)]

    def _rows(self, name: str, sources: Sequence[Source]) -> Array:
        return self._kept.rows(self._features_identity(name), [self._key(source) for source in sources])

    def _measure_pairs(self, metrics: Sequence[Metric], pairs: Sequence[Pair]) -> None:
        for block, images in _blocks(pairs, lambda pair: (pair[0].image(), pair[1].image())):
            for places in _of_one_shape(images):
                sides = [np.stack([images[place][side] for place in places]) for side in (0, 1)]
                for metric in metrics:
                    truth, found = (self._look(metric.needs, side) for side in sides)
                    finite = np.isfinite(truth).all() and np.isfinite(found).all()
                    values = metric(truth, found, ()) if finite else np.full(len(places), np.nan)
                    for place, value in zip(places, values, strict=True):
                        self._kept.put(self._identity(metric), self._key(*block[place]), value)
            self._tell(len(block))

    def _cross_group(self, metrics: Sequence[Metric], stimuli: Sequence[Source], pictures: Sequence[Source]) -> None:
        truth, found = [one.image() for one in stimuli], [one.image() for one in pictures]
        for metric in metrics:
            values = cross_pairs(
                metric,
                [self._look(metric.needs, image[None])[0] for image in truth],
                [self._look(metric.needs, image[None])[0] for image in found],
            )
            for stimulus, row in zip(stimuli, values, strict=True):
                for picture, value in zip(pictures, row, strict=True):
                    if self._value(metric, (stimulus, picture)) is None:
                        self._kept.put(self._identity(metric), self._key(stimulus, picture), value)

    def _lacks(self, metric: Metric, stimuli: Sequence[Source], pictures: Sequence[Source]) -> bool:
        return any(self._value(metric, (stimulus, picture)) is None for stimulus in stimuli for picture in pictures)

    def _missing_sets(
        self, metrics: Sequence[Metric], sets: Mapping[str, PairSet], crossings: Mapping[str, Crossing]
    ) -> dict[str, PairSet]:
        """The kinds of which some metric of one extractor is not known yet."""
        found = {}
        for kind, those in sets.items():
            wanted = [(self._identity(metric), key) for metric in metrics for key in self._set_keys(those)]
            if kind in crossings:
                keys = self._crossed_keys(crossings[kind])
                wanted += [(self._crossed_identity(metric), key) for metric in metrics for key in keys]
            if any([self._kept.get(*one) is None for one in wanted]):
                found[kind] = those
        return found

    def _measure_sets(
        self, metrics: Sequence[Metric], sets: Mapping[str, PairSet], crossings: Mapping[str, Crossing]
    ) -> None:
        """Metrics that compare pictures by one extractor's large features, which lie in a file that is not kept."""
        if not sets:
            return
        name = metrics[0].needs
        row_of: dict[bytes, int] = {}
        with Spool(self._folder) as spool:
            for block, images in _blocks(_sources_of(sets.values()), lambda source: (source.image(),)):
                for places in _of_one_shape(images):
                    new = {self._key(block[place]): place for place in places}  # equal pictures once
                    new = {key: place for key, place in new.items() if key not in row_of}
                    row_of.update(zip(new, range(len(row_of), len(row_of) + len(new)), strict=True))
                    if new:
                        spool.add(self._look(name, np.stack([images[place][0] for place in new.values()])))
                self._tell(len(block))
            for kind, those in sets.items():
                truth, found = (spool.rows([row_of[self._key(pair[side])] for pair in those.pairs]) for side in (0, 1))
                finite = bool(np.isfinite(truth).all() and np.isfinite(found).all())
                for metric in metrics:
                    values = metric(truth, found, those.ids) if finite else np.full(len(those.ids), np.nan)
                    for key, value in zip(self._set_keys(those), values, strict=True):
                        self._kept.put(self._identity(metric), key, value)
                if kind in crossings and finite:
                    del truth
                    crossing = crossings[kind]
                    once = spool.rows([row_of[self._key(source)] for source in crossing.stimuli])
                    self._cross_sets(metrics, crossing, once, found)

    def _cross_sets(self, metrics: Sequence[Metric], crossing: Crossing, truth: Array, found: Array) -> None:
        for metric in metrics:
            matrices = cross_features(metric, truth, found, crossing.which, crossing.groups)
            columns = np.full((len(crossing.stimuli), max(map(len, crossing.groups))), np.nan)
            for group, matrix in zip(crossing.groups, matrices, strict=True):
                columns[group, : len(group)] = matrix.T
            for key, column in zip(self._crossed_keys(crossing), columns, strict=True):
                self._kept.put(self._crossed_identity(metric), key, column)

    def _set_keys(self, those: PairSet) -> list[bytes]:
        """One key for each pair of a set, which changes with any of them."""
        parts = [
            part for pair, name in zip(those.pairs, those.ids, strict=True) for part in (*map(self.digest, pair), name)
        ]
        return _numbered(hash_of_json(parts), len(those.pairs))

    def _crossed_keys(self, crossing: Crossing) -> list[bytes]:
        """One key for each stimulus, which changes with any picture and with the groups."""
        parts = [
            [self.digest(source) for source in (*crossing.stimuli, *crossing.pictures)],
            crossing.which.tolist(),
            [group.tolist() for group in crossing.groups],
        ]
        return _numbered(hash_of_json(parts), len(crossing.stimuli))

    def _extract(self, name: str, sources: Sequence[Source]) -> None:
        for block, images in _blocks(sources, lambda source: (source.image(),)):
            for places in _of_one_shape(images):
                rows = self._look(name, np.stack([images[place][0] for place in places]))
                for place, row in zip(places, rows, strict=True):
                    self._kept.put(self._features_identity(name), self._key(block[place]), row)
            self._tell(len(block))

    def _look(self, name: str, images: Array) -> Array:
        """The features of images (n, 3, H, W); the images themselves where a metric compares these."""
        look = self._extractors[name].of_pictures
        if look is None:
            return images
        rows = np.asarray(look(images))
        if rows.shape[:1] != (len(images),):
            raise ShapeError(
                f"the features {name!r} of {len(images)} images have shape {rows.shape}: return one row per image"
            )
        return rows

    def _missing(self, name: str, sets: Mapping[str, PairSet]) -> list[Source]:
        knows_truth = self._extractors[name].truth is not None
        sources = [
            one for those in sets.values() for pair in those.pairs for one in (pair[1:] if knows_truth else pair)
        ]
        first = {self._key(source): source for source in sources if self._row(name, source) is None}
        return list(first.values())  # equal pictures once

    def _value(self, metric: Metric, pair: Pair) -> Array | None:
        return self._kept.get(self._identity(metric), self._key(*pair))

    def _row(self, name: str, source: Source) -> Array | None:
        return self._kept.get(self._features_identity(name), self._key(source))

    def _features_identity(self, name: str) -> str:
        return f"{code_identity()} features {name} {self._extractors[name].identity}"

    def _identity(self, metric: Metric) -> str:
        """Changes with anything that changes the values that are kept of a metric."""
        function = metric.function
        name = getattr(function, "__qualname__", type(function).__qualname__)
        features = self._extractors[metric.needs]
        computed = "" if features.of_pictures is None else f" {metric.needs} {features.identity}"
        return f"{code_identity()} metric {metric.name} {function.__module__}.{name}{computed}"

    def _crossed_identity(self, metric: Metric) -> str:
        return f"crossed {self._identity(metric)}"

    def _key(self, *sources: Source) -> bytes:
        return key_of(*map(self.digest, sources))

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


def _sources_of(sets: Iterable[PairSet]) -> list[Source]:
    """Every picture of these sets, once."""
    return list(dict.fromkeys(source for those in sets for pair in those.pairs for source in pair))


def _numbered(whole: str, n: int) -> list[bytes]:
    return [key_of(whole, f"{row:064x}") for row in range(n)]


def _members(crossing: Crossing, group: Index) -> tuple[list[Source], list[Source]]:
    """The stimuli of a group, and the pictures of those stimuli in their order."""
    numbers = set(group.tolist())
    pictures = [
        one for one, number in zip(crossing.pictures, crossing.which.tolist(), strict=True) if number in numbers
    ]
    return [crossing.stimuli[number] for number in group.tolist()], pictures


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
