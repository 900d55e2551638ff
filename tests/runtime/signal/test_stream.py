"""Live equals offline, bit for bit, however the signal is cut and whenever its events are announced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.signal.chain import CONTINUOUS, OF_EPOCHS, Chain, open_chain
from minddiffuser.runtime.signal.filters import design_filter
from minddiffuser.runtime.signal.whitening import save_whitening

TYPES = ("eeg",) * 5 + ("eog",)
CHANNELS = tuple(Channel(name=f"{kind}{row}", type=kind) for row, kind in enumerate(TYPES))
SFREQ, N = 500.0, 3000
PICK = {"name": "pick", "channels": ["eeg4", "eeg0", "eog5", "eeg2"]}
EPOCH = {"name": "epoch", "tmin": -0.1, "tmax": 0.3}
PARTS = {
    "average reference": [{"name": "reference", "kind": "average"}, PICK, EPOCH],
    "filters": [PICK, *design_filter(SFREQ, 0.5, 40.0, causal=True, notch=[50.0]), EPOCH],
    "decimated": [*design_filter(SFREQ, 0.1, 30.0, causal=True), {"name": "decimate", "factor": 5}, EPOCH],
    "resampled": [PICK, {"name": "resample", "sfreq": 120.0, "causal": True}, EPOCH],
    "upsampled": [{"name": "resample", "sfreq": 512.0, "causal": True}, PICK, EPOCH],
    "all": [
        PICK,
        {"name": "reference", "kind": "channels", "channels": ["eeg0", "eeg2"]},
        *design_filter(SFREQ, 0.5, 60.0, causal=True),
        {"name": "decimate", "factor": 2},
        {"name": "resample", "sfreq": 200.0, "causal": True},
        EPOCH,
        {"name": "detrend", "order": 1},
        {"name": "reject", "peak_to_peak": {"eeg": 4e-5, "eog": 1e-3}, "flat": {"eeg": 1e-9}},
        {"name": "baseline", "tmin": None, "tmax": 0.0},
        {"name": "decimate", "factor": 1},
        {"name": "zscore", "tmin": -0.1, "tmax": 0.0},
        {"name": "crop", "tmin": 0.0, "tmax": None},
    ],
}


def signal() -> NDArray[np.float64]:
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((6, N)) + np.cumsum(rng.standard_normal((6, N)), axis=1) / 10
    made: NDArray[np.float64] = (noise + 1000 * rng.standard_normal((6, 1))) * 1e-5
    return made


SIGNAL = signal()


def run(chain: Chain, cuts: list[int], marks: list[tuple[int, int]]) -> dict[int, Any]:
    """Push SIGNAL in chunks that end at `cuts`; (chunk, event) are marked before their chunk. Outcome by mark."""
    stream = chain.stream(keep=N / SFREQ)
    outcomes = []
    edges = [0, *sorted(cuts), N]
    for number, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        for name, (chunk, event) in enumerate(marks):
            if min(chunk, len(edges) - 2) == number:
                stream.mark(event, name)
        stream.push(SIGNAL[:, start:stop])
        outcomes += stream.pop()
    outcomes += stream.finish()
    assert stream.n_samples == N
    assert stream.n_waiting == 0
    found = {outcome.id: outcome for outcome in outcomes}
    assert len(found) == len(outcomes) == len(marks)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", PARTS)
@settings(max_examples=40)
@given(
    cuts=st.lists(st.integers(0, N), max_size=30),
    marks=st.lists(st.tuples(st.integers(0, 30), st.integers(-100, N + 100)), min_size=1, max_size=8),
)
def test_any_cut_gives_the_epochs_of_the_whole_recording(
    name: str, cuts: list[int], marks: list[tuple[int, int]]
) -> None:
    chain = open_chain({"steps": PARTS[name]}, CHANNELS, SFREQ)
    found = run(chain, cuts, marks)
    offline = chain.epochs(SIGNAL, [event for _, event in marks])
    for row, index in enumerate(offline.kept.tolist()):
        np.testing.assert_array_equal(found[index].data, offline.data[row])
        assert found[index].in_warm_up == offline.in_warm_up[row]
        assert found[index].event == marks[index][1]
    assert {index: outcome.reason for index, outcome in found.items() if outcome.data is None} == offline.refused


@pytest.mark.parametrize("name", PARTS)
def test_sample_by_sample(name: str) -> None:
    chain = open_chain({"steps": PARTS[name]}, CHANNELS, SFREQ)
    events = [700, 1234, 1235, 1400]
    found = run(chain, list(range(600, 1600)), [(1, event) for event in events])
    offline = chain.epochs(SIGNAL, events)
    assert len(offline.kept) + len(offline.refused) == 4
    for row, index in enumerate(offline.kept.tolist()):
        np.testing.assert_array_equal(found[index].data, offline.data[row])
    assert {index: outcome.reason for index, outcome in found.items() if outcome.data is None} == offline.refused


def test_every_step_is_among_them() -> None:
    """A new step is put into `PARTS`; whitening, which has a file, has a test of its own."""
    named = {step["name"] for steps in PARTS.values() for step in steps}
    assert named | {"whiten"} == {*CONTINUOUS, "epoch", *OF_EPOCHS}


def test_some_epochs_of_the_whole_chain_pass_and_some_do_not() -> None:
    """Or the equality above would say little."""
    chain = open_chain({"steps": PARTS["all"]}, CHANNELS, SFREQ)
    offline = chain.epochs(SIGNAL, list(range(200, 2500, 50)))
    assert 5 < len(offline.kept) < 41
    assert any("above 4e-05 V" in reason for reason in offline.refused.values())


def test_a_whitened_stream(tmp_path: Path) -> None:
    step = save_whitening(tmp_path, np.random.default_rng(0).standard_normal((6, 6)))
    chain = open_chain({"steps": [EPOCH, step]}, CHANNELS, SFREQ, tmp_path)
    found = run(chain, [300, 301, 950, 1200], [(0, 500), (2, 900)])
    offline = chain.epochs(SIGNAL, [500, 900])
    np.testing.assert_array_equal(np.stack([found[0].data, found[1].data]), offline.data)


def test_outcomes_come_in_the_order_in_which_epochs_end() -> None:
    stream = open_chain({"steps": [EPOCH]}, CHANNELS, SFREQ).stream()
    for event in (900, 300, 600):
        stream.mark(event, event)
    stream.push(SIGNAL[:, :1000])
    assert [outcome.id for outcome in stream.pop()] == [300, 600]
    assert stream.n_waiting == 1
    assert [(outcome.id, outcome.reason) for outcome in stream.finish()] == [
        (900, "the recording ended before the epoch did")
    ]
    with pytest.raises(InputError, match="was ended by finish"):
        stream.push(SIGNAL)


def test_an_event_marked_too_late_is_refused_with_the_reason() -> None:
    """A second is kept beyond an epoch's 201 samples: of an event at 1000, until sample 1651 = 950 + 701."""
    chain = open_chain({"steps": [EPOCH]}, CHANNELS, SFREQ)
    stream = chain.stream(keep=1.0)
    stream.push(SIGNAL[:, :1651])
    stream.mark(1000, "in time")
    stream.push(SIGNAL[:, 1651:1652])
    stream.mark(1000, "late")
    first, second = stream.pop()
    np.testing.assert_array_equal(first.data, chain.epochs(SIGNAL, [1000]).data[0])
    assert (second.id, second.data) == ("late", None)
    assert second.reason == "the event came 1 s after its epoch had ended, whose samples are gone"


def test_a_waiting_epoch_outlives_a_chunk_that_is_longer_than_what_is_kept() -> None:
    chain = open_chain({"steps": [EPOCH]}, CHANNELS, SFREQ)
    stream = chain.stream(keep=0.01)
    long = np.tile(SIGNAL, (1, 10))
    stream.mark(1000, 0)
    stream.mark(29000, 1)
    stream.push(long)
    found = {outcome.id: outcome.data for outcome in stream.pop()}
    np.testing.assert_array_equal(found[0], long[:, 950:1151].astype(np.float32))
    np.testing.assert_array_equal(found[1], long[:, 28950:29151].astype(np.float32))


def test_samples_that_cannot_be_taken_change_nothing() -> None:
    chain = open_chain({"steps": PARTS["filters"]}, CHANNELS, SFREQ)
    stream = chain.stream()
    stream.mark(500, 0)
    stream.push(SIGNAL[:, :400])
    broken = SIGNAL[:, 400:600].copy()
    broken[2, 7] = np.nan
    with pytest.raises(InputError, match=r"channel eeg2 is nan at sample 407 \(0.814 s\)"):
        stream.push(broken)
    with pytest.raises(ShapeError, match=r"\(100, 6\), expected \(6 channels, n\) real numbers: transpose them"):
        stream.push(SIGNAL[:, 400:500].T)
    stream.push(SIGNAL[:, 400:])
    np.testing.assert_array_equal(stream.pop()[0].data, chain.epochs(SIGNAL, [500]).data[0])


@pytest.mark.parametrize(
    "step", [design_filter(SFREQ, 0.5, 40, causal=False)[0], {"name": "resample", "sfreq": 100.0, "causal": False}]
)
def test_a_chain_that_looks_ahead_has_no_stream(step: dict[str, Any]) -> None:
    chain = open_chain({"steps": [PICK, step, EPOCH]}, CHANNELS, SFREQ)
    assert not chain.causal
    with pytest.raises(InputError, match=f"the step '{step['name']}' is not causal: it needs the whole recording"):
        chain.stream()
