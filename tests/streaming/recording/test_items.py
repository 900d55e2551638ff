"""A recording gives the items again, to the bit and in their steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_items import Steps, joined, made_up_steps, same_steps, signal_info

from minddiffuser.runtime.errors import FileError
from minddiffuser.streaming.recording import streams, xdf
from minddiffuser.streaming.recording.chunks import Chunk, chunks
from minddiffuser.streaming.recording.items import is_ours, read_info, read_steps
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import ClockOffset, Item, Notice, Samples, SignalInfo


def write(path: Path, steps: Steps, info: SignalInfo, flushes: list[bool]) -> Path:
    writer = Writer(path, info, started="now")
    for k, (now, items) in enumerate(steps):
        writer.add(items, now)
        if flushes and flushes[k % len(flushes)]:
            writer.flush()
    writer.close(steps[-1][0])
    return path


def steps_of(path: Path) -> Steps:
    return [(step.now, step.items) for step in read_steps(path)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_steps=st.integers(1, 60),
    flushes=st.lists(st.booleans(), max_size=5),
    dtype=st.sampled_from(["float32", "float64", "int16", "float16"]),
)
def test_the_steps_come_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n_steps: int, flushes: list[bool], dtype: str
) -> None:
    info = signal_info(dtype=dtype)
    steps = made_up_steps(seed, n_steps, info)
    path = write(tmp_path_factory.mktemp("steps") / "signal.xdf", steps, info, flushes)
    assert same_steps(steps_of(path), steps)
    assert read_info(path) == info
    assert is_ours(path)


def test_a_changed_signal_comes_back_with_its_description(tmp_path: Path) -> None:
    info, other = signal_info(3, dtype="int16"), signal_info(2, sfreq=500.0)
    said = Notice(kind="recovered", stream="signal", at=101.0, text="", info=other, n_lost=3)
    odd = Samples(stamps=np.array([9.0]), data=np.array([[0.5], [1.5], [np.inf]]), arrived=100.9)
    steps = [*made_up_steps(1, 20, info), (100.9, [odd, odd]), (101.0, [said]), *made_up_steps(2, 20, other)]
    path = write(tmp_path / "signal.xdf", steps, info, [True, False, False])
    assert same_steps(steps_of(path), steps)
    assert read_info(path) == info


@pytest.mark.long
def test_every_truncation_gives_the_steps_up_to_it(tmp_path: Path) -> None:
    """Cut at any byte: whole steps to the bit; then what came of the next one; then data without their arrival."""
    info = signal_info(2)
    steps = made_up_steps(5, 8, info)
    path = write(tmp_path / "signal.xdf", steps, info, [True])
    whole, (all_stamps, all_data, all_markers) = path.read_bytes(), joined(steps)
    cut, seen = tmp_path / "cut.xdf", set()
    headers = whole.index(xdf.boundary())
    for size in [*range(0, headers, 97), *range(headers, len(whole))]:
        cut.write_bytes(whole[:size])
        try:
            found = steps_of(cut)
        except FileError:  # cut in its headers, which are on the disk before the first sample comes
            assert not seen
            continue
        n_whole = next(
            (k for k, (a, b) in enumerate(zip(found, steps, strict=False)) if not same_steps([a], [b])), len(found)
        )
        assert len(found) - n_whole <= 2
        stamps, data, markers = joined(found)
        assert np.array_equal(stamps, all_stamps[: len(stamps)])
        assert not len(stamps) or np.array_equal(data, all_data[:, : len(stamps)])
        assert [one.raw for one in markers] == [one.raw for one in all_markers[: len(markers)]]
        assert [one.ordinal for one in markers] == list(range(len(markers)))
        seen.add((n_whole, len(stamps), len(markers)))
    assert len(seen) > len(steps)
    assert same_steps(found[:8], steps)


def changed_steps() -> tuple[Steps, dict[str, SignalInfo]]:
    """A source that comes back with its channels in another order; each value says which channel it is of."""
    before = signal_info(3)
    after = replace(before, channels=before.channels[::-1], units=before.units[::-1])
    number = {channel.name: 1000.0 * (k + 1) for k, channel in enumerate(before.channels)}
    steps: Steps = [(100.0, [ClockOffset(stream="signal", at=100.0, offset=-400.0, uncertainty=1e-4)])]
    for k in range(8):
        info, at = (before, after)[k >= 4], 100.1 + 0.1 * k
        items: list[Item] = []
        if k == 4:
            items = [
                Notice(kind="recovered", stream="signal", at=at, text="it is back"),
                Notice(kind="changed", stream="signal", at=at, text="in another order", info=after),
            ]
        data = np.array([[number[channel.name] + k] * 3 for channel in info.channels])
        items.append(Samples(stamps=500.0 + k + np.arange(3) / 250, data=data, arrived=at))
        steps.append((at, items))
    return steps, {"before": before, "after": after}


@pytest.mark.parametrize("flush", [True, False])
def test_wherever_a_changed_source_is_cut_no_sample_is_taken_for_one_of_the_source_before(
    tmp_path: Path, flush: bool
) -> None:
    """The notice comes with them, its own or one made anew, also from a file that has the samples before the notice."""
    steps, infos = changed_steps()
    path = write(tmp_path / "signal.xdf", steps, infos["before"], [flush])
    whole, cut = path.read_bytes(), tmp_path / "cut.xdf"
    files = [whole, _without_notices(whole)]
    seen = set()
    for content in files:
        for size in range(content.index(xdf.boundary()), len(content), 17):
            cut.write_bytes(content[:size])
            info, n_after = infos["before"], 0
            try:
                found = list(read_steps(cut))
            except FileError:
                assert content is not whole  # rows that tell of a notice that is not there
                continue
            for item in (item for step in found for item in step.items):
                if isinstance(item, Notice) and item.info is not None:
                    info = item.info
                    seen.add(item.text.partition(";")[2])
                elif isinstance(item, Samples):
                    names = ["Oz Cz Pz".split()[int(value) // 1000 - 1] for value in item.data[:, 0]]
                    assert names == [channel.name for channel in info.channels]
                    n_after += names[0] == "Pz"
            assert n_after <= 4
    assert seen == {"", " the recording was cut before it said how"}


def _without_notices(whole: bytes) -> bytes:
    """As a release wrote it that put a new stream's samples before the notice, and a kill took the notice."""
    kept = [xdf.MAGIC]
    for chunk in chunks(memoryview(whole)):
        if not (isinstance(chunk, Chunk) and chunk.tag == xdf.SAMPLES and chunk.stream == streams.NOTICES):
            kept.append(whole[chunk.start : chunk.stop])
    return b"".join(kept)


def test_damage_in_the_middle_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "signal.xdf", made_up_steps(1, 100, signal_info()), signal_info(), [True])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(FileError, match="damaged at byte .*repair"):
        list(read_steps(path))


def test_other_files_are_no_recordings(tmp_path: Path) -> None:
    (tmp_path / "a.xdf").write_bytes(b"XDF:")
    (tmp_path / "b.xdf").write_bytes(b"")
    with pytest.raises(FileError, match="no recording of md-stream"):
        read_info(tmp_path / "a.xdf")
    with pytest.raises(FileError, match="no XDF file"):
        read_info(tmp_path / "b.xdf")
    with pytest.raises(FileError, match="does not exist"):
        read_info(tmp_path / "c.xdf")
    assert not is_ours(tmp_path / "a.xdf")
