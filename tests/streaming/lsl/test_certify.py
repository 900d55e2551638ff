"""The figures of certify from items that were made by hand."""

import tracemalloc

import numpy as np
import pytest

from minddiffuser.streaming.lsl.certify import Load, Measured, Meter
from minddiffuser.streaming.lsl.ramp import STEP
from minddiffuser.streaming.records import SIGNAL, ClockOffset, Item, Marker, Samples

LOAD = Load(n_channels=2, sfreq=100.0, chunk=4, seconds=0.1)


def measure(load: Load, items: list[Item], cpu: float) -> Measured:
    meter = Meter(load)
    for item in items:
        meter.add([item])
    return meter.measured(cpu)


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
    assert got.p50 == pytest.approx(np.percentile(late, 50), rel=1e-3)
    assert got.p99 == pytest.approx(np.percentile(late, 99), rel=1e-3)
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


def test_a_sample_that_comes_again_makes_up_for_none_that_is_missing() -> None:
    got = measure(LOAD, [samples(range(4), 50.03), samples(range(2, 5), 50.05), samples(range(6, 10), 50.09)], cpu=0.0)
    assert got.n_lost == 1


@pytest.mark.parametrize("scale", [1e-5, 2e-3, 30.0])
def test_figures_of_many_samples_are_those_of_all_of_them(scale: float, rng: np.random.Generator) -> None:
    """To a thousandth, from microseconds to minutes; and some come before they are due, by an error of the clock."""
    load = Load(n_channels=1, sfreq=1000.0, chunk=1, seconds=5.0)
    late = np.sort(rng.exponential(scale, 5000)) - 0.1 * scale
    meter = Meter(load)
    for number, wait in enumerate(rng.permutation(late)):
        stamp = 50.0 + number / 1000
        meter.add([Samples(stamps=np.array([stamp]), data=np.array([[float(number)]]), arrived=stamp + wait)])
    got = meter.measured(0.0)
    for share, figure in ((50, got.p50), (95, got.p95), (99, got.p99)):
        assert figure == pytest.approx(np.percentile(late, share), rel=2e-3, abs=2e-6)
    assert (got.most, got.jitter) == pytest.approx((late.max(), late.std()), rel=1e-6)
    assert got.n_lost == 0


def test_memory_does_not_grow_with_the_seconds() -> None:
    load = Load(n_channels=64, sfreq=1000.0, chunk=10, seconds=60.0)
    meter = Meter(load)
    rows = STEP * np.arange(64)[:, None]

    def give(blocks: range) -> None:
        for block in blocks:
            numbers = 50.0 * block + np.arange(50)
            meter.add([Samples(stamps=numbers / 1000, data=rows + numbers, arrived=numbers[-1] / 1000 + 0.001)])

    give(range(100))
    tracemalloc.start()
    give(range(100, 1200))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert meter.measured(0.0).n_lost == 0
    assert kept < 1_000_000  # its samples are 28 MB
