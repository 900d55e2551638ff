"""Formats of other people's: each in the registry holds the contract, and files appear whole or not at all."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import MODALITIES
from minddiffuser.training.cli import main
from minddiffuser.training.simulate import formats
from minddiffuser.training.simulate.base import SensorSubject, VoxelSubject
from minddiffuser.training.simulate.formats import FORMATS, NATIVE, Format, formats_of

FEW = ["--n-train", "4", "--n-test", "2", "--seed", "3"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_says_what_it_is(name: str) -> None:
    known = FORMATS[name]
    assert name != NATIVE
    assert known.modalities
    assert set(known.modalities) <= set(MODALITIES)
    assert known.made_of
    assert not known.made_of.endswith(".")
    write = import_module(f".{known.module}", formats.__name__).write
    out, subject, progress = inspect.signature(write).parameters.values()
    assert (out.name, subject.name, progress.name) == ("out", "subject", "progress")
    assert progress.kind is inspect.Parameter.KEYWORD_ONLY
    assert all(name in formats_of(modality) for modality in known.modalities)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A format `test` of a module made here: what its writer was given."""
    given: list[Any] = []

    def write(out: Path, subject: Any, *, progress: Any) -> None:
        assert list(out.iterdir()) == []
        (out / "part").write_text("begun")
        if subject.seed == 9:
            raise OSError(28, "No space left on device")
        given.append((subject, list(subject.runs()) if isinstance(subject, SensorSubject) else []))
        progress("written", 1, 1)

    module = ModuleType(f"{formats.__name__}.of_a_test")
    module.write = write  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(FORMATS, "test", Format(module="of_a_test", modalities=("fmri", "eeg"), made_of="a test's"))
    return given


def test_fmri_is_written_as_single_trials(
    written: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "files"
    assert main(["simulate", "fmri", "--format", "test", "--out", str(out), "--snr", "1000", *FEW]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert [path.name for path in out.iterdir()] == ["part"]
    ((subject, _),) = written
    assert isinstance(subject, VoxelSubject)
    test = subject.responses["test"]
    assert test.stimulus.tolist() == [0, 1, 0, 1, 0, 1]
    assert not test.averages
    np.testing.assert_allclose(test.responses[:2], test.responses[2:4], atol=0.05)
    assert (test.responses[:2] != test.responses[2:4]).any()
    assert subject.rois["V1"] == (0, 340)
    assert len(subject.pictures["train"].concepts) == 4


def test_eeg_is_written_as_it_was_recorded(written: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("mne")
    few = [*FEW, "--repetitions", "2", "--train-repetitions", "1"]
    assert main(["simulate", "eeg", "--format", "test", "--out", str(tmp_path / "files"), *few]) == 0
    ((subject, runs),) = written
    assert isinstance(subject, SensorSubject)
    assert (subject.modality, subject.sfreq, len(subject.channels)) == ("eeg", 1000.0, 63)
    assert len(runs) == subject.n_runs
    assert subject.n_repetitions == {"train": 1, "test": 2}
    for run in runs:
        assert run.data.dtype == np.float64
        assert run.data.shape[0] == len(run.channels) == 63


def test_what_fails_leaves_nothing(written: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["simulate", "fmri", "--format", "test"]
    assert main([*command, "--out", str(tmp_path / "files"), *FEW[:-1], "9"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    assert main([*command, "--out", str(tmp_path / "own"), *FEW]) == 2
    assert "holds thesis.txt" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "other"), "--force", *FEW]) == 2
    assert "--force replaces a data folder alone" in capsys.readouterr().err
    assert main(["simulate", "meg", "--format", "test", "--out", str(tmp_path / "other"), *FEW]) == 2
    assert "invalid choice: 'test'" in capsys.readouterr().err
    assert written == []


def test_options_of_epochs_are_refused_for_recordings(
    written: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--sfreq", "100"], ["--single-trials"], ["--zero-phase"]):
        command = ["simulate", "eeg", "--format", "test", "--out", str(tmp_path / "files"), *FEW, *option]
        assert main(command) == 2
        assert f"{option[0]} is about epochs, and test holds the recording" in capsys.readouterr().err
    assert written == []
