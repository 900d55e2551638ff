"""What md-stream demo ships with: of today's world and formats, small, and the session is that of the test split."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.export import demo_sessions
from minddiffuser.export.demo_sessions import SUBJECTS, LiveSubject, fit_command, live_key, make, session_of, simulate
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.demo.packed import BLOB, read_index
from minddiffuser.runtime.demo.quick import SHIPPED, WORLD
from minddiffuser.runtime.demo.session import read_session
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.training import cli
from minddiffuser.training.simulate.base import Event, Run
from minddiffuser.training.simulate.shown import Shown, Squares

AGAIN = "the shipped sessions are of another world or format: python -m minddiffuser.export.demo_sessions"


@pytest.mark.parametrize("modality", SUBJECTS)
def test_the_shipped_files_are_of_today(modality: str) -> None:
    assert read_index(SHIPPED / modality).about["key"] == live_key(SUBJECTS[modality]), AGAIN


def test_all_that_ships_is_small() -> None:
    """Even before the wheel compresses it."""
    sizes = {path: path.stat().st_size for place in (SHIPPED, WORLD) for path in place.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 60_000_000
    for modality in SUBJECTS:
        assert sizes[SHIPPED / modality / BLOB] < 20_000_000


def test_the_key_knows_what_decides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = SUBJECTS["eeg"]
    keys = [live_key(subject), live_key(replace(subject, strength=1.0)), live_key(SUBJECTS["meg"])]
    monkeypatch.setattr(demo_sessions, "VERSION", 10_000)
    assert len({*keys, live_key(subject)}) == 4


def test_markers_say_what_was_shown() -> None:
    shown = Shown(
        Squares([np.zeros((8, 8, 3), np.uint8)] * 2, 8),
        [["a red boat in the forest"], ["a pink cup in the sea"]],
        labels=np.array([[0, 0, 0], [1, 0, 0]]),
    )
    events = (
        Event(sample=800, split="test", stimulus=1, repetition=0),
        Event(sample=1000, split="target", stimulus=-1, repetition=0),
        Event(sample=1200, split="test", stimulus=0, repetition=0),
    )
    run = Run(session=0, split="test", data=np.zeros((1, 2000)), channels=(), sfreq=200.0, events=events)
    made = session_of("eeg", run, shown)
    one, two = shown.concepts
    assert made.markers == (
        (800, f"picture/1/{two}/a pink cup in the sea"),
        (1000, "target"),
        (1200, f"picture/0/{one}/a red boat in the forest"),
    )


def test_the_real_command_takes_these_arguments(tmp_path: Path) -> None:
    for subject in SUBJECTS.values():
        cli.parser().parse_args(fit_command(subject, tmp_path, tmp_path / "checkpoint"))


@pytest.mark.parametrize("modality", SUBJECTS)
def test_the_session_is_the_recording_of_the_test_split(modality: str, tmp_path: Path) -> None:
    """Through the chain of the data folder it gives the same trials, to within the rounding of its samples."""
    pytest.importorskip("mne")
    subject = LiveSubject(modality=modality, n_train=3, n_shown=2, n_repetitions=3)
    simulate(subject, tmp_path / "data", tmp_path / "session")
    data, session = open_data(tmp_path / "data"), read_session(tmp_path / "session")
    assert data.layout.signal is not None
    chain = open_chain(data.layout.signal, session.channels, session.sfreq)
    assert chain.causal
    shown = [(sample, text) for sample, text in session.markers if text != "target"]
    epochs = chain.epochs(session.data, [sample for sample, _ in shown])
    assert len(epochs.data) == 6
    assert not epochs.in_warm_up.any()
    names = [f"picture/{n}/{name}/" for n, name in enumerate(data.concepts("test"))]
    expected = data.responses("test")
    for n, name in enumerate(names):
        live = epochs.data[[text.startswith(name) for _, text in shown]]
        trials = expected[data.stimulus("test") == n]
        assert len(live) == len(trials) == 3
        # Half a unit of rounding, through a filter that passes at most twice its input, and a baseline.
        scale = np.abs(np.diff(session.data, axis=1)).max(axis=1) / 126
        assert (np.abs(live - trials).max(axis=(0, 2)) < 4 * 0.5 * scale).all()
        assert np.abs(live - trials).max() < 0.1 * trials.std()
    assert len(list((tmp_path / "session" / "shown").glob("*.png"))) == 2


def test_a_command_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(demo_sessions, "simulate", lambda *given: ran.append("simulate"))
    monkeypatch.setattr(cli, "main", lambda arguments: ran.append(arguments[0]) or 2)
    with pytest.raises(InputError, match="md-train fit failed with exit code 2"):
        make(tmp_path / "work", tmp_path / "out", SUBJECTS["eeg"])
    assert ran == ["simulate", "fit"]
    assert not (tmp_path / "out").exists()
