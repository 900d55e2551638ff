"""The recorder never lets a session wait and never ends one, and says what it could not keep."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from recorded_items import joined, made_up_steps, read_xdf_by_the_book, same_steps, signal_info

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.locks import locked
from minddiffuser.streaming.recording.items import read_steps
from minddiffuser.streaming.recording.names import signal_lock
from minddiffuser.streaming.recording.recorder import Recorder, RecordingState
from minddiffuser.streaming.recording.repair import repair_xdf
from minddiffuser.streaming.records import Marker, Notice, Samples


def until_written(recorder: Recorder) -> RecordingState:
    while (state := recorder.state()).n_waiting and state.on:
        threading.Event().wait(0.001)
    return state


def test_what_is_given_is_written(tmp_path: Path) -> None:
    steps = made_up_steps(4, 500, signal_info())
    stamps, _, markers = joined(steps)
    recorder = Recorder(tmp_path, signal_info())
    assert recorder.state().on
    for now, items in steps:
        recorder.write(items, now)
    state = recorder.close(steps[-1][0])
    assert state == RecordingState(
        on=False, reason="", n_samples=len(stamps), n_markers=len(markers), n_dropped_samples=0, n_dropped_markers=0,
        n_waiting=0, n_bytes=(tmp_path / "signal.xdf").stat().st_size,
    )  # fmt: skip
    assert same_steps([(step.now, step.items) for step in read_steps(tmp_path / "signal.xdf")], steps)
    assert recorder.close(0.0) == state
    recorder.write(steps[0][1], 0.0)  # after the end nothing is written, and it is counted
    assert recorder.state().n_bytes == state.n_bytes


def test_what_waits_is_handed_to_the_system_without_being_asked(tmp_path: Path) -> None:
    """So that a kill costs next to nothing: nobody closes here before the file is read."""
    steps = made_up_steps(4, 50, signal_info())
    recorder = Recorder(tmp_path, signal_info())
    for now, items in steps:
        recorder.write(items, now)
    until_written(recorder)
    assert same_steps([(step.now, step.items) for step in read_steps(tmp_path / "signal.xdf")], steps)
    recorder.close(0.0)


def test_each_second_and_each_mebibyte_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), real(file))[1])
    now = [100.0]
    recorder = Recorder(tmp_path, signal_info(2, dtype="float64"), clock=lambda: now[0])
    assert len(synced) == 1  # the headers
    small = Samples(stamps=np.zeros(10), data=np.zeros((2, 10)), arrived=0.0)
    recorder.write([small], 0.0)
    until_written(recorder)
    assert len(synced) == 1
    now[0] += 1.5
    recorder.write([small], 0.0)
    until_written(recorder)
    assert len(synced) == 2
    large = Samples(stamps=np.zeros(1 << 16), data=np.zeros((2, 1 << 16)), arrived=0.0)
    recorder.write([large], 0.0)
    until_written(recorder)
    assert len(synced) == 3
    recorder.close(0.0)
    assert len(synced) == 4
    assert synced[-1] == (tmp_path / "signal.xdf").stat().st_size


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that takes nothing until it is let go."""
    go, real = threading.Event(), os.write

    def write(file: int, data: bytes) -> int:
        if threading.current_thread().name == "md-stream recorder":
            go.wait()
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    yield go
    go.set()


def test_a_slow_disk_costs_samples_of_the_recording_and_says_how_many(tmp_path: Path, stuck: threading.Event) -> None:
    recorder = Recorder(tmp_path, signal_info(2), queue_bytes=20_000)
    block = Samples(stamps=np.zeros(100), data=np.ones((2, 100)), arrived=0.0)  # 2,400 bytes and what they carry
    marker = Marker(ordinal=0, stamp=0.0, arrived=0.0, raw=b"7")
    for k in range(50):
        recorder.write([block, marker], float(k))  # returns, though the disk does not
    state = recorder.state()
    assert state.on
    assert state.n_waiting <= 20_000
    n_taken = (5000 - state.n_dropped_samples) // 100
    assert 0 < n_taken < 50
    assert state.n_dropped_markers == 50 - n_taken
    stuck.set()
    until_written(recorder)
    recorder.write([block], 60.0)
    state = recorder.close(70.0)
    assert state.n_samples == 5100 - state.n_dropped_samples
    items = [item for step in read_steps(tmp_path / "signal.xdf") for item in step.items]
    said = [item for item in items if isinstance(item, Notice)]
    assert [one.kind for one in said] == ["dropped"]
    assert f"{state.n_dropped_samples} samples and {state.n_dropped_markers} markers are not" in said[0].text


def test_what_was_lost_at_the_end_is_said_too(tmp_path: Path, stuck: threading.Event) -> None:
    """Nothing is given behind it, with which it could be said."""
    recorder = Recorder(tmp_path, signal_info(2), queue_bytes=5_000)
    block = Samples(stamps=np.zeros(100), data=np.ones((2, 100)), arrived=0.0)
    recorder.write([block], 1.0)
    while recorder._queue:  # until the thread has taken it, and writes
        threading.Event().wait(0.001)
    recorder.write([Samples(stamps=np.zeros(500), data=np.ones((2, 500)), arrived=0.0)], 2.0)  # finds no place
    stuck.set()
    state = recorder.close(3.0)
    assert (state.n_samples, state.n_dropped_samples) == (100, 500)
    items = [item for step in read_steps(tmp_path / "signal.xdf") for item in step.items]
    assert [one.text.partition(":")[2] for one in items if isinstance(one, Notice)] == [
        " 500 samples and 0 markers are not in this recording"
    ]


def test_a_disk_that_hangs_is_left_behind_and_said(tmp_path: Path, stuck: threading.Event) -> None:
    recorder = Recorder(tmp_path, signal_info(2), patience=0.05)
    block = Samples(stamps=np.zeros(100), data=np.ones((2, 100)), arrived=0.0)
    recorder.write([block], 1.0)
    state = recorder.close(2.0)  # returns, though the disk does not
    assert (state.on, state.n_samples, state.n_dropped_samples) == (False, 0, 100)
    assert "the disk has not answered for 0.05 s while" in state.reason
    assert f"md-stream repair {tmp_path}" in state.reason
    with pytest.raises(FileError, match="another process"):  # its thread may still write
        repair_xdf_locked(tmp_path)
    stuck.set()
    recorder._thread.join()
    assert recorder.close(2.0).reason == state.reason
    assert len(joined([(step.now, step.items) for step in read_steps(tmp_path / "signal.xdf")])[0]) == 100


def repair_xdf_locked(folder: Path) -> None:
    with locked(signal_lock(folder), folder):
        pass


@pytest.mark.parametrize("after", [0, 1, 5000, 30_000])
def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The disk takes `after` bytes more, perhaps a part of a chunk, and then none."""
    left, real = [after], os.write

    def write(file: int, data: bytes) -> int:
        if threading.current_thread().name != "md-stream recorder":
            return real(file, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = real(file, bytes(data)[: left[0]])
        left[0] -= n
        return n

    monkeypatch.setattr(os, "write", write)
    steps = made_up_steps(4, 500, signal_info())
    recorder = Recorder(tmp_path, signal_info())
    for now, items in steps:
        recorder.write(items, now)
        until_written(recorder)
    state = recorder.close(0.0)
    stamps, data, markers = joined(steps)
    assert not state.on
    assert "the disk is full while writing" in state.reason
    assert state.reason.endswith("decoding goes on")
    assert state.n_samples + state.n_dropped_samples == len(stamps)
    assert state.n_markers + state.n_dropped_markers == len(markers)
    assert (tmp_path / "signal.xdf").stat().st_size == state.n_bytes  # no half chunk is left
    found = joined([(step.now, step.items) for step in read_steps(tmp_path / "signal.xdf")])
    assert len(found[0]) == state.n_samples
    assert np.array_equal(found[0], stamps[: state.n_samples])
    monkeypatch.undo()
    repair_xdf(tmp_path / "signal.xdf")
    read_xdf_by_the_book(tmp_path / "signal.xdf")


LIMITED = """
import resource, sys
from pathlib import Path
from recorded_items import made_up_steps, signal_info
from minddiffuser.streaming.recording.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), signal_info())
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
for now, items in made_up_steps(4, 500, signal_info()):
    recorder.write(items, now)
print(recorder.close(0.0).reason)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are of POSIX")
def test_what_the_system_refuses_ends_it_too(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert "cannot be written (File too large)" in done.stdout
    assert not done.stderr
    list(read_steps(tmp_path / "signal.xdf"))


def test_what_does_not_fit_its_description_ends_the_recording_with_the_reason(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, signal_info(3))
    recorder.write([Samples(stamps=np.zeros(4), data=np.zeros((2, 4)), arrived=0.0)], 0.0)
    state = recorder.close(0.0)
    assert "2 channels came, and 3 were described" in state.reason
    assert state.n_dropped_samples == 4


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        Recorder(tmp_path / "nowhere", signal_info())
