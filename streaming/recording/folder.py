"""A session's folder: what it was made with, what came of each marker, the pictures; all that is not the signal.

    session.json     what the session is: bundle, source, settings, seeds, versions; and how it ended
    signal.xdf       what was received (:mod:`.recorder`)
    ledger.jsonl     each marker's state and times, a line each time it changes
    results.jsonl    what was decoded and drawn, a line each
    pictures/        PNG

Brain data are personal: the folder and everything in it can be read by its owner alone.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.command import version
from ...runtime.data.json_types import is_label
from ...runtime.errors import FileError, InputError, shown
from ...runtime.files import cannot_write, check_format, read_json, write_json
from ...runtime.images import pixel_hash, png_bytes
from ...runtime.locks import inside, locked
from ...runtime.output import check_free
from ...runtime.progress import unheard

SESSION_FILE, SIGNAL_FILE, LEDGER_FILE, RESULTS_FILE, PICTURES = (
    "session.json", "signal.xdf", "ledger.jsonl", "results.jsonl", "pictures",
)  # fmt: skip
KIND, VERSION = "session", 1
RECORDING, FINISHED, REPAIRED = "recording", "finished", "repaired"
_WRITE = os.O_CREAT | os.O_WRONLY | getattr(os, "O_BINARY", 0)
_SYNC_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a session: its file in the folder, and a hash of its pixels."""

    file: str
    pixels_sha256: str


class SessionFolder:
    """The folder of a session that runs; :meth:`create` makes it, :meth:`close` ends it.

    Nothing raises while the session runs: what the disk refuses ends the writing, `stopped` says why, and nothing more
    is written. It may be used from several threads.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        locks: ExitStack,
        clock: Callable[[], float],
        on_stop: Callable[[str], None],
    ) -> None:
        self.path, self.id = path, str(about["id"])
        self.stopped = ""
        self._about, self._locks, self._clock, self._on_stop = dict(about), locks, clock, on_stop
        self._guard = threading.Lock()
        self._lines = {name: _Lines(path / name) for name in (LEDGER_FILE, RESULTS_FILE)}
        self._synced_at = clock()

    @staticmethod
    def create(
        path: Path,
        about: Mapping[str, Any],
        *,
        id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_stop: Callable[[str], None] = unheard,
    ) -> SessionFolder:
        """Make the folder of a new session, and hold its lock.

        Parameters
        ----------
        path
            A new or empty folder.
        about
            JSON: what the session is made with.
        id
            The session's, which the ids of its trials start with; the folder's name where none is given.
        clock
            Monotonic seconds.
        on_stop
            Receives one sentence at the moment when the disk refuses, in the thread that wrote.

        Raises
        ------
        FileError
            It cannot be made, holds something, or another process records there.
        InputError
            The id is no label.
        """
        name = path.absolute().name if id is None else id
        if not is_label(name):
            raise InputError(f"the session's id is {shown(name)}: give a text of one line, at most 100 characters")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        locks = ExitStack()
        try:
            locks.enter_context(locked(inside(path), path))
            check_free(path, "session folder")
            path.chmod(0o700)
            (path / PICTURES).mkdir(mode=0o700)
            whole = {
                "format": f"minddiffuser-{KIND}", "version": VERSION, "id": name, "state": RECORDING,
                "started": _wall_clock(),
                "versions": {"minddiffuser": version(), "python": platform.python_version(), "numpy": np.__version__,
                             "machine": platform.platform()},
                "about": dict(about),
            }  # fmt: skip
            write_session(path, whole)
            return SessionFolder(path, whole, locks, clock, on_stop)
        except OSError as error:
            locks.close()
            raise error if isinstance(error, FileError) else cannot_write(path, error) from error
        except BaseException:
            locks.close()
            raise

    def describe(self, more: Mapping[str, Any]) -> None:
        """Add to what the session is made with, as soon as it is known: JSON."""
        with self._guard:
            self._about["about"] = {**self._about["about"], **more}
            if not self.stopped:
                try:
                    write_session(self.path, self._about)
                except OSError as error:
                    self._stop(self.path / SESSION_FILE, error)

    def ledger(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the ledger: JSON without NaN."""
        self._add(LEDGER_FILE, entry)

    def result(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the results: JSON without NaN."""
        self._add(RESULTS_FILE, entry)

    def picture(self, name: str, image: NDArray[np.uint8]) -> Picture:
        """Write a picture, (H, W, 3) uint8, as ``pictures/<name>.png``; `name` has letters, digits, "-" and "_".

        Raises
        ------
        InputError
            The name has something else in it.
        """
        if not name or not all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in name):
            raise InputError(f"a picture is named {shown(name)}: give letters, digits, '-' and '_' only")
        file = f"{PICTURES}/{name}.png"
        with self._guard:
            if not self.stopped:
                try:
                    _write_private(self.path / file, png_bytes(image))
                except OSError as error:
                    self._stop(self.path / file, error)
        return Picture(file=file, pixels_sha256=pixel_hash(image))

    def close(self, ended: Mapping[str, Any] | None = None) -> None:
        """Finish the files, write how the session ended (JSON), let go of the lock; may be called twice."""
        with self._guard:
            for name, lines in self._lines.items():
                try:
                    lines.close()
                except OSError as error:
                    self._stop(self.path / name, error)
            if self._about["state"] == RECORDING:
                self._about |= {"state": FINISHED, "finished": _wall_clock(), "ended": dict(ended or {})}
                self._about["stopped"] = self.stopped
                try:
                    write_session(self.path, self._about)
                except OSError as error:
                    self._stop(self.path / SESSION_FILE, error)
            self._locks.close()

    def _add(self, name: str, entry: Mapping[str, Any]) -> None:
        line = json.dumps(dict(entry), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._guard:
            if self.stopped:
                return
            try:
                self._lines[name].add(line)
                if self._clock() - self._synced_at >= _SYNC_SECONDS:
                    for lines in self._lines.values():
                        lines.sync()
                    self._synced_at = self._clock()
            except OSError as error:
                self._stop(self.path / name, error)

    def _stop(self, path: Path, error: OSError) -> None:
        if not self.stopped:
            self.stopped = why_stopped(path, error)
            self._on_stop(self.stopped)


class _Lines:
    """A file of lines that is only ever added to: after a kill all of them but perhaps the last are whole."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_APPEND | _WRITE, 0o600)
        self._n_bytes = os.fstat(self._file).st_size

    def add(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._n_bytes)
            raise
        self._n_bytes += len(line)

    def sync(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            try:
                os.fsync(file)
            finally:
                os.close(file)


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """A session's folder that is read: `about` is session.json."""

    path: Path
    about: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The session's."""
        return str(self.about["id"])

    @property
    def signal(self) -> Path:
        """Its XDF file."""
        return self.path / SIGNAL_FILE

    def ledger(self) -> Iterator[dict[str, Any]]:
        """The lines of the ledger, in their order; a last one that a kill has cut is left out."""
        return read_lines(self.path / LEDGER_FILE)

    def results(self) -> Iterator[dict[str, Any]]:
        """The lines of the results, likewise."""
        return read_lines(self.path / RESULTS_FILE)


def open_session(path: Path) -> Session:
    """Open a session's folder to read it.

    Raises
    ------
    FileError
        It is none, is damaged, or of another release.
    """
    file = path / SESSION_FILE
    if path.is_dir() and not file.exists():
        raise FileError(f"{path} has no {SESSION_FILE}: give the folder that md-stream run --record has made")
    about = read_json(file, "the session's description")
    check_format(about, file, KIND, VERSION)
    if not is_label(about.get("id")) or not isinstance(about.get("about"), dict) or "state" not in about:
        raise FileError(f"{file} lacks the session's id, its state or what it was made with: it is damaged")
    return Session(path=path, about=about)


def signal_lock(folder: Path) -> Path:
    """What the recorder of a session holds, which may outlive the session by a moment when that is killed."""
    return folder / ".signal.lock"


def why_stopped(path: Path, error: OSError) -> str:
    """What to say when the system refuses to write in the middle of a session."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = f"the disk is full while writing {path}" if full else f"{path} cannot be written ({error.strerror or error})"
    return f"{what}: nothing more is recorded, decoding goes on"


def write_session(path: Path, about: Mapping[str, Any]) -> None:
    """Write session.json, for its owner alone."""
    draft = path / SESSION_FILE
    write_json(draft, about)
    draft.chmod(0o600)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON objects, one a line.

    Raises
    ------
    FileError
        The file is missing, or a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error}): check that it is there") from error
    for number, line in enumerate(lines[:-1], start=1):
        entry = _object(line)
        if entry is None:
            raise FileError(f"{path}, line {number} is damaged: run md-stream repair {path.parent}")
        yield entry


def is_entry(line: bytes) -> bool:
    """Whether a line is one that :meth:`SessionFolder.ledger` or :meth:`SessionFolder.result` wrote."""
    return _object(line) is not None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _write_private(path: Path, data: bytes) -> None:
    """Write a whole file, or none, for its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with open(os.open(draft, os.O_TRUNC | _WRITE, 0o600), "wb") as file:
            file.write(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _wall_clock() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
