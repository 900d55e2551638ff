"""Single-field edits of every JSON file of a run folder: a resume and the page end in success or in one sentence."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import MindDiffuserError
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.report.page import write_report
from minddiffuser.runtime.run.batches import BatchResult, Outcome, run_batch
from minddiffuser.runtime.run.identity import check_same_run, claim_folder
from minddiffuser.runtime.run.measure import Measured
from minddiffuser.runtime.run.summary import write_summary

IDENTITY = {
    "settings": {"refine": {"steps": 2, "params": ["latent"]}, "stage": 2, "threads": 1, "dtype": "float32"},
    "versions": {"minddiffuser": "1", "numpy": "2"},
    "hashes": {"models": "aa", "stimuli": None},
    "data": {"subject": "one", "n_trials": 6, "simulated": True},
    "given": {"models": "tiny", "clip": None},
    "notes": ["by hand"],
}
RESPONSES = np.random.default_rng(0).random((6, 5)).astype(np.float32)
SKIPPED = {5: "NaN"}
VALUES: tuple[Any, ...] = (None, "x", "", -1, 0, 1.5, 10**30, True, [], {}, [None], {"a": 1}, "\x00", "NaN")
ABSENT = object()
N_EDITS = 300


def paint(trials: Sequence[int], rows: np.ndarray) -> BatchResult:
    """A batch: trial 1 has no picture, and refinement diverged in trial 2."""
    levels = (rows.sum(axis=1) * 40).astype(np.uint8)
    stage1 = np.ones((len(trials), 8, 8, 3), np.uint8) * levels[:, None, None, None]
    return BatchResult(
        stage1=stage1,
        stage2=255 - stage1,
        loss_curve=np.array([[2.0] * len(trials), [1.0] * len(trials)]),
        best_step=np.ones(len(trials), np.int64),
        failed=np.isin(trials, [2]),
        lost={1: "its picture holds NaN"} if 1 in trials else {},
        seconds={"stage1": 1.0},
    )


def resume(run: Path) -> Outcome:
    """What a second run of the same command does, without networks."""
    check_same_run(run, IDENTITY)
    claim_folder(run, IDENTITY)
    outcome = run_batch(run, RESPONSES, paint, batch_size=2, skipped=SKIPPED)
    figures = np.linspace(0, 1, len(outcome.trials))
    values = {"stage1": {"pixcorr": figures}, "stage2": {"pixcorr": figures**2}}
    measured = Measured(trials=outcome.trials, stimulus_ids=tuple(map(str, outcome.trials)), values=values)
    write_summary(run, outcome, measured, seed=0, notes=["a note"])
    return outcome


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("fuzz") / "run"
    rng = np.random.default_rng(1)
    for trial in range(6):
        write_png(run / "stimuli" / f"{trial:06d}.png", rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    (run / "settings.json").write_text(
        json.dumps({"format": "minddiffuser-run-settings", "version": 1, **copy.deepcopy(IDENTITY)})
    )
    resume(run)
    return run


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def edits(run: Path) -> list[tuple[Path, tuple[Any, ...], Any]]:
    """A seeded choice among all single edits: a value replaced, or taken away."""
    names = ["settings.json", "summary.json", "trials.json", "journal/000000.json", "journal/000001.json"]
    names += ["curves/000000.json", "curves/000002.json"]
    every = [
        (Path(name), path, value)
        for name in names
        for path in places(json.loads((run / name).read_text()))
        for value in (*VALUES, ABSENT)
    ]
    return random.Random(8).sample(every, N_EDITS)


def edited(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    *above, last = path
    place = content
    for key in above:
        place = place[key]
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    return content


def pictures(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.png"))}


def refused(step: Callable[[Path], object], run: Path) -> str | None:
    """The one sentence with which a step ends, or None where it succeeds; anything else is a fault of ours."""
    try:
        step(run)
    except MindDiffuserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) > 20  # noqa: PT017
        return str(error)
    return None


@pytest.mark.long
def test_a_single_edit_ends_in_the_same_pictures_or_in_one_sentence(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _number: None)  # hundreds of resumes need not survive a power cut
    expected, outcome = pictures(finished), resume(finished)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    n_refused = 0
    for name, path, value in edits(finished):
        what = f"{name} {path} = {value!r}"
        (run / name).write_text(json.dumps(edited(json.loads((finished / name).read_text()), path, value)))
        refused(write_report, run)
        found: list[Outcome] = []
        if refused(lambda run, found=found: found.append(resume(run)), run) is not None:
            n_refused += 1
        else:
            assert pictures(run) == expected, what
            assert replace(found[0], seconds=outcome.seconds) == outcome, what
        (run / name).write_bytes((finished / name).read_bytes())
    # Settings that differ are refused; what a run writes itself it writes again.
    assert 0 < n_refused < N_EDITS / 2


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"text"', '{"a": NaN}', "[" * 5000, "\x00\xff"])
@pytest.mark.parametrize("name", ["settings.json", "summary.json", "trials.json", "journal/000000.json"])
def test_a_damaged_file_ends_so_too(name: str, text: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(text.encode("latin-1"))
    refused(write_report, tmp_path / "run")
    assert (refused(resume, tmp_path / "run") is not None) == (name == "settings.json")
    assert pictures(tmp_path / "run") == pictures(finished)
