"""The contestants of benchmarks/stream.py: each receives the sender's streams, cuts epochs, and says when it had them.

`python stream_readers.py NAME SECONDS` prints one line of JSON: when it was ready and when it stopped, and for each
epoch the local time at which the program had it, the sample at the event's place (null where filters have changed the
numbers), and the last sample in it. CPU is of the whole process between the two moments, the memory that it has at the
end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pylsl
from stream_sender import MARKERS_NAME, SFREQ, SIGNAL_NAME, marker_sample

TMIN, TMAX = -0.1, 0.6
FIRST, LAST = round(TMIN * SFREQ), round(TMAX * SFREQ)
# Of the decoder's chain: what a band-pass and a decimation cost.
BAND, DECIMATION = (0.5, 40.0), 4
Epoch = tuple[float, int | None, int]


class Report:
    """What a contestant found, and what it used."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.epochs: list[Epoch] = []
        self.ready = 0.0

    def begin(self) -> None:
        """Everything is connected and settled: from now on it counts."""
        self.ready, self._cpu = pylsl.local_clock(), _cpu()

    @property
    def running(self) -> bool:
        return not self.ready or pylsl.local_clock() < self.ready + self._seconds

    def finish(self) -> None:
        """Print it, and leave without waiting for threads."""
        stopped, cpu = pylsl.local_clock(), _cpu() - self._cpu
        about = {
            "ready": self.ready,
            "stopped": stopped,
            "epochs": self.epochs,
            "cpu_share": cpu / (stopped - self.ready),
            "memory_mb": _memory_mb(),
        }
        print(json.dumps(about), flush=True)
        os._exit(0)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory_mb() -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def _inlet(name: str, **options: Any) -> pylsl.StreamInlet:
    found = pylsl.resolve_byprop("name", name, timeout=10)
    inlet = pylsl.StreamInlet(found[0], **options)
    inlet.open_stream(10)
    return inlet


def plain_loop(report: Report) -> None:
    """What one writes in a quarter of an hour: a blocking pull, a ring, and a slice by the nearest stamp."""
    signal, markers = _inlet(SIGNAL_NAME, max_buflen=10), _inlet(MARKERS_NAME)
    n_channels = signal.channel_count
    capacity = 4 * round(SFREQ)
    ring, stamps, total, waiting = np.zeros((capacity, n_channels), np.float32), np.zeros(capacity), 0, []
    report.begin()
    while report.running:
        values, times = signal.pull_chunk(timeout=0.1, max_samples=512, min_samples=1, as_numpy=True)
        for value, stamp in zip(*markers.pull_chunk(timeout=0.0, max_samples=32), strict=True):
            waiting.append((int(value[0]), stamp))
        if not len(times):
            continue
        columns = (total + np.arange(len(times))) % capacity
        ring[columns], stamps[columns] = values, times
        total += len(times)
        newest = times[-1]
        for marker in list(waiting):
            if newest >= marker[1] + LAST / SFREQ - 0.5 / SFREQ:
                waiting.remove(marker)
                held = (total - min(total, capacity) + np.arange(min(total, capacity))) % capacity
                place = int(np.abs(stamps[held] - marker[1]).argmin())
                if place + FIRST < 0:  # its epoch began before we listened
                    continue
                epoch = ring[held[place + FIRST : place + LAST + 1]]
                report.epochs.append((pylsl.local_clock(), int(epoch[-FIRST, 0]), int(epoch[-1, 0])))
    report.finish()


def epochs_stream(report: Report, acquisition: float = 0.001, poll: float = 0.0005) -> None:
    """mne-lsl's EpochsStream on numeric markers, without processing flags, which would shift epochs."""
    from mne_lsl import set_log_level
    from mne_lsl.stream import EpochsStream, StreamLSL

    set_log_level("ERROR")
    signal = StreamLSL(2, name=SIGNAL_NAME).connect(acquisition_delay=acquisition, processing_flags=None, timeout=10)
    markers = StreamLSL(16, name=MARKERS_NAME).connect(acquisition_delay=acquisition, processing_flags=None, timeout=10)
    epochs = EpochsStream(
        signal,
        8,
        event_id=None,
        event_channels=markers.ch_names,
        event_stream=markers,
        tmin=TMIN,
        tmax=TMAX,
        baseline=None,
    ).connect(acquisition_delay=acquisition)
    report.begin()
    while report.running:
        n_new = epochs.n_new_epochs
        if n_new:
            data = epochs.get_data(n_epochs=n_new)
            at = pylsl.local_clock()
            report.epochs += [(at, int(epoch[0, -FIRST]), int(epoch[0, -1])) for epoch in data]
        time.sleep(poll)
    report.finish()


def ours(report: Report, *, filtered: bool) -> None:
    """md-stream's source and intake, as its acquisition process runs them."""
    from minddiffuser.runtime.signal.chain import open_chain
    from minddiffuser.runtime.signal.filters import design_filter
    from minddiffuser.streaming.clock import now
    from minddiffuser.streaming.intake.events import Accepted
    from minddiffuser.streaming.intake.intake import Intake
    from minddiffuser.streaming.intake.settings import IntakeSettings
    from minddiffuser.streaming.sources import open_source
    from minddiffuser.streaming.sources.base import Wanted

    source = open_source(f"lsl:name={SIGNAL_NAME},markers={MARKERS_NAME}", Wanted(modality="eeg"))
    info = source.open()
    steps: list[dict[str, Any]] = [{"name": "epoch", "tmin": TMIN, "tmax": TMAX}]
    if filtered:
        before = [*design_filter(SFREQ, *BAND, causal=True), {"name": "decimate", "factor": DECIMATION}]
        steps = [*before, *steps, {"name": "baseline", "tmin": TMIN, "tmax": 0.0}]
    intake = Intake(open_chain({"steps": steps}, info.channels, info.sfreq), IntakeSettings(), dtype=np.float32)
    intake.start(info)
    while report.running:
        items = source.poll(0.1)
        events = intake.step(items, now())
        at = now()
        for event in events:
            if isinstance(event, Accepted):
                sample = marker_sample(int(event.text))
                zero = None if filtered else round(float(event.data[0, -FIRST]) * 1e6)
                report.epochs.append((at, zero, (sample if zero is None else zero) + LAST))
        if not report.ready and not intake.state(now()).warm_up_left:
            report.begin()
    source.close()
    report.finish()


READERS: Mapping[str, Callable[[Report], None]] = {
    "md-stream": lambda report: ours(report, filtered=False),
    "md-stream, filter and decimation": lambda report: ours(report, filtered=True),
    "EpochsStream, 1 ms": epochs_stream,
    "EpochsStream, 5 ms": lambda report: epochs_stream(report, acquisition=0.005, poll=0.002),
    "plain pylsl loop": plain_loop,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=READERS)
    parser.add_argument("seconds", type=float)
    args = parser.parse_args()
    READERS[args.name](Report(args.seconds))
