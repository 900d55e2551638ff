"""md-stream verify: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.streaming.cli import main


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Six seconds of two EEG channels at 100 Hz with an annotation each second."""
    import mne

    data = 1e-5 * np.random.default_rng(0).standard_normal((2, 600))
    raw = mne.io.RawArray(data, mne.create_info(["Cz", "Oz"], 100.0, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations(np.arange(6.0), np.zeros(6), ["go", "go", "stop"] * 2))
    path = tmp_path / "x_raw.fif"
    raw.save(path, verbose="error")
    return path


def test_a_recording_agrees(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(recording), "--events", "go", "--tmax", "0.4", "--partitions", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 markers, 4 of them events; 2 channels at 100 Hz"
    assert lines[1] == "cut into chunks in 2 ways: 10 ms, drawn 1"
    assert lines[2] == "epochs: 2, of which 2 are identical to the bit"
    assert "refused: 1 before the start, 1 warm-up" in lines
    assert lines[-1] == "live and offline agree"


def test_events_at_a_distance_as_json(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(recording), "--every", "0.5", "--l-freq", "0", "--h-freq", "0", "--tmax", "0.2", "--json"]
    assert main([*command, "--partitions", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_events"], found["equal"], found["n_accepted"]) == (12, True, 12)


def test_where_nothing_was_compared_it_does_not_pass(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(recording), "--tmax", "20", "--partitions", "1"]) == 1
    assert "no epoch came, so that no value was compared" in capsys.readouterr().out


def test_the_ramp(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--ramp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no interruption, sample by sample: 20 of 20 epochs exact, none off by more than 0 ms"
    assert sum("19 of 20 epochs exact" in line and "no sample for 1.004 s" in line for line in lines) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a recording to verify, or --ramp"),
        (["x.fif"], "x.fif does not exist"),
        (["--ramp", "x.fif"], "give a recording to verify, or --ramp"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"md-stream: {message}")
    assert error.count("\n") == 1


def test_a_modality_that_the_recording_does_not_have(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(recording), "--modality", "meg"]) == 2
    assert "the recording has no meg channel (it has eeg)" in capsys.readouterr().err
