"""Who listens to a real ramp over LSL while things go wrong: every epoch that comes must hold the right samples.

Run as a program with seconds, inside a network namespace of its own, it takes the loopback down for that long.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.clock import now
from minddiffuser.streaming.intake.events import Accepted, Refused
from minddiffuser.streaming.intake.intake import Intake
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.lsl.play import PlayingProcess
from minddiffuser.streaming.lsl.ramp import STEP, ramp
from minddiffuser.streaming.records import Marker, Notice, Samples
from minddiffuser.streaming.sources import open_source
from minddiffuser.streaming.sources.base import Wanted

SFREQ, N_CHANNELS, FIRST, EVERY = 250.0, 4, 750, 125
TMIN, TMAX = -0.1, 0.4
# A test that hangs ends here.
PATIENCE = 120.0
_numbers = itertools.count()


def fresh() -> str:
    """A name that no other stream of this run has."""
    return f"chaos-{os.getpid()}-{next(_numbers)}"


def amplifier(name: str, **changes: Any) -> PlayingProcess:
    """A process that plays the ramp; a sample every 4 ms, a marker every half second."""
    given = {"n_channels": N_CHANNELS, "sfreq": SFREQ, "seconds": 600.0, "first_marker": FIRST, "marker_every": EVERY}
    return PlayingProcess(partial(ramp, **{**given, "name": name, "source_id": name, **changes}))


class Listener:
    """Source and intake, as a session's acquisition runs them, and books of what came."""

    def __init__(self, name: str) -> None:
        self.source = open_source(f"lsl:name={name},markers={name}-markers", Wanted(modality="eeg", timeout=60.0))
        info = self.source.open()
        channels = tuple(Channel(name=f"E{row}", type="eeg") for row in range(N_CHANNELS))
        chain = open_chain({"steps": [{"name": "epoch", "tmin": TMIN, "tmax": TMAX}]}, channels, SFREQ)
        self.intake = Intake(chain, IntakeSettings())
        self.intake.start(info)
        self.notices: list[tuple[float, Notice]] = []
        self.accepted: list[Accepted] = []
        self.refused: list[Refused] = []
        self.received: set[int] = set()
        self.n_samples = 0

    def until(self, enough: Callable[[], bool]) -> None:
        """Listen until there is enough."""
        end = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < end, f"not enough came: {self.said()}, {len(self.accepted)} epochs"
            self.once()

    def listen(self, seconds: float) -> None:
        """Listen for a time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.once()

    def more(self, n: int) -> Callable[[], bool]:
        """Whether so many epochs more came."""
        wanted = len(self.accepted) + n
        return lambda: len(self.accepted) >= wanted

    def heard(self, kind: str) -> Callable[[], bool]:
        """Whether one more notice of a kind came."""
        before = len(self.of(kind))
        return lambda: len(self.of(kind)) > before

    def of(self, kind: str) -> list[tuple[float, Notice]]:
        """The notices of a kind, and when they came."""
        return [one for one in self.notices if one[1].kind == kind]

    def said(self) -> list[str]:
        """The words of all notices."""
        return [notice.text for _, notice in self.notices]

    def once(self) -> None:
        """One step."""
        items = self.source.poll(0.05)
        at = now()
        self.received |= {item.ordinal for item in items if isinstance(item, Marker)}
        self.n_samples += sum(len(item.stamps) for item in items if isinstance(item, Samples))
        self.notices += [(at, item) for item in items if isinstance(item, Notice)]
        self._note(self.intake.step(items, at))

    def close(self) -> None:
        """End; then check that no epoch is wrong and that the books balance."""
        self._note(self.intake.finish(now()))
        state = self.intake.state(now())
        self.source.close()
        for epoch in self.accepted:
            first = FIRST + EVERY * int(epoch.text) + round(TMIN * SFREQ)
            expected = STEP * np.arange(N_CHANNELS)[:, None] + np.arange(first, first + epoch.data.shape[1])
            np.testing.assert_allclose(epoch.data * 1e6, expected, rtol=0, atol=0.4)
        closed = Counter([one.ordinal for one in (*self.accepted, *self.refused)])
        assert set(closed) == self.received
        assert set(closed.values()) <= {1}
        assert state.n_samples == self.n_samples
        assert state.n_used + state.n_duplicate + state.n_nan + state.n_unusable == state.n_samples

    def _note(self, events: Any) -> None:
        self.accepted += [event for event in events if isinstance(event, Accepted)]
        self.refused += [event for event in events if isinstance(event, Refused)]


def loopback(state: str) -> None:
    """Take it up or down."""
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def outage(seconds: float) -> dict[str, Any]:
    """The loopback is down for a time, while an amplifier on it is heard."""
    name = fresh()
    with amplifier(name):
        listener = Listener(name)
        listener.until(listener.more(2))
        silent, down = listener.heard("silent"), now()
        loopback("down")
        listener.listen(seconds)
        assert silent()
        loopback("up")
        listener.until(listener.more(3))
        texts = sorted(int(epoch.text) for epoch in listener.accepted)
        listener.close()
    return {
        "said_after": listener.of("silent")[0][0] - down,
        "missing": sorted(
            set(range(texts[0], texts[-1] + 1)) - set(texts) - {int(one.text) for one in listener.refused}
        ),
        "refused": [one.reason for one in listener.refused],
        "said": listener.said(),
    }


if __name__ == "__main__":
    loopback("up")
    sys.stdout.write(f"{json.dumps(outage(float(sys.argv[1])))}\n")
