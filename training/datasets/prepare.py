"""From a data set's files to a data folder: read piece by piece, kept, averaged, and written in a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.destination import claimed
from ...runtime.data.folder import DataFolder, SplitData, write_claimed
from ...runtime.data.nan import find_holes, numbers
from ...runtime.data.references import Reference, refer
from ...runtime.data.schema import SPLITS
from ...runtime.data.streamed import Streamed
from ...runtime.data.trial_ids import default_trial_ids
from ...runtime.errors import FileError, InputError, check_choice
from ...runtime.images import ImageU8, fit_square, pixel_hash
from ...runtime.output import real
from ...runtime.progress import unheard
from .reader import Block, Finished, Piece, Place, Reader, Shown
from .report import Report, files_of
from .work import Work

F32 = NDArray[np.float32]
OnProgress = Callable[[str, int, int], None]
NOT_FINITE, FLAT = "NaN or infinite values", "one value everywhere"
_PICTURES_AT_ONCE = 250
# Sums in float64, a copy of single trials, and what the transform makes of it.
_BYTES_PER_VALUE = 24


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How a data folder is made of what was read.

    Parameters
    ----------
    averages : splits whose trials are the mean of all repetitions of a picture; the others have single trials.
    image_size : side of the square pictures in px: see :func:`minddiffuser.runtime.images.fit_square`.
    memory : how many bytes of responses may be in memory.
    """

    averages: tuple[str, ...] = ("test",)
    image_size: int = 512
    memory: int = 2_000_000_000

    def __post_init__(self) -> None:
        for split in self.averages:
            check_choice("split", split, SPLITS)
        if self.image_size < 1:
            raise InputError(f"the side of the pictures is {self.image_size} px: give at least 1")
        if self.memory < 1:
            raise InputError(f"the memory is {self.memory} bytes: give an amount such as 2GB")


def work_folder(out: Path | str) -> Path:
    """Where what was read is kept until the data folder is written: DATA.work beside DATA."""
    folder = real(out)
    return folder.with_name(f"{folder.name}.work")


def prepare(
    name: str,
    reader: Reader,
    out: Path | str,
    settings: PrepareSettings,
    *,
    replace: bool = False,
    progress: OnProgress = unheard,
) -> tuple[DataFolder, Report]:
    """Read a subject and write its data folder; a call that was interrupted goes on where it was.

    Parameters
    ----------
    name : of the data set, for the provenance.
    reader : the subject's files, found and checked.
    out : the data folder to write.
    settings : averages, pictures, memory.
    replace : allow an existing data folder to be replaced.
    progress : called with (phase, done, total).

    Returns
    -------
    The data folder, opened and checked, and what was found.

    Raises
    ------
    FileError
        A file is truncated, damaged or of another kind, a piece holds no recording, or the folder cannot be written.
    InputError
        A picture is on both sides of the split, or a split has no trial.
    """
    _check_pictures(reader.pictures)
    with claimed(out, replace=replace):
        work = Work(work_folder(out), reader)
        hashes = _look(reader.pictures, work, progress)  # first: a missing picture is found before hours of reading
        _read(reader, work, progress)
        finished = reader.finish(work, work.folder)
        splits = {split: _trials_of(split, reader, work) for split in SPLITS}
        report = _report(name, reader, work, splits, settings, finished)
        data = write_claimed(
            out,
            {
                split: _split_data(trials, reader, work, finished, settings, hashes, progress)
                for split, trials in splits.items()
            },
            subject=reader.subject,
            layout=finished.layout,
            image_size=settings.image_size,
            provenance={"data_set": name, "settings": reader.settings, "found": report.as_json()},
            files=finished.files,
        )
        work.remove(finished.files.values())
    return data, report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trials:
    """The trials of one split, in the order of their recording.

    `piece` and `row` (n,) say where a trial is kept, `stimulus` (n,) which of `pictures`, the reader's, it showed.
    """

    split: str
    piece: NDArray[np.int64]
    row: NDArray[np.int64]
    stimulus: NDArray[np.int64]
    pictures: NDArray[np.int64]

    @property
    def repetitions(self) -> NDArray[np.int64]:
        """(n_pictures,): how often each picture was shown."""
        return np.bincount(self.stimulus, minlength=len(self.pictures))


def _check_pictures(pictures: Sequence[Shown]) -> None:
    for number, picture in enumerate(pictures):
        check_choice("split", picture.split, SPLITS)
        if picture.split == "train" and not picture.captions:
            raise InputError(f"training picture {number} has no caption: give at least one, such as its concept")


def _read(reader: Reader, work: Work, progress: OnProgress) -> None:
    """Read what is not kept yet."""
    total = sum(piece.n_trials for piece in reader.pieces)
    done = sum(piece.n_trials for piece in reader.pieces if work.has(piece))
    progress("reading trials", done, total)
    for piece in reader.pieces:
        if not work.has(piece):
            responses, picture, dropped = _screened(reader.read(piece), piece, reader)
            work.keep(piece, responses, picture, dropped)
            done += piece.n_trials
            progress("reading trials", done, total)


def _screened(block: Block, piece: Piece, reader: Reader) -> tuple[F32, NDArray[np.int64], dict[str, int]]:
    """The trials that hold a recording; a piece that is no recording as a whole is refused.

    Raises
    ------
    FileError
        Every trial, or more than half, or a voxel or channel in every trial, is not finite.
    """
    responses, picture, dropped = block.responses, block.picture.astype(np.int64), dict(block.dropped)
    if not len(responses):
        return responses, picture, dropped
    holes = find_holes(responses, reader.place)
    if holes is not None and len(holes.broken) == holes.n_trials:
        raise FileError(
            f"{piece.name} is NaN or infinite in all of its {holes.n_trials} trials ({piece.files[0]}): {piece.advice}"
        )
    if holes is not None and len(holes.empty):
        raise FileError(
            f"{piece.name} is NaN or infinite in {numbers(reader.place, holes.empty)} in every trial "
            f"({piece.files[0]}): leave these {reader.place}s out of all, or {piece.advice}"
        )
    if holes is not None and len(holes.trials) * 2 > holes.n_trials:
        raise FileError(
            f"{piece.name} is NaN or infinite in {len(holes.trials)} of its {holes.n_trials} trials "
            f"({piece.files[0]}): {piece.advice}"
        )
    bad = np.zeros(len(responses), bool)
    if holes is not None:
        bad[holes.trials] = True
        dropped[NOT_FINITE] = len(holes.trials)
    rows = responses.reshape(len(responses), -1)
    flat = (rows == rows[:, :1]).all(axis=1) if rows.shape[1] > 1 else np.zeros(len(rows), bool)
    if flat.all():
        raise FileError(
            f"{piece.name} holds one value in all {reader.place}s of each of its {len(rows)} trials "
            f"({piece.files[0]}), which no recording does: {piece.advice}"
        )
    if flat.any():
        dropped[FLAT] = int(flat.sum())
    good = ~(bad | flat)
    return (responses, picture, dropped) if good.all() else (responses[good], picture[good], dropped)


def _trials_of(split: str, reader: Reader, work: Work) -> _Trials:
    """Where the trials of a split are kept, and the pictures of which any is left."""
    inside = np.array([picture.split == split for picture in reader.pictures], bool)
    pieces, rows, shown = [], [], []
    for number, piece in enumerate(reader.pieces):
        picture = work.trials(piece)[1]
        row = np.flatnonzero(inside[picture])
        pieces.append(np.full(len(row), number))
        rows.append(row)
        shown.append(picture[row])
    pictures, stimulus = np.unique(np.concatenate(shown), return_inverse=True)
    if not len(pictures):
        raise InputError(
            f"no trial is left for the {split} split: check the split, and in the pieces that were read, what was "
            "left out"
        )
    return _Trials(
        split=split,
        piece=np.concatenate(pieces),
        row=np.concatenate(rows),
        stimulus=stimulus.astype(np.int64),
        pictures=pictures,
    )


def _look(pictures: Sequence[Shown], work: Work, progress: OnProgress) -> list[str]:
    """The hash of each picture's pixels, after it was decoded.

    Raises
    ------
    FileError
        A picture is missing or damaged.
    InputError
        Pixels are the same on both sides of the split.
    """
    hashes: list[str] = []
    progress("looking at pictures", 0, len(pictures))
    for start in range(0, len(pictures), _PICTURES_AT_ONCE):
        part = [picture.source for picture in pictures[start : start + _PICTURES_AT_ONCE]]
        hashes += work.texts(f"pictures-{start:06d}", lambda part=part: [_hash(source) for source in part])  # type: ignore[misc]
        progress("looking at pictures", len(hashes), len(pictures))
    _check_sides(pictures, hashes)
    return hashes


def _images(sources: Sequence[tuple[Any, str]], settings: PrepareSettings) -> Sequence[Any]:
    """A split's pictures as the writer takes them."""
    if isinstance(sources[0][0], Place):
        return [_reference(place, digest) for place, digest in sources]
    return _Made([source for source, _digest in sources], settings.image_size)


def _hash(source: Place | Callable[[], ImageU8]) -> str:
    if isinstance(source, Place):
        path = source.root / source.path
        if not path.is_file():
            raise FileError(f"the picture {path} is missing: copy the data set's pictures there")
        return refer(source.root, source.path, index=source.index, dataset=source.dataset).sha256
    return pixel_hash(source())


def _reference(place: Place, digest: str) -> Reference:
    return Reference(root=place.root, path=place.path, index=place.index, dataset=place.dataset, sha256=digest)


def _check_sides(pictures: Sequence[Shown], hashes: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for number, digest in enumerate(hashes):
        other = first.setdefault(digest, number)
        if pictures[other].split != pictures[number].split:
            sides = {pictures[k].split: _name(pictures, k) for k in (other, number)}
            raise InputError(
                f"training picture {sides['train']} and test picture {sides['test']} have the same pixels: repetitions "
                "of a picture belong to one side of the split, correct the split"
            )


def _name(pictures: Sequence[Shown], number: int) -> str:
    source = pictures[number].source
    index = getattr(source, "index", None)
    return f"{source.path}{'' if index is None else f'[{index}]'}" if isinstance(source, Place) else str(number)


class _Made(Sequence[ImageU8]):
    """Pictures that are decoded, cropped and resized one at a time, when they are written."""

    def __init__(self, sources: Sequence[Callable[[], ImageU8]], size: int) -> None:
        self._sources, self._size = sources, size

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: Any) -> Any:
        return fit_square(self._sources[index](), self._size)


def _split_data(
    trials: _Trials,
    reader: Reader,
    work: Work,
    finished: Finished,
    settings: PrepareSettings,
    hashes: Sequence[str],
    progress: OnProgress,
) -> SplitData:
    averaged = trials.split in settings.averages
    shown = [reader.pictures[number] for number in trials.pictures]
    captions = [list(picture.captions) for picture in shown]
    concepts = [picture.concept for picture in shown if picture.concept is not None]
    stimulus = np.arange(len(trials.pictures)) if averaged else trials.stimulus

    def blocks() -> Iterator[F32]:
        label, done = f"writing {trials.split} trials", 0
        for block in (_means if averaged else _singles)(trials, reader, work, finished, settings.memory):
            progress(label, done, len(stimulus))
            yield block
            done += len(block)
        progress(label, done, len(stimulus))

    return SplitData(
        responses=Streamed(shape=(len(stimulus), *finished.layout.shape), blocks=blocks),
        stimulus=stimulus,
        images=_images(
            [(picture.source, hashes[k]) for picture, k in zip(shown, trials.pictures, strict=True)], settings
        ),
        captions=captions if all(captions) else (),
        noise_ceiling=_ceiling(finished.noise_ceiling, trials.repetitions if averaged else np.ones(1)),
        trial_ids=default_trial_ids(trials.split, stimulus, averages=averaged),
        concepts=concepts or None,
    )


def _ceiling(single: F32 | None, repetitions: NDArray[Any]) -> F32 | None:
    """The ceiling of means over so many repetitions: the noise's variance falls with their number (NSD's formula)."""
    if single is None:
        return None
    left = float((1 / repetitions).mean())
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(single / (single + (1 - single) * left)).astype(np.float32)


def _singles(trials: _Trials, reader: Reader, work: Work, finished: Finished, memory: int) -> Iterator[F32]:
    """The trials in the order of their recording."""
    n = _rows_within(memory, reader, finished)
    for number, piece in enumerate(reader.pieces):
        responses, rows = work.trials(piece)[0], trials.row[trials.piece == number]
        for start in range(0, len(rows), n):
            yield _transformed(responses[rows[start : start + n]], finished)


def _means(trials: _Trials, reader: Reader, work: Work, finished: Finished, memory: int) -> Iterator[F32]:
    """The mean over the repetitions of each picture, in the pictures' order; added up in the order of recording."""
    n, repetitions = _rows_within(memory, reader, finished), trials.repetitions
    for start in range(0, len(trials.pictures), n):
        stop = min(start + n, len(trials.pictures))
        total = np.zeros((stop - start, *finished.layout.shape))
        mine = np.flatnonzero((start <= trials.stimulus) & (trials.stimulus < stop))
        for number in np.unique(trials.piece[mine]):
            here = mine[trials.piece[mine] == number]
            responses = work.trials(reader.pieces[number])[0]
            for first in range(0, len(here), n):
                some = here[first : first + n]
                singles = _transformed(responses[trials.row[some]], finished)
                for slot, single in zip(trials.stimulus[some] - start, singles, strict=True):
                    total[slot] += single
        counts = repetitions[start:stop].reshape(-1, *(1,) * len(finished.layout.shape))
        yield (total / counts).astype(np.float32)


def _rows_within(memory: int, reader: Reader, finished: Finished) -> int:
    values = max(math.prod(reader.shape), finished.layout.n_features)
    return max(1, memory // (_BYTES_PER_VALUE * values))


def _transformed(singles: F32, finished: Finished) -> F32:
    return singles if finished.transform is None else finished.transform(singles)


def _report(
    name: str,
    reader: Reader,
    work: Work,
    splits: Mapping[str, _Trials],
    settings: PrepareSettings,
    finished: Finished,
) -> Report:
    return Report(
        data_set=name,
        subject=reader.subject,
        response_shape=finished.layout.shape,
        files=files_of(reader),
        pieces={piece.name: (len(work.trials(piece)[1]), work.dropped(piece)) for piece in reader.pieces},
        splits={
            split: {
                "pictures": len(trials.pictures),
                "recorded_trials": len(trials.row),
                "repetitions": [int(trials.repetitions.min()), int(trials.repetitions.max())],
                "written": "means" if split in settings.averages else "single trials",
            }
            for split, trials in splits.items()
        },
        notes=(*reader.notes, *finished.notes),
    )
