"""NSD's own files: one piece per session of betas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.nan import numbers
from ....runtime.errors import FileError, InputError
from ..reader import Block, Finished, Piece, Shown, Trials
from .betas import n_trials_of, read_session
from .captions import read_captions
from .design import Design, read_design
from .files import DESIGN, SESSIONS, Subject, find, session_files, spans
from .pictures import find_pictures
from .rois import Mask, layout_of, read_mask, read_rois
from .volumes import read_volume

F32 = NDArray[np.float32]
# How session statistics may be used, and the unit that comes of it.
Z_SCORES = {
    "none": "% signal change",
    "training": "z-score by each session's training trials",
    "all": "z-score by all trials of each session",
}
_EMPTY_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """What is read of a subject.

    Parameters
    ----------
    sessions : numbers from 1; None for all, which must be there without a gap.
    masks : voxels in any of these are read.
    atlases : whose regions become rois; None for those of rois.ATLASES that are there.
    z_score : of each voxel within each session, a key of Z_SCORES. Sessions contain the test pictures too: "all" lets
        statistics of test trials into training and is a leak, as in published preparations.
    caption : what every picture's caption is, in place of COCO's.
    coco : folder of COCO's annotation files, where that is not in NSD's own place.
    """

    sessions: tuple[int, ...] | None = None
    masks: tuple[str, ...] = ("nsdgeneral",)
    atlases: tuple[str, ...] | None = None
    z_score: str = "none"
    caption: str | None = None
    coco: Path | None = None


class Sessions:
    """The reader of NSD's own files; see :class:`~..reader.Reader`."""

    place = "voxel"

    def __init__(self, subject: Subject, settings: SessionSettings, *, memory: int, atlases: Sequence[str]) -> None:
        self._settings, self._memory, self._who = settings, memory, subject
        self.subject = f"nsd-{subject.name}"
        files: dict[Path, str] = {}
        paths = session_files(subject, settings.sessions)
        design_file = find(subject.source, DESIGN, "NSD's experimental design")
        self._design = read_design(design_file, subject.number)
        files[design_file] = "experimental design"
        self._mask = read_mask(subject, settings.masks, files)
        named = settings.atlases is not None
        self._rois = read_rois(subject, settings.atlases or atlases, self._mask, files, required=named)
        self.shape = (len(self._mask.ijk),)
        self.pieces = _pieces(paths, self._mask, self._design)
        _check_memory(self.pieces[0].n_trials, self.shape[0], memory)
        for number, path in paths.items():
            files[path] = f"betas of session {number}"
        ids = self._design.pictures.tolist()
        found = find_pictures(subject.source, subject.number, ids, files)
        captions = _captions(subject, settings, ids, found.n_stimuli, files)
        self.pictures, self._number = _shown(self._design, found.sources, captions)
        self._noise = _noise_file(subject, files)
        self.files: Mapping[Path, str] = files
        self.settings: Mapping[str, Any] = {
            "format": "NSD",
            "source": str(subject.source.absolute()),
            "subject": subject.number,
            "space": subject.space,
            "betas": subject.betas,
            "sessions": spans(sorted(paths)),
            "masks": list(settings.masks),
            "atlases": sorted(settings.atlases or atlases),
            "z_score": settings.z_score,
            "captions": "COCO" if settings.caption is None else settings.caption,
        }
        self.notes = (split_note(paths, subject.number), found.note, *_leak_note(settings.z_score))
        self._first_trial = {
            f"session{number:02d}": (number - 1) * piece.n_trials
            for number, piece in zip(paths, self.pieces, strict=True)
        }

    def read(self, piece: Piece) -> Block:
        """One session: its betas, as :func:`~.betas.read_session` gives them, z-scored where that was asked for."""
        responses = read_session(piece.files[0], piece.n_trials, self._mask.ijk, self._memory)
        start = self._first_trial[piece.name]
        order = self._design.order[start : start + piece.n_trials]
        self._check_inside(responses, piece)
        if self._settings.z_score != "none":
            _z_score(responses, order >= self._design.n_shared if self._settings.z_score == "training" else None)
        return Block(responses=responses, picture=self._number[order])

    def finish(self, trials: Trials, folder: Path) -> Finished:
        """The layout, and the noise ceiling of a single trial where NSD's ncsnr is there."""
        return Finished(
            layout=layout_of(self._mask, self._rois, Z_SCORES[self._settings.z_score]),
            noise_ceiling=_ceiling(self._noise, self._mask, self._who),
            notes=_empty_note(trials, self.shape[0]),
        )

    def _check_inside(self, responses: F32, piece: Piece) -> None:
        """Outside the brain, betas are 0 in every trial: a mask of such voxels is not this subject's."""
        empty = np.flatnonzero((responses == 0).all(axis=0))
        if len(empty) < len(responses[0]) and len(empty) > _EMPTY_SHARE * len(responses[0]):
            raise FileError(
                f"{piece.files[0]} is 0 in every trial in {numbers('voxel', empty)} of {len(responses[0])} of the "
                f"mask {' and '.join(self._settings.masks)}: the mask is of another subject or the axes are mixed up, "
                "copy masks and betas of one subject again"
            )


def _pieces(paths: Mapping[int, Path], mask: Mask, design: Design) -> list[Piece]:
    counts = {number: n_trials_of(path, mask.shape) for number, path in paths.items()}
    most = max(counts.values())
    for number, count in counts.items():
        if count != most:
            raise FileError(
                f"{paths[number]} has {count} trials and other sessions have {most}: it is truncated or of another "
                "experiment, copy it again"
            )
    last, n_trials = max(paths), len(design.order)
    if n_trials % most or last * most > n_trials or (n_trials == 30000 and most != 750):
        raise FileError(
            f"the betas have {most} trials a session up to session {last}, and the experimental design {n_trials} "
            "trials in all: they are of different experiments, copy both again"
        )
    return [
        Piece(
            name=f"session{number:02d}",
            n_trials=most,
            files=(path,),
            advice=f"copy it again, or leave it out with --sessions {spans([n for n in paths if n != number]) or 'N'}",
        )
        for number, path in paths.items()
    ]


def _check_memory(n_trials: int, n_voxels: int, memory: int) -> None:
    need = 4 * n_trials * n_voxels
    if need > memory:
        raise InputError(
            f"a session of {n_trials} trials of {n_voxels} voxels takes {need / 1e6:,.0f} MB: give four times as much "
            f"or more with --memory, such as {-(-4 * need // 10**6)}MB, or a smaller --mask"
        )


def _captions(
    subject: Subject, settings: SessionSettings, ids: Sequence[int], n_stimuli: int | None, files: dict[Path, str]
) -> dict[int, tuple[str, ...]]:
    if settings.caption is not None:
        return dict.fromkeys(ids, (settings.caption,))
    return read_captions(subject.source, settings.coco, ids, n_stimuli, files)


def _shown(
    design: Design, sources: Sequence[Any], captions: Mapping[int, tuple[str, ...]]
) -> tuple[list[Shown], NDArray[np.int64]]:
    """All pictures of the subject by their 73k ids, and the place in that list of each of the design's."""
    by_id = np.argsort(design.pictures)
    pictures = [
        Shown(
            split="test" if own < design.n_shared else "train",
            source=sources[own],
            captions=captions[int(design.pictures[own])],
        )
        for own in by_id.tolist()
    ]
    number = np.empty(len(by_id), np.int64)
    number[by_id] = np.arange(len(by_id))
    return pictures, number


def split_note(paths: Mapping[int, Path], subject: int) -> str:
    """How many sessions are read, and which published split that is."""
    whole = SESSIONS[subject - 1] if subject <= len(SESSIONS) else None
    note = f"{len(paths)} sessions ({spans(sorted(paths))})"
    published = {37: "the split of 8859 training and 982 test pictures", 40: "the split of 9000 and 1000 pictures"}
    if whole == 40 and len(paths) in published and max(paths) == len(paths):
        return f"{note}, as in publications with {published[len(paths)]}"
    return note


def _leak_note(z_score: str) -> tuple[str, ...]:
    if z_score != "all":
        return ()
    return (
        "leak: sessions were z-scored with their test trials included (--z-score all); do not compare results with "
        "those of --z-score training",
    )


def _empty_note(trials: Trials, n_voxels: int) -> tuple[str, ...]:
    """Voxels that were outside the scanned volume in some session."""
    empty = np.zeros(n_voxels, bool)
    for _name, responses, _picture in trials.training():
        empty |= (responses == 0).all(axis=0)
    voxels = np.flatnonzero(empty)
    return (f"0 in every training trial of some session: {numbers('voxel', voxels)}",) if len(voxels) else ()


def _z_score(responses: F32, train: NDArray[np.bool_] | None) -> None:
    """Z-score each voxel in place by the mean and standard deviation over some trials, or all."""
    of = responses if train is None else responses[train]
    mean = of.mean(axis=0, dtype=np.float64)
    sd = of.std(axis=0, dtype=np.float64)
    responses -= mean.astype(np.float32)
    responses /= np.where(sd > 0, sd, 1).astype(np.float32)


def _noise_file(subject: Subject, files: dict[Path, str]) -> Path | None:
    path = subject.beta_folder / "ncsnr.nii.gz"
    if not path.is_file():
        return None
    files[path] = "noise ceiling"
    return path


def _ceiling(path: Path | None, mask: Mask, subject: Subject) -> F32 | None:
    """Share of a single trial's variance that the picture explains, from NSD's ratio of standard deviations."""
    if path is None:
        return None
    ratio, _affine = read_volume(path, "the noise ceiling")
    if ratio.shape != mask.shape:
        raise FileError(
            f"{path} is {ratio.shape} and the mask {mask.shape}: it is of another space than {subject.space}, copy it "
            "again"
        )
    variances = np.nan_to_num(ratio[tuple(mask.ijk.T)].astype(np.float64)) ** 2
    ceiling: F32 = (variances / (variances + 1)).astype(np.float32)
    return ceiling
