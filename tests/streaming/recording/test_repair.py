"""What a kill, a full disk or damage has left becomes a whole file, and nothing that was whole is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_items import (
    by_role,
    joined,
    made_up_steps,
    read_xdf_by_the_book,
    same_steps,
    signal_info,
    write_xdf_steps,
)

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.locks import inside, locked
from minddiffuser.streaming.cli import main
from minddiffuser.streaming.recording import xdf
from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.items import is_ours, read_end, read_info, read_steps
from minddiffuser.streaming.recording.opened import open_session
from minddiffuser.streaming.recording.recorder import Recorder
from minddiffuser.streaming.recording.repair import repair, repair_xdf
from minddiffuser.streaming.records import Samples

pyxdf = pytest.importorskip("pyxdf")


@pytest.mark.long
def test_a_file_cut_at_any_byte_is_whole_again(tmp_path: Path) -> None:
    steps = made_up_steps(8, 6, signal_info(2))
    path = write_xdf_steps(tmp_path / "a.xdf", steps, signal_info(2), flush_every=2)
    whole, (all_stamps, all_data, all_markers) = path.read_bytes(), joined(steps)
    headers, footers = whole.index(xdf.boundary()), whole.index(b"<first_timestamp>")
    most = -1
    for size in [*range(headers, footers), *range(footers, len(whole) - len(xdf.boundary()), 23)]:
        path.write_bytes(whole[:size])
        n_samples = sum(len(one.stamps) for step in read_steps(path) for one in step.items if isinstance(one, Samples))
        done = repair_xdf(path)
        streams, tags = read_xdf_by_the_book(path)
        got, texts = by_role(streams, "signal")[0], by_role(streams, "markers")[0]
        assert done.changed
        assert len(got["stamps"]) == n_samples  # all samples that were whole, in a chunk or not
        assert got["stamps"] == all_stamps[:n_samples].tolist()
        assert got["values"] == [tuple(row) for row in all_data.T[:n_samples].tolist()]
        assert texts["values"] == [one.raw for one in all_markers[: len(texts["values"])]]
        assert all(int(one["footer"].findtext("sample_count")) == len(one["stamps"]) for one in streams.values())
        assert tags.count(xdf.STREAM_FOOTER) == len(streams)
        assert n_samples >= most
        most = n_samples
        assert not repair_xdf(path).changed
        assert sorted(os.listdir(tmp_path)) == ["a.xdf"]
    assert most == len(all_stamps)
    assert len(pyxdf.load_xdf(str(path), verbose=False)[0]) == 4


def test_a_sample_that_was_half_written_costs_only_itself(tmp_path: Path) -> None:
    info = signal_info(3, dtype="float64")
    one = Samples(stamps=np.arange(100) / 250, data=np.arange(300.0).reshape(3, 100), arrived=1.0)
    path = write_xdf_steps(tmp_path / "a.xdf", [(1.0, [one])], info)
    start = path.read_bytes().index(xdf.numbers(4, one.stamps, one.data.T)[:12])
    row = 1 + 8 + 3 * 8
    os.truncate(path, start + 14 + 41 * row + 20)
    repair_xdf(path)
    signal_stream = by_role(read_xdf_by_the_book(path)[0], "signal")[0]
    assert np.array_equal(np.array(signal_stream["values"]).T, one.data[:, :41])


def test_damage_in_the_middle_costs_what_it_hit(tmp_path: Path) -> None:
    steps = made_up_steps(2, 300, signal_info())
    path = write_xdf_steps(tmp_path / "a.xdf", steps, signal_info(), flush_every=5)
    data, (all_stamps, all_data, _) = bytearray(path.read_bytes()), joined(steps)
    data[len(data) // 2 : len(data) // 2 + 100] = b"\x00" * 100
    path.write_bytes(data)
    done = repair_xdf(path)
    assert "made no sense" in done.text
    assert (tmp_path / "a.xdf.damaged").read_bytes() == bytes(data)
    streams, _ = read_xdf_by_the_book(path)
    kept = by_role(streams, "signal")[0]
    row_of = {stamp: row for stamp, row in zip(all_stamps.tolist(), all_data.T.tolist(), strict=True)}
    assert len(all_stamps) * 0.8 < len(kept["stamps"]) < len(all_stamps)
    assert all(list(values) == row_of[stamp] for stamp, values in zip(kept["stamps"], kept["values"], strict=True))
    assert kept["stamps"] == sorted(kept["stamps"], key=all_stamps.tolist().index)
    assert not by_role(streams, "arrivals")  # they count samples that are no longer there
    assert not is_ours(path)


def test_zeros_at_the_end_cost_only_what_they_replace(tmp_path: Path) -> None:
    """A power cut leaves them; everything before is told of as it arrived, and can be run again."""
    steps = made_up_steps(2, 300, signal_info())
    path = write_xdf_steps(tmp_path / "a.xdf", steps, signal_info(), flush_every=5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + bytes(5000))
    assert "at its end made no sense" in repair_xdf(path).text
    assert is_ours(path)
    found = [(step.now, step.items) for step in read_steps(path)]
    whole = len(found) - 1  # the last step may be cut
    assert whole > 100
    assert same_steps(found[:whole], steps[:whole])
    assert not repair_xdf(path).changed


def test_other_recorders_files_are_repaired_too(tmp_path: Path) -> None:
    """Written by hand: a stream whose samples leave their stamps out, and lengths of 8 bytes."""
    import struct

    header = b"<?xml version='1.0'?><info><version>1.0</version></info>"
    about = (
        b"<?xml version='1.0'?><info><name>EEG</name><type>EEG</type><channel_count>2</channel_count>"
        b"<nominal_srate>100</nominal_srate><channel_format>int16</channel_format></info>"
    )

    def piece(tag: int, content: bytes) -> bytes:
        return struct.pack("<BQH", 8, len(content) + 2, tag) + content

    first = b"\x08" + struct.pack("<d", 5.0)
    rows = b"".join((first if k == 0 else b"\x00") + struct.pack("<hh", k, -k) for k in range(50))
    chunk = piece(3, struct.pack("<IBQ", 9, 8, 50) + rows)
    path = tmp_path / "b.xdf"
    single = piece(3, struct.pack("<IBB", 9, 1, 1) + b"\x00" + struct.pack("<hh", 77, 0))
    path.write_bytes(b"XDF:" + piece(1, header) + piece(2, struct.pack("<I", 9) + about) + chunk + single + chunk[:-7])
    repair_xdf(path)
    (stream,), _ = pyxdf.load_xdf(str(path), verbose=False)
    assert stream["time_series"][:, 0].tolist() == [*range(50), 77, *range(48)]
    assert not (tmp_path / "b.xdf.damaged").exists()


@pytest.mark.parametrize("damage", [b"", b"XD", b"RIFF....", b"XDF:", b"XDF:\x01\x40\x01\x00<in"])
def test_what_holds_nothing_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.xdf").write_bytes(damage)
    with pytest.raises(FileError):
        repair_xdf(tmp_path / "a.xdf")
    assert (tmp_path / "a.xdf").read_bytes() == damage


def test_a_session_that_was_killed_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = SessionFolder.create(tmp_path / "s", {"bundle": "b"})
    for k in range(3):
        folder.result({"ordinal": k})
        folder.ledger({"ordinal": k, "state": "decoded"})
    write_xdf_steps(folder.path / "signal.xdf", made_up_steps(1, 50, signal_info()), signal_info(), flush_every=5)
    os.truncate(folder.path / "signal.xdf", 9000)
    (folder.path / "pictures" / ".0001.png.99.draft").write_bytes(b"half")
    with pytest.raises(FileError, match="another process is working"):
        repair(folder.path)
    folder.close()
    about = json.loads((folder.path / "session.json").read_text()) | {"state": "recording"}
    (folder.path / "session.json").write_text(json.dumps(about))
    with open(folder.path / "results.jsonl", "ab") as file:
        file.write(b'{"ordinal": 3, "conc')

    assert main(["repair", str(folder.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("signal.xdf: finished")
    assert lines[1] == "ledger.jsonl is whole"
    assert lines[2] == "results.jsonl: 3 lines are whole; 20 bytes of a line that was not whole were cut off its end"
    session = open_session(folder.path)
    assert session.about["state"] == "repaired"
    assert [one["ordinal"] for one in session.results()] == [0, 1, 2]
    assert not list((folder.path / "pictures").iterdir())
    for file in folder.path.rglob("*.*"):
        assert file.is_dir() or file.stat().st_mode & 0o777 == 0o600

    main(["repair", str(folder.path)])
    assert all(line.endswith("is whole") for line in capsys.readouterr().out.splitlines())


def test_damaged_lines_are_kept_beside(tmp_path: Path) -> None:
    folder = SessionFolder.create(tmp_path / "s", {})
    folder.result({"ordinal": 0})
    folder.close()
    path = folder.path / "results.jsonl"
    path.write_bytes(path.read_bytes() + b'\x00\x00\x00\n[1]\n{"ordinal": 1}\n')
    with pytest.raises(FileError, match="line 2 is damaged: run md-stream repair"):
        list(open_session(folder.path).results())
    assert "2 damaged lines" in " ".join(one.text for one in repair(folder.path))
    assert [one["ordinal"] for one in open_session(folder.path).results()] == [0, 1]
    assert (folder.path / "results.jsonl.damaged").exists()


def test_repair_is_refused_while_a_session_runs(tmp_path: Path) -> None:
    SessionFolder.create(tmp_path / "s", {}).close()
    with locked(inside(tmp_path / "s"), tmp_path / "s"), pytest.raises(FileError, match="another process"):
        repair(tmp_path / "s")


def test_repair_is_refused_while_the_recorder_of_a_killed_session_still_writes(tmp_path: Path) -> None:
    """Acquisition is a process of its own, and finishes its file when it finds itself alone."""
    SessionFolder.create(tmp_path / "s", {}).close()
    recorder = Recorder(tmp_path / "s", signal_info())
    for path in (tmp_path / "s", tmp_path / "s" / "signal.xdf"):
        with pytest.raises(FileError, match="another process"):
            repair(path)
    recorder.close(0.0)
    assert not any(one.changed for one in repair(tmp_path / "s"))


KILLED = """
import sys
from pathlib import Path
from recorded_items import made_up_steps, signal_info
from minddiffuser.streaming.recording.recorder import Recorder
steps, recorder = made_up_steps(11, 400, signal_info()), Recorder(Path(sys.argv[1]), signal_info())
for k, (now, items) in enumerate(steps):
    recorder.write(items, now)
    if k % 40 == 39:
        while recorder.state().n_waiting:
            pass
        print(k, flush=True)
"""


@pytest.mark.parametrize("n_before", [0, 3, 7])
def test_after_a_kill_everything_that_was_handed_to_the_system_is_there(tmp_path: Path, n_before: int) -> None:
    """SIGKILL at a random byte: between the recorder's report of a step and the next."""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    made = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
    )
    assert made.stdout is not None
    last = [int(made.stdout.readline()) for _ in range(n_before + 1)][-1]
    made.send_signal(signal.SIGKILL)
    made.wait()
    made.stdout.close()
    steps = made_up_steps(11, 400, signal_info())
    repair_xdf(tmp_path / "signal.xdf")
    found = [(step.now, step.items) for step in read_steps(tmp_path / "signal.xdf")]
    assert len(found) > last
    assert same_steps(found[: last + 1], steps[: last + 1])
    stamps, data, _ = joined(found)
    assert np.array_equal(data, joined(steps)[1][:, : len(stamps)])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_happens_to_its_bytes_a_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes that changed, went or came: a result or one clear error, never another one; repair helps or refuses."""
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.xdf"
    if not whole.exists():
        write_xdf_steps(whole, made_up_steps(6, 30, signal_info()), signal_info())
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 20))
        content[place : place + length] = data.draw(st.binary(max_size=20) | st.just(b"\xff" * 8) | st.just(bytes(9)))
    path = folder / "changed.xdf"
    path.write_bytes(content)
    try:
        list(read_steps(path))
        read_info(path)
        read_end(path)
    except FileError:
        pass
    try:
        repair_xdf(path)
    except FileError:
        return
    assert not repair_xdf(path).changed
    for one in read_xdf_by_the_book(path)[0].values():
        assert one["footer"] is not None
