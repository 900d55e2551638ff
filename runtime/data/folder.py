"""The data folder, schema version 2: responses of one subject, what was shown, and how it came about.

docs/data_folder.md describes the files and shows how to write one from one's own arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, InputError, check_choice, shown
from ..files import read_json, sha256_of, write_bytes, write_json, write_tensors
from ..images import fit_square, png_bytes
from ..output import real, replacing_folder
from .chain import files_of
from .concepts import CONCEPTS, check_concepts, check_count, folder_concepts
from .destination import check_target, claimed
from .layout import ResponseLayout, Rois
from .mapped import map_tensors
from .pictures import STIMULI, Picture, check_size, pictures_of, references_as_json
from .references import Reference, read_picture
from .schema import (
    SPLITS,
    as_version_2,
    check_captions,
    check_description,
    check_tensors,
    check_values,
    constant_places,
)
from .stimuli import stimulus_ids
from .streamed import Streamed, write_streamed
from .trial_ids import TRIAL_IDS, check_trial_ids, folder_trial_ids
from .voxels import VOXELS, read_voxels, write_voxels
from .write_input import Part, description_of, layout_of, parts_of, picture
from .write_input import SplitData as SplitData


class DataFolder:
    """An opened and validated data folder; make one with :func:`open_data`.

    Attributes
    ----------
    folder : Path
    subject : str
    layout : what one trial's responses are: modality, shape, rois and voxels or channels, rate, signal chain
    image_size : side of the square stimuli in px
    provenance : where the data come from, in the writer's words
    splits : those that were opened
    """

    def __init__(
        self, folder: Path, description: Mapping[str, Any], splits: Sequence[str], stimuli_root: Path | None
    ) -> None:
        self.folder = folder
        self.splits = tuple(splits)
        self._mark = _mark(folder, self.splits)
        self.layout = check_description(description, str(folder / "data.json"))
        if self.layout.modality == "fmri":
            self.layout = replace(self.layout, voxels=read_voxels(folder, self.layout.shape[0]))
        self.subject: str = description["subject"]
        self.image_size: int = description["image_size"]
        self.provenance: dict[str, Any] = description["provenance"]
        _check_files(self.layout, folder)
        self._hashes: dict[str, str] = {}
        self._picture_ids: dict[str, tuple[str, ...]] = {}
        self._captions = _captions(folder / "captions.json")
        self._concepts = folder_concepts(folder, SPLITS)
        self._pictures = {split: pictures_of(folder, split, self.image_size, stimuli_root) for split in splits}
        n_trials = {split: description["splits"][split]["n_trials"] for split in SPLITS}
        self._tensors = {split: self._read(split, n_trials[split]) for split in splits}
        for split in splits:
            self._check_captions(split)
            check_count(len(self._concepts[split]), len(self._pictures[split]), split, str(folder / CONCEPTS))
        for split in (split for split in SPLITS if split not in splits):
            self._check_unread(split, n_trials[split])
        self._trial_ids = {split: folder_trial_ids(folder, split, self.stimulus(split)) for split in splits}

    @property
    def signal_folder(self) -> Path:
        """Where the files lie that the signal chain names."""
        return self.folder

    def responses(self, split: str) -> NDArray[np.float32]:
        """Responses of one split, (n_trials, *layout.shape) float32, as recorded (not normalised); mapped, read-only.

        Of fMRI (n_trials, n_voxels); of EEG and MEG (n_trials, n_channels, n_times).
        """
        self._check_mapped(split)
        return self._of(split)["responses"]

    def stimulus(self, split: str) -> NDArray[np.int64]:
        """Index of the picture that each trial showed, (n_trials,) int64."""
        self._check_mapped(split)
        return self._of(split)["stimulus"]

    def noise_ceiling(self, split: str) -> NDArray[np.float32] | None:
        """Share of a trial's variance that the picture explains, of one trial's shape, float32; None if unknown.

        In both splits the variance of the signal is that over the training pictures.
        """
        return self._of(split).get("noise_ceiling")

    def trial_ids(self, split: str) -> tuple[str, ...]:
        """One text per trial, all different, which stays with it in subsets; see :mod:`.trial_ids`."""
        self._check_open(split)
        return self._trial_ids[split]

    @property
    def constant_places(self) -> NDArray[np.intp]:
        """Numbers of the voxels or channels that never change in the training split (nothing is decoded from them)."""
        self._check_open("train")
        return self._constant

    def n_stimuli(self, split: str) -> int:
        """How many pictures the split has."""
        self._check_open(split)
        return len(self._pictures[split])

    def pictures(self, split: str) -> tuple[Picture, ...]:
        """The pictures of one split in the order that `stimulus` counts: files of the folder, or what lies elsewhere.

        :func:`~.references.read_picture` decodes either.
        """
        self._check_open(split)
        return self._pictures[split]

    def images(self, split: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Decode the pictures `start` to `stop` of one split, (n, image_size, image_size, 3) uint8.

        Those that lie elsewhere are cropped and resized by :func:`~minddiffuser.runtime.images.fit_square`.

        Raises
        ------
        FileError
            A picture is damaged, was changed since the folder was opened, or has other pixels than stated.
        MissingExtra
            It lies in an HDF5 file and h5py is not installed.
        """
        pictures = self.pictures(split)[start:stop]
        images = np.empty((len(pictures), self.image_size, self.image_size, 3), np.uint8)
        for slot, source in zip(images, pictures, strict=True):
            image = read_picture(source)
            if isinstance(source, Path):
                check_size(source, image.shape[1], image.shape[0], self.image_size)
            slot[:] = fit_square(image, self.image_size)
        self._check_same()
        return images

    def picture_ids(self, split: str) -> tuple[str, ...]:
        """One text per picture of the split, by its pixels: the same for copies under several numbers."""
        self._check_open(split)
        if split not in self._picture_ids:
            self._picture_ids[split] = stimulus_ids(self._pictures[split])
            self._check_same()
        return self._picture_ids[split]

    def captions(self, split: str) -> list[list[str]]:
        """Captions per stimulus; an empty list when the split has none."""
        check_choice("split", split, SPLITS)
        return self._captions[split]

    def concepts(self, split: str) -> tuple[str, ...]:
        """What each stimulus is of, one name each; empty when the split has none. Any split may be asked for."""
        check_choice("split", split, SPLITS)
        return self._concepts[split]

    def hash(self, split: str) -> str:
        """SHA-256 over one split's pictures, captions and, where it has any, concepts: the key for kept features.

        Of pictures in the folder their bytes count, of those elsewhere the stated pixels and not where they lie.
        """
        self._check_open(split)
        if split not in self._hashes:
            self._hashes[split] = self._hash(split)
        return self._hashes[split]

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the whole folder: description, responses, pictures, captions; what else is stored, too."""
        names = ["data.json", "train.safetensors", "test.safetensors"]
        names += [name for name in (TRIAL_IDS, VOXELS) if (self.folder / name).exists()]
        parts = [sha256_of(self.folder / name) for name in names]
        self._check_same()
        return hashlib.sha256("\n".join([*parts, self.hash("train"), self.hash("test")]).encode()).hexdigest()

    def _hash(self, split: str) -> str:
        digest = hashlib.sha256()
        for source in self._pictures[split]:
            # A digest per file, not the bytes in a row: else a cut between two files could move unnoticed.
            digest.update((sha256_of(source) if isinstance(source, Path) else source.sha256).encode())
        if isinstance(self._pictures[split][0], Reference):
            digest.update(f"{self.image_size} px".encode())  # how a picture that lies elsewhere is resized
        digest.update(json.dumps(self._captions[split], ensure_ascii=True).encode())
        if self._concepts[split]:
            digest.update(json.dumps({"concepts": self._concepts[split]}, ensure_ascii=True).encode())
        self._check_same()
        return digest.hexdigest()

    def _of(self, split: str) -> dict[str, NDArray[Any]]:
        self._check_open(split)
        return self._tensors[split]

    def _check_open(self, split: str) -> None:
        check_choice("split", split, SPLITS)
        if split not in self.splits:
            raise InputError(f"the {split} split of {self.folder} was not opened: give it in open_data's `splits`")

    def _check_same(self) -> None:
        """After pictures were read: that they are of the folder whose responses were mapped, and these unchanged."""
        if _mark(self.folder, self.splits) != self._mark:
            raise self._edited()

    def _check_mapped(self, split: str) -> None:
        """That nobody writes into the mapped file; one that another file has replaced stays as it was."""
        self._check_open(split)
        name = f"{split}.safetensors"
        before, now = self._mark[name], _mark(self.folder, self.splits)[name]
        if before is not None and now is not None and before[0] == now[0] and before != now:
            raise self._edited()

    def _edited(self) -> FileError:
        return FileError(
            f"the data folder {self.folder} was replaced or edited while it was in use: give the command again"
        )

    def _source(self, split: str) -> str:
        return str(self.folder / f"{split}.safetensors")

    def _read(self, split: str, n_trials: int) -> dict[str, NDArray[Any]]:
        tensors = map_tensors(Path(self._source(split)), f"the {split} split")
        check_tensors(tensors, self._source(split), n_trials, self.layout, len(self._pictures[split]))
        check_values(tensors["responses"], split, self._source(split), self.layout.axis)
        if split == "train":
            self._constant = constant_places(tensors["responses"], self._source(split), self.layout.axis)
        return tensors

    def _check_unread(self, split: str, n_trials: int) -> None:
        """Of a split that nobody asked for: that it fits the description, where it is there at all."""
        path = Path(self._source(split))
        if path.exists():
            check_tensors(map_tensors(path, f"the {split} split"), str(path), n_trials, self.layout, None)

    def _check_captions(self, split: str) -> None:
        n_given, n_stimuli = len(self._captions[split]), len(self._pictures[split])
        if n_given != n_stimuli and (n_given > 0 or split == "train"):
            raise FileError(
                f"captions.json in {self.folder} has captions for {n_given} {split} stimuli, and there are "
                f"{n_stimuli} pictures: give one list of captions per picture"
            )


def open_data(
    folder: Path | str, *, splits: Sequence[str] = SPLITS, stimuli_root: Path | str | None = None
) -> DataFolder:
    """Open a data folder and check all of it, except the insides of the pictures, which are checked when decoded.

    Parameters
    ----------
    folder : a data folder of schema version 2, or 1 (docs/data_folder.md).
    splits : which splits are needed. The responses and pictures of another one may be missing; where its responses
        are there, they are only compared with the description and not read.
    stimuli_root : the folder that holds the pictures of a data folder that only names them, where that is another one
        than it states.

    Raises
    ------
    FileError
        Something is missing, truncated, of another version, or contradicts something else; the message says what.
    """
    folder = Path(folder)
    for split in splits:
        check_choice("split", split, SPLITS)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileError(f"the data folder {folder} {what}: make one with md-train simulate fmri --out DATA")
    path = folder / "data.json"
    description = as_version_2(read_json(path, "the data folder's description"), path)
    return DataFolder(folder, description, splits, None if stimuli_root is None else Path(stimuli_root))


def write_data(  # noqa: PLR0913 (what a data folder says; all but the subject has a default)
    folder: Path | str,
    splits: Mapping[str, SplitData],
    *,
    subject: str,
    rois: Rois | None = None,
    layout: ResponseLayout | None = None,
    image_size: int | None = None,
    provenance: Mapping[str, Any] | None = None,
    files: Mapping[str, Path | str] | None = None,
    replace: bool = False,
) -> DataFolder:
    """Write a data folder, whole or not at all, and open it.

    Parameters
    ----------
    folder : where; new or empty, or with `replace` a data folder, whose place the new one takes.
    splits : "train" and "test".
    subject : a name.
    rois : fMRI: name to (start, stop) in the voxel axis, or to a set, array or range object of voxels; regions may
        overlap.
    layout : what one trial's responses are; needed for EEG and MEG and for the voxels' places, and instead of `rois`.
    image_size : side of the square pictures in px; needed where all pictures stay where they lie, otherwise that of
        the pictures.
    provenance : where the data come from: texts, numbers, lists, dictionaries; numpy's numbers and arrays, paths and
        dates are written as numbers, lists and texts.
    files : name to path, of the files that the layout's signal chain names; they are copied.
    replace : allow an existing data folder to be replaced. Other folders, and data folders that hold anything
        else as well, are never touched.

    Raises
    ------
    InputError
        The arrays contradict each other or the schema, or pictures that stay where they lie are in `folder` itself.
    FileError
        The folder holds something else, or cannot be written, or the disk is full, or another process is writing it.
    """
    check_target(folder, replace=replace)
    prepared = _prepare(
        splits, subject=subject, rois=rois, layout=layout, image_size=image_size, provenance=provenance, files=files
    )
    with claimed(folder, replace=replace):
        return _write(Path(folder), prepared)


def write_claimed(
    folder: Path | str,
    splits: Mapping[str, SplitData],
    *,
    subject: str,
    rois: Rois | None = None,
    layout: ResponseLayout | None = None,
    image_size: int | None = None,
    provenance: Mapping[str, Any] | None = None,
    files: Mapping[str, Path | str] | None = None,
) -> DataFolder:
    """Write a data folder into a place that the caller holds by :func:`~.destination.claimed`, and open it.

    Arguments and errors are those of :func:`write_data`; whether the place may be taken was checked by the claim.
    """
    prepared = _prepare(
        splits, subject=subject, rois=rois, layout=layout, image_size=image_size, provenance=provenance, files=files
    )
    return _write(Path(folder), prepared)


def _prepare(
    splits: Mapping[str, SplitData],
    *,
    subject: str,
    rois: Rois | None = None,
    layout: ResponseLayout | None = None,
    image_size: int | None = None,
    provenance: Mapping[str, Any] | None = None,
    files: Mapping[str, Path | str] | None = None,
) -> _Prepared:
    """Check what is to be written; arguments and errors of :func:`write_data`."""
    parts = parts_of(splits)
    layout = layout_of(parts, layout, rois)
    about = provenance or {}
    description = description_of(parts, subject=subject, layout=layout, image_size=image_size, provenance=about)
    try:
        check_description(description, "the data to write")
        for name in SPLITS:
            _check_part(parts[name], name, description, layout)
        named = {name: references for name in SPLITS if (references := parts[name].references) is not None}
        stimuli = references_as_json(named) if named else None
        contents = _contents(files_of(layout.signal), files or {})
    except FileError as error:
        raise InputError(str(error)) from None
    return _Prepared(parts, description, stimuli, layout, contents)


@dataclass(frozen=True)
class _Prepared:
    """The splits in the schema's types, data.json, and the contents of other files, all checked as by open_data."""

    parts: Mapping[str, Part]
    description: Mapping[str, Any]
    stimuli: Mapping[str, Any] | None
    layout: ResponseLayout
    files: Mapping[str, bytes]


def _contents(named: Mapping[str, str], files: Mapping[str, Path | str]) -> dict[str, bytes]:
    """The bytes of each file that the signal chain names."""
    unnamed = sorted(set(files) - set(named))
    if unnamed:
        raise InputError(f"`files` has {shown(unnamed[0])}, which no step of the signal chain names: leave it out")
    return {name: _content(name, digest, files) for name, digest in named.items()}


def _content(name: str, digest: str, files: Mapping[str, Path | str]) -> bytes:
    if name not in files:
        raise InputError(f"the signal chain names {name}: give its path in `files`")
    if not isinstance(files[name], str | os.PathLike):
        raise InputError(f"`files` gives {shown(files[name])} for {name}: give the file's path")
    path = Path(files[name])
    if sha256_of(path) != digest:
        raise InputError(f"{path} has another SHA-256 than the signal chain states for {name}: correct it there")
    return path.read_bytes()


def _refuse_own_pictures(folder: Path, parts: Mapping[str, Part]) -> None:
    """Refuse pictures that stay where they lie when that is the folder that is being written: they would be lost."""
    place = real(folder)
    references = [reference for part in parts.values() for reference in part.references or ()]
    for path in {reference.root / reference.path: None for reference in references}:  # an array file once
        if real(path).is_relative_to(place):
            raise InputError(
                f"the picture {path} lies in the data folder {folder} itself, which is written anew: copy the pictures "
                "elsewhere, or give their pixels"
            )


def _write(folder: Path, prepared: _Prepared) -> DataFolder:
    parts = prepared.parts
    _refuse_own_pictures(folder, parts)
    with replacing_folder(folder, "data.json") as draft:
        for name in SPLITS:
            _write_part(draft, name, parts[name], prepared.layout, prepared.description["image_size"])
        for name, content in prepared.files.items():
            write_bytes(draft / name, content)
        if prepared.layout.voxels is not None:
            write_voxels(draft, prepared.layout.voxels)
        if prepared.stimuli is not None:
            write_json(draft / STIMULI, prepared.stimuli)
        write_json(draft / "captions.json", {name: parts[name].captions for name in SPLITS})
        if any(parts[name].concepts for name in SPLITS):
            write_json(draft / CONCEPTS, {name: list(parts[name].concepts) for name in SPLITS})
        write_json(draft / TRIAL_IDS, {name: list(parts[name].trial_ids) for name in SPLITS})
        write_json(draft / "data.json", prepared.description)
        open_data(draft)  # what a reader would refuse is never put in place of an old folder
    return open_data(folder)


def _check_part(part: Part, name: str, description: Mapping[str, Any], layout: ResponseLayout) -> None:
    source, responses = f"the {name} split to write", part.tensors["responses"]
    n_trials, n_stimuli = description["splits"][name]["n_trials"], len(part.images)
    check_tensors(part.tensors, source, n_trials, layout, n_stimuli)
    if not isinstance(responses, Streamed):  # whose values are checked when they have been made
        _check_responses(responses, name, source, layout)
    check_trial_ids(part.trial_ids, n_trials, source)
    check_captions(part.captions, name, source)
    if len(part.captions) != n_stimuli and (part.captions or name == "train"):
        raise InputError(f"{source} has captions for {len(part.captions)} of {n_stimuli} pictures: give one list each")
    check_count(len(check_concepts(part.concepts, name, source)), n_stimuli, name, source)


def _check_responses(responses: NDArray[np.float32], name: str, source: str, layout: ResponseLayout) -> None:
    check_values(responses, name, source, layout.axis)
    if name == "train":
        constant_places(responses, source, layout.axis)


def _write_part(draft: Path, name: str, part: Part, layout: ResponseLayout, image_size: int) -> None:
    path = draft / f"{name}.safetensors"
    if isinstance(part.tensors["responses"], Streamed):
        write_streamed(path, part.tensors)
        written = map_tensors(path, f"the {name} split")["responses"]
        try:
            _check_responses(written, name, f"the {name} split to write", layout)
        except FileError as error:
            raise InputError(str(error)) from None
    else:
        write_tensors(path, part.tensors)
    if part.references is not None:
        return
    place = draft / "stimuli" / name
    place.mkdir(parents=True)
    for index in range(len(part.images)):
        image = picture(part.images[index], image_size, f"{name} picture {index}")
        # Not write_png: thousands of renames and fsyncs buy nothing inside a draft.
        (place / f"{index:06d}.png").write_bytes(png_bytes(image))


def _mark(folder: Path, splits: Sequence[str]) -> dict[str, tuple[int, int, int] | None]:
    """What identifies one version of a data folder and of its mapped responses."""
    names = ("data.json", STIMULI, VOXELS, *(f"{split}.safetensors" for split in splits))
    return {name: _mark_of(folder / name) for name in names}


def _mark_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:  # between two renames
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _check_files(layout: ResponseLayout, folder: Path) -> None:
    """That the files that the signal chain names are there and are those of the data."""
    for name, digest in files_of(layout.signal).items():
        if sha256_of(folder / name) != digest:
            raise FileError(
                f"{folder / name} has another SHA-256 than the signal chain in data.json states: copy the file that "
                "was made with these data"
            )


def _captions(path: Path) -> dict[str, list[list[str]]]:
    content = read_json(path, "the data folder's captions")
    for split in SPLITS:
        check_captions(content.get(split), split, str(path))
    return {split: content[split] for split in SPLITS}
