"""Channels by name, and the reference: compared with MNE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain

EPOCH = {"name": "epoch", "tmin": 0.0, "tmax": 1.0}


def test_pick_takes_channels_in_its_own_order(channels: Any, recording: NDArray[np.float64]) -> None:
    chain = open_chain({"steps": [{"name": "pick", "channels": ["mag5", "eeg1"]}, EPOCH]}, channels, 250.0)
    given = chain.epochs(recording, [100])
    np.testing.assert_array_equal(given.data[0], recording[[5, 1], 100:351].astype(np.float32))
    assert [channel.name for channel in chain.output.channels] == ["mag5", "eeg1"]


@pytest.mark.parametrize("names", [None, ["eeg2"], ["eeg3", "eeg0"], ["eog4"]])
def test_reference_is_that_of_mne(
    names: list[str] | None, channels: Any, recording: NDArray[np.float64], as_mne: Any
) -> None:
    recording -= recording.mean(axis=1, keepdims=True)
    step = {"name": "reference", "kind": "average"} if names is None else None
    step = step or {"name": "reference", "kind": "channels", "channels": names}
    given = open_chain({"steps": [step, EPOCH]}, channels, 250.0).epochs(recording, [100])
    raw = as_mne(recording.copy(), 250.0).set_eeg_reference(names or "average", ch_type="eeg", verbose="error")
    theirs = raw.get_data()[:, 100:351]
    limit = np.finfo(np.float32).eps * np.abs(recording).max(axis=1, keepdims=True)
    assert np.all(np.abs(given.data[0] - theirs) <= limit)
    np.testing.assert_array_equal(given.data[0, 4:], recording[4:, 100:351].astype(np.float32))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "pick", "channels": ["eeg1", "Oz", "POz"]}, "'pick' needs 'Oz', 'POz', and the signal has 'eeg0', "),
        ({"name": "pick", "channels": ["eeg1", "eeg1"]}, "names channel 'eeg1' twice"),
        ({"name": "pick", "channels": []}, "give a list of channel names"),
        ({"name": "reference"}, "kind of the step 'reference' is None"),
        ({"name": "reference", "kind": "average", "channels": ["eeg1"]}, "has the parameter 'channels'"),
        ({"name": "reference", "kind": "channels", "channels": ["Cz"]}, "needs 'Cz'"),
    ],
)
def test_a_wrong_step_is_named(step: dict[str, Any], message: str, channels: Any) -> None:
    with pytest.raises(InputError, match=message):
        open_chain({"steps": [step, EPOCH]}, channels, 250.0)


def test_meg_has_no_reference(channels: Any) -> None:
    with pytest.raises(InputError, match="needs EEG channels, and the signal has none"):
        open_chain({"steps": [{"name": "reference", "kind": "average"}, EPOCH]}, channels[5:], 250.0)
