"""A folder written file by file: what is finished stays finished when the process is killed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import FileError
from ..runtime.files import check_format, read_json, sha256_of, write_json, write_tensors

VERSION = 1
NAME = "fit.json"


class Journal:
    """The finished files of an unfinished folder, with the key of everything that decided them.

    Parameters
    ----------
    folder : Path
        Empty, absent, or begun with the same key.
    key : str
        A hash of data, models and settings.

    Raises
    ------
    FileError
        The folder was begun with another key, holds something else, or its journal is damaged.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self.files: dict[str, str] = {}
        path = folder / NAME
        if path.exists():
            content = self._read(path)
            if content.get("key") != key:
                raise FileError(
                    f"{folder} holds an unfinished fit of other data, models or settings: "
                    "choose another --out, or delete that folder"
                )
            files = content.get("files")
            self.files = {str(name): str(digest) for name, digest in files.items()} if isinstance(files, dict) else {}
        elif folder.exists():
            self._refuse_strangers()
        self._keep_whole_files()
        self._write()

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = read_json(path, "the journal of the unfinished fit")
            check_format(content, path, "fit", VERSION)
        except FileError as error:
            others = [p.name for p in self._folder.iterdir() if not p.name.endswith((NAME, ".safetensors", ".draft"))]
            if others:  # nobody is told to delete a folder that holds more than a fit
                raise FileError(
                    f"{self._folder} holds {others[0]} and a {NAME} that is not this release's: choose another --out"
                ) from error
            raise FileError(
                f"the unfinished fit in {self._folder} cannot be continued, its {NAME} is damaged or of another "
                f"version: delete {self._folder} and run again"
            ) from error
        return content

    def _refuse_strangers(self) -> None:
        if not self._folder.is_dir():
            raise FileError(f"{self._folder} is a file, expected a folder to write to: choose another --out")
        # Drafts and journals that a full disk left behind are ours; anything else is somebody's.
        found = [path.name for path in self._folder.iterdir() if not path.name.endswith(".draft")]
        if found:
            raise FileError(
                f"{self._folder} is not empty (it holds {found[0]}) and no unfinished fit: choose another --out"
            )

    def _keep_whole_files(self) -> None:
        for name, digest in list(self.files.items()):
            path = self._folder / name
            if not path.is_file() or sha256_of(path) != digest:
                del self.files[name]

    def _write(self) -> None:
        content = {"format": "minddiffuser-fit", "version": VERSION, "key": self._key, "files": self.files}
        write_json(self._folder / NAME, content)

    def path(self, name: str) -> Path:
        """Where a file of the folder lies."""
        return self._folder / name

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
        """Write one safetensors file and note that it is finished."""
        path = self._folder / name
        write_tensors(path, {key: np.ascontiguousarray(array) for key, array in arrays.items()}, metadata)
        self.files[name] = sha256_of(path)
        self._write()

    def close(self, name: str, content: Mapping[str, Any]) -> None:
        """Write the description that makes the folder whole, and drop the journal."""
        write_json(self._folder / name, content)
        for draft in self._folder.glob(".*.draft"):  # of a process that was killed
            draft.unlink(missing_ok=True)
        (self._folder / NAME).unlink(missing_ok=True)
