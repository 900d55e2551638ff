"""Recording beside acquisition: a thread that writes, and a bounded queue that never lets anybody wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...runtime.files import cannot_write
from ...runtime.locks import locked
from ..records import SIGNAL, Item, Marker, Notice, Samples, SignalInfo
from .disk import HUNG_SECONDS, Put, put, why_hung, why_stopped
from .names import SIGNAL_FILE, signal_lock
from .writer import Writer

# Bytes that may wait for a slow disk, and how long what came is gathered before it is handed to the system.
QUEUE_BYTES, GATHER_SECONDS = 64 << 20, 0.02
# On the disk, and not only with the system, after so many seconds or bytes.
SYNC_SECONDS, SYNC_BYTES = 1.0, 1 << 20
_ITEM_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class RecordingState:
    """Where a recording stands.

    Attributes
    ----------
    on
        Whether it goes on; False after a failure, and when it was closed.
    reason
        Why it stopped before it was closed, one sentence for people; "" otherwise.
    n_samples, n_markers, n_bytes
        In the file.
    n_dropped_samples, n_dropped_markers
        Given, and not in the file: the disk was too slow, or the recording had stopped.
    n_waiting
        Bytes that wait to be written.
    """

    on: bool
    reason: str
    n_samples: int
    n_markers: int
    n_bytes: int
    n_dropped_samples: int
    n_dropped_markers: int
    n_waiting: int


class Recorder:
    """Writes the raw stream of a session into its folder, in a thread of its own; :meth:`close` ends it.

    Nothing here raises while a session runs. What the disk refuses ends the recording, which :meth:`state` says, and
    what then comes is counted.

    Parameters
    ----------
    folder
        The session's folder, which :meth:`.folder.SessionFolder.create` has made.
    info
        Of the signal.
    clock
        Monotonic seconds, for what is due to be written.
    queue_bytes
        How much may wait.
    write
        What hands bytes to the system.
    patience
        Seconds that :meth:`close` waits for the disk.

    Raises
    ------
    FileError
        The file cannot be made, or another process records there.
    """

    def __init__(
        self,
        folder: Path,
        info: SignalInfo,
        *,
        clock: Callable[[], float] = time.monotonic,
        queue_bytes: int = QUEUE_BYTES,
        write: Put = put,
        patience: float = HUNG_SECONDS,
    ) -> None:
        self.path = folder / SIGNAL_FILE
        self._lock = ExitStack()
        self._lock.enter_context(locked(signal_lock(folder), folder))
        try:
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            self._writer = Writer(self.path, info, started=started, write=write)
        except OSError as error:
            self._lock.close()
            raise cannot_write(self.path, error) from error
        self._clock, self._most, self._patience = clock, queue_bytes, patience
        self._queue: deque[tuple[Sequence[Item], float]] = deque()
        self._changed = threading.Condition()
        self._n_waiting = self._lost_samples = self._lost_markers = 0
        self._given_samples = self._given_markers = 0
        self._said_samples = self._said_markers = 0
        self._reason, self._on, self._closing, self._end = "", True, False, 0.0
        self._synced_at, self._synced_bytes = clock(), self._writer.n_bytes
        self._thread = threading.Thread(target=self._run, name="md-stream recorder", daemon=True)
        self._thread.start()

    def write(self, items: Sequence[Item], now: float) -> None:
        """Take what one step of the session was given at the local time `now`; returns at once.

        Call it for every step, one without items too: a replay then takes the same steps.
        """
        size = sum(map(_size, items)) + _ITEM_BYTES
        n_samples, n_markers = _counts(items)
        with self._changed:
            self._given_samples += n_samples
            self._given_markers += n_markers
            if not self._on or self._closing or self._n_waiting + size > self._most:
                self._lost_samples += n_samples
                self._lost_markers += n_markers
                return
            self._queue.append((items, now))
            self._n_waiting += size
            self._changed.notify()

    def state(self) -> RecordingState:
        """Where it stands."""
        with self._changed:
            return RecordingState(
                on=self._on,
                reason=self._reason,
                n_samples=self._writer.n_samples,
                n_markers=self._writer.n_markers,
                n_bytes=self._writer.n_bytes,
                n_dropped_samples=self._lost_samples,
                n_dropped_markers=self._lost_markers,
                n_waiting=self._n_waiting,
            )

    def close(self, now: float) -> RecordingState:
        """Write what waits and finish the file, at the local time `now`; may be called twice.

        A disk that does not answer in time is left behind, which the state says. The file then stays locked as long as
        this process lives: its thread may still write.
        """
        with self._changed:
            self._closing, self._end = True, now
            self._changed.notify()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            with self._changed:
                self._reason = self._reason or why_hung(self.path, self._patience)
                self._on = False
                self._queue.clear()
                self._count_lost()
        else:
            self._lock.close()
        return self.state()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except OSError as error:
            self._stop(why_stopped(self.path, error))
        except Exception as error:  # a recording must not end a session
            self._stop(
                f"{self.path} was given what it cannot hold ({error}): nothing more is recorded, decoding goes on"
            )

    def _step(self) -> bool:
        """Write what waits; False after the last time."""
        batches, closing = self._take()
        for items, now in batches:
            self._writer.add(items, now)
        self._writer.flush()
        now = self._clock()
        if now - self._synced_at >= SYNC_SECONDS or self._writer.n_bytes - self._synced_bytes >= SYNC_BYTES:
            self._writer.sync()
            self._synced_at, self._synced_bytes = self._clock(), self._writer.n_bytes
        with self._changed:
            self._n_waiting -= sum(sum(map(_size, items)) + _ITEM_BYTES for items, _ in batches)
        if closing:
            self._writer.close(self._end)
            with self._changed:
                self._on = False
        return not closing

    def _take(self) -> tuple[list[tuple[Sequence[Item], float]], bool]:
        """What has come since, and a sentence about what was dropped; waits for the first of it."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, timeout=SYNC_SECONDS)
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, timeout=GATHER_SECONDS)
            batches = list(self._queue)
            self._queue.clear()
            samples, markers = self._lost_samples - self._said_samples, self._lost_markers - self._said_markers
            if (batches or self._closing) and (samples or markers):
                self._said_samples, self._said_markers = self._lost_samples, self._lost_markers
                at = batches[-1][1] if batches else self._end
                text = f"the disk was too slow: {samples} samples and {markers} markers are not in this recording"
                said = Notice(kind="dropped", stream=SIGNAL, at=at, text=text)
                batches.append(([said], at))
                self._n_waiting += _size(said) + _ITEM_BYTES
            return batches, self._closing

    def _stop(self, reason: str) -> None:
        with self._changed:
            self._on, self._reason = False, self._reason or reason
            self._queue.clear()
            self._n_waiting = 0
            self._count_lost()
        self._writer.abandon()

    def _count_lost(self) -> None:
        """Whatever was given and is not in the file."""
        self._lost_samples = self._given_samples - self._writer.n_samples
        self._lost_markers = self._given_markers - self._writer.n_markers


def _counts(items: Sequence[Item]) -> tuple[int, int]:
    """How many samples and markers there are."""
    n_samples = sum(len(item.stamps) for item in items if isinstance(item, Samples))
    return n_samples, sum(isinstance(item, Marker) for item in items)


def _size(item: Item) -> int:
    if isinstance(item, Samples):
        return item.data.nbytes + item.stamps.nbytes + _ITEM_BYTES
    return _ITEM_BYTES + (len(item.raw) if isinstance(item, Marker) else 0)
