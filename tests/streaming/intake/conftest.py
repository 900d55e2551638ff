"""An intake with three channels at 100 Hz, and a hand that feeds it: values say which sample they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.intake.events import Accepted, Event, Refused, Said
from minddiffuser.streaming.intake.intake import Intake
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, Marker, Notice, Samples, SignalInfo

SFREQ = 100.0
CHANNELS = tuple(Channel(name=name, type="eeg") for name in ("Cz", "Oz", "Pz"))
INFO = SignalInfo(name="amplifier", channels=CHANNELS, sfreq=SFREQ, units=("V",) * 3)
EPOCH = {"name": "epoch", "tmin": -0.1, "tmax": 0.3}


class Feed:
    """Sample i has the stamp 50 + i / 100 on its own clock, which is 1000 s behind; the markers' is 2000 s behind.

    Everything arrives 5 ms after it happened. Markers are placed by the signal's samples.
    """

    def __init__(self, steps: Sequence[dict[str, Any]] = (EPOCH,), info: SignalInfo = INFO, **given: Any) -> None:
        settings = {name: given.pop(name) for name in list(given) if name in IntakeSettings.__dataclass_fields__}
        settings.setdefault("gap", 0.0075)
        chain = open_chain({"steps": list(steps)}, CHANNELS, SFREQ)
        self.intake = Intake(chain, IntakeSettings(**settings), dtype=np.float64, **given)
        self.intake.start(info)
        self.events: list[Event] = []
        self.now = 1050.0
        self.ordinal = 0

    def clocks(self, signal: float = 1000.0, markers: float = 2000.0, uncertainty: float = 0.001) -> None:
        for stream, offset in ((SIGNAL, signal), (MARKERS, markers)):
            self.offset(stream, offset, uncertainty)

    def offset(self, stream: str, offset: float, uncertainty: float = 0.001) -> None:
        self.give(ClockOffset(stream=stream, at=self.now, offset=offset, uncertainty=uncertainty))

    def samples(
        self,
        start: int,
        stop: int,
        *,
        shift: float = 0.0,
        late: float = 0.0,
        values: NDArray[np.float64] | None = None,
    ) -> None:
        """Samples `start` to `stop`; `shift` is added to their stamps, and `late` to their arrival."""
        number = np.arange(start, stop)
        stamps = 50.0 + number / SFREQ + shift
        data = 1000.0 * np.arange(3)[:, None] + number if values is None else values
        self.now = max(self.now, 1050.0 + (stop - 1) / SFREQ + 0.005 + late)
        self.give(Samples(stamps=stamps, data=data, arrived=self.now))

    def marker(self, sample: float, raw: bytes = b"go", *, shift: float = 0.0) -> int:
        """A marker at a sample, on its own clock."""
        stamp = 1050.0 + sample / SFREQ - 2000.0 + shift
        self.give(Marker(ordinal=self.ordinal, stamp=stamp, arrived=self.now, raw=raw))
        self.ordinal += 1
        return self.ordinal - 1

    def notice(self, kind: str, stream: str = SIGNAL, info: SignalInfo | None = None) -> None:
        self.give(Notice(kind=kind, stream=stream, at=self.now, text=f"{stream} {kind}", info=info))

    def give(self, *items: Any) -> None:
        self.events += self.intake.step(items, self.now)

    def finish(self) -> None:
        self.events += self.intake.finish(self.now)

    @property
    def accepted(self) -> dict[int, int]:
        """Ordinal -> the sample that the epoch's numbers say its event is at."""
        found = {}
        for event in self.events:
            if isinstance(event, Accepted):
                start = int(event.data[0, 0])
                expected = 1000.0 * np.arange(3)[:, None] + np.arange(start, start + 41)
                np.testing.assert_array_equal(event.data, expected)
                found[event.ordinal] = start + 10
        return found

    @property
    def refused(self) -> dict[int, tuple[str, str]]:
        return {e.ordinal: (e.state, e.reason) for e in self.events if isinstance(e, Refused)}

    @property
    def said(self) -> list[str]:
        return [event.notice.text for event in self.events if isinstance(event, Said)]

    def check_books(self) -> None:
        """Every marker in one state, every sample in one count."""
        ordinals = [event.ordinal for event in self.events if isinstance(event, Accepted | Refused)]
        state = self.intake.state(self.now)
        assert len(set(ordinals)) == len(ordinals)
        assert len(ordinals) + state.n_waiting == self.ordinal
        assert state.n_used + state.n_duplicate + state.n_nan + state.n_unusable == state.n_samples


@pytest.fixture
def feed() -> type[Feed]:
    """The class; a test makes its own."""
    return Feed
