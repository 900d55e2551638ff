"""What is read of a run folder: written here by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.run.reconstruct import ReconstructSettings
from minddiffuser.training.experiments import cells
from minddiffuser.training.experiments.cells import Measure, measured_trials, run_values
from minddiffuser.training.experiments.steps import Fit, Run

STAGES = {
    0: ("x", 0.1, 0.3),
    2: ("x", 0.3, 0.5),
    3: ("y", 0.2, 0.1),
}


def write_run(folder: Path, lost: tuple[int, ...] = (1,), floor: float = 0.05) -> Path:
    """Trials of pictures x and y, without metrics of those that are lost."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {
            "trial": trial,
            "stimulus_id": picture,
            "metrics": {"pixcorr": [before, after]},
            "controls": {"shuffled": {"pixcorr": 0.0}},
        }
        for trial, (picture, before, after) in STAGES.items()
        if trial not in lost
    ]
    rows += [{"trial": trial, "stimulus_id": "x"} for trial in lost]
    (folder / "trials.json").write_text(json.dumps(rows))
    (folder / "summary.json").write_text(json.dumps({"metrics": {"pixcorr": {"stage1_floor": floor}}}))
    return folder


def test_a_runs_values_by_picture(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert [row["trial"] for row in measured_trials(run)] == [0, 2, 3]
    found = run_values(run)
    assert found.pictures == ("x", "y")
    assert found.columns["pixcorr.stage1"] == pytest.approx([0.2, 0.2])
    assert found.columns["pixcorr.stage2"] == pytest.approx([0.4, 0.1])
    assert found.columns["pixcorr.shuffled"] == pytest.approx([0.0, 0.0])
    assert found.chance == {"pixcorr": 0.05}


def test_a_run_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="has no metrics"):
        run_values(write_run(tmp_path / "run", lost=(0, 1, 2, 3)))


def test_features_are_decoded_from_the_trials_that_have_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1 is bad: another trial of its picture x is good, and says nothing of it."""
    given: dict[int, str] = {}

    def decoded(found: Any, _subject: Any, shown: dict[int, str], *_fits: Any) -> Any:
        given.update(shown)
        return found

    monkeypatch.setattr(cells, "_with_decoded", decoded)
    runs = tuple(Run(name=f"all-{seed}", fit=Fit(), settings=ReconstructSettings()) for seed in (1, 2))
    for run, lost in zip(runs, ((1,), (1, 2)), strict=True):
        write_run(tmp_path / run.folder, lost=lost)
    subject: Any = SimpleNamespace(out=tmp_path)
    found = Measure(fit=Fit(), runs=runs)(subject)
    assert given == {0: "x", 2: "x", 3: "y"}
    assert found.columns["pixcorr.stage2"] == pytest.approx([(0.4 + 0.3) / 2, 0.1])
