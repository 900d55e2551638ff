"""The runner on cells that take no time: what is made once, what goes on, what is refused."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import write_small_data
from toy_experiment import experiment

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.metrics.select import STANDARD
from minddiffuser.runtime.run.reconstruct import ReconstructSettings
from minddiffuser.training.experiments import runner
from minddiffuser.training.experiments.base import Cell, Row, Tell
from minddiffuser.training.experiments.folder import check_models
from minddiffuser.training.experiments.runner import run_experiment
from minddiffuser.training.experiments.steps import Fit, Run
from minddiffuser.training.experiments.subject import Plan, Subject
from minddiffuser.training.experiments.values import Values

PLAN = Plan(n_trials=3, models="none")


def draw(_results: Any, path: Path) -> None:
    path.write_text("<svg></svg>")


@dataclass(frozen=True)
class Fast:
    """A step that writes a file and is counted."""

    folder: str
    log: list[str]
    kind: str = "run"
    number: int = 1

    def describe(self) -> Mapping[str, Any]:
        return {"number": self.number}

    def make(self, subject: Subject, tell: Tell) -> None:
        self.log.append(f"{subject.label}/{self.folder}")
        tell.now("half of it", 0.5)
        tell.log.write("a line\n")
        path = subject.out / self.folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "made").touch()


def fast(log: list[str], number: int = 1, extra: Cell | None = None) -> Any:
    """An experiment of two cells that share their first step."""

    def cells(subject: Subject, _plan: Plan) -> list[Cell]:
        shared = Fast("checkpoints/one", log, "fit", number)

        def measured(value: float) -> Any:
            def measure(subject: Subject) -> Values:
                assert (subject.out / "checkpoints/one/made").exists()
                log.append(f"{subject.label}/measure {value}")
                made = np.full(len(subject.trials), value) + np.arange(len(subject.trials))
                return Values(pictures=tuple(map(str, subject.trials)), columns={"pixcorr.stage2": made / 10})

            return measure

        return [
            Cell(name=name, label=name, steps=(shared, Fast(f"runs/{name}", log)), measure=measured(value))
            for name, value in (("a", 0.0), ("b", 1.0))
        ]

    rows = [Row(key="a", label="A", cell="a"), Row(key="b", label="B", cell="b", against="a")]
    return experiment(cells=cells, rows=lambda _m, _p: rows, figure=draw)


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    write_small_data(tmp_path / "one", rng.standard_normal((6, 4)).astype(np.float32))
    return tmp_path / "one"


STEPS = ["one/checkpoints/one", "one/runs/a", "one/measure 0.0", "one/runs/b", "one/measure 1.0"]


def test_each_step_is_made_once_and_a_second_call_makes_nothing(data: Path, tmp_path: Path) -> None:
    log: list[str] = []
    out, stream = tmp_path / "out", io.StringIO()
    report = run_experiment(fast(log), [data], out, PLAN, stream)
    assert log == STEPS
    assert report == out / "report.html"
    first = report.read_bytes()
    run_experiment(fast(log), [data], out, PLAN, io.StringIO())
    assert log == STEPS
    assert report.read_bytes() == first
    table = json.loads((out / "table.json").read_text())
    assert table["tables"][0]["rows"][1]["values"]["pixcorr"]["difference"] == pytest.approx(0.1)
    assert "experiment test: 5/5 steps" in stream.getvalue()
    assert (out / "one" / "logs" / "runs-a.txt").read_text() == "a line\n"


@pytest.mark.parametrize("broken", range(4))
def test_an_interrupted_experiment_goes_on(data: Path, tmp_path: Path, broken: int) -> None:
    class Log(list[str]):
        def append(self, line: str) -> None:
            if len(self) == broken:
                raise KeyboardInterrupt
            super().append(line)

    stopped = Log()
    with pytest.raises(KeyboardInterrupt):
        run_experiment(fast(stopped), [data], tmp_path / "out", PLAN, io.StringIO())
    rest: list[str] = []
    run_experiment(fast(rest), [data], tmp_path / "out", PLAN, io.StringIO())
    assert [*stopped, *rest] == STEPS


def test_another_question_is_refused_in_one_sentence(data: Path, tmp_path: Path) -> None:
    run_experiment(fast([]), [data], tmp_path / "out", PLAN, io.StringIO())
    with pytest.raises(FileError, match=r"other settings \(n_trials: 3 there, 4 now\): give another --out"):
        run_experiment(fast([]), [data], tmp_path / "out", replace(PLAN, n_trials=4), io.StringIO())
    with pytest.raises(FileError, match="experiment: "):
        run_experiment(replace(fast([]), name="other"), [data], tmp_path / "out", PLAN, io.StringIO())
    with pytest.raises(FileError, match="with other settings by another release"):
        run_experiment(fast([], number=2), [data], tmp_path / "out", PLAN, io.StringIO())
    text = data / "data.json"
    text.write_text(json.dumps({**json.loads(text.read_text()), "provenance": {"other": 1}}))
    with pytest.raises(FileError, match="other data named 'one'"):
        run_experiment(fast([]), [data], tmp_path / "out", PLAN, io.StringIO())


def test_metrics_are_those_of_the_runs(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pixcor"):
        replace(PLAN, metrics="pixcor")
    with pytest.raises(FileError, match="--weights"):
        replace(PLAN, weights=tmp_path / "nowhere")
    plan = replace(PLAN, metrics="default,standard", weights=tmp_path)
    run = Run(name="a", fit=Fit(), settings=ReconstructSettings())
    job = run.job(Subject(data, tmp_path / "out", plan))
    assert {"pixcorr", "clip_two_way", *STANDARD} <= set(job.metrics)
    assert job.weights == tmp_path
    run_experiment(fast([]), [data], tmp_path / "out", PLAN, io.StringIO())
    with pytest.raises(FileError, match=r"other settings \(metrics"):
        run_experiment(fast([]), [data], tmp_path / "out", plan, io.StringIO())


def test_other_models_of_the_same_name_are_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_experiment(fast([]), [data], out, PLAN, io.StringIO())
    check_models(out, "a" * 64)
    run_experiment(fast([]), [data], out, PLAN, io.StringIO())  # which keeps what was noted
    check_models(out, "a" * 64)
    with pytest.raises(FileError, match='other models of the same name, "none": give another --out'):
        check_models(out, "b" * 64)


def test_subjects_may_be_added(data: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    log: list[str] = []
    run_experiment(fast(log), [data], tmp_path / "out", PLAN, io.StringIO())
    write_small_data(tmp_path / "two", rng.standard_normal((6, 4)).astype(np.float32))
    run_experiment(fast(log), [data, tmp_path / "two"], tmp_path / "out", PLAN, io.StringIO())
    assert log == [*STEPS, *(step.replace("one/", "two/", 1) for step in STEPS)]
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [one["label"] for one in table["subjects"]] == ["one", "two"]
    check_models(tmp_path / "out", "a" * 64)
    write_small_data(tmp_path / "three", rng.standard_normal((6, 4)).astype(np.float32))
    run_experiment(fast(log), [tmp_path / "three"], tmp_path / "out", PLAN, io.StringIO())
    with pytest.raises(FileError, match="other models"):
        check_models(tmp_path / "out", "b" * 64)


def test_folders_of_one_name_and_of_another_kind_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two data folders are named 'one'"):
        run_experiment(fast([]), [data, data], tmp_path / "out", PLAN, io.StringIO())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("hello")
    with pytest.raises(FileError, match="mine"):
        run_experiment(fast([]), [data], tmp_path / "mine", PLAN, io.StringIO())
    with pytest.raises(InputError, match="takes meg: give such data"):
        run_experiment(replace(fast([]), modalities=("meg",)), [data], tmp_path / "out", PLAN, io.StringIO())
    layout = ResponseLayout(
        modality="eeg",
        shape=(2, 2),
        channels=(Channel(name="Oz", type="eeg"), Channel(name="Pz", type="eeg")),
        sfreq=100.0,
        tmin=0.0,
        unit="V",
    )
    write_small_data(tmp_path / "two", np.zeros((3, 2, 2), np.float32), layout=layout)
    with pytest.raises(InputError, match="the data are fmri and eeg, and the experiment test takes one kind"):
        run_experiment(fast([]), [data, tmp_path / "two"], tmp_path / "out", PLAN, io.StringIO())
    assert not (tmp_path / "out").exists()


def test_the_result_of_what_is_there(data: Path, tmp_path: Path) -> None:
    class Log(list[str]):
        def append(self, line: str) -> None:
            if line.endswith("runs/b"):
                raise KeyboardInterrupt
            super().append(line)

    with pytest.raises(InputError, match="no cell of .* is measured yet"):
        run_experiment(fast([]), [data], tmp_path / "out", PLAN, io.StringIO(), table_only=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(KeyboardInterrupt):
        run_experiment(fast(Log()), [data], tmp_path / "out", PLAN, io.StringIO())
    report = run_experiment(fast([]), [data], tmp_path / "out", PLAN, io.StringIO(), table_only=True)
    assert "Not measured yet: one: b." in report.read_text()
    assert json.loads((tmp_path / "out" / "table.json").read_text())["missing"] == ["one: b"]


def test_two_processes_do_not_share_a_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = []

    def second() -> None:
        try:
            run_experiment(fast([]), [data], tmp_path / "out", PLAN, io.StringIO())
        except FileError as error:
            errors.append(error)

    real = runner._make

    def meanwhile(*given: Any) -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        real(*given)

    monkeypatch.setattr(runner, "_make", meanwhile)
    run_experiment(fast([]), [data], tmp_path / "out", PLAN, io.StringIO())
    assert "another process is working in" in str(errors[0])


def test_the_first_trial_of_each_of_the_first_pictures_is_used(data: Path, tmp_path: Path) -> None:
    """Trials 0 and 5 show picture 1."""
    subject = Subject(data, tmp_path, PLAN)
    assert subject.trials == (0, 1, 2)
    assert Subject(data, tmp_path, replace(PLAN, n_trials=9)).trials == (0, 1, 2, 3, 4)
    assert Subject(data, tmp_path, replace(PLAN, n_trials=None)).trials == (0, 1, 2, 3, 4, 5)
    assert subject.left_out == subject.data.trial_ids("test")[3:]
