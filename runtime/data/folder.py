"""The data folder, schema version 1: responses of one subject, what was shown, and how it came about.

docs/data_folder.md describes the files and shows how to write one from one's own arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, InputError, check_choice
from ..files import check_format, read_json, sha256_of, write_json, write_tensors
from ..images import png_bytes, read_image
from ..output import is_desktop
from ..stimuli import stimulus_ids
from .given import Part, description_of, parts_of, picture
from .given import SplitData as SplitData
from .mapped import map_tensors
from .schema import (
    SPLITS,
    VERSION,
    check_captions,
    check_description,
    check_tensors,
    check_values,
    constant_voxels,
)
from .target import check_target, claimed, replacing_folder
from .trial_ids import TRIAL_IDS, check_trial_ids, folder_trial_ids

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class DataFolder:
    """An opened and validated data folder; make one with :func:`open_data`.

    Attributes
    ----------
    folder : Path
    subject, modality : str
    n_voxels : int
    rois : name to (start, stop) in the voxel axis, contiguous and in order
    image_size : side of the square stimuli in px
    provenance : where the data come from, in the writer's words
    splits : those that were opened
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], splits: Sequence[str]) -> None:
        self.folder = folder
        self.splits = tuple(splits)
        self._mark = _mark(folder, self.splits)
        self.subject: str = description["subject"]
        self.modality: str = description["modality"]
        self.n_voxels: int = description["n_voxels"]
        self.rois: dict[str, tuple[int, int]] = {k: (v[0], v[1]) for k, v in description["rois"].items()}
        self.image_size: int = description["image_size"]
        self.provenance: dict[str, Any] = description["provenance"]
        self._captions = _captions(folder / "captions.json")
        self._n_stimuli = {split: _check_stimuli(folder, split, self.image_size) for split in splits}
        n_trials = {split: description["splits"][split]["n_trials"] for split in SPLITS}
        self._tensors = {split: self._read(split, n_trials[split]) for split in splits}
        for split in splits:
            self._check_captions(split)
        for split in (split for split in SPLITS if split not in splits):
            self._check_unread(split, n_trials[split])
        self._trial_ids = {split: folder_trial_ids(folder, split, self.stimulus(split)) for split in splits}

    def responses(self, split: str) -> NDArray[np.float32]:
        """Responses of one split, (n_trials, n_voxels) float32, as recorded (not normalised); mapped, read-only."""
        self._check_mapped(split)
        return self._of(split)["responses"]

    def stimulus(self, split: str) -> NDArray[np.int64]:
        """Index of the picture that each trial showed, (n_trials,) int64."""
        self._check_mapped(split)
        return self._of(split)["stimulus"]

    def noise_ceiling(self, split: str) -> NDArray[np.float32] | None:
        """Share of a trial's variance that the picture explains, (n_voxels,) float32, or None if unknown.

        In both splits the variance of the signal is that over the training pictures.
        """
        return self._of(split).get("noise_ceiling")

    def trial_ids(self, split: str) -> tuple[str, ...]:
        """One text per trial, all different, which stays with it in subsets; see :mod:`.trial_ids`."""
        self._check_open(split)
        return self._trial_ids[split]

    @property
    def constant_voxels(self) -> NDArray[np.intp]:
        """Indices of voxels that never change in the training split (they cannot be decoded from)."""
        self._check_open("train")
        return self._constant

    def n_stimuli(self, split: str) -> int:
        """How many pictures the split has."""
        self._check_open(split)
        return self._n_stimuli[split]

    def image_paths(self, split: str) -> list[Path]:
        """The picture files of one split, in the order that `stimulus` counts."""
        return [self.folder / "stimuli" / split / f"{index:06d}.png" for index in range(self.n_stimuli(split))]

    def images(self, split: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Decode the pictures `start` to `stop` of one split, (n, image_size, image_size, 3) uint8.

        Raises
        ------
        FileError
            A picture is damaged or was changed since the folder was opened.
        """
        paths = self.image_paths(split)[start:stop]
        images = np.empty((len(paths), self.image_size, self.image_size, 3), np.uint8)
        for slot, path in zip(images, paths, strict=True):
            image = read_image(path)
            _check_size(path, image.shape[1], image.shape[0], self.image_size)
            slot[:] = image
        self._check_same()
        return images

    def picture_ids(self, split: str) -> tuple[str, ...]:
        """One text per picture of the split, by its pixels: the same for copies under several numbers."""
        self._check_open(split)
        if split not in self._picture_ids:
            self._picture_ids[split] = stimulus_ids(self.image_paths(split))
            self._check_same()
        return self._picture_ids[split]

    def captions(self, split: str) -> list[list[str]]:
        """Captions per stimulus; an empty list when the split has none."""
        check_choice("split", split, SPLITS)
        return self._captions[split]

    def hash(self, split: str) -> str:
        """SHA-256 over the bytes of one split's pictures and its captions: the key for kept features."""
        self._check_open(split)
        if split not in self._hashes:
            self._hashes[split] = self._hash(split)
        return self._hashes[split]

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the whole folder: description, responses, pictures, captions, and trial ids if stored."""
        names = ["data.json", "train.safetensors", "test.safetensors"]
        names += [TRIAL_IDS] if (self.folder / TRIAL_IDS).exists() else []
        parts = [sha256_of(self.folder / name) for name in names]
        self._check_same()
        return hashlib.sha256("\n".join([*parts, self.hash("train"), self.hash("test")]).encode()).hexdigest()

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {}

    @cached_property
    def _picture_ids(self) -> dict[str, tuple[str, ...]]:
        return {}

    def _hash(self, split: str) -> str:
        digest = hashlib.sha256()
        for path in self.image_paths(split):
            # A digest per file, not the bytes in a row: else a cut between two files could move unseen.
            digest.update(sha256_of(path).encode())
        digest.update(json.dumps(self._captions[split], ensure_ascii=True).encode())
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
        check_tensors(tensors, self._source(split), n_trials, self.n_voxels, self._n_stimuli[split])
        check_values(tensors["responses"], split, self._source(split))
        if split == "train":
            self._constant = constant_voxels(tensors["responses"], self._source(split))
        return tensors

    def _check_unread(self, split: str, n_trials: int) -> None:
        """Of a split that nobody asked for: that it fits the description, where it is there at all."""
        path = Path(self._source(split))
        if path.exists():
            check_tensors(map_tensors(path, f"the {split} split"), str(path), n_trials, self.n_voxels, None)

    def _check_captions(self, split: str) -> None:
        n_given, n_stimuli = len(self._captions[split]), self._n_stimuli[split]
        if n_given != n_stimuli and (n_given > 0 or split == "train"):
            raise FileError(
                f"captions.json in {self.folder} has captions for {n_given} {split} stimuli, stimuli/{split} holds "
                f"{n_stimuli} pictures: give one list of captions per picture"
            )


def open_data(folder: Path | str, *, splits: Sequence[str] = SPLITS) -> DataFolder:
    """Open a data folder and check all of it, except the insides of the pictures, which are checked when decoded.

    Parameters
    ----------
    folder : a data folder of schema version 1 (docs/data_folder.md).
    splits : which splits are needed. The responses and pictures of another one may be missing; where its responses
        are there, they are only compared with the description and not read.

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
    description = read_json(path, "the data folder's description")
    check_format(description, path, "data", VERSION)
    check_description(description, str(path))
    return DataFolder(folder, description, splits)


def write_data(
    folder: Path | str,
    splits: Mapping[str, SplitData],
    *,
    subject: str,
    rois: Mapping[str, tuple[int, int]],
    modality: str = "fmri",
    provenance: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> DataFolder:
    """Write a data folder, whole or not at all, and open it.

    Parameters
    ----------
    folder : where; new or empty, or with `replace` a data folder, whose place the new one takes.
    splits : "train" and "test".
    subject : a name.
    rois : name to (start, stop) in the voxel axis, contiguous from 0, in order.
    modality : "fmri".
    provenance : where the data come from: texts, numbers, lists, dictionaries; numpy's numbers and arrays, paths and
        dates are written as numbers, lists and texts.
    replace : allow an existing data folder to be replaced. Other folders, and data folders that hold anything
        else as well, are never touched.

    Raises
    ------
    InputError
        The arrays contradict each other or the schema.
    FileError
        The folder holds something else, or cannot be written, or the disk is full, or another process is writing it.
    """
    check_target(folder, replace=replace)
    prepared = _prepared(splits, subject=subject, rois=rois, modality=modality, provenance=provenance or {})
    with claimed(folder, replace=replace):
        return _write(Path(folder), *prepared)


def write_claimed(
    folder: Path | str,
    splits: Mapping[str, SplitData],
    *,
    subject: str,
    rois: Mapping[str, tuple[int, int]],
    modality: str = "fmri",
    provenance: Mapping[str, Any],
) -> DataFolder:
    """Do what :func:`write_data` does in a folder that the caller holds by :func:`~.target.claimed`."""
    prepared = _prepared(splits, subject=subject, rois=rois, modality=modality, provenance=provenance)
    return _write(Path(folder), *prepared)


def _prepared(splits: Mapping[str, SplitData], **about: Any) -> tuple[dict[str, Part], dict[str, Any]]:
    """The splits in the schema's types and data.json, both checked as :func:`open_data` does."""
    parts = parts_of(splits)
    description = description_of(parts, **about)
    try:
        check_description(description, "the data to write")
        for name in SPLITS:
            _check_part(parts[name], name, description)
    except FileError as error:
        raise InputError(str(error)) from None
    return parts, description


def _write(folder: Path, parts: Mapping[str, Part], description: Mapping[str, Any]) -> DataFolder:
    with replacing_folder(folder) as draft:
        for name in SPLITS:
            _write_part(draft, name, parts[name], description["image_size"])
        write_json(draft / "captions.json", {name: parts[name].captions for name in SPLITS})
        write_json(draft / TRIAL_IDS, {name: list(parts[name].trial_ids) for name in SPLITS})
        write_json(draft / "data.json", description)
    return open_data(folder)


def _check_part(part: Part, name: str, description: Mapping[str, Any]) -> None:
    source, responses = f"the {name} split to write", part.tensors["responses"]
    n_trials, n_stimuli = description["splits"][name]["n_trials"], len(part.images)
    check_tensors(part.tensors, source, n_trials, description["n_voxels"], n_stimuli)
    check_values(responses, name, source)
    if name == "train":
        constant_voxels(responses, source)
    check_trial_ids(part.trial_ids, n_trials, source)
    check_captions(part.captions, name, source)
    if len(part.captions) != n_stimuli and (part.captions or name == "train"):
        raise InputError(f"{source} has captions for {len(part.captions)} of {n_stimuli} pictures: give one list each")


def _write_part(draft: Path, name: str, part: Part, image_size: int) -> None:
    write_tensors(draft / f"{name}.safetensors", part.tensors)
    place = draft / "stimuli" / name
    place.mkdir(parents=True)
    for index in range(len(part.images)):
        image = picture(part.images[index], image_size, f"{name} picture {index}")
        # Not write_png: thousands of renames and fsyncs buy nothing inside a draft.
        (place / f"{index:06d}.png").write_bytes(png_bytes(image))


def _mark(folder: Path, splits: Sequence[str]) -> dict[str, tuple[int, int, int] | None]:
    """What tells one writing of a data folder, and of the responses that are mapped, from another."""
    return {name: _mark_of(folder / name) for name in ("data.json", *(f"{split}.safetensors" for split in splits))}


def _mark_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:  # between two renames
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _check_stimuli(folder: Path, split: str, image_size: int) -> int:
    """Count the pictures of one split after looking at each one's name, kind, size and end."""
    place = folder / "stimuli" / split
    try:
        names = sorted(path.name for path in place.iterdir() if not _is_hidden(path.name))
    except OSError as error:
        raise FileError(f"the {split} stimuli are missing: {place} cannot be read ({error.strerror})") from error
    if not names:
        raise FileError(f"the {split} stimuli are missing: {place} is empty, put 000000.png and so on there")
    for index, name in enumerate(names):
        if name != f"{index:06d}.png":
            raise FileError(
                f"{place} holds {name} where {index:06d}.png is expected: number the pictures from 000000.png "
                "without gaps, and keep other files elsewhere"
            )
        _check_png(place / name, image_size)
    return len(names)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_desktop(name)


def _check_png(path: Path, image_size: int) -> None:
    # The first 24 and the last 8 bytes tell kind, size and truncation at a thousandth of the cost of decoding.
    try:
        with open(path, "rb") as file:
            head = file.read(24)
            file.seek(-min(8, len(head)), 2)
            tail = file.read()
    except OSError as error:
        raise FileError(f"the picture {path} cannot be read ({error.strerror}): check it") from error
    if len(head) < 24 or not head.startswith(_PNG_START):
        raise FileError(f"the picture {path} is not a PNG: convert it (runtime.images.write_png does)")
    if tail != _PNG_END:
        raise FileError(f"the picture {path} is truncated: write it again")
    _check_size(path, int.from_bytes(head[16:20]), int.from_bytes(head[20:24]), image_size)


def _check_size(path: Path, width: int, height: int, image_size: int) -> None:
    if (width, height) != (image_size, image_size):
        raise FileError(
            f"the picture {path} is {width} x {height} px, the folder's image_size is {image_size!r:.20}: "
            "make it that square (runtime.images.fit_square does)"
        )


def _captions(path: Path) -> dict[str, list[list[str]]]:
    content = read_json(path, "the data folder's captions")
    for split in SPLITS:
        check_captions(content.get(split), split, str(path))
    return {split: content[split] for split in SPLITS}
