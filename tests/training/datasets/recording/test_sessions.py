"""Sessions that md-stream recorded go back to training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recorded_items import signal_info
from recording_files import noise, write_pictures, write_table, write_xdf
from scipy import signal

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import FileError
from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import ClockOffset, Marker, Notice, Samples
from minddiffuser.training.cli import main
from minddiffuser.training.datasets.prepare import PrepareSettings, prepare
from minddiffuser.training.datasets.recording import open_recording

SFREQ, N_CHANNELS = 250, 3
SINGLE = PrepareSettings(averages=(), image_size=16)
FAST: dict[str, Any] = {"subject": 1, "memory": 10**9, "l_freq": 2.0, "tmin": -0.1, "tmax": 0.3}
# The first sample behind half a second without any; pyxdf itself parts no stretch that is shorter than two seconds.
GAP = 4000
EVENTS = [(sample, k % 4) for k, sample in enumerate([*range(1000, 3800, 140), *range(5000, 7400, 140)])]


def session(folder: Path, data: NDArray[Any], *, dtype: str = "float64", breaks: bool = False) -> Path:
    """A session of µV in chunks of 8, on a sender's clock; its markers on another one."""
    info = signal_info(N_CHANNELS, dtype=dtype)
    made = SessionFolder.create(folder, {})
    writer = Writer(folder / "signal.xdf", info, started="now")
    rng = np.random.default_rng(3)
    stamps = 900.0 + np.arange(data.shape[1]) / SFREQ + rng.normal(0, 2e-4, data.shape[1])
    stamps[GAP:] += 0.5
    for start in range(0, data.shape[1], 8):
        block, now = slice(start, start + 8), float(stamps[min(start + 7, data.shape[1] - 1)]) - 700.0
        items: list[Any] = [Samples(stamps=stamps[block], data=data[:, block], arrived=now)]
        if start % 800 == 0:
            items += [
                ClockOffset(stream=one, at=now, offset=o, uncertainty=1e-4)
                for one, o in (("signal", -700.0), ("markers", 50.0))
            ]
            items += [Notice(kind="stale", stream="signal", at=now, text="S 1")]
        for ordinal, (sample, k) in enumerate(EVENTS):
            if start <= sample < start + 8:
                stamp = float(stamps[sample]) - 750.0 + 0.001
                items.append(Marker(ordinal=ordinal, stamp=stamp, arrived=now, raw=f"S {k + 1}".encode()))
        if breaks and start == 4800:
            items.insert(0, Notice(kind="recovered", stream="signal", at=now, text="", info=signal_info(N_CHANNELS)))
        writer.add(items, now)
        if start % 240 == 0:
            writer.flush()
    writer.close(1e3)
    made.close()
    return folder


def expected(data: NDArray[Any]) -> NDArray[Any]:
    """With SciPy and slices: causal 2-40 Hz from each stretch's first sample, -0.1 to 0.3 s, baseline -0.1 to 0 s."""
    sos = signal.butter(4, [2.0, 40.0], "bandpass", fs=SFREQ, output="sos")
    parts = []
    for part in (data[:, :GAP], data[:, GAP:]):
        start = signal.sosfilt_zi(sos)[:, None, :] * part[None, :, :1]
        parts.append(signal.sosfilt(sos, part, axis=1, zi=start)[0])
    filtered = np.concatenate(parts, axis=1)
    epochs = np.stack([filtered[:, sample - 25 : sample + 76] for sample, _ in EVENTS])
    return np.asarray(epochs - epochs[:, :, :26].mean(axis=2, keepdims=True))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", 4)
    rows = [
        {
            "event": f"S {k + 1}",
            "picture": f"pictures/{k}.png",
            "split": "train" if k < 3 else "test",
            "concept": f"c{k}",
        }
        for k in range(4)
    ]
    return write_table(tmp_path / "events.csv", rows)


def as_recorded(data: Any) -> NDArray[Any]:
    found = np.empty((len(EVENTS), *data.layout.shape), np.float32)
    pictures = np.array([picture for _, picture in EVENTS])
    found[pictures < 3], found[pictures >= 3] = data.responses("train"), data.responses("test")
    return found


@pytest.mark.parametrize(("dtype", "breaks"), [("float64", False), ("float32", True)])
def test_a_session_gives_the_epochs_of_its_signal(tmp_path: Path, table: Path, dtype: str, breaks: bool) -> None:
    """Split at the gap; notices are no markers; a signal that came back in another number type is one signal."""
    data = (noise(8000, n_channels=N_CHANNELS) * 1e6).astype(dtype).astype(float)
    if breaks:
        data[:, 6000:] = np.float64(noise(8000, n_channels=N_CHANNELS))[:, 6000:] * 1e6  # not of float32
    folder = session(tmp_path / "monday", data, dtype=dtype, breaks=breaks)
    made, report = prepare("recording", open_recording(folder, table=table, **FAST), tmp_path / "data", SINGLE)
    np.testing.assert_allclose(as_recorded(made), expected(data * 1e-6), rtol=1e-6, atol=1e-11)
    assert report.dropped == {}
    assert report.pieces == {"monday": (len(EVENTS), {})}
    assert [channel.name for channel in made.layout.channels] == ["Oz", "Cz", "Pz"]


def test_the_command_takes_a_folder_of_sessions(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("monday", 0), ("tuesday", 1)):
        session(tmp_path / "lab" / name, noise(8000, seed=seed, n_channels=N_CHANNELS) * 1e6)
    code = main(
        ["prepare", "recording", str(tmp_path / "lab"), "--table", str(table), "--subject", "1", "--l-freq", "2",
         "--tmin", "-0.1", "--tmax", "0.3", "--image-size", "16",
         "--out", str(tmp_path / "data")]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    data = open_data(tmp_path / "data")
    assert len(data.responses("train")) == 2 * sum(k < 3 for _, k in EVENTS)
    assert len(data.responses("test")) == 1  # the mean of its repetitions


def test_a_session_that_came_back_with_other_channels_is_refused(tmp_path: Path, table: Path) -> None:
    info, other = signal_info(3), signal_info(2)
    SessionFolder.create(tmp_path / "s", {}).close()
    writer = Writer(tmp_path / "s/signal.xdf", info, started="")
    for k, one in enumerate((info, other)):
        n = len(one.channels)
        writer.add([Notice(kind="changed", stream="signal", at=1.0, text="", info=one)], 1.0)
        writer.add([Samples(stamps=10.0 * k + np.arange(500) / 250, data=np.ones((n, 500)), arrived=1.0)], 1.0)
    writer.close(2.0)
    with pytest.raises(FileError, match="describes its signal in two ways"):
        open_recording(tmp_path / "s", table=table, **FAST)


@pytest.mark.parametrize(("missing", "n_stretches"), [(1, 2), (30, 2), (0, 1)])
def test_missing_samples_part_an_xdf(tmp_path: Path, table: Path, missing: int, n_stretches: int) -> None:
    """Regular stamps; pyxdf would draw one line through all of it, and shift every sample."""
    from minddiffuser.training.datasets.recording.xdf_file import open_xdf

    stamps = np.arange(3000) / SFREQ
    stamps[1500:] += missing / SFREQ
    write_xdf(tmp_path / "a.xdf", noise(3000) * 1e6, stamps, SFREQ, [(float(stamps[2000]), "x")])
    opened = open_xdf(tmp_path / "a.xdf", stream=None, unit=None)
    assert len(opened.segments) == n_stretches
    assert opened.marks == ((2000, "x"),)
    assert opened.at(float(stamps[2999])) == 2999


def test_stamps_in_bunches_are_one_stretch(tmp_path: Path) -> None:
    """As a wireless device sends them: 25 samples with nearly the same stamp, ten times a second."""
    from minddiffuser.training.datasets.recording.xdf_file import open_xdf

    stamps = np.repeat(np.arange(200) * 0.1, 25) + np.tile(np.arange(25) * 1e-4, 200)
    write_xdf(tmp_path / "a.xdf", noise(5000) * 1e6, stamps, SFREQ, [])
    opened = open_xdf(tmp_path / "a.xdf", stream=None, unit=None)
    assert opened.segments == ((0, 5000),)
