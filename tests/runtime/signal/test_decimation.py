"""Decimation: of epochs as MNE's `decim`, of the signal by a fixed phase, and never into aliases."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.runtime.signal.filters import design_filter

LOW_PASS = design_filter(1000.0, None, 60.0, causal=True)


@pytest.mark.parametrize(("tmin", "factor"), [(-0.2, 5), (-0.1993, 5), (0.003, 4), (-0.1, 3)])
def test_epochs_are_decimated_as_by_mne(
    tmin: float, factor: int, channels: Any, recording: NDArray[np.float64], as_mne: Any
) -> None:
    events = [1001, 2002, 3003]
    steps = [
        *LOW_PASS,
        {"name": "epoch", "tmin": tmin, "tmax": 0.5},
        {"name": "baseline", "tmin": 0.05, "tmax": 0.1},
        {"name": "decimate", "factor": factor},
    ]
    chain = open_chain({"steps": steps}, channels, 1000.0)
    given = chain.epochs(recording, events)
    filtered = open_chain({"steps": [*LOW_PASS, {"name": "epoch", "tmin": 0, "tmax": 5.999}]}, channels, 1000.0)
    whole = filtered.epochs(recording, [0]).data[0].astype(np.float64)
    rows = np.column_stack([events, [0] * 3, [1] * 3])
    theirs = mne.Epochs(
        as_mne(whole, 1000.0), rows, 1, tmin, 0.5, (0.05, 0.1), "all", True, decim=factor, verbose="error"
    )
    np.testing.assert_allclose(chain.output.times, theirs.times, rtol=1e-12)
    assert chain.output.sfreq == theirs.info["sfreq"]
    found = theirs.get_data(verbose="error")
    limit = 3 * np.finfo(np.float32).eps * np.abs(whole).max(axis=1)[None, :, None]  # `whole` is float32
    np.testing.assert_array_less(np.abs(given.data - found)[:, :7], np.broadcast_to(limit, found.shape)[:, :7])


@pytest.mark.parametrize(("event", "nearest"), [(1000, 250), (1001, 250), (1003, 251), (1002, 250), (1006, 252)])
def test_a_decimated_signal_keeps_its_own_samples(event: int, nearest: int, channels: Any) -> None:
    """Of two samples that are as near, the even one, as numpy rounds and MNE with it."""
    data = np.zeros((8, 4000)) + np.arange(4000)
    steps = [*LOW_PASS, {"name": "decimate", "factor": 4}, {"name": "epoch", "tmin": -0.2, "tmax": 0.2}]
    chain = open_chain({"steps": steps}, channels, 1000.0)
    assert (chain.output.sfreq, chain.output.n_times) == (250.0, 101)
    given = chain.epochs(data, [event, 4 * nearest])
    np.testing.assert_array_equal(given.data[0], given.data[1])


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize(
    ("filters", "allowed"),
    [
        (design_filter(1000.0, 0.1, 80.0, causal=True), True),
        (design_filter(1000.0, 0.1, 100.0, causal=True), False),
        (design_filter(1000.0, 0.1, 100.0, causal=False), True),
        (design_filter(1000.0, 0.1, 100.0, causal=True, order=8), True),
        (design_filter(1000.0, 0.1, None, causal=True), False),
        (design_filter(1000.0, None, None, causal=True, notch=50), False),
        ([], False),
    ],
)
def test_decimation_needs_a_filter_before_it(
    filters: list[dict[str, Any]], allowed: bool, place: int, channels: Any
) -> None:
    steps: list[dict[str, Any]] = [{"name": "epoch", "tmin": 0, "tmax": 1}]
    steps.insert(place - 1, {"name": "decimate", "factor": 4})
    chain = {"steps": [*filters, *steps]}
    if allowed:
        assert open_chain(chain, channels, 1000.0).output.sfreq == 250
    else:
        with pytest.raises(
            InputError, match=r"gives 250 Hz, and the filters before it leave \d+ % of .* at most 83.33 Hz"
        ):
            open_chain(chain, channels, 1000.0)


def test_the_figure_of_the_message_is_the_gain_there(channels: Any) -> None:
    """A wave at the named frequency comes out of the undecimated chain with the named share of its amplitude."""
    filters = design_filter(1000.0, 0.1, 100.0, causal=True)
    epoch = {"name": "epoch", "tmin": 0, "tmax": 1}
    with pytest.raises(InputError) as caught:
        open_chain({"steps": [*filters, {"name": "decimate", "factor": 4}, epoch]}, channels, 1000.0)
    words = str(caught.value).split(" leave ")[1].split()
    share, frequency = float(words[0]), float(words[3])
    wave = np.sin(2 * np.pi * frequency * np.arange(20000) / 1000)
    left = open_chain({"steps": [*filters, epoch]}, channels, 1000.0).epochs(np.stack([wave] * 8), [15000])
    assert 100 * left.data.std() * 2**0.5 == pytest.approx(share, abs=0.6)


def test_a_factor_that_is_none(channels: Any) -> None:
    for factor in (0, 2.5, True):
        with pytest.raises(InputError, match="factor of the step 'decimate' is"):
            open_chain(
                {"steps": [{"name": "decimate", "factor": factor}, {"name": "epoch", "tmin": 0, "tmax": 1}]},
                channels,
                1000.0,
            )


def test_a_factor_that_leaves_nothing(channels: Any) -> None:
    steps = [*LOW_PASS, {"name": "epoch", "tmin": 0.001, "tmax": 0.002}, {"name": "decimate", "factor": 4}]
    with pytest.raises(InputError, match="leaves no sample of 2"):
        open_chain({"steps": steps}, channels, 1000.0)
