"""Hours of signal over LSL at several times their speed, by explicit stamps: what is held must not grow.

`python tests/soak.py --hours 8 --speed 10` prints the figures; the sender is this file in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.clock import now
from minddiffuser.streaming.intake.events import Accepted, Refused
from minddiffuser.streaming.intake.intake import Intake
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.ledger import Ledger
from minddiffuser.streaming.lsl.outlet import MarkerOutlet, SignalOutlet
from minddiffuser.streaming.records import Marker, Samples, SignalInfo
from minddiffuser.streaming.sources import open_source
from minddiffuser.streaming.sources.base import Wanted

SFREQ, N_CHANNELS, CHUNK, EVERY = 250.0, 8, 25, 125
STEP = 100_000
TMIN, TMAX = -0.1, 0.4


def ramp(first: int, n: int) -> np.ndarray:
    return STEP * np.arange(N_CHANNELS)[:, None] + np.arange(first, first + n, dtype=np.float64)


def info(name: str) -> SignalInfo:
    channels = tuple(Channel(name=f"E{row}", type="eeg") for row in range(N_CHANNELS))
    return SignalInfo(name=name, channels=channels, sfreq=SFREQ, units=("V",) * N_CHANNELS, source_id=name)


def held() -> dict[str, float]:
    """What this process holds: MB of memory, open files, threads."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"mb": memory / 1024, "files": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}


class Books:
    """Epochs are compared as they come and let go; markers go through the ledger, samples are counted."""

    def __init__(self) -> None:
        chain = open_chain({"steps": [{"name": "epoch", "tmin": TMIN, "tmax": TMAX}]}, info("").channels, SFREQ)
        self.intake = Intake(chain, IntakeSettings(), dtype=np.float64)
        self.ledger = Ledger()
        self.n_samples = self.n_wrong = self.n_unbalanced = 0

    def step(self, items: Any, at: float) -> None:
        for item in items:
            if isinstance(item, Marker):
                self.ledger.receive(item.ordinal, item.text, item.arrived)
            elif isinstance(item, Samples):
                self.n_samples += len(item.stamps)
        self._take(self.intake.step(items, at))
        self.n_unbalanced += not self.ledger.totals().balanced

    def finish(self, at: float) -> None:
        self._take(self.intake.finish(at))

    def _take(self, events: Any) -> None:
        for event in events:
            if isinstance(event, Accepted):
                first = int(event.text) + round(TMIN * SFREQ)
                self.n_wrong += not np.array_equal(event.data, ramp(first, event.data.shape[1]))
                self.ledger.settle(event.ordinal, "decoded")
            elif isinstance(event, Refused):
                self.ledger.settle(event.ordinal, event.state, event.reason)

    def figures(self) -> dict[str, Any]:
        """All sums at the end."""
        state, totals = self.intake.state(0.0), self.ledger.totals()
        return {
            "samples": self.n_samples,
            "accounted": state.n_used + state.n_duplicate + state.n_nan + state.n_unusable,
            "used": state.n_used,
            "markers": totals.received,
            "states": dict(totals.states),
            "wrong": self.n_wrong,
            "unbalanced": self.n_unbalanced,
        }


def send(name: str, seconds: float, speed: float) -> None:
    """Send the ramp; its stamps end when the sending does, and begin as long ago as the signal lasts."""
    signal, markers = (
        SignalOutlet(info(name), type="EEG", format="double64"),
        MarkerOutlet(f"{name}-markers", name + "-m"),
    )
    signal.wait_for_consumers(60.0)
    markers.wait_for_consumers(60.0)
    n, begun = round(seconds * SFREQ), now()
    zero = begun + seconds / speed - seconds
    for first in range(0, n, CHUNK):
        count = min(CHUNK, n - first)
        wait = begun + (first + count) / SFREQ / speed - now()
        if wait > 0:
            time.sleep(wait)
        signal.push(ramp(first, count), zero + np.arange(first, first + count) / SFREQ)
        for number in range(first + (-first % EVERY), first + count, EVERY):
            markers.push(b"%d" % number, zero + number / SFREQ)
    said({"samples": n, "markers": len(range(0, n, EVERY))})
    sys.stdin.read()


def said(figures: dict[str, Any]) -> None:
    """One line of JSON."""
    sys.stdout.write(f"{json.dumps(figures)}\n")
    sys.stdout.flush()


def soak(hours: float, speed: float) -> dict[str, Any]:
    """Receive so many hours of signal, and say what came and what was held every twentieth of the time."""
    name, seconds = f"soak-{os.getpid()}", hours * 3600
    command = [sys.executable, __file__, "--send", name, "--hours", str(hours), "--speed", str(speed)]
    sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sender.stdin is not None
    assert sender.stdout is not None
    books, samples = Books(), []
    source = open_source(f"lsl:name={name},markers={name}-markers", Wanted(modality="eeg", timeout=60.0))
    try:
        books.intake.start(source.open())
        n_due, every, heard = round(seconds * SFREQ), seconds / 20, 0.0
        last = now()
        while books.n_samples < n_due and now() < last + 30.0:
            items = source.poll(0.1)
            books.step(items, now())
            last = now() if items else last
            if books.n_samples / SFREQ >= heard:
                heard += every
                samples.append(held())
        for _ in range(10):
            books.step(source.poll(0.05), now())
        books.finish(now())
    finally:
        source.close()
        sender.stdin.close()
        sent = json.loads(sender.stdout.readline() or "{}")
        sender.wait()
    return {"sent": sent, **books.figures(), "held": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--speed", type=float, default=10.0)
    parser.add_argument("--send", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send:
        send(args.send, args.hours * 3600, args.speed)
    else:
        said(soak(args.hours, args.speed))


if __name__ == "__main__":
    main()
