"""Rejection by channel type: compared with mne.Epochs."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain

EVENTS = [500, 1000, 1500, 2000, 2500, 3000]
EPOCH = {"name": "epoch", "tmin": -0.2, "tmax": 0.6}


@pytest.fixture
def spoilt(recording: NDArray[np.float64]) -> NDArray[np.float64]:
    """An artefact in one channel of each type that has a limit, and an electrode that came off."""
    recording[1, 520] += 1e-3
    recording[4, 1010] += 1e-2
    recording[5, 1510] += 1e-10
    recording[6, 1510] += 1e-8
    recording[3, 1900:2200] = recording[3, 1900]
    return recording


@pytest.mark.parametrize("turned", [False, True])
def test_every_type_counts_in_any_order(turned: bool, spoilt: NDArray[np.float64], channels: Any, as_mne: Any) -> None:
    limits = {"eeg": 5e-4, "eog": 5e-3, "mag": 5e-11, "grad": 5e-9}
    limits = dict(reversed(limits.items())) if turned else limits
    flat = {"eeg": 1e-6, "mag": 1e-15}
    chain = open_chain({"steps": [EPOCH, {"name": "reject", "peak_to_peak": limits, "flat": flat}]}, channels, 250.0)
    given = chain.epochs(spoilt, EVENTS)
    rows = np.column_stack([EVENTS, [0] * 6, [1] * 6])
    theirs = mne.Epochs(as_mne(spoilt, 250.0), rows, 1, -0.2, 0.6, None, "all", True, limits, flat, verbose="error")
    assert given.kept.tolist() == theirs.selection.tolist() == [4, 5]
    for event, reason in given.refused.items():
        assert all(name in reason for name in theirs.drop_log[event])
    assert given.refused[0].startswith("peak to peak above 0.0005 V (eeg): 0.001")
    assert given.refused[0].endswith(" V in eeg1")
    first, second = given.refused[2].split("; ")
    assert {first[:35], second[:35]} == {
        "peak to peak above 5e-11 T (mag): 1",
        "peak to peak above 5e-09 T/m (grad):"[:35],
    }
    assert given.refused[3] == "peak to peak below 1e-06 V (eeg): 0 V in eeg3"


def test_a_value_at_the_limit_passes(channels: Any) -> None:
    data = np.zeros((8, 300))
    data[0, 100] = 0.5
    limits = {"name": "reject", "peak_to_peak": {"eeg": 0.5}, "flat": {"eog": 0.0}}
    given = open_chain({"steps": [EPOCH, limits]}, channels, 250.0).epochs(data, [100])
    assert given.kept.tolist() == [0]


def test_rejection_sees_what_detrending_leaves(channels: Any) -> None:
    data = np.zeros((8, 600)) + np.arange(600) * 1e-5
    limits = {"name": "reject", "peak_to_peak": {"eeg": 1e-4}}
    steps = [EPOCH, {"name": "detrend", "order": 1}, limits]
    assert open_chain({"steps": [EPOCH, limits]}, channels, 250.0).epochs(data, [100]).kept.size == 0
    assert open_chain({"steps": steps}, channels, 250.0).epochs(data, [100]).kept.size == 1


@pytest.mark.parametrize(
    "limits",
    [{"peak_to_peak": {"EEG": 1e-4}}, {"flat": {"eeg": "1 µV"}}, {"peak_to_peak": 1e-4}, {"flat": {"eeg": -1}}],
)
def test_limits_that_are_none(limits: dict[str, Any], channels: Any) -> None:
    with pytest.raises(InputError, match="of the step 'reject' is .*: give a limit in V, T or T/m per type"):
        open_chain({"steps": [EPOCH, {"name": "reject", **limits}]}, channels, 250.0)


def test_no_limit_holds_for_zscores(channels: Any) -> None:
    steps = [EPOCH, {"name": "zscore"}, {"name": "reject", "peak_to_peak": {"eeg": 1e-4}}]
    with pytest.raises(InputError, match="put it before"):
        open_chain({"steps": steps}, channels, 250.0)
