"""The layout of responses: what it refuses, JSON there and back, and every difference by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel, ResponseLayout, voxels_of
from minddiffuser.runtime.data.voxels import Voxels
from minddiffuser.runtime.errors import FileError, InputError

SOS = [[1.0, 2.0, 1.0, 1.0, -0.5, 0.25]]
SIGNAL = {
    "steps": [
        {"name": "filter", "sos": SOS, "causal": True},
        {"name": "reference", "channels": "average"},
        {"name": "whiten", "file": "whitening.safetensors", "sha256": "0" * 64},
    ]
}
CHANNELS = (Channel(name="O1", type="eeg", position=(-0.03, -0.09, 0.0)), Channel(name="Oz", type="eeg"))
FMRI = ResponseLayout(
    modality="fmri", shape=(10,), rois={"V1": (0, 4), "LO": (4, 10), "LVC": frozenset({0, 2, 9})}, unit="a.u."
)
EEG = ResponseLayout(modality="eeg", shape=(2, 50), channels=CHANNELS, sfreq=250, tmin=-0.2, unit="V", signal=SIGNAL)
MEG = replace(EEG, modality="meg", unit="T", channels=(Channel(name="A", type="mag"), Channel(name="B", type="grad")))


@pytest.mark.parametrize("layout", [FMRI, EEG, MEG, replace(FMRI, rois=None, unit=None), replace(EEG, signal=None)])
def test_there_and_back(layout: ResponseLayout) -> None:
    content = json.loads(json.dumps(layout.as_json(), allow_nan=False))
    assert ResponseLayout.from_json(content, "here") == layout
    assert ResponseLayout.from_json({**content, "subject": "x"}, "here") == layout
    layout.require_same(ResponseLayout.from_json(content, "here"), "it")


def test_sizes() -> None:
    assert (FMRI.n_features, EEG.n_features) == (10, 100)
    assert (FMRI.axis, MEG.axis) == ("voxel", "channel")


def test_rois() -> None:
    assert FMRI.rois is not None
    np.testing.assert_array_equal(voxels_of(FMRI.rois["LVC"]), [0, 2, 9])
    np.testing.assert_array_equal(voxels_of(FMRI.rois["V1"]), [0, 1, 2, 3])
    assert FMRI.as_json()["rois"]["LVC"] == {"indices": [0, 2, 9]}
    assert replace(FMRI, rois={"V1": {3, 4, 5}}).rois == {"V1": (3, 6)}  # a set that is a range


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        (FMRI, {"modality": "ecog"}, "modality is 'ecog': give one of fmri, eeg, meg"),
        (FMRI, {"shape": (2, 5)}, r"response_shape is \(2, 5\): fmri has \(n_voxels,\)"),
        (FMRI, {"shape": (0,)}, "above 0"),
        (EEG, {"shape": (100,)}, r"eeg has \(n_channels, n_times\)"),
        (FMRI, {"rois": {"V1": (4, 11)}}, "'V1' spans voxels 4 to 11, and there are 10"),
        (FMRI, {"rois": {"V1": (4, 4)}}, "spans voxels 4 to 4"),
        (FMRI, {"rois": {"V1": frozenset({3, 10})}}, "spans voxels 3 to 11"),
        (FMRI, {"rois": {"V1": frozenset()}}, "give .start, stop."),
        (FMRI, {"rois": {"V1": (1, 2, 3)}}, "give .start, stop."),
        (FMRI, {"rois": {"": (1, 2)}}, "a roi is named ''"),
        (FMRI, {"rois": {}}, "rois is {}"),
        (FMRI, {"sfreq": 250.0}, "sfreq is given for fmri"),
        (FMRI, {"unit": ""}, "unit is ''"),
        (EEG, {"rois": {"V1": (0, 1)}}, "rois are given for eeg"),
        (EEG, {"voxels": Voxels(np.eye(3, dtype=int))}, "places of voxels are given for eeg"),
        (FMRI, {"voxels": Voxels(np.eye(3, dtype=int))}, "voxels have 3 places, and there are 10 voxels"),
        (EEG, {"channels": CHANNELS[:1]}, "channels are 1 of them: give a list with one for each of the 2 channels"),
        (EEG, {"channels": None}, "channels are None"),
        (EEG, {"channels": CHANNELS[:1] * 2}, "channel 'O1' is listed twice"),
        (EEG, {"sfreq": 0}, "sfreq is 0"),
        (EEG, {"sfreq": float("nan")}, "sfreq is nan"),
        (EEG, {"sfreq": True}, "sfreq is True"),
        (EEG, {"tmin": None}, "tmin is None"),
        (EEG, {"unit": "uV"}, "unit is 'uV': eeg is in V"),
        (MEG, {"unit": "V"}, "unit is 'V': meg is in T"),
        (EEG, {"signal": [1]}, "signal is .1.: give"),
        (EEG, {"signal": {"steps": [{}]}}, "step 0 of signal is {}"),
        (EEG, {"signal": {"steps": [{"name": "filter", "sos": [[1, 2, 3]]}]}}, "sos of step 0 .'filter'. of signal"),
        (EEG, {"signal": {"steps": [{"name": "filter", "sos": [[1, 2, 1, 2, 0, 0]]}]}}, "second-order sections"),
        (EEG, {"signal": {"steps": [{"name": "filter", "causal": 1}]}}, "causal of step 0"),
        (EEG, {"signal": {"steps": [{"name": "whiten", "file": "../w", "sha256": "0" * 64}]}}, "file of step 0"),
        (EEG, {"signal": {"steps": [{"name": "whiten", "file": "w"}]}}, "sha256 of step 0"),
        (EEG, {"signal": {"steps": [{"name": "a", "gain": float("inf")}]}}, "gain is inf"),
    ],
)
def test_refused(layout: ResponseLayout, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        replace(layout, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": " Oz", "type": "eeg"}, "named ' Oz'"),
        ({"name": "Oz", "type": "brain"}, "'Oz' is of type 'brain': give one of eeg, mag"),
        ({"name": "Oz", "type": "eeg", "position": [0.1, 0.2]}, "position of channel 'Oz'"),
        ({"name": "Oz", "type": "eeg", "position": [0.1, 0.2, float("nan")]}, "in metres"),
    ],
)
def test_channel_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Channel(**given)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the layout of the responses in here is None"),
        ({}, "here: modality is None"),
        ({**FMRI.as_json(), "response_shape": 10}, "here: response_shape is 10"),
        ({**FMRI.as_json(), "rois": {"V1": {"indices": [3, 3]}}}, "in ascending order"),
        ({**FMRI.as_json(), "rois": {"V1": {"voxels": [3, 4]}}}, "roi 'V1' is {'voxels'"),
        ({**EEG.as_json(), "channels": [{"name": "O1"}, {"name": "Oz"}]}, "here: channel 0 is"),
        ({**EEG.as_json(), "channels": "O1 Oz"}, "channels are 'O1 Oz'"),
    ],
)
def test_json_refused(content: object, message: str) -> None:
    with pytest.raises(FileError, match=message):
        ResponseLayout.from_json(content, "here")


def step(index: int, **changes: Any) -> dict[str, Any]:
    steps = [dict(one) for one in SIGNAL["steps"]]
    steps[index].update(changes)
    return {"steps": steps}


@pytest.mark.parametrize(
    ("fitted", "given", "message"),
    [
        (EEG, FMRI, "it was fitted on eeg, these are fmri"),
        (FMRI, replace(FMRI, shape=(11,)), "it was fitted on 10 voxels, these have 11"),
        (FMRI, replace(FMRI, rois={**FMRI.rois, "V1": (0, 3)}), "'V1' is voxels 0 to 4 there and voxels 0 to 3 here"),  # type: ignore[dict-item]
        (FMRI, replace(FMRI, rois={**FMRI.rois, "LVC": frozenset({1, 9})}), r"3 voxels \(0, 2, 9\) there and 2 voxels"),  # type: ignore[dict-item]
        (FMRI, replace(FMRI, unit="beta"), "unit is a.u. there and beta here"),
        (EEG, replace(EEG, shape=(2, 51)), "it was fitted on 50 samples, these have 51"),
        (EEG, replace(EEG, shape=(1, 50), channels=CHANNELS[:1]), r"these lack 'Oz' \(channels\)"),
        (
            EEG,
            replace(EEG, shape=(3, 50), channels=(*CHANNELS, Channel(name="Pz", type="eeg"))),
            r"these also have 'Pz' \(channels\)",
        ),
        (EEG, replace(EEG, channels=CHANNELS[::-1]), "another order, number 0 is 'O1' there and 'Oz' here"),
        (EEG, replace(EEG, channels=(CHANNELS[0], Channel(name="Oz", type="eog"))), "type eeg there and eog here"),
        (EEG, replace(EEG, sfreq=200.0), "sfreq is 250 Hz there and 200 Hz here"),
        (EEG, replace(EEG, tmin=0.0), "tmin is -0.2 s there and 0 s here"),
        (EEG, replace(EEG, tmin=-0.2021), "tmin is -0.2 s there and -0.2021 s here"),
        (replace(EEG, shape=(2, 5 * 10**8)), replace(EEG, shape=(2, 5 * 10**8), sfreq=250.0000005), "250.0000005 Hz"),
        (replace(EEG, shape=(2, 1)), replace(EEG, shape=(2, 1), sfreq=125), "sfreq is 250 Hz there and 125 Hz here"),
        (EEG, replace(EEG, unit="1"), "unit is V there and 1 here"),
        (
            EEG,
            replace(EEG, signal=step(0, causal=False)),
            r"causal of step 0 \('filter'\) .* is true there and false here",
        ),
        (EEG, replace(EEG, signal=step(2, sha256="1" * 64)), "sha256 of step 2"),
        (EEG, replace(EEG, signal=step(1, name="decimate")), "step 1 of the signal chain is 'reference' there"),
        (EEG, replace(EEG, signal={"steps": SIGNAL["steps"][:2]}), "has 3 steps there and 2 here"),
    ],
)
def test_differences_by_name(fitted: ResponseLayout, given: ResponseLayout, message: str) -> None:
    with pytest.raises(InputError, match="differ from those that the checkpoint was fitted on") as caught:
        fitted.require_same(given, "the checkpoint")
    assert caught.match(message)
    assert len(str(caught.value)) < 500


def test_what_is_not_known_is_not_compared() -> None:
    FMRI.require_same(replace(FMRI, rois=None, unit=None), "it")
    FMRI.require_same(replace(FMRI, rois={"V1": (0, 4), "V2": (4, 10)}), "it")  # regions drawn later
    replace(FMRI, rois=None).require_same(FMRI, "it")
    EEG.require_same(replace(EEG, signal=None), "it")
    moved = replace(CHANNELS[0], position=(0.0, 0.0, 0.1))
    EEG.require_same(replace(EEG, channels=(moved, CHANNELS[1])), "it")


def test_rates_and_times_that_no_sample_notices_are_the_same() -> None:
    """250 Hz as a clock measures it: over 50 samples 0.001 % drift by 0.0005 samples, 1 ms is a quarter of one."""
    EEG.require_same(replace(EEG, sfreq=250 * (1 + 1e-5), tmin=-0.201), "it")
    EEG.require_same(replace(EEG, tmin=-0.2 + 1e-16), "it")


def test_a_parameter_that_is_null_is_not_given() -> None:
    for fitted, given in (
        (EEG, replace(EEG, signal=step(0, gain=None))),
        (replace(EEG, signal=step(0, gain=None)), EEG),
    ):
        fitted.require_same(given, "it")


def test_long_parameters_are_shown_where_they_differ() -> None:
    rows = [[1.0, 2.0, 1.0, 1.0, -0.5, 0.25]] * 9
    other = [*rows[:8], [1.0, 2.0, 1.0, 1.0, -0.5, 0.75]]
    with pytest.raises(InputError, match=r"sos of step 0 .* is \.\.\..*0\.25.* there and \.\.\..*0\.75.* here"):
        replace(EEG, signal=step(0, sos=rows)).require_same(replace(EEG, signal=step(0, sos=other)), "it")


def test_a_chain_of_numpy_and_tuples_is_kept_as_json() -> None:
    given = {
        "steps": (
            {"name": "filter", "sos": np.array(SOS), "causal": np.bool_(True)},
            {"name": "decimate", "factor": np.int64(4)},
            {"name": "baseline", "window": (np.float32(-0.5), 0.0)},
        )
    }
    layout = replace(EEG, signal=given)
    assert layout.signal == {
        "steps": [
            {"name": "filter", "sos": SOS, "causal": True},
            {"name": "decimate", "factor": 4},
            {"name": "baseline", "window": [-0.5, 0.0]},
        ]
    }
    assert ResponseLayout.from_json(json.loads(json.dumps(layout.as_json())), "here") == layout
    with pytest.raises(InputError, match="sos of step 0"):
        replace(EEG, signal={"steps": [{"name": "filter", "sos": np.array(SOS)[:, :5]}]})


@pytest.mark.parametrize("second", ["w.bin", "W.bin"])
def test_one_name_for_two_files_is_refused(second: str) -> None:
    whiten = {"name": "whiten", "file": "w.bin", "sha256": "0" * 64}
    assert replace(EEG, signal={"steps": [whiten, whiten]}).signal == {"steps": [whiten, whiten]}
    with pytest.raises(InputError, match=f"name the files 'w.bin' .SHA-256 0+….* and '{second}' .SHA-256 1+…"):
        replace(EEG, signal={"steps": [whiten, {**whiten, "file": second, "sha256": "1" * 64}]})


@pytest.mark.parametrize("text", ["V1\n", "V1\x1b[31m", "V\u202e1", "V\x001", "V" * 101, "a\nb", "\x9b1"])
def test_names_that_a_terminal_would_obey_are_refused(text: str) -> None:
    """Names and units of a stranger's file are printed as they are."""
    with pytest.raises(InputError, match="one line, at most 100 printable characters") as caught:
        replace(FMRI, rois={text: (0, 4)})
    assert str(caught.value).isprintable()
    with pytest.raises(InputError, match="one line, at most 100 printable characters"):
        Channel(name=text, type="eeg")
    with pytest.raises(InputError, match="unit is .* one line, at most 100 printable characters"):
        replace(FMRI, unit=text)
    assert Channel(name="V" * 100, type="eeg").name == "V" * 100
    assert replace(FMRI, unit="% ∆ µV").unit == "% ∆ µV"
