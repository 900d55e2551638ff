"""A session's folder: what it was made with, what came of each marker, the pictures; all that is not the signal.

    session.json     what the session is: bundle, source, settings, seeds, versions; and how it ended
    signal.xdf       what was received (:mod:`.recorder`)
    ledger.jsonl     each marker's state and times, a line each time it changes
    results.jsonl    what was decoded and drawn, a line each
    pictures/        PNG

Brain data are personal: the folder and everything in it can be read by its owner alone.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.command import version
from ...runtime.data.json_types import is_label
from ...runtime.errors import FileError, InputError, shown
from ...runtime.files import cannot_write
from ...runtime.images import pixel_hash, png_bytes
from ...runtime.locks import inside, locked
from ...runtime.output import check_free
from ...runtime.progress import unheard
from .disk import Put, put, why_stopped
from .lines import Lines, line_of
from .names import FINISHED, KIND, LEDGER_FILE, PICTURES, RECORDING, RESULTS_FILE, SESSION_FILE, VERSION, write_session

_WRITE = os.O_CREAT | os.O_WRONLY | getattr(os, "O_BINARY", 0)
_SYNC_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a session: its file in the folder, and a hash of its pixels."""

    file: str
    pixels_sha256: str


def picture_of(name: str, image: NDArray[np.uint8]) -> Picture:
    """What :meth:`SessionFolder.picture` makes of a picture, before it is written.

    Raises
    ------
    InputError
        The name has something else in it than letters, digits, "-" and "_".
    """
    if not name or not all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in name):
        raise InputError(f"a picture is named {shown(name)}: give letters, digits, '-' and '_' only")
    return Picture(file=f"{PICTURES}/{name}.png", pixels_sha256=pixel_hash(image))


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
        write: Put,
    ) -> None:
        self.path, self.id = path, str(about["id"])
        self.stopped = ""
        self._write = write
        self._about, self._locks, self._clock, self._on_stop = dict(about), locks, clock, on_stop
        self._guard = threading.Lock()
        self._lines = {name: Lines(path / name, write) for name in (LEDGER_FILE, RESULTS_FILE)}
        self._synced_at = clock()

    @staticmethod
    def create(
        path: Path,
        about: Mapping[str, Any],
        *,
        id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_stop: Callable[[str], None] = unheard,
        write: Put = put,
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
        write
            What hands bytes to the system.

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
            return SessionFolder(path, whole, locks, clock, on_stop, write)
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
        picture = picture_of(name, image)
        file = self.path / picture.file
        with self._guard:
            if not self.stopped:
                try:
                    _write_private(file, png_bytes(image), self._write)
                except OSError as error:
                    self._stop(file, error)
        return picture

    def stop(self, why: str) -> None:
        """Write nothing more, for this reason; does not wait for what is being written."""
        if not self.stopped:
            self.stopped = why
            self._on_stop(why)

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
        line = line_of(entry)
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
        self.stop(why_stopped(path, error))


def _write_private(path: Path, data: bytes, write: Put) -> None:
    """Write a whole file, or none, for its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        file = os.open(draft, os.O_TRUNC | _WRITE, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[write(file, view) :]
        finally:
            os.close(file)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _wall_clock() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
