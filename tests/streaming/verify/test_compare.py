"""The live path equals mne.Epochs over the whole recording, for any signal, markers, gaps and partition into chunks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.signal.filters import design_filter
from minddiffuser.runtime.signal.whitening import save_whitening
from minddiffuser.streaming.files.recorded import Recorded
from minddiffuser.streaming.intake.intake import Intake
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, SignalInfo
from minddiffuser.streaming.verify.compare import Case, Report, verify

TYPES = ("eeg",) * 4 + ("eog",)
NAMES = tuple(f"{kind}{row}" for row, kind in enumerate(TYPES))
CHANNELS = tuple(Channel(name=name, type=kind) for name, kind in zip(NAMES, TYPES, strict=True))
SFREQ, N = 200.0, 2400
PICK = {"name": "pick", "channels": ["eeg3", "eeg0", "eog4", "eeg2"]}
EPOCH = {"name": "epoch", "tmin": -0.1, "tmax": 0.3}
REJECT = {"name": "reject", "peak_to_peak": {"eeg": 4.5e-5, "eog": 1e-3}, "flat": {"eeg": 1e-9}}
BASELINE = {"name": "baseline", "tmin": None, "tmax": 0.0}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "epochs alone": [EPOCH],
    "reference": [{"name": "reference", "kind": "average"}, PICK, EPOCH, REJECT, BASELINE],
    "filters": [PICK, *design_filter(SFREQ, 2.0, 40.0, causal=True, notch=[50.0]), EPOCH, BASELINE],
    "decimated signal": [*design_filter(SFREQ, None, 20.0, causal=True), {"name": "decimate", "factor": 3}, EPOCH],
    "resampled": [PICK, {"name": "resample", "sfreq": 120.0, "causal": True}, EPOCH, REJECT],
    "all": [
        PICK,
        {"name": "reference", "kind": "channels", "channels": ["eeg0", "eeg2"]},
        *design_filter(SFREQ, 2.0, 25.0, causal=True),
        EPOCH,
        {"name": "detrend", "order": 1},
        BASELINE,
        {"name": "reject", "peak_to_peak": {"eeg": 3e-5}},
        {"name": "decimate", "factor": 2},
        {"name": "zscore", "tmin": -0.1, "tmax": 0.0},
        {"name": "crop", "tmin": 0.0, "tmax": None},
    ],
}


def recording(
    seed: int, lost: list[tuple[int, int]], broken: list[int], marked: list[float], drift: float = 0.0
) -> Recorded:
    """Noise with an offset and steps, from 17 s on by its own clock; `lost` are first sample and length of gaps."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((5, N)) + np.cumsum(rng.standard_normal((5, N)), axis=1) / 8
    data = 1e-5 * (data + 300 * rng.standard_normal((5, 1)))
    for sample in broken:
        data[sample % 5, sample] = np.nan
    kept = np.ones(N, bool)
    for start, length in lost:
        kept[start : start + length] = False
    kept[0] = True
    stamps, data = 17.0 + np.flatnonzero(kept) / SFREQ, data[:, kept]
    times = sorted(marked)
    offsets = [
        ClockOffset(stream=name, at=at, offset=shift + drift * (at - 117.0), uncertainty=1e-4)
        for name, shift in ((SIGNAL, 100.0), (MARKERS, 40.0))
        for at in (117.0, 121.3, 125.9)
    ]
    return Recorded(
        info=SignalInfo(name="noise", channels=CHANNELS, sfreq=SFREQ, units=("V",) * 5),
        stamps=stamps,
        read=lambda start, stop: data[:, start:stop],
        markers=tuple((77.0 + time, b"go" if number % 3 else b"stop") for number, time in enumerate(times)),
        offsets=tuple(offsets),
    )


def case(name: str, recorded: Recorded, folder: Path | None = None, steps: list[dict[str, Any]] | None = None) -> Case:
    chosen = CHAINS[name] if steps is None else steps
    names = tuple(chosen[0]["channels"]) if chosen[0] is PICK else NAMES
    return Case(
        recorded=recorded, signal={"steps": chosen}, names=names, settings=IntakeSettings(events=("go",)), folder=folder
    )


GAPS = st.lists(st.tuples(st.integers(0, N - 1), st.sampled_from([1, 2, 3, 40, 300])), max_size=3)
BROKEN = st.lists(st.integers(0, N - 1), max_size=2)
TIMES = st.lists(st.floats(-0.5, 12.5, allow_nan=False), min_size=1, max_size=12)


# Of the other chains one recording is compared in every run, below.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "all" else pytest.mark.long) for name in CHAINS]
)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), lost=GAPS, broken=BROKEN, marked=TIMES)
def test_live_equals_offline(
    name: str, seed: int, lost: list[tuple[int, int]], broken: list[int], marked: list[float]
) -> None:
    recorded = recording(seed, lost, broken, marked)
    report = verify(case(name, recorded), n_partitions=3, seed=seed)
    assert report.differences == []
    assert report.largest_error <= 1e-12
    assert report.n_accepted + sum(report.refused.values()) == report.n_events


def whole(name: str) -> Report:
    marked = np.arange(0.0, 12.0, 0.11).tolist()
    return verify(case(name, recording(5, [(900, 1), (1500, 200)], [2100], marked, drift=5e-5)), n_partitions=2)


@pytest.mark.parametrize("name", CHAINS)
def test_enough_epochs_are_compared_and_enough_are_refused(name: str) -> None:
    """Or the equality above would say little."""
    report = whole(name)
    assert report.equal
    assert report.n_accepted >= 10
    assert {"break", "nan"} <= set(report.refused)
    if any(step["name"] == "reject" for step in CHAINS[name]):
        assert report.refused["peak to peak"] >= 3


@pytest.mark.parametrize("name", ["epochs alone", "filters", "decimated signal"])
def test_where_no_sum_is_reordered_the_bits_are_the_same(name: str) -> None:
    report = whole(name)
    assert report.n_identical == report.n_accepted


@pytest.mark.parametrize("name", ["epochs alone", "filters"])
def test_samples_that_came_twice_count_once_offline_too(name: str) -> None:
    """A packet of 20, one sample alone, and one of the same stamp with other values, which is a break."""
    once = recording(3, [], [], np.arange(0.3, 12.0, 0.25).tolist())
    order = np.r_[0:500, 480:1000, 999:N]
    stamps, data = once.stamps[order], once.read(0, N)[:, order].copy()
    twice = replace(once, stamps=stamps, read=lambda start, stop: data[:, start:stop])
    reports = [verify(case(name, one)) for one in (once, twice)]
    assert [report.differences for report in reports] == [[], []]
    assert reports[0].n_accepted == reports[1].n_accepted > 20
    data[:, 519] += 1e-7  # the last of the packet's copies is another sample
    other = verify(case(name, twice))
    assert other.differences == []
    assert other.n_accepted < reports[0].n_accepted


def test_a_whitened_chain(tmp_path: Path) -> None:
    step = save_whitening(tmp_path, np.random.default_rng(0).standard_normal((5, 5)))
    recorded = recording(1, [], [], np.arange(0.0, 12.0, 0.4).tolist())
    report = verify(case("", recorded, tmp_path, [EPOCH, step]), n_partitions=1)
    assert report.equal
    assert report.n_accepted > 15


def damaged(intake: Intake, what: str) -> Any:
    """The intake's epochs, spoilt."""
    step = intake.step

    def changed(items: Any, now: float) -> Any:
        found = step(items, now)
        for event in found:
            data: NDArray[Any] | None = getattr(event, "data", None)
            if data is not None and what == "value":
                data[0, 0] *= 1 + 1e-9
            if data is not None and what == "shift":
                data[:] = np.roll(data, 1, axis=1)
        return [event for event in found if what != "lost" or not hasattr(event, "data")]

    return changed


@pytest.mark.parametrize("what", ["value", "shift", "lost"])
def test_a_fault_of_the_live_path_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Intake.start

    def started(self: Intake, info: SignalInfo) -> None:
        start(self, info)
        monkeypatch.setattr(self, "step", damaged(self, what))

    monkeypatch.setattr(Intake, "start", started)
    report = verify(case("epochs alone", recording(2, [], [], [3.0, 4.0, 5.0, 6.0])), n_partitions=1)
    assert not report.equal


def test_refusals_follow_the_stamps() -> None:
    """Two samples are lost at 5 s; with stamps that hide it nobody, live or offline, can know."""
    recorded = recording(3, [(1000, 2)], [], [4.0, 4.95, 5.2, 6.0])
    one = case("epochs alone", recorded)
    fair = verify(one, n_partitions=1)
    assert fair.equal
    assert fair.refused == {"break": 1}
    blind = replace(one, recorded=replace(recorded, stamps=17.0 + np.arange(len(recorded.stamps)) / SFREQ))
    assert verify(blind, n_partitions=1).refused == {}
