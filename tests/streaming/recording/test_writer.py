"""What is written is what others read: pyxdf, and a reader that was written from the specification."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_items import (
    OFFSET,
    SFREQ,
    Steps,
    by_role,
    joined,
    made_up_steps,
    read_xdf_by_the_book,
    signal_info,
    write_xdf_steps,
)

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.streaming.recording import xdf
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import Marker, Notice, Samples, SignalInfo

pyxdf = pytest.importorskip("pyxdf")


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Steps]:
    steps = made_up_steps(3, 400, signal_info())
    return write_xdf_steps(tmp_path / "signal.xdf", steps, signal_info()), steps


@pytest.mark.filterwarnings("ignore")
def test_pyxdf_reads_the_raw_samples_and_stamps(recorded: tuple[Path, Steps]) -> None:
    path, steps = recorded
    stamps, data, markers = joined(steps)
    streams, _ = pyxdf.load_xdf(
        str(path), synchronize_clocks=False, dejitter_timestamps=False, handle_clock_resets=False
    )
    found = {one["info"]["type"][0]: one for one in streams}
    assert found["EEG"]["info"]["name"] == ["amplifier <1> & co"]
    assert np.array_equal(found["EEG"]["time_stamps"], stamps)
    assert np.array_equal(found["EEG"]["time_series"].T.astype(float), data)
    assert found["Markers"]["time_stamps"].tolist() == [marker.stamp for marker in markers]
    assert [row[0] for row in found["Markers"]["time_series"]] == [marker.text for marker in markers]
    channels = found["EEG"]["info"]["desc"][0]["channels"][0]["channel"]
    assert [one["label"][0] for one in channels] == ["Oz", "Cz", "Pz"]
    assert [one["unit"][0] for one in channels] == ["uV"] * 3


@pytest.mark.filterwarnings("ignore")
def test_pyxdf_brings_the_stamps_to_the_local_clock(recorded: tuple[Path, Steps]) -> None:
    path, steps = recorded
    stamps, _, _ = joined(steps)
    streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    found = next(one for one in streams if one["info"]["type"][0] == "EEG")
    offsets = [OFFSET + 1e-6 * k for k in range(0, 400, 20)]
    assert np.allclose(found["clock_values"], offsets, atol=1e-9)
    at = [
        item.at
        for _, items in steps
        for item in items
        if getattr(item, "stream", "") == "signal" and hasattr(item, "offset")
    ]
    assert np.allclose(np.array(found["clock_times"]) + offsets, at, atol=1e-9)
    # Measured on the sender's clock, at 1e-6 s more each 0.4 s: a line that pyxdf fits.
    assert np.allclose(found["time_stamps"], stamps + np.interp(stamps, found["clock_times"], offsets), atol=5e-6)


def test_a_reader_by_the_book_finds_every_byte_in_order(recorded: tuple[Path, Steps]) -> None:
    path, steps = recorded
    stamps, data, markers = joined(steps)
    streams, tags = read_xdf_by_the_book(path)
    signal, texts, arrivals = (by_role(streams, role)[0] for role in ("signal", "markers", "arrivals"))
    assert signal["stamps"] == stamps.tolist()
    assert np.array_equal(np.array(signal["values"]).T, data)
    assert texts["values"] == [marker.raw for marker in markers]
    assert signal["header"].findtext("channel_format") == "float32"
    assert float(signal["header"].findtext("nominal_srate")) == SFREQ
    assert signal["header"].findtext("desc/channels/channel/location/Y") == "-90.0"
    for stream in (signal, texts, arrivals):
        assert int(stream["footer"].findtext("sample_count")) == len(stream["stamps"])
        assert float(stream["footer"].findtext("last_timestamp")) == stream["stamps"][-1]
    assert tags[0] == 1
    assert tags[-1] == 5
    # What arrived when: a row for each step, and for each item of it the time of its arrival.
    at = [
        when
        for now, items in steps
        for when in (now, *[getattr(item, "arrived", getattr(item, "at", 0)) for item in items])
    ]
    assert arrivals["stamps"][:-1] == at


def test_data_stand_before_the_row_that_tells_of_them(recorded: tuple[Path, Steps]) -> None:
    path, _ = recorded
    _, tags = read_xdf_by_the_book(path)
    assert tags.count(xdf.BOUNDARY) >= 400 / 35  # after each sync, for who has to find the way again
    assert tags.index(xdf.SAMPLES) > max(k for k, tag in enumerate(tags) if tag == xdf.STREAM_HEADER)


hostile = st.text(max_size=40) | st.sampled_from(["\x00", "]]>", "&amp;<a/>", "\ud800", "\ufffe", "x" * 300, "\r\n"])


@settings(max_examples=60, deadline=None)
@given(name=hostile, unit=hostile, source=hostile, notice=hostile, raws=st.lists(st.binary(max_size=300), max_size=5))
def test_hostile_texts_leave_the_file_readable(
    tmp_path_factory: pytest.TempPathFactory, name: str, unit: str, source: str, notice: str, raws: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "signal.xdf"
    channels = (Channel(name="Oz", type="eeg"),)
    info = SignalInfo(name=name, channels=channels, sfreq=10.0, units=(unit,), source_id=source)
    items = [Marker(ordinal=k, stamp=1.0, arrived=2.0, raw=raw) for k, raw in enumerate(raws)]
    steps: Steps = [(2.0, [*items, Notice(kind="lost", stream="signal", at=2.0, text=notice)])]
    write_xdf_steps(path, steps, info)
    streams, _ = read_xdf_by_the_book(path)
    assert by_role(streams, "markers")[0]["values"] == raws
    loaded, _ = pyxdf.load_xdf(str(path), verbose=False)
    assert len(loaded) == 4


def test_numbers_that_a_type_cannot_hold_go_into_a_stream_that_can(tmp_path: Path) -> None:
    info = signal_info(2, dtype="int16")
    small = Samples(stamps=np.array([1.0, 1.1]), data=np.array([[1.0, -2.0], [3.0, 4.0]]), arrived=5.0)
    large = replace(small, stamps=np.array([1.2]), data=np.array([[0.1], [np.nan]]))
    streams, _ = read_xdf_by_the_book(
        write_xdf_steps(tmp_path / "a.xdf", [(5.0, [small]), (5.0, [large, small])], info)
    )
    first, second = by_role(streams, "signal")
    assert [one["header"].findtext("channel_format") for one in (first, second)] == ["int16", "double64"]
    assert first["values"] == [(1, 3), (-2, 4)]
    assert second["values"][0][0] == 0.1
    assert np.isnan(second["values"][0][1])
    assert second["values"][1:] == [(1, 3), (-2, 4)]


def test_another_description_is_another_stream(tmp_path: Path) -> None:
    info, other = signal_info(3), signal_info(2, sfreq=500.0)
    steps = made_up_steps(1, 40, info)
    said = Notice(kind="changed", stream="signal", at=200.0, text="back with 2 channels", info=other)
    steps += [(200.0, [said]), *[(now + 200, items) for now, items in made_up_steps(2, 40, other)]]
    streams, _ = read_xdf_by_the_book(write_xdf_steps(tmp_path / "a.xdf", steps, info))
    first, second = by_role(streams, "signal")
    assert np.array_equal(np.array(first["values"]).T, joined(steps[:40])[1])
    assert np.array_equal(np.array(second["values"]).T, joined(steps[41:])[1])
    assert float(second["header"].findtext("nominal_srate")) == 500.0
    assert len(first["offsets"]) == len(second["offsets"]) == 2


def test_samples_that_do_not_fit_their_description_are_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.xdf", signal_info(3), started="")
    with pytest.raises(ValueError, match="2 channels came, and 3 were described"):
        writer.add([Samples(stamps=np.zeros(1), data=np.zeros((2, 1)), arrived=0.0)], 0.0)
    writer.close(0.0)


def test_the_file_is_its_owners_alone_and_never_another(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_xdf_steps(tmp_path / "a.xdf", [(0.0, [])], signal_info())
    finally:
        os.umask(before)
    assert (tmp_path / "a.xdf").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Writer(tmp_path / "a.xdf", signal_info(), started="")
