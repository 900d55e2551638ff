"""The amplifier of benchmarks/stream.py: a process that sends a signal and markers over LSL, and writes down when.

Channel 0 has the number of the sample, so that an epoch says itself which samples it holds. Nothing of ours is used.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pylsl

SFREQ = 1000.0
# No multiple of a chunk, so that markers fall on every place of one; epochs overlap.
FIRST_MARKER, MARKER_EVERY = 1000, 401
# Whole numbers that float32 holds exactly, so that a sample is known by its number: four and a half hours.
MOST_SAMPLES = 1 << 24
SIGNAL_NAME, MARKERS_NAME = "bench-signal", "bench-markers"


def send(n_channels: int, chunk: int, log: Path) -> None:
    """Send until standard input ends; `log` gets the local time of each sample's push, float64, 0 where none was."""
    signal = _signal(n_channels)
    markers = pylsl.StreamOutlet(
        pylsl.StreamInfo(MARKERS_NAME, "Markers", 1, pylsl.IRREGULAR_RATE, "int32", "bench-markers")
    )
    pushed = np.memmap(log, np.float64, "w+", shape=(MOST_SAMPLES,))
    values = np.random.default_rng(0).standard_normal((chunk, n_channels)).astype(np.float32)
    stamps = np.empty(chunk)
    error = pylsl.lib.lib.lsl_push_chunk_ftn
    pointers = values.ctypes.data_as(ctypes.c_void_p), stamps.ctypes.data_as(ctypes.c_void_p)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    start = pylsl.local_clock() + 0.5
    print(repr(start), flush=True)
    for first in range(0, MOST_SAMPLES - chunk, chunk):
        if stop.is_set():
            break
        numbers = np.arange(first, first + chunk)
        values[:, 0], stamps[:] = numbers, start + numbers / SFREQ
        wait = stamps[-1] - pylsl.local_clock()
        if wait > 0:
            time.sleep(wait)
        pushed[first : first + chunk] = pylsl.local_clock()
        error(signal.obj, pointers[0], ctypes.c_ulong(values.size), pointers[1])
        for number in numbers:
            if number >= FIRST_MARKER and (number - FIRST_MARKER) % MARKER_EVERY == 0:
                markers.push_sample([(int(number) - FIRST_MARKER) // MARKER_EVERY], float(start + number / SFREQ))
    pushed.flush()


def _signal(n_channels: int) -> pylsl.StreamOutlet:
    info = pylsl.StreamInfo(SIGNAL_NAME, "EEG", n_channels, SFREQ, "float32", "bench-signal")
    channels = info.desc().append_child("channels")
    for number in range(n_channels):
        about = channels.append_child("channel")
        for key, value in (("label", f"E{number}"), ("type", "EEG"), ("unit", "microvolts")):
            about.append_child_value(key, value)
    return pylsl.StreamOutlet(info)


def marker_sample(number: int) -> int:
    """The sample of a marker."""
    return FIRST_MARKER + number * MARKER_EVERY


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n_channels", type=int)
    parser.add_argument("chunk", type=int)
    parser.add_argument("log", type=Path)
    args = parser.parse_args()
    send(args.n_channels, args.chunk, args.log)
