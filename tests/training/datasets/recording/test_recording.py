"""``md-train prepare recording``: real files of several formats, from the recording to the data folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from numpy.typing import NDArray
from recording_files import NAMES, edf_step, noise, write_brainvision, write_edf, write_pictures, write_table, write_xdf
from scipy import signal

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.training.cli import main
from minddiffuser.training.datasets.prepare import PrepareSettings, prepare
from minddiffuser.training.datasets.recording import open_recording
from minddiffuser.training.datasets.recording.mne_file import open_mne
from minddiffuser.training.datasets.recording.scale import check_scale

SFREQ, N_PICTURES = 250, 6
SINGLE = PrepareSettings(averages=(), image_size=16)
# Twenty seconds of warm-up would be most of a small recording.
FAST: dict[str, Any] = {"subject": 1, "memory": 10**9, "l_freq": 2.0, "tmin": -0.1, "tmax": 0.3}
EVENTS = [(1000 + 130 * k, k % N_PICTURES) for k in range(24)]
Array = NDArray[Any]


def rows(**more: Any) -> list[dict[str, Any]]:
    """Event "S  1" to "S  6": four pictures for training, two for the test."""
    return [
        {
            "event": f"S  {k + 1}",
            "picture": f"pictures/{k}.png",
            "split": "train" if k < 4 else "test",
            "concept": f"thing {k}",
            **more,
        }
        for k in range(N_PICTURES)
    ]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with pictures and a table, and no recording yet."""
    write_pictures(tmp_path / "lab/pictures", N_PICTURES)
    write_table(tmp_path / "lab/events.csv", rows())
    return tmp_path / "lab"


def fif(folder: Path, name: str, data: Array, *, split_size: str = "2GB", **settings: Any) -> Path:
    """Volts, with the events in a stimulus channel."""
    stim = np.zeros((1, data.shape[1]))
    for sample, picture in EVENTS:
        stim[0, sample] = picture + 1
    info = mne.create_info([*NAMES, "STI"], SFREQ, ["eeg"] * 5 + ["stim"], verbose="error")
    raw = mne.io.RawArray(np.concatenate([data, stim]), info, verbose="error", **settings)
    raw.info["bads"] = []
    raw.save(folder / f"{name}_raw.fif", fmt="double", split_size=split_size, verbose="error")
    return folder / f"{name}_raw.fif"


def expected(data: Array, events: list[tuple[int, int]] = EVENTS, l_freq: float = 2.0) -> Array:
    """Epochs made with SciPy and slices: -0.1 to 0.3 s at 250 Hz, causal 2-40 Hz, baseline -0.1 to 0 s."""
    sos = signal.butter(4, [l_freq, 40.0], "bandpass", fs=SFREQ, output="sos")
    start = signal.sosfilt_zi(sos)[:, None, :] * data[None, :, :1]
    filtered = signal.sosfilt(sos, data, axis=1, zi=start)[0]
    epochs = np.stack([filtered[:, sample - 25 : sample + 76] for sample, _ in events])
    return np.asarray(epochs - epochs[:, :, :26].mean(axis=2, keepdims=True))


def prepared(source: Path, out: Path, **options: Any) -> Any:
    return prepare("recording", open_recording(source, **{**FAST, **options}), out, SINGLE)


def as_recorded(data: Any, events: list[tuple[int, int]] = EVENTS) -> Array:
    """The data folder's trials in the order of the recording."""
    found = np.empty((len(events), *data.layout.shape), np.float32)
    pictures = np.array([picture for _, picture in events])
    found[pictures < 4], found[pictures >= 4] = data.responses("train"), data.responses("test")
    np.testing.assert_array_equal(data.stimulus("train"), pictures[pictures < 4])
    np.testing.assert_array_equal(data.stimulus("test"), pictures[pictures >= 4] - 4)
    return found


def test_brainvision(lab: Path, tmp_path: Path) -> None:
    recording = noise(4500)
    write_brainvision(lab, "run1", recording, SFREQ, [(sample, f"Stimulus/S  {k + 1}") for sample, k in EVENTS])
    write_table(lab / "events.csv", [{**row, "event": f"Stimulus/{row['event']}"} for row in rows()])
    data, report = prepared(lab, tmp_path / "data")
    stored = recording.astype("f8") * 1e6  # the file holds float32, in µV
    limit = np.finfo(np.float32).eps * np.abs(recording).max() * 4
    np.testing.assert_allclose(as_recorded(data), expected(stored.astype("f4").astype("f8") * 1e-6), atol=limit)
    layout = data.layout
    assert (layout.modality, layout.unit, layout.sfreq, layout.tmin) == ("eeg", "V", 250.0, -0.1)
    assert [channel.name for channel in layout.channels] == list(NAMES)
    assert data.concepts("test") == ("thing 4", "thing 5")
    assert data.captions("train")[0] == ["a picture of a thing 0"]
    assert {path["path"].split(".")[-1] for path in data.provenance["found"]["files"]} >= {"eeg", "csv"}
    assert "causal filters, delay" in report.text(data)


def test_fif_with_a_stimulus_channel(lab: Path, tmp_path: Path) -> None:
    recording = noise(4500)
    fif(lab, "run1", recording, first_samp=777)
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    data, _ = prepared(lab, tmp_path / "data")
    np.testing.assert_allclose(as_recorded(data), expected(recording), atol=1e-11, rtol=1e-6)


def test_trigger_lines_of_their_own_beside_the_channel_of_all_are_not_counted_again(lab: Path, tmp_path: Path) -> None:
    """Of a Neuromag, STI101 and on older systems STI 014 have the codes; STI001 and so on are one line each."""
    recording = noise(4500)
    codes = np.zeros(4500)
    for sample, picture in EVENTS:
        codes[sample] = picture + 1
    stims = np.stack([5.0 * (codes % 2 == 1), codes, codes])
    info = mne.create_info([*NAMES, "STI001", "STI 014", "STI101"], SFREQ, ["eeg"] * 5 + ["stim"] * 3, verbose="error")
    raw = mne.io.RawArray(np.concatenate([recording, stims]), info, verbose="error")
    raw.save(lab / "run1_raw.fif", fmt="double", verbose="error")
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    data, report = prepared(lab, tmp_path / "data")
    np.testing.assert_allclose(as_recorded(data), expected(recording), atol=1e-11, rtol=1e-6)
    with pytest.raises(InputError, match="no channel 'STI': give --trigger one of .* STI001, STI 014, STI101"):
        open_recording(lab, **FAST, trigger="STI")


def test_a_recording_in_several_files_is_read_once(lab: Path, tmp_path: Path) -> None:
    """MNE splits large files: run1_raw.fif, run1_raw-1.fif and so on, of which it reads all with the first."""
    recording = noise(90_000)
    fif(lab, "run1", recording, split_size="2MB")
    assert len(list(lab.glob("*.fif"))) > 1
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    data, report = prepared(lab, tmp_path / "data")
    np.testing.assert_allclose(as_recorded(data), expected(recording), atol=1e-11, rtol=1e-6)
    assert list(report.pieces) == ["run1_raw"]


def test_edf_with_annotations(lab: Path, tmp_path: Path) -> None:
    recording = noise(4500)
    write_edf(lab / "run1.edf", recording, SFREQ, [(sample / SFREQ, f"S  {k + 1}") for sample, k in EVENTS])
    data, _ = prepared(lab, tmp_path / "data")
    error = as_recorded(data) - expected(recording)
    assert np.abs(error).max() < 3 * edf_step()  # rounded to a level, then filtered and referred to a baseline
    assert edf_step() < 0.05 * np.abs(expected(recording)).max()


@pytest.mark.parametrize("unit", ["microvolts", "µV", "mV"])
def test_xdf_with_markers_of_another_clock(lab: Path, tmp_path: Path, unit: str) -> None:
    recording, size = noise(4500), {"mV": 1e-3}.get(unit, 1e-6)
    stamps = 5000.0 + np.arange(4500) / SFREQ
    marks = [(float(stamps[sample]) + 0.001, f"S {k + 1}") for sample, k in EVENTS]
    write_xdf(lab / "run1.xdf", recording / size, stamps, SFREQ, marks, unit=unit, offset=123.4)
    data, _ = prepared(lab, tmp_path / "data")
    np.testing.assert_allclose(as_recorded(data), expected(recording), atol=1e-11, rtol=1e-6)


def test_a_table_tells_recordings_of_one_name_apart_by_their_folders(lab: Path, tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 1)):
        write_edf(lab / folder / "run1.edf", noise(4500, seed=seed), SFREQ, [])
    about = [{k: v for k, v in row.items() if k != "event"} for row in rows()]
    table = [
        {"sample": 1000 + 150 * k, "file": f"{'a' if k % 2 else 'b'}/run1", **about[k % N_PICTURES]} for k in range(18)
    ]
    write_table(lab / "events.csv", table)
    _, report = prepared(lab, tmp_path / "data")
    assert sorted(n for n, _ in report.pieces.values()) == [9, 9]
    assert report.dropped == {}


@pytest.mark.parametrize("column", ["onset", "sample"])
def test_several_recordings_with_trials_by_time(lab: Path, tmp_path: Path, column: str) -> None:
    """As BIDS has it: one row per trial, and the file in a column."""
    first, second = noise(4500), noise(4500, seed=1)
    write_brainvision(lab, "run1", first, SFREQ, [])
    write_edf(lab / "run2.edf", second, SFREQ, [])
    table = []
    for name in ("run1.vhdr", "run2"):
        for sample, k in EVENTS:
            about = rows()[k]
            del about["event"]
            table.append({column: sample / SFREQ if column == "onset" else sample, "file": name, **about})
    write_table(lab / "events.csv", table)
    data, report = prepared(lab, tmp_path / "data")
    assert {name: n for name, (n, _) in report.pieces.items()} == {"run1": 24, "run2": 24}
    wanted = np.concatenate([expected(first), expected(second)])
    train = np.array([picture < 4 for _, picture in EVENTS] * 2)
    np.testing.assert_allclose(data.responses("train"), wanted[train], atol=3 * edf_step())
    np.testing.assert_allclose(data.responses("test"), wanted[~train], atol=3 * edf_step())


def test_the_chain_of_the_data_folder_makes_its_epochs_again_live(lab: Path, tmp_path: Path) -> None:
    recording = noise(4500)
    fif(lab, "run1", recording)
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    data, _ = prepared(lab, tmp_path / "data", reference=("average",), channels=("Oz", "Cz"), notch=(50.0,), detrend=1)
    layout = open_data(tmp_path / "data").layout
    everything = mne.io.read_raw(lab / "run1_raw.fif", verbose="error").pick("eeg").get_data()
    channels = [*(c for c in open_recording(lab, **FAST)._recordings[0].channels)]
    chain = open_chain(layout.signal, channels, SFREQ)
    stream = chain.stream()
    for index, (sample, _) in enumerate(EVENTS):
        stream.mark(sample, index)
    for start in range(0, 4500, 37):
        stream.push(everything[:, start : start + 37])
    live = np.stack([outcome.data for outcome in stream.pop()])
    np.testing.assert_array_equal(live, as_recorded(data))
    assert [channel.name for channel in layout.channels] == ["Oz", "Cz"]


def test_small_memory_changes_no_bit(lab: Path, tmp_path: Path) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(sample / SFREQ, f"S  {k + 1}") for sample, k in EVENTS])
    wide, _ = prepared(lab, tmp_path / "wide")
    narrow, report = prepared(lab, tmp_path / "narrow", memory=20_000)
    assert [n for n, _ in report.pieces.values()] == [4] * 6
    for split in ("train", "test"):
        np.testing.assert_array_equal(narrow.responses(split), wide.responses(split))


@pytest.mark.parametrize("memory", [100_000, 10**7])
def test_no_more_of_a_recording_is_read_at_once_than_the_memory_allows(lab: Path, memory: int) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(sample / SFREQ, f"S  {k + 1}") for sample, k in EVENTS])
    reader = open_recording(lab, **{**FAST, "memory": memory})
    (recording,), asked = reader._recordings, []

    def read(wanted: Any, start: int, stop: int) -> Any:
        asked.append((start, stop))
        return recording.read(wanted, start, stop)

    reader._recordings = [replace(recording, read=read)]
    for piece in reader.pieces:
        asked.clear()
        reader.read(piece)
        assert [start for start, _ in asked] == [0, *(stop for _, stop in asked[:-1])]
        assert max((stop - start) * 5 * 8 for start, stop in asked) <= memory / 10


def test_zero_phase_on_request(lab: Path, tmp_path: Path) -> None:
    recording = noise(4500)
    fif(lab, "run1", recording)
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    data, report = prepared(lab, tmp_path / "data", causal=False, no_baseline=True)
    sos = signal.butter(4, [2.0, 40.0], "bandpass", fs=SFREQ, output="sos")
    filtered = signal.sosfiltfilt(sos, recording - recording[:, :1], axis=1)
    wanted = np.stack([filtered[:, sample - 25 : sample + 76] for sample, _ in EVENTS])
    np.testing.assert_allclose(as_recorded(data), wanted, atol=1e-8)
    assert "zero-phase filters: not for live use" in report.text(data)
    with pytest.raises(InputError, match="filtering .* forward and backward takes .* GB"):
        prepared(lab, tmp_path / "other", causal=False, memory=1000)


@pytest.mark.parametrize(
    ("old", "new", "step"), [(500, None, "decimate"), (500, 100.0, "decimate"), (250, 100.0, "resample")]
)
def test_the_rate_of_the_epochs(lab: Path, tmp_path: Path, old: int, new: float | None, step: str) -> None:
    marks = [(2.0 + 0.5 * k, f"S  {k % 6 + 1}") for k in range(24)]
    write_edf(lab / "run1.edf", noise(18 * old), old, marks)
    data, _ = prepared(lab, tmp_path / "data", sfreq=new, h_freq=30.0)
    assert data.layout.sfreq == (new or 250.0)
    assert data.layout.shape[1] == round(0.3 * (new or 250)) - round(-0.1 * (new or 250)) + 1
    assert step in [one["name"] for one in data.layout.signal["steps"]]


def test_what_is_left_out_is_counted_with_its_reason(lab: Path, tmp_path: Path) -> None:
    recording = noise(5000)
    recording[2, 3000:3010] += 5e-4
    marks = [(sample / SFREQ, f"S  {k + 1}") for sample, k in EVENTS]
    marks += [(0.05, "S  1"), (0.3, "S  2"), (19.9, "S  3"), (5.0, "S 99"), (8.9, "BAD_move")]
    write_edf(lab / "run1.edf", recording, SFREQ, marks)
    write_table(
        lab / "events.csv", [*rows(), {**rows()[0], "event": "S 42"}, {**rows()[0], "event": "S 43", "picture": ""}]
    )
    _data, report = prepared(lab, tmp_path / "data", reject=[("eeg", 1.5e-4)])
    chain = open_recording(lab, **FAST)._chain(open_recording(lab, **FAST)._recordings[0])
    assert 0.3 < chain.warm_up < 2
    assert report.dropped == {
        "in a part that is marked as bad": 1,
        "in the filters' warm-up": 1,
        "peak to peak above 0.00015 V (eeg)": 1,
        "the epoch starts before the recording": 1,
        "the recording ended before the epoch did": 1,
    }
    said = " ".join(report.notes)
    assert "1 rows of events.csv belong to no recorded event: lines 8" in said
    assert "1 rows of events.csv name no picture" in said
    assert "'S 99' (1)" in said


def test_warm_up_may_be_kept(lab: Path, tmp_path: Path) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(sample / SFREQ, f"S  {k + 1}") for sample, k in EVENTS])
    _, report = prepared(lab, tmp_path / "data", l_freq=0.2)
    assert 0 < report.dropped["in the filters' warm-up"] < 24
    data, report = prepared(lab, tmp_path / "kept", l_freq=0.2, keep_warm_up=True)
    assert report.dropped == {}
    assert len(as_recorded(data)) == 24


def test_a_gap_in_an_xdf_cuts_the_recording(lab: Path, tmp_path: Path) -> None:
    """Ten seconds without samples: the filters start anew behind it, and no epoch spans it."""
    recording = noise(9000)
    stamps = np.arange(9000) / SFREQ
    stamps[4500:] += 10
    events = [(sample, k) for start in (0, 4500) for sample, k in ((s + start, k) for s, k in EVENTS)]
    marks = [(float(stamps[sample]), f"S {k + 1}") for sample, k in events]
    marks += [(float(stamps[4499]) - 0.1, "S 1"), (float(stamps[4500]) + 0.05, "S 2"), (23.0, "S 3")]
    write_xdf(lab / "run1.xdf", recording * 1e6, stamps, SFREQ, marks)
    data, report = prepared(lab, tmp_path / "data", no_baseline=True)
    assert report.dropped == {
        "in a gap of the recording": 1,
        "the epoch starts before the recording": 1,
        "the recording ended before the epoch did": 1,
    }
    sos = signal.butter(4, [2.0, 40.0], "bandpass", fs=SFREQ, output="sos")
    part = recording[:, 4500:]
    filtered = signal.sosfilt(sos, part, axis=1, zi=signal.sosfilt_zi(sos)[:, None, :] * part[None, :, :1])[0]
    wanted = np.stack([filtered[:, sample - 25 : sample + 76] for sample, _ in EVENTS])
    np.testing.assert_allclose(as_recorded(data, events)[24:], wanted, atol=1e-11, rtol=1e-6)


def test_joined_recordings_are_cut_where_mne_says(lab: Path, tmp_path: Path) -> None:
    parts = [noise(4500, seed=k) for k in range(2)]
    raws = [mne.io.read_raw(fif(lab, f"part{k}", part), verbose="error") for k, part in enumerate(parts)]
    mne.concatenate_raws([raw.load_data() for raw in raws], verbose="error").save(
        lab / "all_raw.fif", fmt="double", verbose="error"
    )
    for k in range(2):
        (lab / f"part{k}_raw.fif").unlink()
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    data, _ = prepared(lab, tmp_path / "data")
    events = EVENTS + [(sample + 4500, k) for sample, k in EVENTS]
    wanted = np.concatenate([expected(part) for part in parts])
    np.testing.assert_allclose(as_recorded(data, events), wanted, atol=1e-11, rtol=1e-6)


def test_meg_and_its_bad_channels(lab: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["MEG1", "MEG2", "MEG3", "EEG1", "STI"]
    data = rng.standard_normal((5, 4500)) * np.array([2e-13, 2e-13, 1e-11, 1e-5, 0])[:, None]
    for sample, k in EVENTS:
        data[4, sample] = k + 1
    info = mne.create_info(names, SFREQ, ["mag", "mag", "grad", "eeg", "stim"], verbose="error")
    raw = mne.io.RawArray(data, info, verbose="error")
    raw.info["bads"] = ["MEG2"]
    for channel in raw.info["chs"][:3]:
        channel["loc"][:3] = 0.01, 0.02, 0.03
    raw.save(lab / "run_raw.fif", fmt="double", verbose="error")
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    found, report = prepared(lab, tmp_path / "data", whiten=True)
    assert (found.layout.modality, found.layout.unit) == ("meg", "1")
    assert [(channel.name, channel.type) for channel in found.layout.channels] == [("MEG1", "mag"), ("MEG3", "grad")]
    assert found.layout.channels[0].position == pytest.approx((0.01, 0.02, 0.03))
    assert "1 channels left out: MEG2" in report.notes
    plain, _ = prepared(lab, tmp_path / "plain")
    assert plain.layout.unit == "T"
    step = found.layout.signal["steps"][-1]
    from minddiffuser.runtime.files import read_tensors
    from minddiffuser.runtime.signal.whitening import fit_whitening

    matrix = read_tensors(tmp_path / "data" / step["file"], "the matrix")["matrix"]
    np.testing.assert_allclose(matrix, fit_whitening(plain.responses("train"), plain.stimulus("train")), rtol=1e-12)
    np.testing.assert_allclose(found.responses("test"), matrix @ plain.responses("test"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("option", [{"unit": "uV"}, {"trigger": "O1"}, {"montage": "easycap-M1"}])
def test_how_a_recording_was_opened_belongs_to_the_settings(lab: Path, option: dict[str, str]) -> None:
    """What was read with other options is not used again."""
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(sample / SFREQ, f"S  {k + 1}") for sample, k in EVENTS])
    assert open_recording(lab, **FAST, **option).settings != open_recording(lab, **FAST).settings  # type: ignore[arg-type]


def test_magnetometers_have_their_places_in_head_coordinates(lab: Path) -> None:
    info = mne.create_info(["MEG1", "STI"], SFREQ, ["mag", "stim"], verbose="error")
    info["chs"][0]["loc"][:3] = 0.01, 0.02, 0.03
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", mne.transforms.translation(0.0, 0.0, 0.04))
    stim = np.zeros(4500)
    stim[3000] = 1
    raw = mne.io.RawArray(
        np.stack([1e-13 * np.random.default_rng(0).standard_normal(4500), stim]), info, verbose="error"
    )
    raw.save(lab / "run_raw.fif", fmt="double", verbose="error")
    write_table(lab / "events.csv", [{**rows()[0], "event": 1}])
    layout = open_recording(lab, **FAST).finish(None, lab).layout  # type: ignore[arg-type]
    assert layout.channels[0].position == pytest.approx((0.01, 0.02, 0.07))


def test_electrodes_get_the_places_of_a_montage(lab: Path, tmp_path: Path) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(sample / SFREQ, f"S  {k + 1}") for sample, k in EVENTS])
    places = mne.channels.make_standard_montage("easycap-M1").get_positions()["ch_pos"]
    data, _ = prepared(lab, tmp_path / "data", montage="easycap-M1")
    order = {channel.name: np.array(channel.position) for channel in data.layout.channels}
    assert np.linalg.norm(order["Oz"] - order["Cz"]) == pytest.approx(
        np.linalg.norm(places["Oz"] - places["Cz"]), rel=0.1
    )
    with pytest.raises(InputError, match="the montage 'moon' cannot be used"):
        open_recording(lab, **FAST, montage="moon")


def test_a_wrong_scale_is_refused_with_both_figures(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers in µV that the file calls V, as a careless conversion leaves them."""
    fif(lab, "run1", noise(4500) * 1e6)
    write_table(lab / "events.csv", [{**row, "event": index + 1} for index, row in enumerate(rows())])
    message = r"have a standard deviation of \d.*e?.* V \(median over epochs\), expected 1e-08 to 0.002 V: .* --unit uV"
    with pytest.raises(FileError, match=message):
        prepared(lab, tmp_path / "data")
    given = ["prepare", "recording", str(lab), "--subject", "1", "--l-freq", "2", "--out", str(tmp_path / "typed")]
    assert main(given) == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith("md-train: ")
    assert "expected 1e-08 to 0.002 V" in said
    data, _ = prepared(lab, tmp_path / "data", unit="uV")
    np.testing.assert_allclose(as_recorded(data), expected(noise(4500)), atol=1e-11, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "size", "guess"),
    [("eeg", 1e-5, None), ("eeg", 10.0, "uV"), ("eeg", 1e4, "nV"), ("eeg", 1e-2, "mV"), ("eeg", 1e-11, "check --unit")]
    + [("mag", 2e-13, None), ("mag", 200.0, "fT"), ("mag", 0.2, "pT"), ("grad", 1e-11, None), ("grad", 100.0, "fT/cm")],
)
def test_scales(kind: str, size: float, guess: str | None, rng: np.random.Generator) -> None:
    from minddiffuser.runtime.data.layout import Channel

    epochs = (rng.standard_normal((5, 3, 50)) * size).astype(np.float32)
    channels = [Channel(name=f"{kind}{k}", type=kind) for k in range(3)]
    if guess is None:
        check_scale(epochs, channels, "it")
    else:
        with pytest.raises(FileError, match=f"the {kind} channels of it have .*{guess}$"):
            check_scale(epochs, channels, "it")


def make(lab: Path, name: str, **settings: Any) -> Callable[[], None]:
    def write() -> None:
        stamps = np.arange(1000) / SFREQ
        write_xdf(lab / name, noise(1000) * 1e6, stamps, SFREQ, [(1.0, "S 1")], **settings)

    return write


def test_a_stream_that_says_too_little_is_refused(lab: Path) -> None:
    make(lab, "run1.xdf", unit=None)()
    with pytest.raises(FileError, match="channel O1 of .*run1.xdf declares no unit: say it with --unit"):
        open_recording(lab, **FAST)
    open_recording(lab, **FAST, unit="uV")
    make(lab, "run1.xdf", unit="furlongs")()
    with pytest.raises(FileError, match="declares the unit 'furlongs', which is unknown"):
        open_recording(lab, **FAST)
    make(lab, "run1.xdf", stated=300.0)()
    with pytest.raises(FileError, match="states 300 Hz and has 250"):
        open_recording(lab, **FAST)
    make(lab, "run1.xdf")()
    with pytest.raises(InputError, match=r"has 0 streams named 'Cap'; its streams with a rate are 'Amp' \(EEG\)"):
        open_recording(lab, **FAST, stream="Cap")


def test_files_that_do_not_go_together(lab: Path) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(5.0, "S  1")])
    write_edf(lab / "run2.edf", noise(4500), 200, [(5.0, "S  1")])
    with pytest.raises(FileError, match=r"run1.edf has 250 Hz and .*run2.edf 200 Hz"):
        open_recording(lab, **FAST)
    write_edf(lab / "run2.edf", noise(4500)[:3], SFREQ, [(5.0, "S  1")])
    reader = open_recording(lab, **FAST)
    assert reader.shape[0] == 3
    with pytest.raises(FileError, match=r"run2.edf has no channel Pz: its channels are O1, Oz, O2"):
        open_recording(lab, **FAST, channels=("Pz",))
    write_table(lab / "events.csv", [{**{k: v for k, v in rows()[0].items() if k != "event"}, "onset": 5}])
    with pytest.raises(InputError, match="gives the onset of events in 2 recordings: say which one in a column file"):
        open_recording(lab, **FAST)


def test_a_limit_for_channels_that_are_not_there(lab: Path) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(5.0, "S  1")])
    with pytest.raises(InputError, match="--reject has a limit for eog, and the epochs' channels are of the types eeg"):
        open_recording(lab, **FAST, reject=[("eog", 2.5e-4)])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("sfreq", 0.0, "the rate of the epochs is 0 Hz: give --sfreq a number above 0"),
        ("sfreq", float("nan"), "the rate of the epochs is nan Hz"),
        ("delay", float("nan"), "is nan s: give --delay a number of seconds"),
    ],
)
def test_numbers_that_are_none(lab: Path, option: str, value: float, message: str) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(5.0, "S  1")])
    with pytest.raises(InputError, match=message):
        open_recording(lab, **FAST, **{option: value})


def test_no_event_of_the_table_occurs(lab: Path) -> None:
    write_edf(lab / "run1.edf", noise(4500), SFREQ, [(5.0, "shown 1"), (6.0, "shown 1"), (7.0, "key")])
    with pytest.raises(InputError, match=r"'S  1', and the markers there are 'shown 1' \(2\), 'key' \(1\)"):
        open_recording(lab, **FAST)


def test_files_that_are_none(lab: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no recording that MNE or pyxdf reads"):
        open_recording(lab, **FAST)
    with pytest.raises(FileError, match="nowhere does not exist"):
        open_recording(tmp_path / "nowhere", **FAST)
    (lab / "run1.xdf").write_bytes(b"nothing")
    with pytest.raises(FileError, match="cannot be read as XDF"):
        open_recording(lab, **FAST)
    (lab / "run1.xdf").unlink()
    (lab / "run1.edf").write_bytes((lab / "pictures/0.png").read_bytes())
    with pytest.raises(FileError, match="MNE cannot read .*run1.edf, which looks like a picture"):
        open_recording(lab, **FAST)


def test_the_command(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = noise(9000)
    marks = [((sample + 4400) / SFREQ, f"S  {k + 1}") for sample, k in EVENTS]
    write_edf(lab / "run1.edf", recording, SFREQ, marks)
    out = tmp_path / "data"
    arguments = ["prepare", "recording", str(lab), "--subject", "3", "--image-size", "32", "--out", str(out)]
    assert main([*arguments, "--l-freq", "0.5", "--notch", "50", "--tmin", "-0.1", "--reject", "eeg=150uV"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(out)
    assert "recording, sub-03: eeg" in said.out
    data = open_data(out)
    assert data.layout.signal["steps"][1]["l_freq"] == 0.5
    assert [step["name"] for step in data.layout.signal["steps"]] == [
        "pick", "filter", "filter", "epoch", "reject", "baseline",
    ]  # fmt: skip
    assert len(data.responses("test")) == 2  # means of the repetitions
    assert main([*arguments, "--force", "--reject", "eeg=150 furlongs"]) == 2
    assert "is no limit: give a type and a size, such as eeg=150uV" in capsys.readouterr().err


def test_annotations_count_from_the_file_s_first_sample_with_and_without_a_date(tmp_path: Path) -> None:
    """Two ways in which MNE writes the same time, told apart by `mne.events_from_annotations`."""
    for date in (None, datetime(2024, 1, 1, tzinfo=UTC)):
        raw = mne.io.RawArray(np.zeros((1, 1000)), mne.create_info(["Cz"], 200.0, ["eeg"]), first_samp=4321)
        raw.set_meas_date(date)
        raw.set_annotations(mne.Annotations([0.5], [0], ["see"]))
        path = tmp_path / "x_raw.fif"
        raw.save(path, overwrite=True)
        assert open_mne(path, trigger=None, montage=None, size=1.0).marks == ((100, "see"),)
        assert mne.events_from_annotations(raw)[0][0, 0] - raw.first_samp == 100
