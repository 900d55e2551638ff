"""Long signals: nothing grows, and the books balance to the sample."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from soak import CHUNK, EVERY, SFREQ, Books, held, info, ramp, soak

from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Samples

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
# What Python's allocator and numpy may keep more of, in MB; an epoch a second that were held would be ten times this.
SLACK_MB = 4.0
# Markers of the first seconds at ten times their speed: stamps so old are said to be on no clock of LSL, which is
# measured again two seconds later.
_UNSETTLED = 60


def check(found: dict[str, Any], n_samples: int, n_markers: int, n_without: int) -> None:
    assert found["samples"] == found["accounted"] == found["used"] == n_samples
    assert found["markers"] == n_markers == sum(found["states"].values())
    assert found["states"]["pending"] == found["wrong"] == found["unbalanced"] == 0
    assert found["states"]["decoded"] >= n_markers - n_without


@needs_proc
def test_ten_minutes_step_by_step() -> None:
    books = Books()
    books.intake.start(info("steps"))
    n, zero, ordinal, kept = round(600 * SFREQ), 5000.0, 0, []
    for first in range(0, n, CHUNK):
        at = zero + (first + CHUNK) / SFREQ
        items: list[Item] = []
        if first % 500 == 0:
            items += [ClockOffset(stream=name, at=at, offset=0.0, uncertainty=1e-4) for name in (SIGNAL, MARKERS)]
        stamps = zero + np.arange(first, first + CHUNK) / SFREQ
        items.append(Samples(stamps=stamps, data=ramp(first, CHUNK), arrived=at))
        for number in range(first + (-first % EVERY), first + CHUNK, EVERY):
            items.append(Marker(ordinal=ordinal, stamp=zero + number / SFREQ, arrived=at, raw=b"%d" % number))
            ordinal += 1
        books.step(items, at)
        if (first + CHUNK) % round(60 * SFREQ) == 0:
            kept.append(held())
    books.finish(at)
    # One epoch begins before the signal, four while the jitter of its stamps is learnt, and one does not end.
    check(books.figures(), n, ordinal, 6)
    assert kept[-1]["mb"] - kept[2]["mb"] < SLACK_MB
    assert {one["files"] for one in kept} == {kept[0]["files"]}
    assert {one["threads"] for one in kept} == {kept[0]["threads"]}


def _flat(found: dict[str, Any]) -> None:
    third = found["held"][len(found["held"]) // 3]
    for now in found["held"][len(found["held"]) // 3 :]:
        assert now["mb"] - third["mb"] < 2 * SLACK_MB
        assert (now["files"], now["threads"]) == (third["files"], third["threads"])


@needs_proc
@pytest.mark.chaos
def test_five_minutes_over_lsl_at_ten_times_their_speed() -> None:
    found = soak(5 / 60, 10.0)
    check(found, found["sent"]["samples"], found["sent"]["markers"], _UNSETTLED)
    _flat(found)


@needs_proc
@pytest.mark.soak
def test_eight_hours_over_lsl_at_ten_times_their_speed() -> None:
    found = soak(8.0, 10.0)
    check(found, found["sent"]["samples"], found["sent"]["markers"], _UNSETTLED)
    _flat(found)
