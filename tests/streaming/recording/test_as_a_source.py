"""A session of ours as a source: the very items, in the very steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_items import Steps, made_up_steps, same_steps, signal_info, write_xdf_steps

from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.items import read_steps
from minddiffuser.streaming.recording.repair import repair
from minddiffuser.streaming.records import Notice, Samples
from minddiffuser.streaming.sources import open_source
from minddiffuser.streaming.sources.base import Wanted


def items_of(text: str) -> Steps:
    source = open_source(text, Wanted(modality="eeg"))
    assert source.open() == signal_info()
    steps: Steps = []
    while True:
        items = list(source.poll(0.0))
        if any(isinstance(item, Notice) and item.kind == "ended" for item in items):
            source.close()
            return steps
        steps.append((source.now, items))  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_it_comes_as_it_came(tmp_path: Path, what: str) -> None:
    steps = made_up_steps(9, 120, signal_info())
    SessionFolder.create(tmp_path / "s", {}).close()
    path = write_xdf_steps(tmp_path / "s" / "signal.xdf", steps, signal_info())
    found = items_of(f"replay:{path if what == 'file' else path.parent},speed=max")
    assert same_steps(found, steps)
    assert same_steps([(step.now, step.items) for step in read_steps(path)], steps)


def test_a_session_that_lost_its_arrivals_comes_as_any_recording(tmp_path: Path) -> None:
    """What a repair has left of a session whose file was damaged in its middle."""
    pytest.importorskip("pyxdf")
    steps = made_up_steps(9, 120, signal_info())
    SessionFolder.create(tmp_path / "s", {}).close()
    path = write_xdf_steps(tmp_path / "s" / "signal.xdf", steps, signal_info(), flush_every=5)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    assert "when each sample arrived is no longer known" in repair(path.parent)[0].text
    source = open_source(f"replay:{path.parent},speed=max", Wanted(modality="eeg"))
    assert [one.name for one in source.open().channels] == [one.name for one in signal_info().channels]
    n_samples = 0
    while items := source.poll(0.0):
        n_samples += sum(len(item.stamps) for item in items if isinstance(item, Samples))
        if any(isinstance(item, Notice) and item.kind == "ended" for item in items):
            break
    source.close()
    assert n_samples > 0
