"""The pieces of a data set that have been read, kept in a folder until the data folder is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.mapped import map_tensors
from ...runtime.files import check_format, hash_of_json, read_json, write_json, write_tensors
from ...runtime.journal import Journal
from ...runtime.output import check_output, draft_of
from .reader import Piece, Place, Reader

VERSION = 1
MARKER = "prepare.json"
F32 = NDArray[np.float32]


class Work:
    """A work folder; the caller holds the lock of the data folder for which it is.

    Parameters
    ----------
    folder
        New, empty, or of an earlier run; what another reader, other options or other files have left is not used.
    reader
        Whose pieces are kept; its files' names, sizes and times belong to the key.
    """

    def __init__(self, folder: Path, reader: Reader) -> None:
        known = check_output(folder, what="work folder", marker=MARKER, kind="prepare")
        if known:  # made by a release of the same version
            check_format(read_json(folder / MARKER, "the work folder's marker"), folder / MARKER, "prepare", VERSION)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MARKER, {"format": "minddiffuser-prepare", "version": VERSION})
        self.folder, self._reader = folder, reader
        self._journal = Journal(folder, _key(reader))
        records = {
            piece.name: self._journal.finished(piece.name) for piece in reader.pieces
        }  # hashes their files, once
        self._kept = {name: dict(record.content) for name, record in records.items() if record is not None}
        self._split = np.array([picture.split == "train" for picture in reader.pictures], bool)

    def has(self, piece: Piece) -> bool:
        """Whether a piece has been kept."""
        return piece.name in self._kept

    def keep(self, piece: Piece, responses: F32, picture: NDArray[np.int64], dropped: Mapping[str, int]) -> None:
        """Keep the trials of a piece, (n, *shape) float32 and (n,) int64, which may be none."""
        name = f"{piece.name}.safetensors"
        write_tensors(self.folder / name, {"responses": responses, "picture": picture})
        self._kept[piece.name] = {"dropped": dict(dropped)}
        self._journal.finish(piece.name, [name], **self._kept[piece.name])

    def dropped(self, piece: Piece) -> dict[str, int]:
        """How many trials of a kept piece were left out, by reason."""
        return dict(self._kept[piece.name]["dropped"])

    def trials(self, piece: Piece) -> tuple[F32, NDArray[np.int64]]:
        """The responses and pictures of a kept piece, mapped."""
        tensors = map_tensors(self.folder / f"{piece.name}.safetensors", f"what was read of {piece.name}")
        return tensors["responses"], tensors["picture"]

    def training(self) -> Iterator[tuple[str, F32, NDArray[np.int64]]]:
        """As :class:`~.reader.Trials` says."""
        for piece in self._reader.pieces:
            responses, picture = self.trials(piece)
            train = np.flatnonzero(self._split[picture])
            whole = len(train) == len(picture)
            yield piece.name, responses if whole else responses[train], picture[train]

    def texts(self, name: str, make: Callable[[], Sequence[str]]) -> list[str]:
        """A list of texts that takes time to make, kept as a piece of its own."""
        record = self._journal.finished(name)
        if record is None:
            record = self._journal.finish(name, [], texts=list(make()))
        return list(record.content["texts"])

    def remove(self, files: Iterable[Path] = ()) -> None:
        """Remove what is kept, what a kill left, and the reader's `files` there.

        The folder goes too, unless somebody has put something else there.
        """
        self._journal.drop()
        own = {MARKER, *(f"{piece.name}.safetensors" for piece in self._reader.pieces)}
        own |= {path.name for path in files if path.parent == self.folder}
        for path in self.folder.iterdir():
            if path.name in own or draft_of(path.name) in own:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def _key(reader: Reader) -> str:
    """Of all that decides what is read: files by their size and time, options, and which pictures there are."""
    places = [picture.source for picture in reader.pictures if isinstance(picture.source, Place)]
    paths = [*reader.files, *(path for piece in reader.pieces for path in piece.files)]
    paths += dict.fromkeys(place.root / place.path for place in places)
    about: dict[str, Any] = {
        "version": VERSION,
        "subject": reader.subject,
        "settings": reader.settings,
        "files": {str(path): _mark(path) for path in paths},
        "pictures": [[str(place.root / place.path), place.index, place.dataset] for place in places],
        "splits": [picture.split for picture in reader.pictures],
        "pieces": [piece.name for piece in reader.pieces],
    }
    return hash_of_json(about)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
