"""Arrays that others have prepared of NSD: one .npy of voxels per split, or one per area, and one of pictures.

What an array is shows from its content; which split it is of, from its name. Brain-Diffuser's are
``nsd_train_fmriavg_nsdgeneral_sub1.npy``, ``nsd_train_stim_sub1.npy`` and ``nsd_train_cap_sub1.npy``; MindDiffuser's
are ``trn_voxel_data_V1.npy`` and so on, ``trn_stim_data.npy`` and ``trn_cocoID_correct.npy``, with ``val_`` for the
test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import ResponseLayout, Roi
from ....runtime.errors import FileError
from ....runtime.images import ImageU8
from ...simulate.fmri import GROUPS
from ..foreign import looks_like, map_npy
from ..reader import Block, Finished, Piece, Shown, Trials
from .betas import SCALE
from .captions import coco_captions
from .files import Subject
from .rois import AREAS, layout_of, read_mask, read_rois

_WORDS = {"train": re.compile(r"(^|_)(train|trn)(_|$)"), "test": re.compile(r"(^|_)(test|val)(_|$)")}
_SUBJECT = re.compile(r"(?:^|_)subj?(\d+)(?:_|$)")
_VOXELS = re.compile(r"fmri|voxel", re.IGNORECASE)
_AT_ONCE = 500
# Per cent signal change and z-scores have a standard deviation near 1; NSD's whole numbers, 300 times as much.
_RAW_SD = 20.0
_ORDER = ("VO", "V1", "V2", "V3", "V3ab", "PHC", "MT", "MST", "LO", "IPS", "hV4")
_EXPECTED = "responses (pictures, voxels), pictures (n, H, W, 3) or (n, 3, H, W), or captions (n, k)"


@dataclass
class _Split:
    """The arrays of one split by what they are; responses by their files."""

    responses: dict[Path, NDArray[Any]] = field(default_factory=dict)
    pictures: tuple[Path, NDArray[Any]] | None = None
    captions: tuple[Path, NDArray[Any]] | None = None
    coco: tuple[Path, NDArray[Any]] | None = None


def is_prepared(subject: Subject) -> Path | None:
    """The folder of a subject's prepared arrays, where there is one below the source and no session of betas."""
    if subject.beta_folder.is_dir() and any(subject.beta_folder.glob("betas_session*")):
        return None
    places = (subject.source, subject.source / "processed_data" / subject.name, subject.beta_folder)
    return next(
        (place for place in places if place.is_dir() and any(_VOXELS.search(p.name) for p in _npys(place))), None
    )


class Prepared:
    """The reader of prepared arrays; see :class:`~..reader.Reader`. Their rows are means over repetitions already."""

    place = "voxel"

    def __init__(
        self, folder: Path, subject: Subject, *, coco: Path | None, caption: str | None, atlases: Sequence[str]
    ) -> None:
        self.subject = f"nsd-{subject.name}"
        self._who, self._atlases = subject, atlases
        self._files: dict[Path, str] = {}
        self._splits = _sorted_out(folder, self._files)
        _check_subject(folder, self._files, subject)
        self._areas = _areas(self._splits, folder)
        _check_columns(self._splits)
        self.shape = (sum(array.shape[1] for array in self._splits["train"].responses.values()),)
        self._scale, unit = _unit({path: a for part in self._splits.values() for path, a in part.responses.items()})
        self.layout, where = self._layout(unit)
        self.pictures = [
            shown for split in self._splits for shown in _shown(split, self._splits[split], coco, caption, self._files)
        ]
        self.pieces = [
            Piece(name=f"{split}-{start:06d}", n_trials=min(_AT_ONCE, n - start), files=tuple(arrays.responses))
            for split, arrays in self._splits.items()
            for n in (_rows(arrays),)
            for start in range(0, n, _AT_ONCE)
        ]
        self.files: Mapping[Path, str] = self._files
        self.settings: Mapping[str, Any] = {
            "format": "prepared arrays",
            "source": str(folder.absolute()),
            "subject": subject.number,
            "scale": self._scale,
            "captions": "prepared or COCO" if caption is None else caption,
        }
        self.notes = (
            "rows of the arrays are means over the repetitions of a picture already",
            f"responses are taken as {unit}" + (f", divided by {SCALE}" if self._scale != 1 else ", as they are"),
            where,
        )

    def read(self, piece: Piece) -> Block:
        """Some rows of a split, all areas side by side."""
        split, start = piece.name.rsplit("-", 1)
        rows = slice(int(start), int(start) + piece.n_trials)
        parts = [array[rows] for array in self._splits[split].responses.values()]
        first = 0 if split == "train" else _rows(self._splits["train"])
        responses = np.concatenate(parts, axis=1).astype(np.float64) / self._scale
        return Block(responses=responses.astype(np.float32), picture=first + np.arange(rows.start, rows.stop))

    def finish(self, trials: Trials, folder: Path) -> Finished:
        """The layout."""
        return Finished(layout=self.layout)

    def _layout(self, unit: str) -> tuple[ResponseLayout, str]:
        """With areas where the files are named by these, or with the places of nsdgeneral's voxels if that is there."""
        if self._areas:
            found = {area: frozenset(range(*span)) for area, span in self._areas.items()}
            groups = {name: [found[area] for area in areas if area in found] for name, areas in GROUPS.items()}
            merged = {name: frozenset().union(*parts) for name, parts in groups.items() if parts}
            rois: dict[str, Roi] = {**self._areas, **merged}
            layout = ResponseLayout(modality="fmri", shape=self.shape, rois=rois, unit=unit)
            return layout, f"areas by the files' names: {', '.join(self._areas)}"
        if (self._who.roi_folder / "nsdgeneral.nii.gz").is_file():
            files: dict[Path, str] = {}
            mask = read_mask(self._who, ("nsdgeneral",), files)
            if len(mask.ijk) == self.shape[0]:
                regions = read_rois(self._who, self._atlases, mask, files, required=False)
                self._files |= files
                return layout_of(mask, regions, unit), "voxels are those of nsdgeneral, in its order"
        layout = ResponseLayout(modality="fmri", shape=self.shape, unit=unit)
        return layout, "where the voxels lie is not known: there is no nsdgeneral.nii.gz with as many voxels"


def _check_subject(folder: Path, files: Mapping[Path, str], subject: Subject) -> None:
    """Refuse arrays whose names, or whose folder's, say that they are of another subject."""
    for path in (folder, *files):
        match = _SUBJECT.search(path.stem)
        if match is not None and int(match[1]) != subject.number:
            raise FileError(
                f"{path} is of subject {int(match[1])} by its name, and --subject is {subject.number}: give one "
                "subject for both"
            )


def _npys(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def _sorted_out(folder: Path, files: dict[Path, str]) -> dict[str, _Split]:
    """Each array of the folder by its split and by what it is.

    Raises
    ------
    FileError
        One is something else, or there are two of a kind, or the numbers of pictures or voxels do not fit.
    """
    splits = {"train": _Split(), "test": _Split()}
    for path in _npys(folder):
        whose = next((name for name, word in _WORDS.items() if word.search(path.stem)), None)
        if whose is None or "single_trial" in path.stem:  # the single trials of what the multi-trial arrays average
            continue
        _take(path, splits[whose])
    for name, split in splits.items():
        split.responses = _only_voxels(split.responses)
        if not split.responses or split.pictures is None:
            what = "pictures" if split.responses else "responses"
            raise FileError(
                f"{folder} has no array of the {name} split's {what}: expected {_EXPECTED}, named with train or trn, "
                "and test or val"
            )
        _check_rows(name, split)
        files |= {path: f"responses ({name})" for path in split.responses}
        files[split.pictures[0]] = f"pictures ({name})"
        for found, what in ((split.captions, "captions"), (split.coco, "COCO's numbers")):
            if found is not None:
                files[found[0]] = f"{what} ({name})"
    train, test = (split.responses for split in splits.values())
    if len(train) != len(test):
        raise FileError(
            f"{folder} has {len(train)} arrays of training responses and {len(test)} of test responses: give both of "
            "every area"
        )
    return splits


def _take(path: Path, split: _Split) -> None:
    """Put an array where it belongs by its content."""
    array = map_npy(path, _EXPECTED)
    kind, rank = array.dtype.kind, array.ndim
    if kind in "iuf" and rank == 2 and array.shape[1] > 1:
        split.responses[path] = array
    elif kind in "iuf" and rank == 4 and _is_pictures(array.shape):
        split.pictures = _once(split.pictures, path, array, "pictures")
    elif kind == "U" and rank in (1, 2):
        split.captions = _once(split.captions, path, array, "captions")
    elif kind in "iu" and (rank == 1 or array.shape[1:] == (1,)):
        split.coco = _once(split.coco, path, array.reshape(-1), "COCO's numbers")
    elif _VOXELS.search(path.name) or rank == 4:
        hint = " (EEG epochs look like that, md-train prepare things-eeg2 reads those)" if rank in (3, 4) else ""
        raise FileError(f"{path} is {looks_like(path)}{hint}, expected {_EXPECTED}: give the right file")


def _once(before: Any, path: Path, array: NDArray[Any], what: str) -> tuple[Path, NDArray[Any]]:
    if before is not None:
        raise FileError(f"{before[0]} and {path} both hold {what} of one split: move one of them elsewhere")
    return path, array


def _only_voxels(arrays: dict[Path, NDArray[Any]]) -> dict[Path, NDArray[Any]]:
    """Of several arrays of numbers those whose names speak of voxels: others may be features."""
    named = {path: array for path, array in arrays.items() if _VOXELS.search(path.name)}
    return named or (arrays if len(arrays) == 1 else {})


def _is_pictures(shape: tuple[int, ...]) -> bool:
    return (shape[3] == 3 and shape[1] == shape[2]) or (shape[1] == 3 and shape[2] == shape[3])


def _check_rows(name: str, split: _Split) -> None:
    n_rows, first = _rows(split), next(iter(split.responses))
    for path, array in split.responses.items():
        if len(array) != n_rows:
            raise FileError(f"{path} has {len(array)} rows and {first} has {n_rows}: one of them is of another split")
    for found in (split.pictures, split.captions, split.coco):
        if found is not None and len(found[1]) != n_rows:
            raise FileError(
                f"{found[0]} is of {len(found[1])} pictures and {first} of {n_rows}, both as the {name} split: one of "
                "them is of the other split or of another number of sessions (8859 and 982 pictures in 37, 9000 and "
                "1000 in 40)"
            )


def _check_columns(splits: Mapping[str, _Split]) -> None:
    train, test = (list(split.responses.items()) for split in splits.values())
    for (path, array), (other, counterpart) in zip(train, test, strict=True):
        if array.shape[1] != counterpart.shape[1]:
            raise FileError(
                f"{path} has {array.shape[1]} voxels and {other} has {counterpart.shape[1]}: one of them is of another "
                "subject or mask"
            )


def _areas(splits: Mapping[str, _Split], folder: Path) -> dict[str, tuple[int, int]]:
    """Where each area's columns are, by the ends of the files' names; empty where there is one array for all voxels.

    Both splits' arrays are brought to the order of the published concatenation.
    """
    if len(splits["train"].responses) == 1:
        return {}
    for split in splits.values():
        by_area = {path.stem.rsplit("_", 1)[1]: (path, array) for path, array in split.responses.items()}
        order = [*(area for area in _ORDER if area in by_area), *sorted(set(by_area) - set(_ORDER))]
        split.responses = dict(by_area[area] for area in order)
    names = [[path.stem.rsplit("_", 1)[1] for path in split.responses] for split in splits.values()]
    if names[0] != names[1]:
        raise FileError(f"{folder} has training responses of {names[0]} and test responses of {names[1]}: give both")
    unknown = [name for name in names[0] if name not in AREAS]
    if unknown:
        raise FileError(
            f"{folder} has responses of {unknown[0]}, which is no area of {', '.join(_ORDER)}: name files "
            "trn_voxel_data_V1.npy and so on"
        )
    edges = np.cumsum([0, *(array.shape[1] for array in splits["train"].responses.values())])
    return {name: (int(a), int(b)) for name, a, b in zip(names[0], edges[:-1], edges[1:], strict=True)}


def _rows(split: _Split) -> int:
    return len(next(iter(split.responses.values())))


def _unit(responses: Mapping[Path, NDArray[Any]]) -> tuple[int, str]:
    """By what to divide all arrays, and what that gives, from the spread of some rows of each."""
    spreads = {path: _spread(array) for path, array in responses.items()}
    least, most = min(spreads, key=spreads.__getitem__), max(spreads, key=spreads.__getitem__)
    raw = spreads[most] > _RAW_SD
    if raw and 0 < spreads[least] <= _RAW_SD:
        raise FileError(
            f"{most} has a standard deviation of {spreads[most]:.3g} and {least} of {spreads[least]:.3g}: they are on "
            f"different scales (NSD's whole numbers are {SCALE} times per cent), give both from one preparation"
        )
    return (SCALE, "% signal change") if raw else (1, "% signal change or z-scores")


def _spread(array: NDArray[Any]) -> float:
    some = np.asarray(array[:_AT_ONCE], np.float64)
    some = some[np.isfinite(some)]
    return float(some.std()) if some.size else 0.0


def _shown(split: str, arrays: _Split, coco: Path | None, caption: str | None, files: dict[Path, str]) -> list[Shown]:
    """The split's pictures with their captions."""
    if arrays.pictures is None:  # which was refused before
        return []
    path, stack = arrays.pictures
    captions = _captions(split, arrays, coco, caption, files)
    top = _level(stack, path)
    return [
        Shown(split=split, source=_OfArray(path, index, top), captions=captions[index]) for index in range(len(stack))
    ]


def _captions(
    split: str, arrays: _Split, coco: Path | None, caption: str | None, files: dict[Path, str]
) -> list[tuple[str, ...]]:
    n = _rows(arrays)
    if caption is not None:
        return [(caption,)] * n
    if arrays.captions is not None:
        table = arrays.captions[1].reshape(n, -1)
        return [tuple(str(text) for text in row if str(text).strip()) for row in table]
    if arrays.coco is not None and coco is not None:
        found = coco_captions(coco, [int(number) for number in arrays.coco[1]], files)
        return [found.get(int(number), ()) for number in arrays.coco[1]]
    if split == "test":
        return [()] * n
    have = "COCO's numbers of the pictures: give COCO's annotation files with --coco" if arrays.coco else "no captions"
    raise FileError(
        f"the {split} arrays have {have}"
        + ("" if arrays.coco else ": add them as texts (n, k), or give --caption TEXT")
    )


def _level(stack: NDArray[Any], path: Path) -> float:
    """The value of full brightness: 1 of floats up to 1, otherwise 255.

    Raises
    ------
    FileError
        Values are negative, as of pictures that were normalised for a network.
    """
    some = np.asarray(stack[: min(len(stack), 8)])
    low, high = float(some.min()), float(some.max())
    if not (0 <= low and high <= 255):
        raise FileError(
            f"{path} has values from {low:g} to {high:g}, expected pictures from 0 to 1 or from 0 to 255: they seem to "
            "be normalised for a network, give the pictures themselves"
        )
    return 1.0 if stack.dtype.kind == "f" and high <= 1 else 255.0


@dataclass(frozen=True)
class _OfArray:
    """One picture of an array, whose full brightness is `top`."""

    path: Path
    index: int
    top: float

    def __call__(self) -> ImageU8:
        picture = np.asarray(map_npy(self.path, "pictures")[self.index], np.float64)
        picture = picture if picture.shape[-1] == 3 else np.moveaxis(picture, 0, -1)
        return np.ascontiguousarray(np.round(picture * (255 / self.top)).clip(0, 255).astype(np.uint8))
