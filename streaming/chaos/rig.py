"""What surrounds a session under faults: it is run as ever, and what it is given and gives is kept to be looked at."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decoding.decode import DecodedEpoch
from ..intake.events import Accepted
from ..recording.folder import SessionFolder
from ..recording.folder_queue import FolderQueue
from ..recording.recorder import QUEUE_BYTES
from ..records import Item, Notice, Samples, SignalInfo
from ..session.acquisition import Acquisition, FromAcquisition, Happened
from ..session.process import Post
from ..session.stepped import SteppedFeed
from ..sources.replay import Replay
from .faults import SESSION_FAULTS
from .faults.base import End
from .parts import Parts
from .plan import Fault
from .source import FaultySource
from .stand_in import StandIn


class TimedSource:
    """The recording as a source, by whose time the faults of the session's parts begin and end."""

    def __init__(self, replay: Replay, faults: Sequence[Fault], parts: Parts, sfreq: float) -> None:
        self._replay, self._coming, self._parts, self._sfreq = replay, list(faults), parts, sfreq
        self._ends: list[tuple[float, End]] = []
        self._n_samples = 0
        self.happened: list[Fault] = []

    @property
    def now(self) -> float:
        return self._replay.now

    def open(self) -> SignalInfo:
        return self._replay.open()

    def poll(self, timeout: float) -> Sequence[Item]:
        items = self._replay.poll(timeout)
        over = any(isinstance(item, Notice) and item.kind == "ended" for item in items)
        self._until(math.inf if over else self._n_samples / self._sfreq)
        self._n_samples += sum(len(item.stamps) for item in items if isinstance(item, Samples))
        return items

    def close(self) -> None:
        self._until(math.inf)
        self._replay.close()

    def _until(self, at: float) -> None:
        """It is so many seconds into the signal; at the end all faults are over."""
        for one in [one for one in self._ends if one[0] <= at]:
            self._ends.remove(one)
            one[1]()
        while self._coming and self._coming[0].start <= at < math.inf:
            fault = self._coming.pop(0)
            self._ends.append((fault.stop, SESSION_FAULTS[fault.kind].begin(fault.rng, self._parts)))
            self.happened.append(fault)


class KeptSource:
    """A source of which is kept what it gave."""

    def __init__(self, source: FaultySource) -> None:
        self._source = source
        self.given: list[Item] = []

    @property
    def now(self) -> float:
        return self._source.now

    def open(self) -> SignalInfo:
        return self._source.open()

    def poll(self, timeout: float) -> Sequence[Item]:
        items = self._source.poll(timeout)
        self.given += items
        return items

    def close(self) -> None:
        self._source.close()


class WatchedFeed(SteppedFeed):
    """Acquisition, of whose epochs the stand-in hears before the session does."""

    def __init__(self, acquisition: Acquisition, parts: Parts, stand_in: StandIn) -> None:
        super().__init__(acquisition, lambda _step: self._let_the_disk_follow())
        self._recording, self._disk, self._stand_in = acquisition, parts.disk, stand_in
        self.accepted: list[Accepted] = []

    def start(self, post: Post) -> None:
        def heard(message: FromAcquisition) -> None:
            for event in message.events if isinstance(message, Happened) else ():
                if isinstance(event, Accepted):
                    self.accepted.append(event)
                    self._stand_in.expect(event)
            post(message)

        super().start(heard)

    def _let_the_disk_follow(self) -> None:
        """Without a clock the signal comes faster than any disk writes."""
        while not self._disk.hangs and (state := self._recording.recording) is not None and state.on:
            if state.n_waiting < QUEUE_BYTES // 4:
                return
            time.sleep(0.001)


class KeptLedger(FolderQueue):
    """The session's folder, of whose ledger the last line of each marker is kept."""

    def __init__(self, folder: SessionFolder) -> None:
        super().__init__(folder)
        self.last: dict[int, dict[str, Any]] = {}

    def ledger(self, entry: Mapping[str, Any]) -> None:
        if "ordinal" in entry:
            self.last[entry["ordinal"]] = dict(entry)
        super().ledger(entry)


class KeptResults:
    """What was decoded, by the marker's ordinal; see :class:`~..session.outputs.Outlet`."""

    def __init__(self) -> None:
        self.responses: dict[int, NDArray[np.float32]] = {}

    def push(self, decoded: DecodedEpoch, latency: float, at: float) -> None:
        self.responses[decoded.ordinal] = np.asarray(decoded.features.structure)[0]
