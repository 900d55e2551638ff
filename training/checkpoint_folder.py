"""A checkpoint's folder, written file by file: what is finished stays finished when the process is killed.

Files that take long grow from parts, which are kept in the folder until all of it is finished. `fit.json` says whose
fit it is; each file and part has a record of its own, with the versions of the libraries that it was fitted with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..runtime import journal as records
from ..runtime.data.chain_files import FOLDER as SIGNAL_FOLDER
from ..runtime.decoders.files import DESCRIPTION, OPTIONAL_FILES, file_name
from ..runtime.environment import versions
from ..runtime.errors import FileError, InputError
from ..runtime.features import TARGETS
from ..runtime.files import check_format, read_json, read_tensors, write_bytes, write_json, write_tensors
from ..runtime.output import check_free, contents, draft_of
from . import libraries

Array = NDArray[Any]

VERSION = 2
NAME = "fit.json"
WHAT = "checkpoint or an unfinished fit"
LEAK = "leak.json"
"""What ``md-train fit --allow-leak`` found, beside a finished checkpoint."""
_PART = ".part.safetensors"
_FORMAT = "minddiffuser-fit"
_TENSORS = ("normaliser", "constants", "mask", "concepts")
# The names that a fit gives: an edited journal must not make another file part of a checkpoint.
_DECODER = rf"({'|'.join(TARGETS)})(-({'|'.join(TARGETS)}))*"
_OURS = re.compile(
    "|".join(
        [
            _DECODER + re.escape(file_name("")),
            *(re.escape(name) for name in sorted({*map(file_name, _TENSORS), *OPTIONAL_FILES})),
        ]
    )
)
_OUR_PART = re.compile(rf"({'|'.join(TARGETS)}|selection|scores|validation|training|curves)-[0-9-]+\.part\.safetensors")


class Parts(Protocol):
    """Where pieces of long work are kept until the whole is finished; :class:`Journal` is one."""

    def part(self, name: str) -> dict[str, Array] | None:
        """What was kept under that name, or None."""
        ...

    def keep(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Keep a piece; a killed process finds it again."""
        ...


class CheckpointFolder:
    """The finished files of an unfinished folder, with the key of everything that decided them.

    Hold the folder's lock (:mod:`minddiffuser.runtime.locks`) while there is one of these.

    Parameters
    ----------
    folder : Path
        Empty, absent, or begun with the same key.
    key : str
        A hash of data, models and settings.
    about : str
        A hash of data and settings alone, for :func:`check_begun`.

    Raises
    ------
    FileError
        The folder was begun with another key, holds something else, or its journal is damaged.
    """

    def __init__(self, folder: Path, key: str, about: str = "") -> None:
        if (folder / NAME).exists():
            if _read(folder).get("key") != key:
                raise _other(folder)
        else:
            check_free(folder, WHAT)
        write_json(folder / NAME, {"format": _FORMAT, "version": VERSION, "key": key, "about": about})
        self.folder, self._records, self._now = folder, records.Journal(folder, key), versions(libraries.FIT)
        self._whole: dict[str, records.Record] = {}
        for record in self._records.records():
            if (_OURS.fullmatch(record.name) or _OUR_PART.fullmatch(record.name)) and [*record.files] == [record.name]:
                self._whole[record.name] = record

    @property
    def files(self) -> dict[str, str]:
        """File name to SHA-256 of what is finished."""
        return {name: record.files[name] for name, record in self._whole.items() if not _OUR_PART.fullmatch(name)}

    @property
    def libraries(self) -> dict[str, str]:
        """The versions that the pieces were fitted with: "2.3.0, then 2.4.1" where they changed on the way."""
        return libraries.of_all(self._whole.values())

    def write(self, name: str, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
        """Write one safetensors file and note that it is finished.

        Raises
        ------
        InputError
            An array holds NaN or infinite values: such a file is refused by whoever opens the checkpoint.
        """
        for key, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(
                    f"{key} of {name} came out with NaN or infinite values, which no checkpoint may hold: "
                    "check the features' models, the responses, and the decoder's options"
                )
        write_tensors(self.folder / name, arrays, metadata)
        self._finished(name)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write one other file and note that it is finished."""
        write_bytes(self.folder / name, data)
        self._finished(name)

    def _finished(self, name: str) -> None:
        self._whole[name] = self._records.finish(name, [name], libraries=self._now)

    def has(self, name: str) -> bool:
        """Whether a piece was kept."""
        return name + _PART in self._whole

    def part(self, name: str) -> dict[str, Array] | None:
        """The arrays of a piece that was kept, or None."""
        return read_tensors(self.folder / (name + _PART), "a part of the unfinished fit") if self.has(name) else None

    def keep(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Keep a piece of a file that is not finished."""
        file = name + _PART
        write_tensors(self.folder / file, arrays)
        self._finished(file)

    def close(self, name: str, content: Mapping[str, Any]) -> None:
        """Write the description that makes the folder whole, and drop the journal, the parts and what a kill left."""
        write_json(self.folder / name, content)
        drafts = {name, NAME, *self.files}
        for path in list(self.folder.iterdir()):
            of = draft_of(path.name) or ""
            if _OUR_PART.fullmatch(path.name) or _OUR_PART.fullmatch(of) or of in drafts:
                path.unlink(missing_ok=True)
        self._records.drop()
        (self.folder / NAME).unlink(missing_ok=True)


def check_begun(folder: Path, about: str) -> None:
    """Refuse an unfinished fit of other data or settings, before models are opened.

    Raises
    ------
    FileError
        It is another one's, or its journal is damaged.
    """
    if (folder / NAME).exists():
        found = _read(folder).get("about")
        if isinstance(found, str) and found not in ("", about):
            raise _other(folder)


def _other(folder: Path) -> FileError:
    return FileError(f"{folder} holds an unfinished fit of other data, models or settings: {advice(folder)}")


def advice(folder: Path) -> str:
    """What to do about another fit's folder; nobody is advised to delete one that holds more than a fit."""
    return "choose another --out" + ("" if _others(folder) else ", or delete that folder")


def _others(folder: Path) -> list[str]:
    """What no fit writes."""
    return [
        name
        for name in contents(folder)
        if name not in (NAME, DESCRIPTION, LEAK, records.FOLDER, SIGNAL_FOLDER)
        and not (_OURS.fullmatch(name) or _OUR_PART.fullmatch(name))
    ]


def _is_ours(path: Path) -> bool:
    """Whether a journal that cannot be read was one of a fit."""
    try:
        return _FORMAT.encode() in path.read_bytes()[:200]
    except OSError:
        return False


def _read(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        content = read_json(path, "the journal of the unfinished fit")
        check_format(content, path, "fit", VERSION)
    except FileError as error:
        others = _others(folder)
        if others or not _is_ours(path):
            also = f"{others[0]} and " if others else ""
            raise FileError(
                f"{folder} holds {also}a {NAME} that is not this release's: choose another --out"
            ) from error
        raise FileError(
            f"the unfinished fit in {folder} cannot be continued, its {NAME} is damaged or of another "
            f"version: delete {folder} and run again"
        ) from error
    return content
