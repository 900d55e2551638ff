"""Contestants timed in turn, A B C A B C …, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Work = Callable[[], Any]
Seconds = dict[str, list[float]]

# A sample is repeated until it lasts this long: below, the clock and the scheduler are what is measured.
SHORTEST_S = 0.05
# Idle threads of the contestant before still spin for a moment, on the cores that the next one needs.
PAUSE_S = 0.02


def interleaved(
    contestants: Mapping[str, Work],
    repeats: int,
    *,
    wait: Work = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], None] = time.sleep,
) -> Seconds:
    """Time each contestant `repeats` times, in turn.

    Parameters
    ----------
    contestants
        Name -> what to do. Each is called twice before anything is timed.
    repeats
        Samples of each.
    wait
        Called before and after each sample: on a GPU, what waits for the work that was queued.
    clock, pause
        Seconds; :func:`time.perf_counter` and :func:`time.sleep`.

    Returns
    -------
    dict
        Name -> seconds of one call in each sample.
    """
    calls = {}
    for name, work in contestants.items():
        work()
        calls[name] = max(1, math.ceil(SHORTEST_S / max(_sample(work, 1, wait, clock), 1e-9)))
    found: Seconds = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, work in contestants.items():
            pause(PAUSE_S)
            found[name].append(_sample(work, calls[name], wait, clock))
    return found


def _sample(work: Work, calls: int, wait: Work, clock: Callable[[], float]) -> float:
    wait()
    started = clock()
    for _ in range(calls):
        work()
    wait()
    return (clock() - started) / calls


def median_ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1e3


def speedup(seconds: Sequence[float], of: Sequence[float]) -> float:
    """How many times faster `seconds` are than `of`: the median of the ratios of neighbours in time."""
    return statistics.median(slow / fast for fast, slow in zip(seconds, of, strict=True))
