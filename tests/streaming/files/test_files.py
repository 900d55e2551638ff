"""Recordings of others: BrainVision, BDF, EDF, CTF, XDF, and a FIF with skips, read as a source would give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.streaming.files import open_file
from minddiffuser.streaming.files.recorded import Choice
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.verify.compare import Case, verify


def given(name: str) -> Path:
    """A recording in the folder shared/recordings beside the checkout, or higher."""
    above = (folder / "shared" / "recordings" / name for folder in Path(__file__).resolve().parents)
    path = next((path for path in above if path.exists()), None)
    if path is None:
        pytest.skip(f"there is no shared/recordings/{name}")
    return path


def test_a_fif_with_annotations_triggers_skips_and_a_joint(tmp_path: Path) -> None:
    import mne

    rng = np.random.default_rng(0)
    info = mne.create_info(["Cz", "M1", "STI 014"], 200.0, ["eeg", "grad", "stim"])
    data = 1e-6 * rng.standard_normal((3, 1000))
    data[2] = 0
    data[2, [300, 301, 700]] = [5, 5, 9]
    raw = mne.io.RawArray(data, info, first_samp=4321, verbose="error")
    texts = ["see", "BAD_ACQ_SKIP", "EDGE boundary"]
    raw.set_annotations(mne.Annotations([0.5, 1.5, 3.0], [0, 0.5, 0], texts), verbose="error")
    path = tmp_path / "x_raw.fif"
    raw.save(path, verbose="error")
    found = open_file(path, Choice())
    assert [(channel.name, channel.type) for channel in found.info.channels] == [("Cz", "eeg"), ("M1", "grad")]
    assert found.info.units == ("V", "T/m")
    assert found.markers == ((0.5, b"see"), (1.5, b"5"), (3.5, b"9"))
    kept = np.r_[0:300, 400:1000]
    np.testing.assert_allclose(found.stamps, kept / 200.0, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.read(290, 320), mne.io.read_raw(path).get_data([0, 1])[:, kept[290:320]])
    assert found.joints == ((500, "two recordings were joined"),)


def test_an_xdf_file_of_others() -> None:
    found = open_file(given("minimal.xdf"), Choice())
    assert (found.info.name, found.info.sfreq, len(found.info.channels)) == ("SendDataC", 10.0, 3)
    np.testing.assert_allclose(found.stamps, np.arange(5.1, 5.95, 0.1), atol=1e-9)
    np.testing.assert_array_equal(found.read(0, 2).T, [[192, 255, 238], [12, 22, 32]])
    assert [raw for _, raw in found.markers[1:4]] == [b"Hello", b"World", b"from"]
    assert [(item.at, item.offset) for item in found.offsets[:2]] == [(6.0, -0.1), (7.0, -0.1)]


def test_a_file_without_a_signal_names_what_it_has() -> None:
    with pytest.raises(InputError, match="has 0 signals of type EEG: name one with stream=NAME, of 'Empty data stream"):
        open_file(given("empty_streams.xdf"), Choice())


@pytest.mark.parametrize(("name", "content"), [("x.xdf", b"no"), ("x.fif", b"no"), ("x.bdf", b"")])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=name):
        open_file(tmp_path / name, Choice())


@pytest.mark.parametrize(
    ("name", "n_channels", "sfreq", "n_markers"),
    [
        ("test.vhdr", 32, 1000.0, 13),
        ("test.bdf", 72, 2048.0, 1),
        ("test_edf_stim_channel.edf", 25, 128.0, 0),
        ("test_ctf_comp_raw.fif", 338, 480.0, 0),
    ],
)
def test_recordings_of_others(name: str, n_channels: int, sfreq: float, n_markers: int) -> None:
    found = open_file(given(name), Choice())
    assert (len(found.info.channels), found.info.sfreq, len(found.markers)) == (n_channels, sfreq, n_markers)
    assert found.read(3, 7).shape == (n_channels, 4)


def test_the_live_path_agrees_with_mne_on_a_recording_of_others() -> None:
    found = open_file(given("test.vhdr"), Choice())
    names = tuple(channel.name for channel in found.info.channels if channel.type == "eeg")[:8]
    steps = [
        {"name": "pick", "channels": list(names)},
        {"name": "reference", "kind": "average"},
        {"name": "epoch", "tmin": -0.2, "tmax": 0.3},
        {"name": "detrend", "order": 1},
        {"name": "reject", "peak_to_peak": {"eeg": 5e-4}},
        {"name": "baseline", "tmin": None, "tmax": 0.0},
    ]
    case = Case(recorded=found, signal={"steps": steps}, names=names, settings=IntakeSettings())
    report = verify(case)
    assert report.differences == []
    assert report.equal
    assert report.n_accepted + sum(report.refused.values()) == 13
    assert report.n_accepted >= 8
