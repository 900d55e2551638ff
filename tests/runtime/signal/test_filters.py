"""Filters: their design and their action, compared with SciPy and MNE, and with waves of known frequency."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import Chain, open_chain
from minddiffuser.runtime.signal.filters import design_filter

SFREQ = 250.0
EPOCH = {"name": "epoch", "tmin": 0.0, "tmax": 4.0}


def chain_of(steps: list[dict[str, Any]], channels: Any, sfreq: float = SFREQ) -> Chain:
    return open_chain({"steps": [*steps, EPOCH]}, channels, sfreq)


@pytest.mark.parametrize(("low", "high"), [(0.5, 40.0), (0.1, None), (None, 40.0), (1.0, 100.0)])
def test_the_design_is_that_of_mne(low: float | None, high: float | None) -> None:
    (step,) = design_filter(SFREQ, low, high, causal=True)
    kind = "lowpass" if low is None else "highpass" if high is None else "bandpass"
    edges = [edge for edge in (low, high) if edge is not None]
    wanted = {"order": 4, "ftype": "butter", "output": "sos"}
    theirs = mne.filter.construct_iir_filter(wanted, edges, None, SFREQ, kind, return_copy=True, verbose="error")
    ours, frequencies = np.array(step["sos"]), np.geomspace(0.05, 124, 50)
    response = np.abs(signal.sosfreqz(ours, frequencies, fs=SFREQ)[1])
    np.testing.assert_allclose(
        response, np.abs(signal.sosfreqz(theirs["sos"], frequencies, fs=SFREQ)[1]), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(np.abs(signal.sosfreqz(ours, edges, fs=SFREQ)[1]), 0.5**0.5, rtol=1e-6)


def test_a_causal_filter_is_mnes_forward_filter(channels: Any, recording: NDArray[np.float64], as_mne: Any) -> None:
    """From the 13th second on: MNE starts from zeros, this one from the first sample, and 0.5 Hz forgets slowly."""
    recording -= recording[:, :1]
    steps = design_filter(SFREQ, 0.5, 40.0, causal=True)
    given = chain_of(steps, channels).epochs(recording, [3250])
    iir = {"order": 4, "ftype": "butter", "output": "sos"}
    theirs = mne.filter.filter_data(
        recording, SFREQ, 0.5, 40.0, method="iir", iir_params=iir, phase="forward", copy=True, verbose="error"
    )
    np.testing.assert_allclose(
        given.data[0], theirs[:, 3250:4251], atol=1e-6 * np.abs(theirs).max(axis=1).min(), rtol=1e-5
    )


def test_a_zero_phase_filter_is_scipys(channels: Any, recording: NDArray[np.float64]) -> None:
    recording -= recording.mean(axis=1, keepdims=True)
    steps = design_filter(SFREQ, 0.5, 40.0, causal=False)
    given = chain_of(steps, channels).epochs(recording, [2000])
    theirs = signal.sosfiltfilt(np.array(steps[0]["sos"]), recording, axis=1)[:, 2000:3001]
    error = np.abs(given.data[0] - theirs).max(axis=1) / theirs.std(axis=1)
    assert error.max() < 1e-3  # scipy extends the ends by 27 samples, this one until the filter has settled
    assert given.in_warm_up.tolist() == [False]


def test_an_offset_of_the_electrodes_makes_no_transient(channels: Any) -> None:
    constant = np.full((8, 3000), 0.3)
    given = chain_of(design_filter(SFREQ, 0.1, 40.0, causal=True, notch=50.0), channels).epochs(constant, [0])
    assert np.abs(given.data).max() < 1e-9 * 0.3


@pytest.mark.parametrize(("low", "high"), [(0.5, 40.0), (0.1, 40.0), (None, 30.0), (1.0, None)])
def test_the_delay_is_that_of_a_wave_packet(low: float | None, high: float | None, channels: Any) -> None:
    """A packet's envelope, whose time is its centre of mass, comes out later by the group delay at its frequency."""
    (step,) = design_filter(1000.0, low, high, causal=True)
    top = 500.0 if high is None else high
    middle = top / 2 if low is None else (low * top) ** 0.5
    times = np.arange(-20000, 20000) / 1000
    width = 4 / middle
    packet = np.exp(-((times / width) ** 2) / 2) * np.exp(2j * np.pi * middle * times)
    out = signal.sosfilt(np.array(step["sos"]), packet)
    power = np.abs(out) ** 2
    late = (power * times).sum() / power.sum()
    assert step["delay"] == pytest.approx(late, abs=0.05 * late + 1e-4)
    assert chain_of([step], channels, 1000.0).delay == step["delay"]


def test_a_zero_phase_filter_has_no_delay() -> None:
    assert [step["delay"] for step in design_filter(SFREQ, 0.5, 40, causal=False, notch=[50, 100])] == [0, 0]


def test_notches_remove_the_mains_and_little_else(channels: Any) -> None:
    steps = design_filter(1000.0, None, None, causal=True, notch=[50.0, 100.0])
    assert [step["notch"] for step in steps] == [[50.0, 100.0]]
    times = np.arange(20000) / 1000
    waves = np.stack([np.sin(2 * np.pi * f * times) for f in (50, 100, 45, 20, 10, 75, 150, 200)])
    left = chain_of(steps, channels, 1000.0).epochs(waves, [15000]).data[0].std(axis=1) * 2**0.5
    assert left[:2].max() < 1e-3
    assert left[2:].min() > 0.9


def test_the_warm_up_is_over_when_a_step_has_decayed(channels: Any) -> None:
    (step,) = design_filter(SFREQ, 0.5, 40.0, causal=True)
    chain = chain_of([step], channels)
    jump = np.ones((1, 6000))
    jump[0, 0] = 0
    response = np.abs(signal.sosfilt(np.array(step["sos"]), jump)[0])
    assert response[round(chain.warm_up * SFREQ) :].max() < 0.02 * response.max()
    assert 1 < chain.warm_up < 20


def test_epochs_in_the_warm_up_are_marked(channels: Any, recording: NDArray[np.float64]) -> None:
    for causal in (True, False):
        chain = chain_of(design_filter(SFREQ, 1.0, 40.0, causal=causal), channels)
        n = round(chain.warm_up * SFREQ)
        given = chain.epochs(recording, [n - 5, n + 5, 6000 - 1001 - n - 5, 6000 - 1001 - n + 5])
        assert given.in_warm_up.tolist() == [True, False, False, not causal]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l_freq": 40.0, "h_freq": 1.0}, "the pass band lies between them"),
        ({"l_freq": 0.0, "h_freq": 40.0}, "l_freq is 0.0 Hz"),
        ({"l_freq": 0.1, "h_freq": 125.0}, "h_freq is 125.0 Hz, and the signal has 250 Hz"),
        ({"l_freq": 0.1, "h_freq": 40.0, "notch": [50, 150]}, "the notch is at 150 Hz"),
        ({"l_freq": 0.1, "h_freq": 40.0, "order": 0}, "order is 0"),
    ],
)
def test_a_design_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        design_filter(SFREQ, causal=True, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"causal": None}, "causal"),
        ({"sfreq": 500.0}, "was designed for 500 Hz, and the signal there has 250 Hz"),
        ({"sos": [[1.0, 0.0, 0.0, 1.0, -2.1, 1.05]]}, "unstable"),
        ({"sos": []}, "sos"),
        ({"phase": "zero"}, "has the parameter 'phase'"),
    ],
)
def test_a_wrong_step_is_named(change: dict[str, Any], message: str, channels: Any) -> None:
    (step,) = design_filter(SFREQ, 0.5, 40.0, causal=True)
    with pytest.raises(InputError, match=message):
        chain_of([{**step, **change}], channels)
