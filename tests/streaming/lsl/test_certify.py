"""The figures of certify from items that were made by hand."""

import numpy as np
import pytest

from minddiffuser.streaming.lsl.certify import Load, measure
from minddiffuser.streaming.lsl.ramp import STEP
from minddiffuser.streaming.records import SIGNAL, ClockOffset, Item, Marker, Samples

LOAD = Load(n_channels=2, sfreq=100.0, chunk=4, seconds=0.1)


def samples(numbers: range, arrived: float) -> Samples:
    stamps = 50.0 + np.array(numbers) / 100
    data = STEP * np.arange(2)[:, None] + np.array(numbers, float)
    return Samples(stamps=stamps, data=data, arrived=arrived)


def test_a_sample_is_late_from_when_its_chunk_was_due() -> None:
    # Chunks end with samples 3, 7 and, as there are ten, 9: due at 50.03, 50.07 and 50.09.
    items: list[Item] = [
        ClockOffset(stream=SIGNAL, at=0.0, offset=1e-5, uncertainty=1e-4),
        ClockOffset(stream=SIGNAL, at=2.0, offset=-3e-4, uncertainty=1e-4),
        samples(range(0, 4), 50.031),
        samples(range(4, 8), 50.072),
        samples(range(8, 10), 50.093),
        Marker(ordinal=0, stamp=50.05, arrived=50.056, raw=b"0"),
    ]
    got = measure(LOAD, items, cpu=0.02)
    late = np.repeat([0.001, 0.002, 0.003], [4, 4, 2])
    assert got.p50 == pytest.approx(np.percentile(late, 50), abs=1e-9)
    assert got.p99 == pytest.approx(np.percentile(late, 99), abs=1e-9)
    assert (got.most, got.jitter) == pytest.approx((0.003, late.std()), abs=1e-9)
    assert got.marker_most == pytest.approx(0.006, abs=1e-9)
    assert (got.n_lost, got.offset, got.cpu) == (0, -3e-4, 0.02)
    assert [("clock" in why) for why in got.failures(bound=1.0)] == [True]
    assert len(got.failures(bound=0.0025)) == 2


def test_missing_and_wrong_samples_are_counted() -> None:
    wrong = samples(range(4, 8), 50.07)
    wrong.data[1, 2] += 1
    got = measure(LOAD, [samples(range(0, 4), 50.03), wrong], cpu=0.0)
    assert got.n_lost == 2 + 1
    assert "3 of 10 samples" in got.failures(bound=1.0)[0]


def test_markers_that_do_not_come_fail() -> None:
    load = Load(n_channels=2, sfreq=100.0, chunk=4, seconds=3.5)
    assert list(load.marked) == [50, 150, 250]
    items = [
        Marker(ordinal=0, stamp=50.5, arrived=50.501, raw=b"0"),
        Marker(ordinal=1, stamp=52.5, arrived=52.6, raw=b"2"),
    ]
    got = measure(load, [samples(range(350), 53.5), *items], cpu=0.0)
    assert (got.n_lost, got.n_markers_lost) == (0, 1)
    assert "1 of 3 markers did not come" in got.failures(bound=1e9)


def test_nothing_at_all_does_not_pass() -> None:
    got = measure(LOAD, [], cpu=0.0)
    assert got.n_lost == 10
    assert len(got.failures(bound=1e9)) == 2
