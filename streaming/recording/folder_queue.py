"""A session's folder behind a queue: who has something to write hands it over, and never waits for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .disk import HUNG_SECONDS, why_hung
from .folder import Picture, SessionFolder, picture_of
from .names import SESSION_FILE

# Bytes that may wait for a slow disk, and what a line and whatever goes with it takes of them.
QUEUE_BYTES, _LINE_BYTES = 64 << 20, 4096


class FolderQueue:
    """Writes a :class:`.folder.SessionFolder` in a thread of its own, in the order in which things were given.

    Where the disk is so slow that too much waits, nothing more is written and `stopped` says so; what is in the files
    stays. From several threads.

    Parameters
    ----------
    folder
        Just made. Nobody else writes it.
    queue_bytes
        How much may wait.
    patience
        Seconds that :meth:`close` waits for the disk.
    """

    def __init__(
        self,
        folder: SessionFolder,
        *,
        queue_bytes: int = QUEUE_BYTES,
        patience: float = HUNG_SECONDS,
    ) -> None:
        self.path, self.id = folder.path, folder.id
        self._folder, self._most, self._patience = folder, queue_bytes, patience
        self._waiting: deque[tuple[Callable[[], object], int]] = deque()
        self._changed = threading.Condition()
        self._n_waiting, self._closing = 0, False
        self._thread = threading.Thread(target=self._run, name="session folder", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> str:
        """Why nothing more is written, or ""."""
        return self._folder.stopped

    def describe(self, more: Mapping[str, Any]) -> None:
        """See :meth:`.SessionFolder.describe`."""
        self._give(partial(self._folder.describe, dict(more)))

    def ledger(self, entry: Mapping[str, Any]) -> None:
        """See :meth:`.SessionFolder.ledger`."""
        self._give(partial(self._folder.ledger, dict(entry)))

    def result(self, entry: Mapping[str, Any]) -> None:
        """See :meth:`.SessionFolder.result`."""
        self._give(partial(self._folder.result, dict(entry)))

    def picture(self, name: str, image: NDArray[np.uint8]) -> Picture:
        """See :meth:`.SessionFolder.picture`; the image must not be changed afterwards."""
        picture = picture_of(name, image)
        self._give(partial(self._folder.picture, name, image), image.nbytes)
        return picture

    def close(self, ended: Mapping[str, Any] | None = None) -> None:
        """Write what waits and finish the folder; may be called twice. A disk that hangs is left behind, and said."""
        with self._changed:
            if not self._closing:
                self._closing = True
                self._waiting.append((partial(self._folder.close, ended), 0))
                self._changed.notify()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._folder.stop(why_hung(self.path / SESSION_FILE, self._patience))

    def _give(self, write: Callable[[], object], n_bytes: int = 0) -> None:
        size = n_bytes + _LINE_BYTES
        with self._changed:
            if self._closing or self._folder.stopped:
                return
            full = self._n_waiting + size > self._most
            if not full:
                self._waiting.append((write, size))
                self._n_waiting += size
                self._changed.notify()
        if full:
            self._folder.stop(
                f"the disk is too slow for {self.path}: nothing more is written of the results, decoding goes on"
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                write, size = self._waiting.popleft()
                last = self._closing and not self._waiting
            try:
                write()
            except Exception as error:  # a folder must not end a session, nor stop in silence
                self._folder.stop(
                    f"{self.path} was given what it cannot hold ({error}): nothing more is written of the results, "
                    "decoding goes on"
                )
            with self._changed:
                self._n_waiting -= size
            if last:
                return
