"""The source on real streams: outlets of this process, and of others that are stopped and killed."""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.clock import now
from minddiffuser.streaming.intake.events import Accepted
from minddiffuser.streaming.intake.intake import Intake
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.lsl import found
from minddiffuser.streaming.lsl.address import NO_MARKERS, Address
from minddiffuser.streaming.lsl.outlet import NUMBERS, MarkerOutlet, SignalOutlet
from minddiffuser.streaming.lsl.play import PlayingProcess
from minddiffuser.streaming.lsl.ramp import STEP, ramp
from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from minddiffuser.streaming.sources import open_source
from minddiffuser.streaming.sources.base import Wanted
from minddiffuser.streaming.sources.lsl import GATHER, REST, LslSource

SFREQ = 250.0
# A test that hangs ends here: nothing that it waits for takes a tenth of it.
PATIENCE = 60.0
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubles are looked for not quite as long as for a user."""
    monkeypatch.setattr(found, "SETTLE", 0.3)


def fresh() -> str:
    """A name that no other stream of this run has."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def info(name: str, n_channels: int = 2, **changes: object) -> SignalInfo:
    given: dict[str, object] = {
        "name": name,
        "source_id": name,
        "sfreq": SFREQ,
        "channels": tuple(Channel(name=f"E{k}", type="eeg") for k in range(n_channels)),
        "units": ("microvolts",) * n_channels,
        **changes,
    }
    return SignalInfo(**given)  # type: ignore[arg-type]


def outlet(about: SignalInfo, **choices: str) -> SignalOutlet:
    return SignalOutlet(about, type="EEG", **{"format": "double64", **choices})


def push(out: SignalOutlet, data: np.ndarray, *, first: float | None = None, sfreq: float = SFREQ) -> np.ndarray:
    """Send samples whose last one is of now, and return their stamps."""
    n = data.shape[1]
    stamps = (now() - (n - 1) / sfreq if first is None else first) + np.arange(n) / sfreq
    out.push(data, stamps)
    return stamps


@contextmanager
def opened(text: str, **wanted: float) -> Iterator[LslSource]:
    source = open_source(f"lsl:{text}", Wanted(modality="eeg", **{"timeout": PATIENCE, **wanted}))
    assert isinstance(source, LslSource)
    try:
        source.open()
        yield source
    finally:
        source.close()


def collect(source: LslSource, enough: Callable[[list[Item]], bool]) -> list[Item]:
    """What comes until there is enough."""
    items: list[Item] = []
    end = time.monotonic() + PATIENCE
    while not enough(items):
        assert time.monotonic() < end, f"not enough came: {[i for i in items if not isinstance(i, Samples)]}"
        items += source.poll(0.05)
    return items


def n_samples(items: list[Item]) -> int:
    return sum(len(item.stamps) for item in items if isinstance(item, Samples))


def data(items: list[Item]) -> np.ndarray:
    return np.concatenate([item.data for item in items if isinstance(item, Samples)], axis=1)


def stamps(items: list[Item]) -> np.ndarray:
    return np.concatenate([item.stamps for item in items if isinstance(item, Samples)])


def markers(items: list[Item]) -> list[Marker]:
    return [item for item in items if isinstance(item, Marker)]


def said(items: list[Item], kind: str, stream: str = SIGNAL) -> list[Notice]:
    return [item for item in items if isinstance(item, Notice) and (item.kind, item.stream) == (kind, stream)]


def has(kind: str, stream: str = SIGNAL) -> Callable[[list[Item]], bool]:
    return lambda items: bool(said(items, kind, stream))


@pytest.mark.parametrize(("n_channels", "chunk"), [(2, 1), (40, 25)])
def test_every_sample_and_marker_comes_as_it_was_sent(n_channels: int, chunk: int) -> None:
    name = fresh()
    recipe = partial(
        ramp,
        n_channels=n_channels,
        sfreq=SFREQ,
        seconds=1.5,
        chunk=chunk,
        first_marker=125,
        marker_every=75,
        pauses=((200, 0.3),),
        name=name,
        source_id=name,
    )
    with PlayingProcess(recipe), opened(f"name={name},markers={name}-markers") as source:
        items = collect(source, lambda items: n_samples(items) >= 375 and len(markers(items)) >= 4)
    came, at = data(items), stamps(items)
    np.testing.assert_array_equal(came, STEP * np.arange(n_channels)[:, None] + np.arange(375.0))
    expected = np.arange(375) / SFREQ
    expected[200:] += 0.3
    # The stamps are sums of two times since the machine was started: the last place of such a number.
    np.testing.assert_allclose(at - at[0], expected, rtol=0, atol=4 * np.spacing(at[-1]))
    assert [(marker.ordinal, marker.raw) for marker in markers(items)] == [(k, b"%d" % k) for k in range(4)]
    for k, marker in enumerate(markers(items)):
        assert marker.stamp == at[125 + 75 * k]
        assert marker.arrived >= marker.stamp
    for stream in (SIGNAL, MARKERS):
        offsets = [item for item in items if isinstance(item, ClockOffset) and item.stream == stream]
        assert offsets
        # Both ends have one clock; half a round trip is all that a measurement leaves open.
        assert all(abs(one.offset) <= one.uncertainty for one in offsets)
    assert items.index(next(item for item in items if isinstance(item, ClockOffset))) < items.index(
        next(item for item in items if isinstance(item, Samples))
    )


def test_what_a_stream_says_of_itself_is_read() -> None:
    name = fresh()
    channels = (
        Channel(name="Oz", type="eeg", position=(0.0, -0.08, 0.05)),
        Channel(name="EOG", type="eog"),
        Channel(name="MEG 0111", type="mag"),
    )
    sent = outlet(info(name, 3, channels=channels, units=("microvolts", "V", "fT")))
    source = LslSource(Address(name=name, markers=NO_MARKERS), Wanted(modality="eeg", timeout=PATIENCE))
    got = source.open()
    source.close()
    sent.close()
    assert (got.name, got.source_id, got.sfreq) == (name, name, SFREQ)
    assert got.units == ("microvolts", "V", "fT")
    assert [(one.name, one.type) for one in got.channels] == [("Oz", "eeg"), ("EOG", "eog"), ("MEG 0111", "mag")]
    assert got.channels[0].position == pytest.approx((0.0, -0.08, 0.05), abs=1e-12)
    assert got.channels[1].position is None
    assert got.uid
    assert got.hostname


def test_a_stream_that_says_nothing_has_names_by_row_and_no_units() -> None:
    import pylsl

    name = fresh()
    sent = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 3, 100.0, "float32", name))
    source = LslSource(Address(name=name, markers=NO_MARKERS), Wanted(modality="eeg", timeout=PATIENCE))
    got = source.open()
    source.close()
    del sent
    assert [(one.name, one.type) for one in got.channels] == [(f"EEG00{k}", "eeg") for k in (1, 2, 3)]
    assert got.units == ("", "", "")


@pytest.mark.parametrize("format", ["float32", "double64", "int16", "int32"])
def test_all_formats_of_numbers_are_given_as_they_are(format: str) -> None:
    name = fresh()
    sent = outlet(info(name), format=format)
    values = np.array([[1.0, -2.0, 300.0], [0.0, 32767.0, -32768.0]])
    with opened(f"id={name},markers=none") as source:
        assert source._info.dtype == format.replace("double64", "float64")
        own = np.concatenate([push(sent, values[:, :2]), push(sent, values[:, 2:])])
        items = collect(source, lambda items: n_samples(items) >= 3)
    sent.close()
    np.testing.assert_array_equal(data(items), values)
    np.testing.assert_array_equal(stamps(items), own)


def test_markers_of_any_bytes_are_kept_and_counted() -> None:
    name = fresh()
    sent, texts = outlet(info(name)), MarkerOutlet(f"{name}-m", f"{name}-m")
    raws = [b"face/7", b"\xff\xfe\x00\x80", b"", "ö".encode(), b"x" * 1_000_000, b"nul\x00inside"]
    raws += [b"%d" % k for k in range(5000)]
    with opened(f"id={name},markers={name}-m") as source:
        times = now() + np.arange(len(raws)) * 1e-4
        for stamp, raw in zip(times, raws, strict=True):
            texts.push(raw, stamp)
        items = collect(source, lambda items: len(markers(items)) >= len(raws))
    sent.close()
    got = markers(items)
    assert [marker.raw for marker in got] == raws
    assert [marker.ordinal for marker in got] == list(range(len(raws)))
    np.testing.assert_array_equal([marker.stamp for marker in got], times)
    assert got[1].text == "\ufffd\ufffd\x00\ufffd"


def test_markers_of_numbers_are_their_digits() -> None:
    name = fresh()
    sent, numbers = outlet(info(name)), MarkerOutlet(f"{name}-m", f"{name}-m", NUMBERS)
    with opened(f"id={name},markers={name}-m") as source:
        for number in (7, 0, -3, 2**31 - 1):
            numbers.push(b"%d" % number, now())
        items = collect(source, lambda items: len(markers(items)) >= 4)
    sent.close()
    assert [marker.raw for marker in markers(items)] == [b"7", b"0", b"-3", b"2147483647"]


def test_a_stimulus_channel_gives_markers_at_its_samples() -> None:
    name = fresh()
    channels = (Channel(name="Oz", type="eeg"), Channel(name="Status", type="misc"))
    sent = outlet(info(name, channels=channels))
    codes = np.zeros((2, 100))
    codes[1, [10, 11, 12]] = 5
    codes[1, 13:20] = 9
    codes[1, 60] = 2
    with opened(f"id={name},stim=Status") as source:
        first = now()
        own = [push(sent, codes[:, k : k + 1], first=first + k / SFREQ)[0] for k in range(100)]
        items = collect(source, lambda items: n_samples(items) >= 100)
    sent.close()
    assert [(marker.raw, marker.stamp) for marker in markers(items)] == [
        (b"5", own[10]),
        (b"9", own[13]),
        (b"2", own[60]),
    ]


def test_markers_of_a_stimulus_channel_become_epochs_and_again_after_a_restart() -> None:
    name = fresh()
    about = info(name, channels=(Channel(name="Oz", type="eeg"), Channel(name="Status", type="misc")))
    chain = open_chain({"steps": [{"name": "epoch", "tmin": -0.02, "tmax": 0.02}]}, about.channels[:1], SFREQ)
    intake = Intake(chain, IntakeSettings(gap=0.003, max_uncertainty=1.0), dtype=np.float64)
    intake.start(about)
    epochs: list[Accepted] = []
    sent = outlet(about)
    with opened(f"id={name},stim=Status") as source:
        for round_ in (1, 2):
            push(sent, np.stack([100.0 * round_ + np.arange(50), 7.0 * (np.arange(50) >= 20)]))
            end = time.monotonic() + PATIENCE
            while len(epochs) < round_:
                assert time.monotonic() < end
                items = source.poll(0.05)
                epochs += [event for event in intake.step(items, now()) if isinstance(event, Accepted)]
            if round_ == 1:
                sent.close()
                intake.step(collect(source, has("lost")), now())
                sent = outlet(about)
                intake.step(collect(source, has("recovered")), now())
    sent.close()
    for round_, epoch in enumerate(epochs, 1):
        np.testing.assert_array_equal(epoch.data, 1e-6 * (100.0 * round_ + np.arange(15.0, 26.0))[None])


def test_a_stimulus_channel_that_is_not_there_is_refused_with_those_that_are() -> None:
    name = fresh()
    sent = outlet(info(name))
    with (
        pytest.raises(InputError, match="no channel 'Status': give stim= one of E0, E1"),
        opened(f"id={name},stim=Status"),
    ):
        pass
    sent.close()


def test_two_streams_that_fit_are_listed_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = fresh()
    twins = [outlet(info(name, source_id=f"{name}-{k}")) for k in (1, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(found, "SETTLE", 5.0)
        with pytest.raises(InputError, match="2 streams with a rate") as raised, opened(f"name={name},markers=none"):
            pass
    assert f"{name}-1" in str(raised.value)
    assert f"choose one, such as id={name}-1" in str(raised.value)
    with opened(f"id={name}-2,markers=none"):
        pass
    for twin in twins:
        twin.close()


def test_a_missing_source_id_is_warned_about_and_the_stream_is_found_again_all_the_same() -> None:
    name = fresh()
    about = info(name, source_id="")
    sent = outlet(about)
    with opened(f"name={name},markers=none") as source:
        items = collect(source, has("warning"))
        assert "no source_id" in said(items, "warning")[0].text
        sent.close()
        collect(source, has("lost"))
        sent = outlet(about)
        items = collect(source, has("recovered"))
    sent.close()
    assert said(items, "recovered")[0].info is not None


def test_a_source_that_pauses_is_silent_and_comes_back() -> None:
    name = fresh()
    sent = outlet(info(name))
    with opened(f"id={name},markers=none", silence=0.2) as source:
        push(sent, np.zeros((2, 5)))
        before = collect(source, has("silent"))
        push(sent, np.ones((2, 5)))
        after = collect(source, has("recovered"))
    sent.close()
    assert n_samples(before) == 5
    assert (n_samples(after), said(after, "lost")) == (5, [])


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({}, "recovered", "is back"),
        ({"sfreq": 500.0}, "changed", "500 Hz instead of 250 Hz"),
        ({"channels": (Channel(name="E1", type="eeg"), Channel(name="E0", type="eeg"))}, "changed", "another order"),
        ({"units": ("V", "V")}, "changed", "other units"),
        (
            {"channels": (Channel(name="E0", type="eeg"),), "units": ("microvolts",)},
            "changed",
            "1 channels, other than before",
        ),
    ],
)
def test_a_source_that_is_started_again_is_read_again(changes: dict, kind: str, words: str) -> None:
    name = fresh()
    sent = outlet(info(name))
    with opened(f"id={name},markers=none") as source:
        push(sent, np.zeros((2, 5)))
        before = collect(source, lambda items: n_samples(items) >= 5)
        sent.close()
        before += collect(source, has("lost"))
        again = info(name, **changes)
        sent = outlet(again)
        sent.wait_for_consumers(PATIENCE)
        push(sent, np.ones((len(again.channels), 7)), sfreq=again.sfreq)
        after = collect(source, lambda items: n_samples(items) >= 7)
    sent.close()
    assert n_samples(before) == 5
    [notice] = said(after, kind)
    assert words in notice.text
    assert notice.info is not None
    assert (notice.info.sfreq, notice.info.units) == (again.sfreq, again.units)
    assert [one.name for one in notice.info.channels] == [one.name for one in again.channels]
    samples = next(item for item in after if isinstance(item, Samples))
    assert after.index(notice) < after.index(samples)
    np.testing.assert_array_equal(data(after), np.ones((len(again.channels), 7)))


def test_two_that_could_be_the_lost_one_are_said_and_none_is_taken_until_one_is_left() -> None:
    name = fresh()
    sent = outlet(info(name))
    with opened(f"id={name},markers=none") as source:
        sent.close()
        collect(source, has("lost"))
        twins = [outlet(info(name)), outlet(info(name))]
        items = collect(source, has("lost"))
        assert "2 streams could be it" in said(items, "lost")[0].text
        assert not said(items, "recovered")
        twins[0].close()
        collect(source, has("recovered"))
        push(twins[1], np.ones((2, 3)))
        items = collect(source, lambda items: n_samples(items) >= 3)
    twins[1].close()
    np.testing.assert_array_equal(data(items), np.ones((2, 3)))


def test_a_marker_stream_is_followed_on_its_own() -> None:
    name = fresh()
    sent, texts = outlet(info(name)), MarkerOutlet(f"{name}-m", f"{name}-m")
    with opened(f"id={name},markers={name}-m") as source:
        texts.push(b"before", now())
        before = collect(source, lambda items: bool(markers(items)))
        texts.close()
        before += collect(source, has("lost", MARKERS))
        texts = MarkerOutlet(f"{name}-m", f"{name}-m")
        collect(source, has("recovered", MARKERS))
        texts.push(b"after", now())
        push(sent, np.ones((2, 3)))
        after = collect(source, lambda items: bool(markers(items)) and n_samples(items) >= 3)
    sent.close()
    assert not said(before + after, "lost", SIGNAL)
    assert [(one.ordinal, one.raw) for one in markers(before + after)] == [(0, b"before"), (1, b"after")]


def test_samples_that_nobody_read_in_time_are_counted() -> None:
    name = fresh()
    sent = outlet(info(name))
    with opened(f"id={name},markers=none") as source:
        inlet = source._signal.connected().inlet  # type: ignore[union-attr]
        first = push(sent, np.zeros((2, 1)))[0]
        collect(source, lambda items: n_samples(items) >= 1)
        n = inlet.capacity + 321
        times = first + np.arange(1, n + 1) / SFREQ
        for start in range(0, n, 500):
            part = slice(start, min(start + 500, n))
            sent.push(np.tile(np.arange(1, n + 1)[part], (2, 1)).astype(float), times[part])
        end = time.monotonic() + PATIENCE
        while inlet.n_waiting() < inlet.capacity:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.2)  # the last of them may still be on its way; what is late is not lost
        items = collect(source, lambda items: bool(n_samples(items)) and data(items)[0, -1] == n)
    sent.close()
    lost = n - n_samples(items)
    assert lost > 0
    (dropped,) = said(items, "dropped")
    assert f"{lost} samples" in dropped.text
    assert dropped.n_lost == lost
    came = data(items)[0]
    np.testing.assert_array_equal(came, np.arange(n - len(came) + 1, n + 1))


@pytest.mark.parametrize("ahead", [1.7e9, 30.0])
def test_stamps_of_another_clock_are_said(ahead: float) -> None:
    name = fresh()
    sent = outlet(info(name))
    with opened(f"id={name},markers=none") as source:
        push(sent, np.zeros((2, 3)), first=now() + ahead)
        items = collect(source, has("clock"))
    sent.close()
    assert "not on the clock of LSL" in said(items, "clock")[0].text


def test_old_samples_are_said_to_be_late() -> None:
    name = fresh()
    sent = outlet(info(name))
    with opened(f"id={name},markers=none", stale=0.5) as source:
        push(sent, np.zeros((2, 3)), first=now() - 4.0)
        items = collect(source, has("stale"))
        push(sent, np.zeros((2, 3)))
        collect(source, has("recovered"))
    sent.close()
    assert n_samples(items) == 3


def test_a_killed_source_is_said_and_its_successor_taken() -> None:
    name = fresh()
    recipe = partial(ramp, n_channels=2, sfreq=SFREQ, seconds=600, name=name, source_id=name, markers=False)
    player = PlayingProcess(recipe)
    player.wait_until_ready()
    with opened(f"id={name},markers=none") as source:
        collect(source, lambda items: n_samples(items) >= 50)
        os.kill(player.process.pid or 0, signal.SIGKILL)
        items = collect(source, has("lost"))
        assert f"by its source_id '{name}'" in said(items, "lost")[0].text
        with PlayingProcess(recipe):
            items = collect(source, has("recovered"))
            items += collect(source, lambda items: n_samples(items) >= 50)
    player.stop()
    # The successor plays from its first sample, and waits for somebody who receives: nothing of it is missing.
    np.testing.assert_array_equal(data(items)[0], np.arange(n_samples(items)))


def test_a_stopped_source_is_silent_and_nothing_of_it_is_lost() -> None:
    name = fresh()
    recipe = partial(ramp, n_channels=2, sfreq=SFREQ, seconds=600, name=name, source_id=name, markers=False)
    with PlayingProcess(recipe) as player, opened(f"id={name},markers=none", silence=0.3) as source:
        items = collect(source, lambda items: n_samples(items) >= 50)
        os.kill(player.process.pid or 0, signal.SIGSTOP)
        items += collect(source, has("silent"))
        os.kill(player.process.pid or 0, signal.SIGCONT)
        items += collect(source, has("recovered"))
        items += collect(source, lambda items: n_samples(items) >= 50)
    assert not said(items, "lost")
    np.testing.assert_array_equal(data(items)[0], np.arange(n_samples(items)))


def test_a_poll_before_open_and_a_second_close_are_no_accidents() -> None:
    source = LslSource(Address(name="x"), Wanted(modality="eeg"))
    with pytest.raises(InputError, match="call open"):
        source.poll(0.0)
    source.close()
    source.close()


@pytest.mark.parametrize(
    ("due", "gather", "most"),
    [
        (None, REST, math.inf),  # nobody waits
        (100.5, REST, 0.5),
        (100.003, REST, 0.003),  # it wakes when the sample is expected
        (99.99, REST, 0.0),  # then each sample is given as soon as it is there
        (99.0, GATHER, math.inf),  # it is late, or never comes
        (-math.inf, GATHER, math.inf),
    ],
)
def test_it_rests_until_a_sample_is_needed(due: float | None, gather: float, most: float) -> None:
    source = LslSource(Address(), Wanted(modality="eeg"), now=lambda: 100.0)
    assert source._gathering() == (GATHER, math.inf)  # of a caller that does not say what it needs
    source.expect(due)
    assert source._gathering() == pytest.approx((gather, most))
    exact = LslSource(Address(), Wanted(modality="eeg"), now=lambda: 100.0, gather=0.0)
    exact.expect(due)
    assert exact._gathering() == (0.0, math.inf)


def test_nobody_looks_on_for_a_source_that_is_wanted_no_more() -> None:
    asked = itertools.count()
    wanted = Wanted(modality="eeg", timeout=10 * PATIENCE, stopped=lambda: next(asked) >= 3)
    with pytest.raises(InputError, match="there are no streams"):
        LslSource(Address(name=fresh()), wanted).open()
    assert next(asked) == 4
