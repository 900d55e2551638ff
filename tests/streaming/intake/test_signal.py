"""Gaps, copies, NaN, clocks that jump, sources that come back: what is split, counted, refused and said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.filters import design_filter
from minddiffuser.streaming.records import MARKERS, SIGNAL, Samples


def test_a_gap_refuses_what_touches_it_and_shifts_nothing(feed: Any) -> None:
    one = feed()
    one.clocks()
    before, touching, inside, begins, behind = (one.marker(sample) for sample in (150, 180, 250, 305, 320))
    one.samples(0, 200)
    one.samples(300, 400)
    assert one.accepted == {before: 150, behind: 320}
    text = "a break in the signal: no sample for 1.01 s"
    assert one.refused == {
        touching: ("refused", f"the epoch touches {text}"),
        inside: ("refused", f"the marker falls into {text}"),
        begins: ("refused", f"the epoch touches {text}"),
    }
    assert one.said == ["the signal is interrupted: no sample for 1.01 s; the filters settle again"]
    assert one.intake.state(one.now).n_gaps == 1
    one.check_books()


@pytest.mark.parametrize("lost", [1, 2])
def test_one_lost_sample_is_a_gap(feed: Any, lost: int) -> None:
    one = feed()
    one.clocks()
    first, second = one.marker(190), one.marker(240)
    one.samples(0, 200)
    one.samples(200 + lost, 400)
    assert one.accepted == {second: 240}
    assert "no sample for" in one.refused[first][1]


def test_samples_that_come_twice_count_once(feed: Any) -> None:
    one = feed()
    one.clocks()
    number = one.marker(200)
    one.samples(0, 200)
    one.samples(190, 200)
    one.samples(195, 230)
    for sample in range(230, 260):
        one.samples(sample, sample + 1)
        one.samples(sample, sample + 1)
    one.finish()
    assert one.accepted == {number: 200}
    state = one.intake.state(one.now)
    assert (state.n_duplicate, state.n_used, state.n_gaps) == (45, 260, 0)
    one.check_books()


def test_samples_in_another_order_refuse_the_epochs_around_them(feed: Any) -> None:
    one = feed()
    one.clocks()
    before, around, behind = one.marker(120), one.marker(200), one.marker(280)
    one.samples(0, 200)
    one.samples(201, 202)
    one.samples(200, 201)
    one.samples(202, 400)
    assert one.accepted == {before: 120, behind: 280}
    assert one.refused[around][0] == "refused"
    one.check_books()


def test_nan_rejects_the_epochs_that_hold_it(feed: Any) -> None:
    one = feed()
    one.clocks()
    before, holds, falls, behind = (one.marker(sample) for sample in (150, 190, 203, 240))
    one.samples(0, 200)
    values = 1000.0 * np.arange(3)[:, None] + np.arange(200, 210)
    values[2, 2:5] = np.nan
    one.samples(200, 210, values=values)
    one.samples(210, 400)
    assert one.accepted == {before: 150, behind: 240}
    assert one.refused == {
        holds: ("rejected", "the epoch touches a break in the signal: channel Pz was nan"),
        falls: ("rejected", "the marker falls into a break in the signal: channel Pz was nan"),
    }
    assert one.intake.state(one.now).n_nan == 3
    one.check_books()


def test_nan_in_a_channel_that_nobody_needs_costs_nothing(feed: Any) -> None:
    extra = replace(
        feed().intake._info,
        channels=(Channel(name="broken", type="eeg"), *feed().intake._info.channels[::-1]),
        units=("uV",) * 4,
    )
    one = feed(info=extra)
    one.clocks()
    number = one.marker(150)
    values = np.arange(3)[::-1, None] * 1e9 + 1e6 * np.arange(300)
    one.samples(0, 300, values=np.concatenate([np.full((1, 300), np.nan), values]))
    assert list(one.accepted) == [number]


def test_filters_settle_again_behind_a_gap(feed: Any) -> None:
    steps = [*design_filter(100.0, 5.0, None, causal=True), {"name": "epoch", "tmin": -0.1, "tmax": 0.3}]
    one = feed(steps)
    one.clocks()
    settles = one.intake.state(one.now).warm_up_left
    assert 0.1 < settles < 1
    early, good, early_again, good_again = (one.marker(sample) for sample in (20, 250, 420, 650))
    one.samples(0, 300)
    assert one.intake.state(one.now).warm_up_left == 0
    one.samples(400, 700)
    assert [event.ordinal for event in one.events if hasattr(event, "data")] == [good, good_again]
    assert one.refused == {
        early: (
            "refused",
            f"the epoch begins 0.1 s after the signal's start, and the filters settle in {settles:.3g} s",
        ),
        early_again: (
            "refused",
            f"the epoch begins 0.1 s after a break in the signal, and the filters settle in {settles:.3g} s",
        ),
    }


def test_nobody_places_a_marker_before_the_clocks_were_compared(feed: Any) -> None:
    one = feed()
    number = one.marker(150)
    one.samples(0, 300)
    assert one.events == []
    one.clocks()
    assert one.accepted == {number: 150}


def test_a_clock_that_is_never_compared_refuses_its_markers_in_time(feed: Any) -> None:
    one = feed(late=3.0)
    one.offset(SIGNAL, 1000.0)
    one.marker(100)
    one.samples(0, 300)
    assert one.events == []
    one.samples(300, 400)
    assert one.refused == {0: ("refused", "the clock of the markers was not compared with this computer's within 3 s")}


def test_an_offset_that_is_too_uncertain_refuses(feed: Any) -> None:
    one = feed(max_uncertainty=0.003)
    one.clocks(uncertainty=0.002)
    one.marker(100)
    one.samples(0, 200)
    assert one.refused == {0: ("refused", "the clock offsets are uncertain by 4 ms, and 3 ms are allowed")}


@pytest.mark.parametrize("jump", [-1.0, 1.0])
def test_a_signal_clock_that_jumps_places_no_marker_wrongly(feed: Any, jump: float) -> None:
    """Until the offset is measured again nobody knows the new stamps' times."""
    one = feed()
    one.clocks()
    one.marker(150)
    one.samples(0, 200)
    number = one.marker(300)
    for start in range(200, 400, 10):
        one.samples(start, start + 10, shift=jump)
    assert one.accepted == {0: 150}
    one.offset(SIGNAL, 1000.0 - jump)
    one.samples(400, 410, shift=jump)
    behind = one.marker(450)
    one.samples(410, 600, shift=jump)
    assert one.accepted == {0: 150, number: 300, behind: 450}
    one.check_books()


def test_a_marker_clock_that_jumped_unnoticed_is_said_and_refuses_what_still_waits(feed: Any) -> None:
    one = feed()
    one.clocks()
    one.samples(0, 200)
    one.marker(170, shift=-1.0)  # its clock was set back, and nobody knows yet
    one.marker(200)
    one.marker(196, shift=0.15)  # or forward
    one.samples(200, 215)
    one.offset(MARKERS, 1999.85)
    one.samples(215, 220)
    one.marker(220, shift=0.15)
    one.samples(220, 400)
    assert one.accepted == {0: 70, 3: 220}
    doubtful = "a clock jumped between two measurements of its offset around the marker"
    assert one.refused == {1: ("refused", doubtful), 2: ("refused", doubtful)}
    assert one.said == [
        "the clock of the markers jumped by -0.15 s between two measurements of its offset: the epochs of the markers "
        "0 were given already, and may be of the wrong time; those that still wait are refused"
    ]


def test_drift_is_followed(feed: Any) -> None:
    """100 ppm for ten minutes are 60 ms, six samples."""
    one = feed()
    for start in range(0, 60_000, 500):
        drift = 1e-4 * start / 100
        one.offset(SIGNAL, 1000.0 + drift)
        one.offset(MARKERS, 2000.0)
        one.marker(start + 100, shift=1e-4 * (start + 100) / 100)
        one.now = max(one.now, 1050.0 + start / 100 + drift)
        one.samples(start, start + 500)
    assert one.accepted == {number: 500 * number + 100 for number in range(120)}


def test_a_rate_that_is_a_little_off_is_measured(feed: Any) -> None:
    one = feed(gap=None, learn=1.0)
    one.clocks()
    stamps = 50 + np.arange(6000) / 100.3
    data = 1000.0 * np.arange(3)[:, None] + np.arange(6000)
    for start in range(0, 6000, 50):
        one.now = 1000.0 + stamps[start + 49]
        one.give(Samples(stamps=stamps[start : start + 50], data=data[:, start : start + 50], arrived=one.now))
    state = one.intake.state(one.now)
    assert state.sfreq == pytest.approx(100.3, abs=0.01)
    assert state.n_gaps == 0


@pytest.mark.parametrize("off", [-0.009, -0.003, 0.003, 0.009])
def test_a_gap_is_seen_at_a_rate_that_is_a_little_off(feed: Any, off: float) -> None:
    """Of 0.9 % in 2 s come 18 ms of lag, which are no jitter: one lost sample of 10 ms stands out all the same."""
    one = feed(gap=None)
    one.clocks()
    number = np.r_[0:800, 801:1200]
    stamps = 50 + number / (100 * (1 + off))
    data = 1000.0 * np.arange(3)[:, None] + number
    marked = [one.marker(0, shift=float(at) / (100 * (1 + off))) for at in (500, 790, 1000)]
    for start in range(0, len(number), 50):
        part = slice(start, start + 50)
        one.now = 1000.0 + stamps[part][-1]
        one.give(Samples(stamps=stamps[part], data=data[:, part], arrived=one.now))
    assert one.accepted == {marked[0]: 500, marked[2]: 1000}
    assert "no sample for" in one.refused[marked[1]][1]
    assert one.intake.state(one.now).n_gaps == 1


def test_another_rate_gives_no_epoch_and_no_flood_of_notices(feed: Any) -> None:
    one = feed()
    one.clocks()
    stamps = 50 + np.arange(6000) / 200
    data = 1000.0 * np.arange(3)[:, None] + np.arange(6000)
    for number in range(20):
        one.marker(100 * number + 50)
    for start in range(0, 6000, 50):
        one.now = 1000.0 + stamps[start + 49]
        one.give(Samples(stamps=stamps[start : start + 50], data=data[:, start : start + 50], arrived=one.now))
    one.finish()
    assert one.accepted == {}
    assert len(one.refused) == 20
    assert len(one.said) < 100
    one.check_books()


def test_a_source_that_comes_back_starts_a_new_stretch(feed: Any) -> None:
    one = feed()
    one.clocks()
    first, touching = one.marker(150), one.marker(190)
    one.samples(0, 200)
    one.notice("lost")
    one.notice("recovered")
    one.samples(200, 300)
    behind = one.marker(350)
    one.samples(300, 400)
    assert one.accepted == {first: 150}  # its clock may be another one
    one.offset(SIGNAL, 1000.0)
    one.samples(400, 420)
    assert one.accepted == {first: 150, behind: 350}
    assert one.refused == {touching: ("refused", "the epoch touches a break in the signal: signal recovered")}


@pytest.mark.parametrize("kind", ["silent", "stale"])
def test_what_comes_late_but_whole_is_used(feed: Any, kind: str) -> None:
    """A network that was down for 4 s: nothing is lost, and the clocks are what they were."""
    one = feed()
    one.clocks()
    number = one.marker(190)
    one.samples(0, 200)
    one.notice(kind)
    one.samples(200, 210, late=4.0)
    one.notice("recovered")
    one.samples(210, 600)
    behind = one.marker(500)
    one.samples(600, 700)
    assert one.accepted == {number: 190, behind: 500}
    assert one.intake.state(one.now).n_gaps == 0


def test_a_source_that_comes_back_as_another_is_refused_until_it_fits(feed: Any) -> None:
    info = feed().intake._info
    one = feed()
    one.clocks()
    one.samples(0, 200)
    one.notice("changed", info=replace(info, sfreq=200.0))
    assert one.intake.state(one.now).problem == (
        "the source 'amplifier' has 200 samples a second, and the chain was opened for 100: set the amplifier to 100 Hz"
    )
    one.samples(200, 300)
    lost = one.marker(250)
    one.notice("changed", info=replace(info, channels=info.channels[::-1]))
    assert one.intake.state(one.now).problem is None
    one.offset(SIGNAL, 1000.0)
    number = one.marker(350)
    values = (1000.0 * np.arange(3)[:, None] + np.arange(300, 500))[::-1]
    one.samples(300, 500, values=values)
    assert one.accepted == {number: 350}
    assert list(one.refused) == [lost]
    assert one.intake.state(one.now).n_unusable == 100
    one.check_books()


@pytest.mark.parametrize("learn", [1.0, 2.0])
def test_stamps_that_jitter_do_not_split_the_signal(feed: Any, learn: float) -> None:
    """Packets of 10 samples whose stamps are up to 30 ms late: three samples; a lost packet is still found."""
    one = feed(gap=None, learn=learn)
    one.clocks()
    rng = np.random.default_rng(1)
    early, good, holds = one.marker(50), one.marker(500), one.marker(1005)
    for start in range(0, 2000, 10):
        if start != 1000:
            one.samples(start, start + 10, shift=float(rng.uniform(0, 0.03)))
    assert one.intake.state(one.now).n_gaps == 1
    placed = one.accepted
    assert list(placed) == [good]
    assert abs(placed[good] - 500 + 1.5) <= 1.5  # stamps are 15 ms late on average
    assert "the jitter of its stamps is measured" in one.refused[early][1]
    assert "break in the signal" in one.refused[holds][1]


@pytest.mark.parametrize("what", ["channel", "twice", "rate", "unit", "no unit", "case"])
def test_a_source_that_does_not_fit_is_refused_by_name(feed: Any, what: str) -> None:
    info = feed().intake._info
    other = Channel(name="cz" if what == "case" else "Fz", type="eeg")
    changed, message = {
        "channel": (replace(info, channels=(other, *info.channels[1:])), "lacks 'Cz' of the decoder's 3 channels"),
        "case": (replace(info, channels=(other, *info.channels[1:])), "it has 'cz', in other letters"),
        "twice": (replace(info, channels=(*info.channels, info.channels[0]), units=("V",) * 4), "two channels 'Cz'"),
        "rate": (replace(info, sfreq=250.0), "250 samples a second, and the chain was opened for 100"),
        "unit": (replace(info, units=("V", "furlong", "V")), "channel Oz .* declares the unit 'furlong', which is unk"),
        "no unit": (replace(info, units=("V", "V", "")), "channel Pz .* declares no unit: say it with --unit"),
    }[what]
    with pytest.raises(InputError, match=message):
        feed(info=changed)


def test_a_scale_that_is_not_the_training_s_is_refused_with_both_figures(feed: Any) -> None:
    from minddiffuser.runtime.decoders.scale import TrainingStatistics

    statistics = TrainingStatistics(mean=np.zeros((3, 41), np.float32), std=np.full((3, 41), 1e-5, np.float32))
    values = 1e-5 * np.random.default_rng(0).standard_normal((3, 300))
    for size, good in ((1.0, True), (20.0, True), (1e6, False), (0.0, False)):
        one = feed(training=statistics)
        one.clocks()
        one.marker(150)
        one.samples(0, 300, values=size * values)
        assert [hasattr(event, "data") for event in one.events] == [good]
        if size == 1e6:
            state, reason = one.refused[0]
            assert state == "rejected"
            assert "had 1e-05 V in training (about a million times too large)" in reason


def test_the_state_of_a_session_that_has_not_begun(feed: Any) -> None:
    state = feed().intake.state(1050.0)
    assert (state.segment, state.sfreq, state.sample_age, state.offset, state.n_waiting) == (-1, None, None, None, 0)
    assert state.nominal == 100.0
