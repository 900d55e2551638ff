"""The ramp in real time, from another process by LSL: 20 of 20 epochs exact, and none shifted behind a pause."""

from __future__ import annotations

import os
import time
from functools import partial

import numpy as np
import pytest

from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.clock import now
from minddiffuser.streaming.intake.events import Accepted, Event, Refused
from minddiffuser.streaming.intake.intake import Intake
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.lsl.play import PlayingProcess
from minddiffuser.streaming.lsl.ramp import STEP, ramp
from minddiffuser.streaming.sources import open_source
from minddiffuser.streaming.sources.base import Wanted

N_MARKERS, N_TIMES = 20, 251
# A test that hangs ends here.
PATIENCE = 240.0


@pytest.mark.slow
@pytest.mark.parametrize("pauses", [(), ((6300, 1.0),)], ids=["whole", "with a pause"])
@pytest.mark.parametrize("chunk", [1, 10])
def test_every_epoch_is_exact(chunk: int, pauses: tuple[tuple[int, float], ...]) -> None:
    name = f"ramp-{os.getpid()}-{chunk}-{len(pauses)}"
    played = partial(ramp, seconds=44.0, chunk=chunk, name=name, source_id=name, pauses=pauses)
    events: list[Event] = []
    process = PlayingProcess(played, linger=20.0)
    try:
        process.wait_until_ready()
        source = open_source(f"lsl:name={name},markers={name}-markers", Wanted(modality="eeg", timeout=30.0))
        info = source.open()
        chain = open_chain({"steps": [{"name": "epoch", "tmin": -0.2, "tmax": 0.8}]}, info.channels, info.sfreq)
        # Seconds of a busy machine, in which a clock is measured less well.
        intake = Intake(chain, IntakeSettings(max_uncertainty=0.5), dtype=np.float64)
        intake.start(info)
        end = time.monotonic() + PATIENCE
        while sum(isinstance(event, Accepted | Refused) for event in events) < N_MARKERS and time.monotonic() < end:
            items = source.poll(0.05)
            events += intake.step(items, now())
        source.close()
    finally:
        process.stop()
    accepted = {int(event.text): event for event in events if isinstance(event, Accepted)}
    refused = {int(event.text): event.reason for event in events if isinstance(event, Refused)}
    assert sorted({*accepted, *refused}) == list(range(N_MARKERS))
    assert list(refused) == ([10] if pauses else [])
    for number, event in accepted.items():
        first = 1250 + 500 * number - 50
        expected = STEP * np.arange(len(event.data))[:, None] + np.arange(first, first + N_TIMES)
        # Microvolts times 1e-6: one rounding.
        np.testing.assert_array_equal(event.data, expected * 1e-6)
