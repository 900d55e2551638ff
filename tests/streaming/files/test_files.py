"""Recordings of others: BrainVision, BDF, EDF, CTF, XDF, and a FIF with skips, read as a source would give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_items import SFREQ, signal_info

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.streaming.cli import main as stream_command
from minddiffuser.streaming.files import open_file
from minddiffuser.streaming.files.recorded import Choice
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import ClockOffset, Notice, Samples
from minddiffuser.streaming.sources.base import Wanted
from minddiffuser.streaming.sources.replay import open_replay
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
    with pytest.raises(InputError, match="has 0 signals of type EEG: name one with --stream NAME, of 'Empty data str"):
        open_file(given("empty_streams.xdf"), Choice())


@pytest.fixture
def two_signals(tmp_path: Path) -> Path:
    """A session of ours, which came back with another rate and other numbers: an XDF file with two signals."""
    path = tmp_path / "two.xdf"
    writer = Writer(path, signal_info(2, dtype="int16"), started="")
    for start, info in ((0.0, None), (20.0, signal_info(2, sfreq=500.0))):
        samples = Samples(stamps=start + np.arange(50) / SFREQ, data=np.arange(100.0).reshape(2, 50), arrived=start)
        changed = [] if info is None else [Notice(kind="changed", stream="signal", at=start, text="", info=info)]
        offset = ClockOffset(stream="signal", at=start, offset=-1.0, uncertainty=0.003)
        writer.add([*changed, offset, samples], start)
    writer.close(21.0)
    return path


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (lambda path: stream_command(["play", str(path)]), "--stream NAME"),
        (lambda path: stream_command(["verify", str(path)]), "--stream NAME"),
        (lambda path: open_replay(f"{path},chunk=0.1", Wanted(modality="eeg")), "stream=NAME"),
    ],
)
def test_several_signals_are_chosen_by_the_option_of_the_command(
    two_signals: Path, capsys: pytest.CaptureFixture[str], command: Any, how: str
) -> None:
    try:
        command(two_signals)
    except InputError as error:
        said = str(error)
    else:
        said = capsys.readouterr().err
    assert f"has 2 signals of type EEG: name one with {how}, of" in said


def test_each_command_names_its_own_option_for_markers(capsys: pytest.CaptureFixture[str]) -> None:
    path = given("minimal.xdf")
    for words, how in (
        (["play", "--marker-stream"], "--marker-stream NAME"),
        (["verify", "--markers"], "--markers NAME"),
    ):
        assert stream_command([words[0], str(path), words[1], "no such"]) == 2
        assert f"0 fitting streams of markers: name one with {how}, of" in capsys.readouterr().err
    with pytest.raises(InputError, match="name one with markers=NAME"):
        open_replay(f"{path},markers=no such", Wanted(modality="eeg"))


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_the_numbers_of_an_xdf_file_are_of_its_own_type(tmp_path: Path, dtype: str) -> None:
    """So that a session that replays it writes the same numbers in the same type, and no larger ones."""
    writer = Writer(tmp_path / "x.xdf", signal_info(2, dtype=dtype), started="")
    writer.add([Samples(stamps=np.arange(50) / SFREQ, data=np.arange(100.0).reshape(2, 50), arrived=1.0)], 1.0)
    writer.close(1.0)
    assert open_file(tmp_path / "x.xdf", Choice()).info.dtype == dtype


def test_what_xdf_leaves_open_of_its_clocks_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Offsets have no uncertainty there: nothing is refused for it, and a person has to know."""
    path = given("minimal.xdf")
    (note,) = open_file(path, Choice()).notes
    assert "without their uncertainty: it counts as 0, and no epoch is refused for it" in note
    options = ["--l-freq", "0", "--h-freq", "0", "--tmin", "0", "--tmax", "0.1", "--unit", "uV", "--every", "0.2"]
    assert stream_command(["verify", str(path), *options]) == 0
    assert f"note: {note}" in capsys.readouterr().out
    replay = open_replay(f"{path},speed=max", Wanted(modality="eeg"))
    replay.open()
    first = replay.poll(0.0)[0]
    assert isinstance(first, Notice)
    assert (first.kind, first.text) == ("warning", note)


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
