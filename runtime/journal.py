"""What is finished of long work in a folder: one record for each piece, written last.

Whatever a kill left behind without its record is made again, and so is what was damaged or edited since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FileError
from .files import check_format, hash_of_json, read_json, sha256_of, write_json

VERSION = 3
FOLDER = "journal"
_SEAL = "seal"  # a hash over the record, by which an edit of any field is found


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished piece: the hash of each of its files by its path in the folder, and what else is known of it.

    `order` grows from piece to piece in the order in which they were finished.
    """

    name: str
    order: int
    files: Mapping[str, str]
    content: Mapping[str, Any]


class Journal:
    """The records of one folder, whose lock the caller holds.

    Ask it for what is finished (:meth:`records`, or :meth:`finished` of every piece) before more is.

    Parameters
    ----------
    folder
        Where the work is written; the records lie in its folder `journal`.
    key
        A hash of what decides the work: records of another key are no records.
    """

    def __init__(self, folder: Path, key: str = "") -> None:
        self._folder, self._key, self._order = folder, key, 0

    def finish(self, name: str, files: Sequence[str], **content: Any) -> Record:
        """Record a piece whose files are all written and renamed; `content` is JSON, without tuples."""
        hashes = {file: sha256_of(self._folder / file) for file in files}
        self._order += 1
        whole = {
            "format": "minddiffuser-journal",
            "version": VERSION,
            "key": self._key,
            "name": name,
            "order": self._order,
            "files": hashes,
            "content": content,
        }
        write_json(self._path(name), {**whole, _SEAL: hash_of_json(whole)})
        return Record(name=name, order=self._order, files=hashes, content=content)

    def finished(self, name: str, **expected: Any) -> Record | None:
        """The record of a piece, or None where it is to be made (again).

        That is so where there is no record, where the record is damaged, was edited, is of an older release or says
        something else than `expected`, and where a file has gone or was changed: the same piece is then made again.

        Raises
        ------
        FileError
            A newer release wrote the record.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            whole = read_json(path, "the journal's record")
        except FileError:
            return None
        version = whole.get("version")
        if isinstance(version, int) and version > VERSION:
            check_format(whole, path, "journal", VERSION)
        seal = whole.pop(_SEAL, None)
        # A record with its seal is what finish wrote: no field needs a second look.
        if version != VERSION or seal != hash_of_json(whole) or (whole["key"], whole["name"]) != (self._key, name):
            return None
        content, files = whole["content"], whole["files"]
        if any(content.get(field) != value for field, value in expected.items()):
            return None
        places = {self._folder / file: digest for file, digest in files.items()}
        if not all(place.is_file() and sha256_of(place) == digest for place, digest in places.items()):
            return None
        self._order = max(self._order, whole["order"])
        return Record(name=name, order=whole["order"], files=files, content=content)

    def records(self) -> list[Record]:
        """Every finished piece, in the order in which they were finished."""
        names = [path.name.removesuffix(".json") for path in (self._folder / FOLDER).glob("*.json")]
        found = [record for record in map(self.finished, names) if record is not None]
        return sorted(found, key=lambda record: record.order)

    def drop(self) -> None:
        """Remove the records, and what a kill left of them; other files stay."""
        for path in [*(self._folder / FOLDER).glob("*.json"), *(self._folder / FOLDER).glob(".*.json.*.draft")]:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            (self._folder / FOLDER).rmdir()

    def _path(self, name: str) -> Path:
        return self._folder / FOLDER / f"{name}.json"
