"""A session in other programs' files: every sample in its place, gaps marked, markers at their samples."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import InputError
from minddiffuser.streaming.cli import main
from minddiffuser.streaming.export import FORMATS
from minddiffuser.streaming.export.continuous import parts_of
from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import ClockOffset, Item, Marker, Notice, Samples, SignalInfo

mne = pytest.importorskip("mne")
SFREQ, N = 200.0, 2000
MISSING = 61  # samples that are lost before sample 1200
MARKS = [(30, b"face/7"), (700, "größe “x”".encode()), (1199, b""), (1200, b"\xff\xfe"), (1999, b"last;one:two")]
CHANNELS = (
    Channel(name="Oz", type="eeg", position=(0.0, -0.09, 0.03)),
    Channel(name="EOG", type="eog"),
    Channel(name="Pz", type="eeg", position=(0.0, -0.05, 0.1)),
    Channel(name="AUX", type="misc"),
)


def info(channels: tuple[Channel, ...] = CHANNELS, units: tuple[str, ...] = ("uV", "mV", "nV", "")) -> SignalInfo:
    return SignalInfo(name="amp", channels=channels, sfreq=SFREQ, units=units)


def session(folder: Path, data: NDArray[Any], *more: tuple[SignalInfo, float, NDArray[Any]], about: SignalInfo) -> Path:
    """`data` with a gap and markers, on other clocks; then signals with other descriptions, each at a time."""
    made = SessionFolder.create(folder, {})
    writer = Writer(folder / "signal.xdf", about, started="")
    rng = np.random.default_rng(1)
    stamps = 4000.0 + np.arange(data.shape[1]) / SFREQ
    stamps[1200:] += MISSING / SFREQ
    jittered = stamps + rng.normal(0, 1e-4, len(stamps))
    for start in range(0, data.shape[1], 50):
        part = slice(start, start + 50)
        now = float(stamps[part][-1]) - 3000.0
        items: list[Item] = [Samples(stamps=jittered[part], data=data[:, part], arrived=now)]
        for stream, offset in (("signal", -3000.0), ("markers", 17.0)):
            items.append(ClockOffset(stream=stream, at=now, offset=offset, uncertainty=1e-4))
        writer.add(items, now)
        writer.flush()
    marks = [
        Marker(ordinal=k, stamp=float(stamps[s]) - 3017.0 + 0.001, arrived=0.0, raw=r) for k, (s, r) in enumerate(MARKS)
    ]
    writer.add([*marks, Notice(kind="silent", stream="signal", at=0.0, text="no marker")], 0.0)
    for other, at, values in more:
        writer.add([Notice(kind="changed", stream="signal", at=0.0, text="", info=other)], 0.0)
        writer.add([Samples(stamps=at + np.arange(values.shape[1]) / SFREQ, data=values, arrived=0.0)], 0.0)
    writer.close(0.0)
    made.close()
    return folder


def expected(data: NDArray[Any]) -> tuple[NDArray[Any], list[int]]:
    """In SI units, with the gap; and the markers' samples."""
    size = np.array([1e-6, 1e-3, 1e-9, 1.0])[: len(data), None]
    whole = np.zeros((len(data), data.shape[1] + MISSING))
    whole[:, :1200], whole[:, 1200 + MISSING :] = data[:, :1200] * size, data[:, 1200:] * size
    return whole, [sample + MISSING * (sample >= 1200) for sample, _ in MARKS]


def check(raw: Any, data: NDArray[Any], *, rtol: float = 0.0, texts: list[str] | None = None) -> None:
    whole, places = expected(data)
    np.testing.assert_allclose(raw.get_data(), whole, rtol=rtol, atol=rtol * np.abs(whole).max())
    marks = [one for one in raw.annotations if not one["description"].startswith("BAD")]
    assert [round(one["onset"] * SFREQ) for one in marks] == places
    if texts is not None:
        assert [one["description"] for one in marks] == texts
    gaps = [one for one in raw.annotations if one["description"] == "BAD_ACQ_SKIP"]
    # BIDS has them twice in MEG: as FIF's own gaps, and as events.
    assert {(round(one["onset"] * SFREQ), round(one["duration"] * SFREQ)) for one in gaps} == {(1200, MISSING)}


@pytest.fixture
def data(rng: np.random.Generator) -> NDArray[Any]:
    return rng.standard_normal((4, N)) * 30


def test_fif_has_every_bit(tmp_path: Path, data: NDArray[Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder = session(tmp_path / "s", data, about=info())
    out = tmp_path / "new" / "s_raw.fif"
    assert main(["export", str(folder), "--to", "fif", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in out.parent.iterdir()) == ["s_raw.fif"]  # nothing is left lying about
    raw = mne.io.read_raw_fif(out, verbose="error")
    texts = ["face/7", "größe &#8220;x&#8221;", " ", "&#65533;&#65533;", "last;one:two"]
    check(raw, data, texts=texts)
    assert [html.unescape(text) for text in texts] == [raw.decode("utf-8", "replace") or " " for _, raw in MARKS]
    assert raw.get_channel_types() == ["eeg", "eog", "eeg", "misc"]
    place = raw.get_montage().get_positions()["ch_pos"]
    np.testing.assert_allclose(place["Oz"], (0.0, -0.09, 0.03), atol=1e-6)
    assert raw.info["meas_date"] is not None
    events, _ = mne.events_from_annotations(raw, regexp="face.*|last.*", verbose="error")
    epochs = mne.Epochs(raw, events, tmin=0, tmax=0.1, baseline=None, verbose="error")
    whole, _ = expected(data)
    np.testing.assert_array_equal(epochs.get_data(verbose="error")[0], whole[:, 30:51])


def test_no_marker_becomes_another_in_fif(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts that FIF cannot hold stay apart, and stand beside it as they came; what it can hold stays as it is."""
    texts = ["红", "黄", "??", "größe", "&#32418;", "\u201cx\u201d"]
    made = SessionFolder.create(tmp_path / "s", {})
    writer = Writer(made.path / "signal.xdf", info(), started="")
    samples = Samples(stamps=10 + np.arange(400) / SFREQ, data=rng.standard_normal((4, 400)), arrived=0.0)
    marks = [
        Marker(ordinal=k, stamp=10 + 0.1 * (k + 1), arrived=0.0, raw=text.encode()) for k, text in enumerate(texts)
    ]
    writer.add([samples, *marks], 0.0)
    writer.close(0.0)
    made.close()
    assert main(["export", str(made.path), "--to", "fif", "--out", str(tmp_path / "s_raw.fif")]) == 0
    said = capsys.readouterr().err
    assert "3 markers have characters that FIF cannot hold: they are written by their numbers, such as &#8220;" in said
    raw = mne.io.read_raw_fif(tmp_path / "s_raw.fif", verbose="error")
    held = raw.annotations.description.tolist()
    assert held == ["&#32418;", "&#40644;", "??", "größe", "&#32418;", "&#8220;x&#8221;"]
    exact = [extra.get("marker", text) for extra, text in zip(raw.annotations.extras, held, strict=True)]
    assert exact == texts


def test_samples_that_came_twice_are_in_the_file_once(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the live session: a packet of 20 within one block, then one across two, and a sample that holds NaN."""
    n = 600
    data, stamps = rng.standard_normal((4, n)), 10 + np.arange(n) / SFREQ
    data[2, 399] = np.nan
    made = SessionFolder.create(tmp_path / "s", {})
    writer = Writer(made.path / "signal.xdf", info(), started="")
    for order in (np.r_[0:100, 80:200], np.r_[190:400], np.r_[399:n]):
        now = float(stamps[order[-1]])
        writer.add([Samples(stamps=stamps[order], data=data[:, order], arrived=now)], now)
    writer.add([Marker(ordinal=0, stamp=float(stamps[500]), arrived=now, raw=b"go")], now)
    writer.close(now)
    made.close()
    assert main(["export", str(made.path), "--to", "fif", "--out", str(tmp_path / "s_raw.fif"), "--unit", "V"]) == 0
    said = capsys.readouterr().err
    assert said == (
        "31 samples came twice, with the same stamp and the same values: they are in the file once, as in the live "
        "session\n"
    )
    raw = mne.io.read_raw_fif(tmp_path / "s_raw.fif", verbose="error")
    np.testing.assert_array_equal(raw.get_data()[:3], data[:3])
    assert [(one["onset"], one["description"]) for one in raw.annotations] == [(2.5, "go")]


def test_bids_is_read_back(tmp_path: Path, data: NDArray[Any], capsys: pytest.CaptureFixture[str]) -> None:
    mne_bids = pytest.importorskip("mne_bids")
    pytest.importorskip("pybv")
    folder = session(tmp_path / "s", data, about=info())
    root = tmp_path / "bids"
    words = ["export", str(folder), "--to", "bids", "--out", str(root), "--subject", "07", "--line-freq", "50"]
    assert main(words) == 0
    written = capsys.readouterr().out.strip()
    assert written == str(root / "sub-07/eeg/sub-07_task-live_eeg.vhdr")
    path = mne_bids.BIDSPath(root=root, subject="07", task="live", datatype="eeg")
    raw = mne_bids.read_raw_bids(path, verbose="error")
    check(raw, data, rtol=1e-6)  # float32
    assert raw.info["line_freq"] == 50
    assert (root / "dataset_description.json").exists()
    lines = (root / "sub-07/eeg/sub-07_task-live_events.tsv").read_text(encoding="utf-8")
    assert "größe “x”" in lines
    assert main(words) == 2
    assert "has sub-07_task-live already" in capsys.readouterr().err
    assert main([*words, "--session-label", "02"]) == 0


def test_markers_beside_the_signal_are_said_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    made = SessionFolder.create(tmp_path / "s", {})
    writer = Writer(made.path / "signal.xdf", info(), started="")
    samples = Samples(stamps=10 + np.arange(400) / SFREQ, data=rng.standard_normal((4, 400)), arrived=0.0)
    marks = [
        Marker(ordinal=k, stamp=at, arrived=0.0, raw=b"%d" % k) for k, at in enumerate((9.9, 10.0, 11.0, 11.995, 12.1))
    ]
    writer.add([samples, *marks], 0.0)
    writer.close(0.0)
    made.close()
    assert main(["export", str(made.path), "--to", "fif", "--out", str(tmp_path / "s_raw.fif")]) == 0
    assert "2 markers lie before or after the signal and are in no file" in capsys.readouterr().err
    raw = mne.io.read_raw_fif(tmp_path / "s_raw.fif", verbose="error")
    assert raw.annotations.description.tolist() == ["1", "2", "3"]


def lossy(path: Path, rng: np.random.Generator, kept: float) -> NDArray[Any]:
    """A signal of which a share is kept, at random: the places of its samples, which are their values too."""
    places = np.flatnonzero(rng.random(20_000) < kept)
    writer = Writer(path, info(), started="")
    data = np.tile(places.astype(float), (4, 1))
    writer.add([Samples(stamps=10 + places / SFREQ, data=data, arrived=0.0)], 0.0)
    writer.close(0.0)
    return places


def test_each_sample_stands_in_its_place_behind_many_gaps(tmp_path: Path, rng: np.random.Generator) -> None:
    places = lossy(tmp_path / "signal.xdf", rng, 0.995)
    (part,) = parts_of(tmp_path / "signal.xdf", tmp_path, unit="V")
    expected = np.zeros(places[-1] - places[0] + 1)
    expected[places - places[0]] = places
    np.testing.assert_array_equal(part.data[0], expected)
    assert sum(stop - start for start, stop in part.gaps) == len(expected) - len(places)


def test_another_rate_than_was_stated_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """With every second sample missing nobody can tell gaps from jitter: they would all stand too early."""
    lossy(tmp_path / "signal.xdf", rng, 0.5)
    with pytest.raises(InputError, match=r"stated 200 Hz, and \d+\.?\d* samples a second came"):
        parts_of(tmp_path / "signal.xdf", tmp_path, unit="V")


def test_meg_is_fif_in_bids(tmp_path: Path, data: NDArray[Any], capsys: pytest.CaptureFixture[str]) -> None:
    mne_bids = pytest.importorskip("mne_bids")
    channels = tuple(Channel(name=f"MEG{k:03d}", type="mag") for k in range(4))
    folder = session(tmp_path / "s", data, about=info(channels, ("uT", "mT", "nT", "T")))
    assert main(["export", str(folder), "--to", "bids", "--out", str(tmp_path / "bids")]) == 0, capsys.readouterr().err
    path = mne_bids.BIDSPath(root=tmp_path / "bids", subject="01", task="live", datatype="meg")
    raw = mne_bids.read_raw_bids(path, verbose="error")
    check(raw, data, rtol=1e-6)
    assert set(raw.get_channel_types()) == {"mag"}


def test_another_description_and_a_long_pause_are_parts(
    tmp_path: Path, data: NDArray[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    two = info(CHANNELS[:2], ("uV", "uV"))
    more = [(two, 4020.0, data[:2, :300]), (two, 9000.0, data[2:, :400])]
    folder = session(tmp_path / "s", data, *more, about=info())
    assert main(["export", str(folder / "signal.xdf"), "--to", "fif", "--out", str(tmp_path / "s_raw.fif")]) == 0
    paths = capsys.readouterr().out.split()
    assert [Path(path).name for path in paths] == [f"s_part-{k}_raw.fif" for k in (1, 2, 3)]
    raws = [mne.io.read_raw_fif(path, verbose="error") for path in paths]
    check(raws[0], data)
    np.testing.assert_array_equal(raws[1].get_data(), data[:2, :300] * 1e-6)
    np.testing.assert_array_equal(raws[2].get_data(), data[2:, :400] * 1e-6)
    assert raws[0].info["meas_date"] is None


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--to", "fif", "--out", "x.fif"], "MNE wants names that end in"),
        (["--to", "bids", "--out", "b", "--subject", "0_1"], "--subject is '0_1': BIDS takes letters and digits"),
        (["--to", "bids", "--out", "b", "--session-label", "a b"], "--session-label is 'a b': BIDS takes letters"),
        (["--to", "edf", "--out", "b"], "invalid choice: 'edf'"),
        (["--to", "fif", "--out", "x_raw.fif", "--unit", "furlong"], "the unit 'furlong' is unknown"),
    ],
)
def test_mistakes_are_said(
    tmp_path: Path, data: NDArray[Any], capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    folder = session(tmp_path / "s", data, about=info())
    words = [
        str(tmp_path / word) if before == "--out" else word for before, word in zip(["", *words], words, strict=False)
    ]
    assert main(["export", str(folder), *words]) == 2
    assert error in capsys.readouterr().err


def test_an_unknown_unit_is_said(tmp_path: Path, data: NDArray[Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder = session(tmp_path / "s", data, about=info(units=("uV", "uV", "", "")))
    words = ["export", str(folder), "--to", "fif", "--out", str(tmp_path / "a_raw.fif")]
    assert main(words) == 2
    assert "channel 'Pz' declares the unit ''" in capsys.readouterr().err
    assert main([*words, "--unit", "uV"]) == 0
    assert main([*words, "--unit", "uV"]) == 2
    assert "exists" in capsys.readouterr().err


def test_every_format_is_tested() -> None:
    assert set(FORMATS) == {"fif", "bids"}
