"""Which markers become epochs, where they are placed, and why the others are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset


def test_markers_before_after_late_twice_and_out_of_order(feed: Any) -> None:
    one = feed()
    one.clocks()
    first = one.marker(150)  # before its samples
    one.samples(0, 300)
    late = one.marker(120)  # behind all samples of its epoch, and before the first one
    twice = [one.marker(200), one.marker(200)]
    one.samples(300, 400)
    assert one.accepted == {first: 150, late: 120, twice[0]: 200, twice[1]: 200}
    assert one.refused == {}
    one.check_books()


@pytest.mark.parametrize(("between", "sample"), [(150.0, 150), (150.4, 150), (150.6, 151), (149.5, 149), (150.5, 150)])
def test_a_marker_counts_at_the_nearest_sample_of_two_at_the_earlier(feed: Any, between: float, sample: int) -> None:
    """Half a sample is 5 ms, of which float64 holds less than half at these times, as it happens or more."""
    one = feed()
    one.clocks()
    one.samples(0, 200)
    number = one.marker(between, shift=-1e-9)
    one.samples(200, 300)
    assert one.accepted == {number: sample}


def test_an_epoch_comes_with_its_last_sample_and_not_before(feed: Any) -> None:
    one = feed()
    one.clocks()
    one.marker(150)
    for sample in range(0, 180):
        one.samples(sample, sample + 1)
    assert one.accepted == {}
    one.samples(180, 181)
    assert one.accepted == {0: 150}
    times = one.events[-1].times
    assert times.marker == pytest.approx(1051.5, abs=1e-9)
    assert times.epoch_end == pytest.approx(1051.8, abs=1e-9)
    assert times.ready == pytest.approx(1051.805, abs=1e-9)
    assert times.sample_age == pytest.approx(0.005, abs=1e-9)
    assert times.marker_arrived == 1050.0
    assert (times.offset, times.uncertainty) == (1000.0, 0.002)


def test_a_marker_that_comes_too_late_is_refused(feed: Any) -> None:
    one = feed(late=2.0)
    one.clocks()
    one.samples(0, 381)
    good = one.marker(150)  # its epoch ends at 180: two seconds ago
    one.samples(381, 383)
    bad = one.marker(150)
    one.samples(383, 500)
    assert one.accepted == {good: 150}
    assert one.refused == {bad: ("refused", "the marker came more than 2 s after its epoch: its samples are gone")}


def test_markers_at_the_edges_of_the_session(feed: Any) -> None:
    one = feed()
    one.clocks()
    early, touching, first, last, beyond = (one.marker(sample) for sample in (-5, 9, 10, 369, 390))
    one.samples(0, 400)
    one.finish()
    assert one.accepted == {first: 10, last: 369}
    assert one.refused == {
        early: ("refused", "the marker came before the signal's first sample"),
        touching: ("refused", "the epoch begins before the signal's first sample"),
        beyond: ("refused", "the session ended before the epoch did"),
    }
    one.check_books()


def test_what_is_no_event_is_skipped(feed: Any) -> None:
    one = feed(events=("stim/*", "4?"))
    one.clocks()
    good = [one.marker(100, b"stim/cat"), one.marker(120, b"42"), one.marker(140, b"stim/\xff")]
    bad = [one.marker(160, b"stop"), one.marker(160, b"427"), one.marker(160, b""), one.marker(160, b"s" * 1_000_000)]
    one.samples(0, 300)
    assert sorted(one.accepted) == good
    reasons = [one.refused[number] for number in bad]
    assert {state for state, _ in reasons} == {"skipped"}
    assert reasons[0][1] == "it is none of this session's events, 'stim/*', '4?'"
    assert reasons[2][1] == "the marker is empty"
    assert reasons[3][1] == "the marker is 1,000,000 bytes long, and events have at most 4,096"
    texts = {event.ordinal: event.text for event in one.events}
    assert texts[good[2]] == "stim/\ufffd"
    assert len(texts[bad[3]]) == 200
    one.check_books()


def test_a_marker_without_a_time_or_on_a_foreign_clock_is_refused(feed: Any) -> None:
    one = feed()
    one.clocks()
    one.samples(0, 50)
    lost, foreign = one.marker(np.nan), one.marker(100, shift=1.7e9)
    one.samples(50, 200)
    assert one.refused[lost] == ("refused", "the marker's time is nan")
    assert "after its arrival: its clock was not compared with this computer's" in one.refused[foreign][1]
    one.check_books()


def test_a_flood_is_cut_off_and_counted(feed: Any) -> None:
    one = feed(most_waiting=100)
    one.clocks()
    one.samples(0, 100)
    for _ in range(150):
        one.marker(110)
    assert len(one.refused) == 50
    assert one.refused[149] == ("refused", "100 markers wait for their epochs already")
    one.samples(100, 200)
    assert len(one.accepted) == 100
    one.check_books()


def test_an_epoch_s_own_values_reject_it(feed: Any) -> None:
    values = 1e-6 * np.random.default_rng(0).standard_normal((3, 300))
    values[1, 150] = 3e-4
    limits = {"name": "reject", "peak_to_peak": {"eeg": 2e-4}}
    one = feed([{"name": "epoch", "tmin": -0.1, "tmax": 0.3}, limits])
    one.clocks()
    good, bad = one.marker(100), one.marker(130)
    one.samples(0, 300, values=values)
    assert [event.ordinal for event in one.events if hasattr(event, "data")] == [good]
    state, reason = one.refused[bad]
    assert state == "rejected"
    assert reason.startswith("peak to peak above 0.0002 V (eeg)")
    assert reason.endswith("in Oz")


UPTIME = 100_000.0
"""Seconds by which the stamps before a reboot are ahead of those after it."""


def rebooted(one: Any) -> None:
    """The computer of signal and markers runs for a day, is switched off behind sample 200, and on before 300."""
    one.clocks(signal=1000.0 - UPTIME, markers=2000.0 - UPTIME)
    one.samples(0, 200, shift=UPTIME)
    for stream in (SIGNAL, MARKERS):
        one.notice("lost", stream)
    one.now += 1.0


def test_markers_after_a_reboot_are_those_of_the_new_clock(feed: Any) -> None:
    """Its stamps begin anew, a day before those of its last sample: that makes no marker late."""
    one = feed()
    rebooted(one)
    for stream, offset in ((MARKERS, 2000.0), (SIGNAL, 1000.0)):
        one.notice("recovered", stream)
        one.offset(stream, offset)
    inside, early, good = one.marker(250), one.marker(305), one.marker(350)  # before any sample of the new process
    one.samples(300, 400)
    one.finish()
    assert one.accepted == {good: 350}
    assert one.refused == {
        inside: ("refused", "the marker falls into a break in the signal: signal recovered"),
        early: ("refused", "the epoch touches a break in the signal: signal recovered"),
    }
    one.check_books()


def test_markers_before_a_reboot_stay_on_the_clock_of_then(feed: Any) -> None:
    """They still wait for their samples when the new clock is measured."""
    one = feed()
    one.clocks(signal=1000.0 - UPTIME, markers=2000.0 - UPTIME)
    one.samples(0, 180, shift=UPTIME)
    touching, beyond = one.marker(175, shift=UPTIME), one.marker(185, shift=UPTIME)
    for stream in (SIGNAL, MARKERS):
        one.notice("lost", stream)
    one.now += 1.0
    for stream, offset in ((MARKERS, 2000.0), (SIGNAL, 1000.0)):
        one.notice("recovered", stream)
        one.offset(stream, offset)
    one.samples(300, 400)
    one.finish()
    assert one.accepted == {}
    assert one.refused == {
        touching: ("refused", "the epoch touches a break in the signal: signal recovered"),
        beyond: ("refused", "the marker falls into a break in the signal: signal recovered"),
    }
    one.check_books()


def test_a_marker_that_is_late_on_the_new_clock_is_said_to_be_late(feed: Any) -> None:
    one = feed(late=1.0)
    rebooted(one)
    for stream, offset in ((MARKERS, 2000.0), (SIGNAL, 1000.0)):
        one.notice("recovered", stream)
        one.offset(stream, offset)
    one.samples(300, 600)
    late = one.marker(350)
    one.samples(600, 700)
    assert one.refused == {late: ("refused", "the marker came more than 1 s after its epoch: its samples are gone")}


def test_a_clock_that_was_measured_before_its_return_was_said_is_known(feed: Any) -> None:
    """A connection measures the clock while it is made: nothing waits for the next measurement, 2 s later."""
    one = feed()
    rebooted(one)
    measured = one.now + 0.6
    one.now += 0.8
    for stream, offset in ((MARKERS, 2000.0), (SIGNAL, 1000.0)):
        one.notice("recovered", stream)
        one.give(ClockOffset(stream=stream, at=measured, offset=offset, uncertainty=0.001))
    number = one.marker(350)
    one.samples(300, 400)
    assert one.accepted == {number: 350}
    assert one.said[-1] == "signal recovered"  # no clock has jumped that nobody knew of
    one.check_books()
