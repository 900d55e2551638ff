"""Resampling: compared with scipy.signal.resample_poly, and with waves whose samples are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain

RATES = [(1000.0, 120.0, 3, 25), (1000.0, 250.0, 1, 4), (250.0, 256.0, 128, 125), (512.0, 200.0, 25, 64)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("old", "new", "up", "down"), RATES)
def test_it_is_resample_poly(
    old: float, new: float, up: int, down: int, causal: bool, channels: Any, recording: NDArray[np.float64]
) -> None:
    recording -= recording.mean(axis=1, keepdims=True)
    theirs = signal.resample_poly(recording, up, down, axis=1)
    last = theirs.shape[1] / new - 0.6
    steps = [{"name": "resample", "sfreq": new, "causal": causal}, {"name": "epoch", "tmin": 0, "tmax": last - 0.5}]
    chain = open_chain({"steps": steps}, channels, old)
    given = chain.epochs(recording, [round(0.5 * old)])
    first = round(round(0.5 * old) * new / old)
    wanted = theirs[:, first : first + chain.output.n_times]
    assert chain.output.sfreq == pytest.approx(new)
    limit = 2e-7 * np.abs(recording).max(axis=1, keepdims=True)  # the epochs are float32
    assert np.all(np.abs(given.data[0] - wanted) <= limit)


@pytest.mark.parametrize("causal", [True, False])
def test_a_constant_stays_one_to_the_edges(causal: bool, channels: Any) -> None:
    data = np.full((8, 1000), 3.0)
    steps = [{"name": "resample", "sfreq": 120.0, "causal": causal}, {"name": "epoch", "tmin": 0, "tmax": 0.9}]
    chain = open_chain({"steps": steps}, channels, 1000.0)
    given = chain.epochs(data, [0])
    np.testing.assert_allclose(given.data[0], 3.0, rtol=2e-3)  # the filter's own ripple


def test_a_causal_one_waits_for_its_latency(channels: Any) -> None:
    """From 1000 to 120 Hz, 250 samples at three times the rate: 83 ms after the epoch has ended."""
    steps = [{"name": "resample", "sfreq": 120.0, "causal": True}, {"name": "epoch", "tmin": 0, "tmax": 0.5}]
    chain = open_chain({"steps": steps}, channels, 1000.0)
    assert chain.latency == pytest.approx(0.0833, abs=1e-4)
    stream = chain.stream()
    stream.mark(1000, "a")
    n = 1000 + 500 + 83
    stream.push(np.zeros((8, n)))
    assert stream.pop() == []
    stream.push(np.zeros((8, 1)))
    assert [outcome.id for outcome in stream.pop()] == ["a"]
    assert chain.epochs(np.zeros((8, n)), [1000]).refused == {0: "the recording ended before the epoch did"}
    assert chain.epochs(np.zeros((8, n + 1)), [1000]).refused == {}


def test_a_wave_keeps_its_time(channels: Any) -> None:
    times = np.arange(4000) / 1000
    steps = [{"name": "resample", "sfreq": 120.0, "causal": True}, {"name": "epoch", "tmin": -0.5, "tmax": 0.5}]
    chain = open_chain({"steps": steps}, channels, 1000.0)
    given = chain.epochs(np.stack([np.sin(2 * np.pi * 7 * (times - 2))] * 8), [2000])
    np.testing.assert_allclose(given.data[0, 0], np.sin(2 * np.pi * 7 * chain.output.times), atol=2e-3)


@pytest.mark.parametrize(("sfreq", "message"), [(333.1234, "cannot be resampled to"), (0, "above 0"), ("1", "above 0")])
def test_rates_that_cannot_be(sfreq: Any, message: str, channels: Any) -> None:
    steps = [{"name": "resample", "sfreq": sfreq, "causal": True}, {"name": "epoch", "tmin": 0, "tmax": 1}]
    with pytest.raises(InputError, match=message):
        open_chain({"steps": steps}, channels, 1000.0)
