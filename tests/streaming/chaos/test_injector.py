"""The faults do what they say, by the seed alone, and the truth that is kept beside them is true."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from ramp_source import SFREQ, T0, RampSource, ramp, ramp_info, ramp_items

from minddiffuser.runtime.errors import InputError
from minddiffuser.streaming.chaos.faults import SOURCE_FAULTS
from minddiffuser.streaming.chaos.plan import Fault, Timing, drawn
from minddiffuser.streaming.chaos.source import FaultySource, Injector, open_chaos
from minddiffuser.streaming.chaos.truth import Truth
from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples
from minddiffuser.streaming.sources.base import Wanted

N_CHANNELS, SECONDS = 4, 40.0
# Some samples of these never arrive, by design.
LOSE = {"pause", "half", "restart", "other-rate", "other-order", "fewer-channels"}
# What these do depends on when chunks arrive, not on the samples alone.
OF_DELIVERY = {"outage", "bursts", "late", "shuffled", "resent"}


def one(kind: str, seed: int = 0, start: float = 12.0, lasts: float = 6.0) -> list[Fault]:
    stop = start + lasts if math.isfinite(SOURCE_FAULTS[kind].lasts[1]) else math.inf
    return [Fault(kind=kind, start=start, stop=stop, seed=(seed,))]


def injected(faults: Sequence[Fault], chunks: Sequence[int] = (25,), measured: bool = True) -> tuple[list[Item], Truth]:
    truth = Truth()
    injector = Injector(iter(faults), ramp_info(N_CHANNELS), truth)
    items = [
        given for item in ramp_items(SECONDS, chunks, N_CHANNELS, measured=measured) for given in injector.step([item])
    ]
    assert injector.happened == list(faults)
    return items, truth


def flat(items: Sequence[Item], kind: type[Samples] = Samples) -> tuple[np.ndarray, np.ndarray]:
    samples = [item for item in items if isinstance(item, kind)]
    return np.concatenate([s.stamps for s in samples]), np.concatenate([s.data[:3] for s in samples], axis=1)


@pytest.mark.parametrize("kind", SOURCE_FAULTS)
def test_a_fault_is_the_same_again_and_another_seed_is_another_fault(kind: str) -> None:
    first, again = injected(one(kind))[0], injected(one(kind))[0]
    assert len(first) == len(again)
    for one_item, other in zip(first, again, strict=True):
        if isinstance(one_item, Samples):
            np.testing.assert_array_equal(one_item.stamps, other.stamps)
            np.testing.assert_array_equal(one_item.data, other.data)
            assert one_item.arrived == other.arrived
        else:
            assert one_item == other


@pytest.mark.parametrize("kind", SOURCE_FAULTS)
def test_the_truth_is_what_was_delivered(kind: str) -> None:
    """Rows by the names of the last description; the values of a ramp are its numbers."""
    items, truth = injected(one(kind))
    info, numbers = ramp_info(N_CHANNELS), iter(truth.numbers)
    for item in items:
        if isinstance(item, Notice) and item.info is not None:
            info = item.info
        if isinstance(item, Samples):
            true = next(numbers)
            rows = [int(channel.name[1:]) for channel in info.channels]
            good = true >= 0
            np.testing.assert_array_equal(item.data[:, good], ramp(true[good], N_CHANNELS)[rows])
            assert not np.isfinite(item.data[:, ~good]).all(axis=0).any()
    assert next(numbers, None) is None
    delivered = Counter(np.concatenate(truth.numbers).tolist())
    missing = set(range(round(SECONDS * SFREQ))) - set(delivered)
    assert bool(missing) == (kind in LOSE | {"nan"})
    assert delivered[-1] == (len(missing) if kind == "nan" else 0)
    assert (max(delivered.values()) > 1) == (kind in {"twice", "resent", "nan"})


@pytest.mark.parametrize("kind", SOURCE_FAULTS)
def test_no_marker_is_lost_and_ordinals_count(kind: str) -> None:
    before = [item for item in ramp_items(SECONDS) if isinstance(item, Marker)]
    items, truth = injected(one(kind))
    markers = [item for item in items if isinstance(item, Marker)]
    assert [marker.ordinal for marker in markers] == list(range(len(markers)))
    counted = Counter(marker.raw for marker in markers)
    assert {marker.raw for marker in before} <= set(counted)
    extra = len(markers) - len(before)
    assert extra == {"flood": 5000, "empty": 1, "giant": 1, "garbled": 1}.get(kind, 3 if kind == "doubled" else 0)
    true = {marker.raw: marker.stamp for marker in before}
    for marker in markers:
        known = truth.markers[marker.ordinal]
        if known.ordinal is None:
            assert kind in {"flood", "empty", "giant", "garbled", "misdated"}
            assert known.stamp == marker.stamp
        else:
            assert known.stamp == true[marker.raw]
            assert known.ordinal == before[known.ordinal].ordinal
            assert before[known.ordinal].raw == marker.raw


@pytest.mark.parametrize("kind", sorted(set(SOURCE_FAULTS) - OF_DELIVERY))
def test_how_samples_are_cut_into_pieces_changes_nothing(kind: str) -> None:
    one_way, other_way = (injected(one(kind), chunks)[0] for chunks in ((25,), (1, 7, 40)))
    for given, again in zip(flat(one_way), flat(other_way), strict=True):
        # Offsets are measured when chunks come, and a drift is counted from the first stamp of any kind.
        np.testing.assert_allclose(given, again, atol=1e-5 if kind == "drift" else 0)


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("kind", ["offset", "step", "drift", "foreign"])
def test_a_stamp_plus_the_offset_measured_then_is_the_local_time(kind: str, measured: bool) -> None:
    items, _ = injected(one(kind), measured=measured)
    offsets = {SIGNAL: 0.0, MARKERS: 0.0}
    moved = set()
    for item in items:
        if isinstance(item, ClockOffset):
            offsets[item.stream] = item.offset
        elif isinstance(item, Samples | Marker):
            name = MARKERS if isinstance(item, Marker) else SIGNAL
            stamps = np.atleast_1d(item.stamps if isinstance(item, Samples) else item.stamp)
            local = stamps + offsets[name]
            # Between the clock's step and the next measurement nobody can know.
            unknown = kind in {"step", "offset", "foreign"} and 12.0 <= item.arrived - T0 <= 14.2
            tolerance = 1e12 if unknown else 2.2 * 50e-6 if kind == "drift" else 1e-6
            np.testing.assert_allclose(local[-1], item.arrived, atol=tolerance + (0.105 if name == MARKERS else 0.0011))
            if offsets[name]:
                moved.add(name)
    assert moved == ({MARKERS} if kind == "foreign" else {SIGNAL, MARKERS})


def test_one_sample_more_or_less_never_shares_a_fault() -> None:
    """A fault begins and ends at its own samples, wherever a chunk is cut."""
    fault = Fault(kind="pause", start=2.0, stop=3.0, seed=(0,))
    for chunks in ((1,), (499,), (3, 250, 1)):
        _, truth = injected([fault], chunks)
        delivered = np.concatenate(truth.numbers)
        np.testing.assert_array_equal(np.setdiff1d(np.arange(10_000), delivered), np.arange(500, 750))


def test_a_plan_has_every_kind_before_any_comes_again_and_no_two_at_once() -> None:
    n = len(SOURCE_FAULTS)
    plan = list(islice(drawn(3), 2 * n))
    assert {fault.kind for fault in plan[:n]} == {fault.kind for fault in plan[n:]} == set(SOURCE_FAULTS)
    assert plan == list(islice(drawn(3), 2 * n))
    assert plan != list(islice(drawn(4), 2 * n))
    assert plan[0].start == Timing().first
    for before, after in zip(plan, plan[1:], strict=False):
        assert after.start >= (before.start if math.isinf(before.stop) else before.stop) + Timing().calm[0]


def test_all_kinds_in_a_row_leave_every_marker_and_the_truth() -> None:
    truth = Truth()
    injector = Injector(drawn(1, timing=Timing(first=1.0, calm=(0.5, 1.0))), ramp_info(N_CHANNELS), truth)
    seconds = 150.0
    items = [given for item in ramp_items(seconds, (25,), N_CHANNELS) for given in injector.step([item])]
    assert {fault.kind for fault in injector.happened} == set(SOURCE_FAULTS)
    markers = [item for item in items if isinstance(item, Marker)]
    named = {marker.raw for marker in markers if marker.raw.startswith(b"m")}
    assert named == {item.raw for item in ramp_items(seconds) if isinstance(item, Marker)}
    assert isinstance(items[-1], Notice)
    assert items[-1].kind == "ended"
    arrivals = [item.arrived for item in items if isinstance(item, Samples | Marker)]
    assert arrivals == sorted(arrivals)


def test_a_wrapped_source_opens_polls_and_closes_the_other() -> None:
    inner = RampSource(20.0)
    source = FaultySource(inner, iter(one("pause", start=5.0, lasts=1.0)))
    assert source.happened == []
    assert source.open() == ramp_info()
    n_samples = sum(len(item.stamps) for _ in range(260) for item in source.poll(0.0) if isinstance(item, Samples))
    assert n_samples == 20 * 250 - 250
    assert str(source.happened[0]) == "at 5.0 s the source sent no samples, for 1.0 s (pause)"
    source.close()
    assert inner.closed


@pytest.mark.parametrize("text", ["", "x:replay:a.xdf", "7", ":replay:a.xdf", "7:strange:a"])
def test_a_seed_and_a_source_are_asked_for(text: str) -> None:
    with pytest.raises(InputError, match=r"give chaos:SEED:SOURCE|give one of"):
        open_chaos(text, Wanted(modality="eeg"))


def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'gremlin' is unknown: choose from pause, half"):
        drawn(0, ["pause", "gremlin"])
    with pytest.raises(InputError, match="no kind of fault is given"):
        drawn(0, [])
