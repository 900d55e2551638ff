"""The demonstration on real streams, with a small session and a toy bundle; and what it asks for."""

import os
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.demo.session import DemoSession, write_session
from minddiffuser.runtime.errors import MissingExtra
from minddiffuser.streaming import cli
from minddiffuser.streaming.demo import run as demo_run
from minddiffuser.streaming.demo.run import EVENTS, Demo, request_of, run_demo

MARKERS = ((800, "picture/0/cup"), (900, "target"), (1000, "picture/1/car"), (1200, "picture/0/cup"))


@pytest.fixture
def shipped(live_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as that of the shipped subject: eight seconds of noise, and four markers."""
    from live_bundle import CHANNELS, SFREQ, SIZE

    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "bundle").symlink_to(live_bundle)
    write_session(
        folder / "session",
        DemoSession(
            modality="eeg",
            channels=tuple(Channel(name=name, type="eeg") for name in CHANNELS),
            sfreq=SFREQ,
            data=SIZE * np.random.default_rng(8).standard_normal((3, 1600)),
            markers=MARKERS,
        ),
    )
    monkeypatch.setattr(demo_run, "open_shipped", lambda instead, say, of: folder)
    return folder


def test_every_marker_is_in_the_books_and_the_session_ends_by_itself(shipped: Path, tmp_path: Path) -> None:
    said: list[str] = []
    before = dict(os.environ)
    ended = run_demo(Demo(dashboard=False, record=tmp_path / "recorded"), say=said.append)
    assert not ended.interrupted
    assert ended.fault == ""
    assert ended.totals.received == len(MARKERS)
    assert ended.totals.balanced
    states = {state: count for state, count in ended.totals.states.items() if count}
    # Of another load than this machine can bear, epochs may be refused; none is pending or lost.
    assert states["skipped"] == 1
    assert states.get("decoded", 0) + states.get("refused", 0) == 3
    assert f"{shipped / 'session' / 'shown'}" in said[0]
    assert "3 channels, 4 markers" in said[0]
    assert (tmp_path / "recorded" / "signal.xdf").stat().st_size > 1600 * 3 * 4
    assert dict(os.environ) == before


def test_it_asks_as_a_person_would(tmp_path: Path) -> None:
    request = request_of(Demo(average=False, deadline=1.5, port=8080, dashboard=True), tmp_path, "me")
    assert request.source == "lsl:id=me,markers=me-markers"
    assert request.intake.events == EVENTS
    assert (request.deadline, request.average, request.port, request.dashboard) == (1.5, False, 8080, True)
    assert request.options.backend == "ort"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], Demo()),
        (["--modality", "meg", "--average-by", "none"], Demo(modality="meg", average=False)),
        (["--deadline", "800ms", "--no-dashboard"], Demo(deadline=0.8, dashboard=False)),
        (["--record", "x", "--port", "8080"], Demo(record=Path("x"), port=8080)),
    ],
)
def test_the_command_hands_on_what_it_was_given(
    given: list[str], expected: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Demo] = []

    def run(demo: Demo, **_lines: object) -> object:
        asked.append(demo)
        raise MissingExtra("that is all")

    monkeypatch.setattr(demo_run, "run_demo", run)
    assert cli.main(["demo", *given]) == 2
    assert asked == [expected]


def test_without_onnx_runtime_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_run, "why_no_provider", lambda name: "onnxruntime is not installed")
    with pytest.raises(MissingExtra, match="the demonstration runs on ONNX Runtime: onnxruntime is not installed"):
        run_demo(Demo())


def test_what_is_not_installed_is_said_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_run, "find_spec", lambda name: None if name in ("pylsl", "uvicorn") else object())
    monkeypatch.setattr(demo_run, "PlayingProcess", None)
    with pytest.raises(MissingExtra, match=r"needs pylsl, uvicorn: pip install 'minddiffuser\[stream\]'"):
        run_demo(Demo())
