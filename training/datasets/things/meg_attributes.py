"""The trials of THINGS-MEG: sample_attributes_P1.csv, the pictures that they showed, and the zero-shot split.

The table has a row for each trial of a subject, in the order of recording: `trial_type` exp, test or catch; image_path,
"images_meg/aardvark/aardvark_01b.jpg" of exp and "images_test_meg/coat_rack_13s.jpg" of test; session_nr and run_nr
from 1; things_image_nr, which the epochs have as event codes.

Zero-shot: the concepts of the test pictures are found by the names of these very pictures, and all training trials of
them are left out: of 1854 concepts with 12 pictures each, 200 go. (Public code takes the 200 concepts with the fewest
pictures instead, which are others.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import FileError, shown
from ..reader import Place, Shown
from . import names
from .eeg2_images import FOLDERS as EEG2_FOLDERS
from .eeg2_images import read_table

COLUMNS = ("trial_type", "image_path", "session_nr", "run_nr", "things_image_nr")
CATCH, SAME_CONCEPT = "catch trial", "its concept is one of the test pictures' (zero-shot split)"
CATCH_CODE = 999999
_TYPES = ("exp", "test", "catch")
# Event codes and things_image_nr that may differ, as a share: public readers know of some by run.
_MOST_OTHER = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """The trials of one subject, in the order of recording.

    Attributes
    ----------
    path
        Of the table.
    kinds, paths, sessions, runs, codes
        (n,) each: trial_type, image_path, session_nr, run_nr, and things_image_nr or -1 where there is none.
    """

    path: Path
    kinds: NDArray[np.str_]
    paths: Sequence[str]
    sessions: NDArray[np.int64]
    runs: NDArray[np.int64]
    codes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)


def read_trials(path: Path) -> Trials:
    """Read the table.

    Raises
    ------
    FileError
        It is missing, cut off, or another table.
    """
    rows = read_table(path, "the table of trials", COLUMNS, delimiter=",")
    return trials_from(rows, path)


def trials_from(rows: Sequence[Mapping[str, Any]], path: Path) -> Trials:
    """The trials of rows, from the table or from what the epochs carry with them."""
    if not rows:
        raise FileError(f"the table of trials at {path} has no row: copy it again")
    kinds = [str(row["trial_type"]) for row in rows]
    strange = next((kind for kind in kinds if kind not in _TYPES), None)
    if strange is not None:
        raise FileError(
            f"the table of trials at {path} has the trial_type {shown(strange)}: expected {', '.join(_TYPES)}, give "
            "sample_attributes_P*.csv of THINGS-MEG"
        )
    return Trials(
        path=path,
        kinds=np.array(kinds),
        paths=[str(row["image_path"]).replace("\\", "/") for row in rows],
        sessions=_whole(rows, "session_nr", path),
        runs=_whole(rows, "run_nr", path),
        codes=_whole(rows, "things_image_nr", path, missing=-1),
    )


def _whole(
    rows: Sequence[Mapping[str, Any]], column: str, path: Path, *, missing: int | None = None
) -> NDArray[np.int64]:
    found = []
    for number, row in enumerate(rows, start=2):
        text = str(row[column]).strip()
        try:
            value = float(text) if text.lower() not in ("", "nan", "n/a", "none") else float("nan")
            if not np.isfinite(value) and missing is None:
                raise ValueError(text)
            found.append(int(value) if np.isfinite(value) else int(missing or 0))
        except ValueError:
            raise FileError(
                f"{column} in line {number} of the table of trials at {path} is {shown(row[column])}: expected a number"
            ) from None
    return np.array(found, np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Showings:
    """What each trial showed.

    Attributes
    ----------
    pictures
        All that count, training pictures first, each split in the order of its paths.
    picture
        (n_trials,) int64, which of them; -1 for trials that are left out.
    reason
        (n_trials,) int64, an index of `reasons` for those, -1 for the others.
    reasons
        Why trials are left out.
    note
        How the split came about.
    """

    pictures: list[Shown]
    picture: NDArray[np.int64]
    reason: NDArray[np.int64]
    reasons: tuple[str, ...]
    note: str

    def dropped(self, rows: NDArray[np.int64]) -> dict[str, int]:
        """How many of these trials are left out, by reason."""
        counts = np.bincount(self.reason[rows] + 1, minlength=len(self.reasons) + 1)[1:]
        return {reason: int(n) for reason, n in zip(self.reasons, counts, strict=True) if n}


def showings(trials: Trials, root: Path) -> Showings:
    """The pictures of both splits, and which trials they are left with.

    Raises
    ------
    FileError
        A path names no concept, or there is no trial of one split.
    """
    concepts = [_concept(path, kind, trials.path) for path, kind in zip(trials.paths, trials.kinds, strict=True)]
    tested = {concept for concept, kind in zip(concepts, trials.kinds, strict=True) if kind == "test"}
    n = len(trials)
    reason = np.full(n, -1, np.int64)
    reason[trials.kinds == "catch"] = 0
    same = [kind == "exp" and concept in tested for concept, kind in zip(concepts, trials.kinds, strict=True)]
    reason[np.array(same, bool)] = 1
    numbers: dict[tuple[str, str], int] = {}
    pictures: list[Shown] = []
    for split, kind in (("train", "exp"), ("test", "test")):
        mine = np.flatnonzero((trials.kinds == kind) & (reason < 0))
        if not len(mine):
            raise FileError(
                f"the table of trials at {trials.path} has no trial of type {kind}"
                + (" of other concepts than the test pictures'" if kind == "exp" else "")
                + ": give the whole sample_attributes_P*.csv"
            )
        concept_of = {trials.paths[row]: concepts[row] for row in mine.tolist()}
        for path in sorted(concept_of):
            numbers[split, path] = len(pictures)
            pictures.append(_picture(split, path, concept_of[path], root))
    split_of = {"exp": "train", "test": "test"}
    picture = np.array(
        [
            numbers[split_of[kind], path] if why < 0 else -1
            for path, kind, why in zip(trials.paths, trials.kinds, reason, strict=True)
        ],
        np.int64,
    )
    n_left = int((reason == 1).sum())
    counts = {split: sum(1 for shown_ in pictures if shown_.split == split) for split in ("train", "test")}
    note = (
        f"zero-shot split: {len(tested)} concepts of the {counts['test']} test pictures, found by the pictures' names; "
        f"{n_left} training trials of these concepts are left out, {int((picture >= 0).sum())} trials remain "
        f"({counts['train']} training pictures)"
    )
    return Showings(pictures=pictures, picture=picture, reason=reason, reasons=(CATCH, SAME_CONCEPT), note=note)


def _concept(path: str, kind: str, table: Path) -> str:
    concept = names.of_file(path)
    if concept is None and kind != "catch":
        raise FileError(
            f"the table of trials at {table} has the image_path {shown(path)}, which names no concept: expected paths "
            "such as images_meg/aardvark/aardvark_01b.jpg"
        )
    return concept or ""


def _picture(split: str, path: str, concept: str, root: Path) -> Shown:
    return Shown(
        split=split,
        source=Place(root=root, path=_where(root, path, concept)),
        captions=(names.caption(concept),),
        concept=names.in_words(concept),
    )


def _where(root: Path, path: str, concept: str) -> str:
    """Below the root: as the table names it, or in THINGS' own folders, one for each concept."""
    file = path.rpartition("/")[2]
    places = (path, f"{concept}/{file}", f"images_meg/{concept}/{file}")
    for place in places:
        if (root / place).is_file():
            return place
    raise FileError(f"the picture {path} that a trial showed is not in {root}{_looks(root)}: {PICTURES}")


PICTURES = (
    "give the folder of the THINGS pictures (images_meg and images_test_meg, or a folder for each concept) with "
    "--images"
)


def _looks(root: Path) -> str:
    if any((root / folder).is_dir() for folder in EEG2_FOLDERS.values()):
        return ", which looks like the picture set of THINGS-EEG2 (training_images, test_images; others than in MEG)"
    return ""


def find_images(source: Path, images: Path | None) -> Path:
    """The folder below which the pictures of THINGS-MEG lie.

    Raises
    ------
    FileError
        There is none.
    """
    bases = [images] if images is not None else [source, source.parent]
    inner = (
        "",
        "images",
        "stimuli",
        "THINGS-images",
        "Images",
        "object_images",
        "images_THINGS/object_images",
        "image_set",
    )
    places = [base / name for base in bases for name in inner]
    for place in places:
        if (place / "images_meg").is_dir() or (place / "aardvark").is_dir():
            return place
    if images is not None and images.is_dir():
        return images
    looks = next((f", and {place} is there{said}" for place in places if (said := _looks(place))), "")
    raise FileError(f"the pictures of THINGS-MEG are not in {source if images is None else images}{looks}: {PICTURES}")


def check_codes(codes: NDArray[np.int64], trials: Trials, path: Path, what: str) -> str | None:
    """Refuse a table that is of other trials than a recording's event codes; returns a sentence where some differ.

    Parameters
    ----------
    codes
        (n_trials,) int64 event codes, THINGS' numbers of pictures.
    """
    known = (trials.codes >= 0) & (trials.kinds != "catch") & (codes != CATCH_CODE)
    other = int((codes[known] != trials.codes[known]).sum())
    if known.any() and other > _MOST_OTHER * known.sum():
        raise FileError(
            f"{other} of {int(known.sum())} trials of {what} at {path} showed other pictures than {trials.path} says: "
            "the table is of another subject, give sample_attributes_P*.csv of this one"
        )
    return (
        f"{other} of {int(known.sum())} event codes differ from things_image_nr; the table is taken" if other else None
    )
