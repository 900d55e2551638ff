"""The pictures of THINGS-EEG2: training_images and test_images, in the order that its conditions count."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....runtime.errors import FileError, shown
from ....runtime.files import cannot_open
from ....runtime.images import SUFFIXES
from ..reader import Place, Shown
from ..restricted import read_published
from . import names

FOLDERS = {"train": "training_images", "test": "test_images"}
# Where the picture set lies beside the recordings, in the copies of the data set that are in use.
_PLACES = ("", "image_set", "Image_set", "Image_set/image_set", "images", "stimuli", "image_set/image_set")
_METADATA, _TABLE = "image_metadata.npy", "stimuli.tsv"
_STIMULUS = re.compile(r"stim-(train|test)(\d+)")


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """The pictures of both splits.

    Attributes
    ----------
    root
        The folder that holds training_images and test_images.
    paths
        "train" and "test": the pictures below the root, in the order of the conditions: condition k, counted from 0, is
        exemplar k % 10 of concept k // 10 in training.
    files
        What was read to find them, and what it is.
    note
        How the order is known.
    """

    root: Path
    paths: Mapping[str, Sequence[str]]
    files: Mapping[Path, str]
    note: str

    def shown(self) -> tuple[list[Shown], dict[str, int]]:
        """All pictures, and where each split's begin."""
        start = {"train": 0, "test": len(self.paths["train"])}
        return [self._shown(split, path) for split in FOLDERS for path in self.paths[split]], start

    def _shown(self, split: str, path: str) -> Shown:
        concept = names.of_folder(path.split("/")[1])
        return Shown(
            split=split,
            source=Place(root=self.root, path=path),
            captions=(names.caption(concept),),
            concept=names.in_words(concept),
        )


def find_pictures(source: Path, images: Path | None) -> PictureSet:
    """Find the picture set of THINGS-EEG2.

    Parameters
    ----------
    source
        Where the recordings lie: the set is looked for in it and above it.
    images
        The folder that holds training_images and test_images, where it is said.

    Raises
    ------
    FileError
        There is none, it is packed, incomplete, or that of another data set.
    """
    root = _root(source, images)
    table, metadata = root / _TABLE, root / _METADATA
    if table.exists():
        paths = _from_table(table)
        return _checked(root, paths, {table: "list of the pictures"}, f"order of the pictures: {_TABLE}")
    if metadata.exists():
        paths = _from_metadata(metadata)
        return _checked(root, paths, {metadata: "list of the pictures"}, f"order of the pictures: {_METADATA}")
    paths = {split: _from_folders(root / folder) for split, folder in FOLDERS.items()}
    return PictureSet(
        root=root, paths=paths, files={}, note=f"order of the pictures: by folder and file, as there is no {_METADATA}"
    )


def _root(source: Path, images: Path | None) -> Path:
    bases = [images] if images is not None else [source, source.parent, source.parent.parent]
    places = [base / place for base in bases for place in _PLACES]
    for place in places:
        if all((place / folder).is_dir() for folder in FOLDERS.values()):
            return place
    for place in places:
        packed = place / "training_images.zip"
        if packed.exists():
            raise FileError(f"the pictures are still packed in {packed}: unpack it and test_images.zip there")
    where = source if images is None else images
    looks = next((f", and {place} {looks}" for place in places if (looks := _other_set(place))), "")
    raise FileError(
        f"the pictures of THINGS-EEG2 are not in {where}: it holds no training_images and test_images{looks}; give the "
        "folder that does (image_set of the data set) with --images"
    )


def _other_set(place: Path) -> str | None:
    """What else a folder of pictures looks like."""
    if (place / "images_meg").is_dir() or (place / "images_test_meg").is_dir():
        return "looks like the picture set of THINGS-MEG (images_meg, images_test_meg)"
    if (place / "aardvark").is_dir():
        return "looks like the whole THINGS database (a folder for each concept)"
    return None


def _from_metadata(path: Path) -> dict[str, list[str]]:
    content = read_published(path, "the list of the pictures").content
    found: dict[str, list[str]] = {}
    for split, folder in FOLDERS.items():
        concepts, files = (_texts(content, f"{split}_img_{what}", path) for what in ("concepts", "files"))
        if len(concepts) != len(files):
            raise FileError(
                f"{path} names {len(concepts)} concepts and {len(files)} files of {split}: it is damaged, copy it again"
            )
        found[split] = [f"{folder}/{concept}/{file}" for concept, file in zip(concepts, files, strict=True)]
    return found


def _texts(content: Mapping[Any, Any], key: str, path: Path) -> list[str]:
    if key not in content:
        raise FileError(f"{path} has no {key} (it has {', '.join(map(str, content))}): give THINGS-EEG2's own file")
    given = content[key]
    texts = [str(text) for text in given] if isinstance(given, list | tuple) or hasattr(given, "shape") else []
    if not texts or any("/" in text or "\\" in text or text in (".", "..") for text in texts):
        raise FileError(f"{key} in {path} is {shown(given)}: give THINGS-EEG2's own file")
    return texts


def _from_table(path: Path) -> dict[str, list[str]]:
    """The list of the BIDS form: stimulus_id "stim-train00001" is the condition, counted from 1."""
    found: dict[str, dict[int, str]] = {split: {} for split in FOLDERS}
    for row in read_table(path, "the list of the pictures", ("stimulus_id", "filename")):
        match = _STIMULUS.fullmatch(row["stimulus_id"])
        if match is None:
            raise FileError(
                f"{path} lists the stimulus {shown(row['stimulus_id'])}: expected names such as stim-train00001, give "
                "the file of NEMAR's nm000232"
            )
        found[match[1]][int(match[2])] = row["filename"]
    for split, numbered in found.items():
        gap = next((number for number in range(1, len(numbered) + 1) if number not in numbered), None)
        if not numbered or gap is not None:
            raise FileError(f"{path} lists no stim-{split}{gap or 1}: it is incomplete, copy it again")
    return {split: [numbered[n] for n in range(1, len(numbered) + 1)] for split, numbered in found.items()}


def read_table(path: Path, what: str, columns: Sequence[str], *, delimiter: str = "\t") -> list[dict[str, str]]:
    """The rows of a table in text.

    Raises
    ------
    FileError
        It is missing, not text, lacks a column, or a row is cut off.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            rows = list(reader)
            header = reader.fieldnames or []
    except FileNotFoundError:
        raise FileError(f"{what} is missing: {path} does not exist") from None
    except OSError as error:
        raise cannot_open(what, path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{what} at {path} is no table in text ({error}): copy it again") from error
    missing = [name for name in columns if name not in header]
    if missing:
        raise FileError(
            f"{what} at {path} has no column {missing[0]} (it has {', '.join(map(shown, header)) or 'none'}): give the "
            "file as it was published"
        )
    for number, row in enumerate(rows, start=2):
        if any(row[name] is None for name in columns):
            raise FileError(f"line {number} of {what} at {path} is cut off: copy the file again")
    return rows


def _from_folders(folder: Path) -> list[str]:
    """Every picture, sorted by its concept's folder and its own name."""
    found = [
        f"{folder.name}/{concept.name}/{picture.name}"
        for concept in sorted(folder.iterdir())
        if concept.is_dir()
        for picture in sorted(concept.iterdir())
        if picture.suffix.lower() in SUFFIXES and not picture.name.startswith((".", "stim-"))
    ]
    if not found:
        raise FileError(f"{folder} holds no pictures in folders such as 00001_aardvark: copy the picture set again")
    return found


def _checked(root: Path, paths: dict[str, list[str]], files: dict[Path, str], note: str) -> PictureSet:
    """That each listed picture is there."""
    for split, listed in paths.items():
        for number, path in enumerate(listed, start=1):
            if not (root / path).is_file():
                raise FileError(
                    f"{split} picture {number} of {next(iter(files)).name}, {path}, is not in {root}: this is another "
                    "picture set or an incomplete one, give that of THINGS-EEG2 with --images"
                )
    return PictureSet(root=root, paths=paths, files=files, note=note)
