"""The contestants of benchmarks/stream.py: each receives the sender's streams, cuts epochs, and says when it had them.

`python stream_readers.py NAME SECONDS` prints one line of JSON: when it was ready and when it stopped, and for each
epoch the local time at which the program had it, the sample at the event's place (null where filters have changed the
numbers), the last sample in it, and the local time at which features were decoded from it (null where none are). CPU is
of the process that receives between the two moments, the memory that it has at the end; what another process of the
same contestant takes besides stands apart.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
from stream_sender import MARKERS_NAME, SFREQ, SIGNAL_NAME, marker_sample

TMIN, TMAX = -0.1, 0.6
FIRST, LAST = round(TMIN * SFREQ), round(TMAX * SFREQ)
# Of the decoder's chain: what a band-pass and a decimation cost.
BAND, DECIMATION = (0.5, 40.0), 4
# By how much what decodes yields to acquisition in md-stream run.
NICENESS = 5
# Of the decoder behind md-stream: so many numbers, each a weighted sum of so many of an epoch's values.
N_FEATURES, N_VALUES = 4000, 200
Epoch = tuple[float, int | None, int, float | None]


class Report:
    """What a contestant found, and what it used; `receiver` is the process that receives, where it is not this one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.receiver: int | None = None
        self.epochs: list[Epoch] = []
        self.ready = 0.0

    def begin(self) -> None:
        """Everything is connected and settled: from now on it counts."""
        self.ready, self._used = pylsl.local_clock(), self._cpu()

    @property
    def running(self) -> bool:
        return not self.ready or pylsl.local_clock() < self.ready + self._seconds

    def finish(self) -> None:
        """Print it, and leave without waiting for threads."""
        stopped, used = pylsl.local_clock(), self._cpu()
        receiving, beside = (
            (now - before) / (stopped - self.ready) for now, before in zip(used, self._used, strict=True)
        )
        about = {
            "ready": self.ready,
            "stopped": stopped,
            "epochs": self.epochs,
            "cpu_share": receiving,
            "memory_mb": _memory_mb(self.receiver or os.getpid()),
            "beside_cpu_share": None if self.receiver is None else beside,
            "beside_memory_mb": None if self.receiver is None else _memory_mb(os.getpid()),
        }
        print(json.dumps(about), flush=True)
        os._exit(0)

    def _cpu(self) -> tuple[float, float]:
        """Seconds of the process that receives, and of this one where that is another."""
        own = _cpu(os.getpid())
        return (own, 0.0) if self.receiver is None else (_cpu(self.receiver), own)


def _cpu(pid: int) -> float:
    """Of all threads of a process, to a microsecond or so where the system counts that finely."""
    threads = Path(f"/proc/{pid}/task")
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads.iterdir()) / 1e9


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


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
                report.epochs.append((pylsl.local_clock(), int(epoch[-FIRST, 0]), int(epoch[-1, 0]), None))
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
            report.epochs += [(at, int(epoch[0, -FIRST]), int(epoch[0, -1]), None) for epoch in data]
        time.sleep(poll)
    report.finish()


def ours(report: Report, *, filtered: bool) -> None:
    """A session as ``md-stream run`` has it: acquisition in a process of its own, and here the decoder and the books.

    An epoch is there when the decoder's thread is given it, behind the pipe.
    """
    from minddiffuser.runtime.data.layout import Channel
    from minddiffuser.runtime.signal.chain import open_chain
    from minddiffuser.runtime.signal.filters import design_filter
    from minddiffuser.streaming.clock import now
    from minddiffuser.streaming.dashboard.messages import Session
    from minddiffuser.streaming.decoding.decode import DecodeSettings
    from minddiffuser.streaming.intake.settings import IntakeSettings
    from minddiffuser.streaming.session.acquisition import AcquisitionSettings
    from minddiffuser.streaming.session.live import LiveSession
    from minddiffuser.streaming.session.outputs import Outputs
    from minddiffuser.streaming.session.process import AcquisitionProcess
    from minddiffuser.streaming.session.settings import LiveSettings
    from minddiffuser.streaming.sources.base import Wanted

    steps: list[dict[str, Any]] = [{"name": "epoch", "tmin": TMIN, "tmax": TMAX}]
    if filtered:
        before = [*design_filter(SFREQ, *BAND, causal=True), {"name": "decimate", "factor": DECIMATION}]
        steps = [*before, *steps, {"name": "baseline", "tmin": TMIN, "tmax": 0.0}]
    n_channels = pylsl.resolve_byprop("name", SIGNAL_NAME, timeout=10)[0].channel_count()
    channels = tuple(Channel(name=f"E{number}", type="eeg") for number in range(n_channels))
    chain = open_chain({"steps": steps}, channels, SFREQ)
    process = AcquisitionProcess(
        AcquisitionSettings(
            source=f"lsl:name={SIGNAL_NAME},markers={MARKERS_NAME}",
            wanted=Wanted(modality="eeg"),
            layout=chain.layout,
            training=None,
            folder=Path(),
            intake=IntakeSettings(),
        )
    )
    report.receiver = process.pid
    os.nice(NICENESS)
    heard = _Heard(process, report, filtered=filtered)
    session = LiveSession(
        [LinearDecoder(chain.layout)],  # type: ignore[list-item]
        heard,
        LiveSettings(decode=DecodeSettings(session="bench", semantic=False), pictures=False),
        Session(bundle="bench", source=SIGNAL_NAME, modality="eeg"),
        Outputs(outlet=heard),
        now=now,
    )
    threading.Thread(target=session.run, daemon=True).start()
    while report.running:
        time.sleep(0.05)
    report.epochs = heard.epochs()
    report.finish()


class _Heard:
    """The acquisition's messages on their way to the session, and the session's results."""

    def __init__(self, process: Any, report: Report, *, filtered: bool) -> None:
        self._process, self._report, self._filtered = process, report, filtered
        self._given: dict[int, tuple[float, int | None, int]] = {}
        self._decoded: dict[int, float] = {}
        self.stop, self.close = process.stop, process.close

    def start(self, post: Callable[[Any], None]) -> None:
        from minddiffuser.streaming.intake.events import Accepted
        from minddiffuser.streaming.session.acquisition import Happened, Stands

        def hear(message: Any) -> None:
            at = pylsl.local_clock()
            post(message)  # to the decoder's queue, in this thread
            for event in message.events if isinstance(message, Happened) else ():
                if isinstance(event, Accepted):
                    sample = marker_sample(int(event.text))
                    zero = None if self._filtered else round(float(event.data[0, -FIRST]) * 1e6)
                    self._given[event.ordinal] = (at, zero, (sample if zero is None else zero) + LAST)
            if isinstance(message, Stands) and not self._report.ready and not message.intake.warm_up_left:
                self._report.begin()

        self._process.start(hear)

    def push(self, decoded: Any, latency: float, at: float) -> None:
        """See the session's outlet: `at` is when the features were there."""
        self._decoded[decoded.ordinal] = at

    def epochs(self) -> list[Epoch]:
        return [(*given, self._decoded.get(ordinal)) for ordinal, given in list(self._given.items())]


class LinearDecoder:
    """As a bundle's linear decoder computes: for each number of the features some values of the epoch, weighted."""

    candidates = None

    def __init__(self, layout: Any) -> None:
        from minddiffuser.runtime.decoders.scale import TrainingStatistics

        rng = np.random.default_rng(0)
        n_values = int(np.prod(layout.shape))
        self._index = rng.integers(n_values, size=(N_FEATURES, N_VALUES))
        self._weight = rng.standard_normal((N_FEATURES, N_VALUES)).astype(np.float32)
        # Values that did not vary in training: nothing here is an artefact.
        still = np.zeros(layout.shape, np.float32)
        self.training = TrainingStatistics(mean=still, std=still, layout=layout)

    @property
    def decoder(self) -> LinearDecoder:
        return self

    def decode(self, responses: Any, *, semantic: bool = True) -> Any:
        from minddiffuser.runtime.decoders.belonging import Decoded

        found = np.einsum("fv,fv->f", responses.reshape(-1)[self._index], self._weight)[None]
        return Decoded(context=found, latent=found, structure=found)


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
