"""md-stream chaos, on sessions and on files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from ramp_source import ramp_info, ramp_items
from session_world import World, info, steps_of

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.streaming.chaos.plan import Timing, drawn
from minddiffuser.streaming.chaos.source import FaultySource
from minddiffuser.streaming.cli import main
from minddiffuser.streaming.clock import now
from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.recorder import Recorder
from minddiffuser.streaming.records import Marker, Samples
from minddiffuser.streaming.session.acquisition import Acquisition
from minddiffuser.streaming.sources.replay import Replay, Step


@pytest.fixture
def world(backend: Backend[Any]) -> World:
    return World(backend)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ramp of 80 s, recorded."""
    folder = tmp_path_factory.mktemp("ramp")
    recorder = Recorder(folder, replace(ramp_info(), dtype="double64"))
    for item in ramp_items(80.0):
        at = item.arrived if isinstance(item, Samples | Marker) else item.at
        recorder.write([item], at)
    recorder.close(at)
    return folder / "signal.xdf"


def test_a_recording_holds_and_the_same_seed_says_the_same(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for _ in range(2):
        assert main(["chaos", str(recording), "--seed", "3", "--tmax", "0.6"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith("seed 3\n")
    assert said[0].rstrip().endswith("held")
    assert "WRONG" not in said[0]
    assert main(["chaos", str(recording), "--seed", "4", "--tmax", "0.6"]) == 0
    assert capsys.readouterr().out != said[0]


def test_the_report_as_json_with_faults_of_one_kind(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", str(recording), "--faults", "pause", "nan", "--json", "--tmax", "0.6"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["held"]
    assert report["seed"] == 0
    assert all(text.endswith(("(pause)", "(nan)")) for text in report["faults"])
    assert len(report["faults"]) >= 5
    samples = report["samples"]
    assert samples.pop("received") == sum(samples.values())
    assert report["states"]["accepted"] == report["n_exact"]


def test_where_no_epoch_is_accepted_nothing_is_claimed(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", str(recording), "--events", "no such marker"]) == 1
    assert "nothing was tested" in capsys.readouterr().err


def test_a_fault_of_the_live_path_is_found_out(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that gives the epoch of the sample before: exit 1, and it says which."""
    from minddiffuser.runtime.signal.stream import Stream

    mark = Stream.mark
    monkeypatch.setattr(Stream, "mark", lambda self, event, id=None: mark(self, event - 1, id))
    assert main(["chaos", str(recording), "--tmax", "0.6"]) == 1
    said = capsys.readouterr().out
    assert "WRONG: the epoch of marker" in said
    assert said.rstrip().endswith("did not hold")


@pytest.mark.long
def test_a_session_by_its_own_bundle(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = steps_of(60.0, [(4.0 + number, "stim/cat") for number in range(50)])
    record = _recorded(world, steps, tmp_path)
    assert main(["chaos", str(record), "--seed", "1"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("held")


def _recorded(world: World, steps: list[Step], tmp_path: Path) -> Path:
    settings = world.settings()
    about = {
        "bundle": {"folder": str(settings.folder)},
        "intake": asdict(settings.intake),
        "accept_filter_mismatch": False,
    }
    folder = SessionFolder.create(tmp_path / "recorded", about)
    acquisition = world.acquisition(steps, record=folder.path)
    acquisition.open()
    while not acquisition.ended:
        acquisition.step(0.0)
    acquisition.close()
    folder.close()
    return folder.path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.xdf"], "nothing.xdf"),
        (["nothing.xdf", "--seed", "-1"], "no seed"),
        (["nothing.xdf", "--faults", "gremlin"], "gremlin"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["chaos", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_session_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", str(tmp_path)]) == 2
    assert "has no session.json" in capsys.readouterr().err


def test_help_lists_the_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["chaos", "--help"])
    assert "other-order     the source was restarted with its channels in another order" in capsys.readouterr().out


def test_the_whole_session_survives(world: World) -> None:
    """Decoding and the books behind a source that suffers faults of every kind that its time allows."""
    markers = [(4.0 + 0.7 * number, "stim/cat") for number in range(200)]
    steps = steps_of(150.0, markers)
    faults = takewhile(lambda fault: fault.start < 140.0, drawn(2, timing=Timing(first=6.0, calm=(1.0, 3.0))))
    source = FaultySource(Replay(info(), steps, speed=None), faults)
    session = world.session(steps)
    session._feed._acquisition = Acquisition(source, world.settings(), now)
    ended = session.run()
    assert ended.fault == ""
    assert ended.totals.balanced
    assert ended.totals.states["pending"] == 0
    assert ended.totals.states["decoded"] > 20
    assert ended.totals.received >= len(markers)
    assert len(source.happened) > 15
