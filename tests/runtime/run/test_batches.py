"""The batch core with a reconstruction of three lines: what is kept, what is made again, and what a kill leaves."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime import files
from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.images import read_image
from minddiffuser.runtime.locks import inside, locked
from minddiffuser.runtime.run.batches import BatchResult, Outcome, run_batch
from minddiffuser.runtime.run.identity import claim_folder

IDENTITY = {"settings": {"seed": 0}, "versions": {}, "hashes": {}, "data": {}}
RESPONSES = np.random.default_rng(0).random((7, 5)).astype(np.float32)


class Paint:
    """Pictures that depend on the responses and on the size of the batch, as a network's last bits do."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, trials: Sequence[int], rows: np.ndarray) -> BatchResult:
        self.calls.append(tuple(trials))
        levels = (rows.sum(axis=1) * 40).astype(np.uint8) + len(trials)
        stage1 = np.broadcast_to(levels[:, None, None, None], (len(trials), 4, 4, 3)).astype(np.uint8)
        curve = np.array([[2.0] * len(trials), [1.0] * len(trials), [np.nan] * len(trials)])
        return BatchResult(
            stage1=stage1,
            stage2=255 - stage1,
            loss_curve=curve,
            best_step=np.ones(len(trials), np.int64),
            controls={"oracle": stage1 // 2},
            seconds={"stage1": 1.0, "stage2": 2.0},
        )


def go(folder: Path, paint: Paint, skipped: dict[int, str] | None = None) -> Outcome:
    with locked(inside(folder), folder):
        claim_folder(folder, IDENTITY)
        return run_batch(folder, RESPONSES, paint, batch_size=3, skipped=skipped)


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def test_a_run_writes_every_kind_of_picture_and_curve(tmp_path: Path) -> None:
    outcome = go(tmp_path, Paint())
    assert outcome.trials == tuple(range(7))
    assert outcome.seconds == {"stage1": 3.0, "stage2": 6.0}
    assert set(pictures(tmp_path)) == {
        f"images/{kind}/{t:06d}.png" for kind in ("stage1", "stage2", "oracle") for t in range(7)
    }
    one, two = (read_image(tmp_path / "images" / kind / "000004.png") for kind in ("stage1", "stage2"))
    assert (one.astype(int) + two == 255).all()
    curve = files.read_json(tmp_path / "curves" / "000006.json", "curve")
    assert curve == {"trial": 6, "loss": [2.0, 1.0], "best_step": 1, "failed": False}


def test_a_curve_without_a_finite_loss_has_no_best_step(tmp_path: Path) -> None:
    class Overflowing(Paint):
        def __call__(self, trials: Sequence[int], rows: np.ndarray) -> BatchResult:
            curve = np.where(np.isin(trials, [6]), np.nan, [[2.0], [1.0]])
            return replace(super().__call__(trials, rows), loss_curve=curve, failed=np.isin(trials, [6]))

    go(tmp_path, Overflowing())
    curves = [files.read_json(tmp_path / "curves" / f"{trial:06d}.json", "curve") for trial in (5, 6)]
    assert curves[0] == {"trial": 5, "loss": [2.0, 1.0], "best_step": 1, "failed": False}
    assert curves[1] == {"trial": 6, "loss": [], "best_step": None, "failed": True}


def test_broken_refinements_are_remembered_over_a_resume(tmp_path: Path) -> None:
    class Breaking(Paint):
        def __call__(self, trials: Sequence[int], rows: np.ndarray) -> BatchResult:
            return replace(super().__call__(trials, rows), failed=np.isin(trials, [1, 6]))

    assert go(tmp_path, Breaking()).failed == (1, 6)
    (tmp_path / "journal" / "000002.json").unlink()
    again = Breaking()
    assert go(tmp_path, again).failed == (1, 6)
    assert again.calls == [(6,)]
    message = [files.read_json(tmp_path / "curves" / f"{t:06d}.json", "curve")["failed"] for t in range(7)]
    assert message == [False, True, False, False, False, False, True]


def test_bad_trials_leave_the_other_batches_as_they_are(tmp_path: Path) -> None:
    paint = Paint()
    outcome = go(tmp_path, paint, {1: "NaN", 6: "short"})
    assert paint.calls == [(0, 2), (3, 4, 5)]
    assert outcome.trials == (0, 2, 3, 4, 5)
    assert outcome.skipped == {1: "NaN", 6: "short"}
    whole = tmp_path / "whole"
    go(whole, Paint())
    assert pictures(whole)["images/stage1/000004.png"] == pictures(tmp_path)["images/stage1/000004.png"]


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    first = go(tmp_path, Paint())
    again = Paint()
    assert go(tmp_path, again) == first
    assert again.calls == []


@pytest.mark.parametrize(
    ("lost", "redone"),
    [
        ("journal/000001.json", [(3, 4, 5)]),
        ("images/stage2/000000.png", [(0, 1, 2)]),
        ("curves/000006.json", [(6,)]),
    ],
)
def test_what_is_lost_is_made_again_and_nothing_else(tmp_path: Path, lost: str, redone: list[tuple[int, ...]]) -> None:
    go(tmp_path, Paint())
    before = pictures(tmp_path)
    (tmp_path / lost).unlink()
    paint = Paint()
    go(tmp_path, paint)
    assert paint.calls == redone
    assert pictures(tmp_path) == before


def test_a_changed_picture_is_made_again(tmp_path: Path) -> None:
    go(tmp_path, Paint())
    before = pictures(tmp_path)
    (tmp_path / "images/stage1/000003.png").write_bytes(b"torn")
    paint = Paint()
    go(tmp_path, paint)
    assert paint.calls == [(3, 4, 5)]
    assert pictures(tmp_path) == before


def test_progress_counts_finished_trials_from_where_the_run_is(tmp_path: Path) -> None:
    go(tmp_path, Paint())
    (tmp_path / "journal/000001.json").unlink()
    reports: list[tuple[int, int]] = []
    run_batch(tmp_path, RESPONSES, Paint(), batch_size=3, on_progress=lambda done, total: reports.append((done, total)))
    assert reports == [(4, 7), (7, 7)]


def test_no_good_trial_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trial 0: NaN"):
        go(tmp_path, Paint(), dict.fromkeys(range(7), "NaN"))


def test_a_wrong_number_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="1 stage1 pictures came back for 3 trials"):
        run_batch(
            tmp_path,
            RESPONSES,
            lambda trials, rows: BatchResult(stage1=np.zeros((1, 4, 4, 3), np.uint8)),
            batch_size=3,
        )


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = Path.write_bytes, []

    def write_bytes(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(FileError, match="the disk is full"):
            go(tmp_path / "one", Paint())
    assert not list((tmp_path / "one").rglob("*.draft"))
    go(tmp_path / "one", Paint())
    go(tmp_path / "two", Paint())
    assert pictures(tmp_path / "one") == pictures(tmp_path / "two")


KILLED = """
import os, signal, sys, importlib.util, pathlib
spec = importlib.util.spec_from_file_location("core", sys.argv[1]); core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
from minddiffuser.runtime import files
left = int(sys.argv[3])
real = pathlib.Path.write_bytes
def write_bytes(path, data):
    global left
    left -= 1
    if left == 0:
        real(path, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, data)
pathlib.Path.write_bytes = write_bytes
core.go(pathlib.Path(sys.argv[2]), core.Paint())
"""


@pytest.mark.parametrize("after", [1, 9, 14, 15, 30])
def test_a_kill_at_any_write_is_resumed_to_the_same_bytes(tmp_path: Path, after: int) -> None:
    command = [sys.executable, "-c", KILLED, __file__, str(tmp_path / "killed"), str(after)]
    assert subprocess.run(command, env=dict(os.environ), check=False).returncode == -signal.SIGKILL
    finished = len(list((tmp_path / "killed" / "journal").glob("0*.json")))
    paint = Paint()
    go(tmp_path / "killed", paint)
    go(tmp_path / "whole", Paint())
    assert len(paint.calls) == 3 - finished
    assert pictures(tmp_path / "killed") == pictures(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.draft"))
