"""The five lines of a notebook: what is opened, reconstructed, saved and shown."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minddiffuser as md
from minddiffuser.runtime import notebook
from minddiffuser.runtime.engines.trust import trust_list
from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError, ShapeError
from minddiffuser.runtime.images import read_image
from minddiffuser.runtime.notebook import Reconstructed
from minddiffuser.runtime.refine.settings import PRESETS, AdamSettings
from minddiffuser.runtime.run.job import Job

# The toy bundle has no decoder of the semantic feature.
GUIDED = {"start_steps": 1, "finish_steps": 1, "candidates": 2, "n_steps": 4, "strength": 0.5, "semantic_weight": 0.0}
CHOICES = {**GUIDED, "threads": 1, "progress": False}


def responses_of(subject: md.Opened, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, 24)).astype(np.float32)


def test_importing_costs_nothing_and_knows_its_version() -> None:
    code = "import sys, minddiffuser; print(*[m for m in sys.modules if m in ('numpy', 'torch', 'PIL', 'onnxruntime')])"
    code += "; print(minddiffuser.__version__); print(sorted(minddiffuser.__all__) <= dir(minddiffuser))"
    code = code.replace("sorted(minddiffuser.__all__) <= dir(", "set(minddiffuser.__all__) <= set(dir(") + ")"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, version, listed = done.stdout.split("\n")[:3]
    assert loaded == ""
    assert version[0].isdigit() or version == "unknown"
    assert listed == "True"
    with pytest.raises(AttributeError, match="it has .*reconstruct"):
        _ = md.nothing


def test_a_bundle_is_opened_and_reconstructed(
    toy_bundle: Path, rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = md.open(toy_bundle)
    assert (subject.kind, subject.modality) == ("bundle", "fmri")
    found = subject.reconstruct(responses_of(subject, rng), out=tmp_path / "run", **CHOICES)
    assert capsys.readouterr().err == ""
    assert found.trials == (0, 1, 2)
    assert set(found.pictures) == {"stage1", "stage2"}
    for kind, images in found.pictures.items():
        assert images.dtype == np.uint8
        for trial, image in zip(found.trials, images, strict=True):
            np.testing.assert_array_equal(image, read_image(tmp_path / "run" / "images" / kind / f"{trial:06d}.png"))
    assert found.stimuli is None
    assert "stage1" in repr(found)


def test_a_checkpoint_is_as_a_bundle(small_checkpoint: Path, small_world: Path, rng: np.random.Generator) -> None:
    subject = md.open(str(small_checkpoint))
    assert (subject.kind, subject.subject) == ("checkpoint", "someone")
    found = md.reconstruct(
        small_checkpoint, responses_of(subject, rng), stage=1, models=str(small_world), threads=1, progress=False
    )
    assert set(found.pictures) == {"stage1"}
    np.testing.assert_array_equal(found.final, found.pictures["stage1"])


def test_stage_1_may_begin_where_guided_begins(toy_bundle: Path, rng: np.random.Generator) -> None:
    """It is the pass of the refiner guided without a gradient, up to how engines round a step's coefficients."""
    subject = md.open(toy_bundle)
    rows = responses_of(subject, rng)
    near = subject.reconstruct(rows, stage=1, stage1="near").final
    still = {"candidates": 1, "step_size": 0.0, "start_steps": 0, "finish_steps": 0, "semantic_weight": 0.0}
    found = subject.reconstruct(rows, **still)
    assert np.abs(near.astype(int) - found.final).max() <= 1
    assert (near != found.pictures["stage1"]).any()
    with pytest.raises(InputError, match="stage1 'far' is unknown: choose one of near, published"):
        subject.reconstruct(rows, stage1="far")


def test_ids_decide_the_noise(toy_bundle: Path, rng: np.random.Generator) -> None:
    subject = md.open(toy_bundle)
    rows = responses_of(subject, rng)
    named = subject.reconstruct(rows, trial_ids=["a", "b", "c"], **CHOICES).final
    turned = subject.reconstruct(rows[::-1], trial_ids=["c", "b", "a"], **CHOICES).final
    np.testing.assert_array_equal(named, turned[::-1])


def test_progress_is_shown_on_standard_error(
    toy_bundle: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = md.open(toy_bundle)
    subject.reconstruct(responses_of(subject, rng), **{**CHOICES, "progress": True})
    assert "3/3 images (100 %)" in capsys.readouterr().err


def pictures(n: int, side: int = 5) -> Reconstructed:
    images = np.arange(n * side * side * 3, dtype=np.uint8).reshape(n, side, side, 3)
    return Reconstructed(
        trials=tuple(range(10, 10 + n)), left_out={}, pictures={"stage1": images}, stimuli=images, metrics={}
    )


def test_saved_pictures_are_named_by_trial(tmp_path: Path) -> None:
    found = pictures(2)
    assert found.save(tmp_path / "mine") == tmp_path / "mine"
    np.testing.assert_array_equal(read_image(tmp_path / "mine" / "stage1" / "000011.png"), found.pictures["stage1"][1])


@pytest.mark.parametrize(("n", "rows"), [(1, 2), (8, 2), (9, 4)])
def test_the_grid_has_a_row_for_each_kind(n: int, rows: int) -> None:
    found = pictures(n, side=64)
    grid = np.asarray(found.grid())
    assert grid.shape == (rows * 132 + 4 * (rows // 2), 8 * 132 + 4, 3)
    np.testing.assert_array_equal(grid[4:132:2, 4:132:2], found.stimuli[0])
    np.testing.assert_array_equal(grid[136:264:2, 4:132:2], found.pictures["stage1"][0])
    shown = np.asarray(Image.open(io.BytesIO(found._repr_png_())))
    np.testing.assert_array_equal(shown, grid)
    assert pictures(9).grid(most=8).size[1] < pictures(9).grid().size[1]


def test_mistakes_are_one_sentence(toy_bundle: Path, tmp_path: Path) -> None:
    subject = md.open(toy_bundle)
    with pytest.raises(FileError):
        md.open(tmp_path)
    with pytest.raises(InputError, match="no responses were given"):
        subject.reconstruct()
    with pytest.raises(ShapeError, match="one row per trial"):
        subject.reconstruct(np.zeros(24, np.float32))
    rows = np.zeros((2, 24), np.float32)
    with pytest.raises(InputError, match="unknown option stepz: there are .*steps") as caught:
        subject.reconstruct(rows, stepz=3)
    assert "preset" in str(caught.value)
    for internal in ("settings", "needs", "earlier_backend", "earlier_threads", "checkpoint", "options"):
        assert f" {internal}," not in str(caught.value)
        with pytest.raises(InputError, match=f"unknown option {internal}"):
            subject.reconstruct(rows, **{internal: None})
    for name in ("preset", "refiner"):
        for wrong in ("papre", 3, None if name == "preset" else ["adam"]):
            with pytest.raises(InputError, match=name):
                subject.reconstruct(rows, **{name: wrong})
    with pytest.raises(InputError, match=r"steps belongs to the refiner adam, .* give refiner='adam'"):
        subject.reconstruct(rows, steps=3)
    with pytest.raises(InputError, match="candidates and budget each say how many candidates there are"):
        subject.reconstruct(rows, candidates=3, budget=100)


@pytest.mark.parametrize(
    ("responses", "kind", "said"),
    [
        ([[1.0, 2.0], [3.0]], ShapeError, "one row per trial"),
        (np.array([[1.0], "x"], dtype=object), InputError, "not real numbers"),
        (np.array([["1", "2"]]), InputError, "not real numbers"),
        (np.zeros((2, 24), np.complex64), InputError, "not real numbers"),
    ],
)
def test_responses_that_are_no_numbers_are_one_sentence(
    responses: Any, kind: type[Exception], said: str, toy_bundle: Path
) -> None:
    with pytest.raises(kind, match=said):
        md.open(toy_bundle).reconstruct(responses)


@pytest.mark.parametrize(
    "ids", ["ab", b"ab", 3, [1.5, 2.5], [True, False], [None, "a"], ["a"], ["a", "a"], [1, "1"], ["a", " b"]]
)
def test_trial_ids_that_are_none_are_one_sentence(ids: Any, toy_bundle: Path) -> None:
    with pytest.raises(MindDiffuserError, match="trial_ids") as caught:
        md.open(toy_bundle).reconstruct(np.zeros((2, 24), np.float32), trial_ids=ids)
    assert "tmp" not in str(caught.value)


@pytest.mark.parametrize(
    "ids", [(1, 2), np.array([1, 2]), np.array(["1", "2"]), ["1", 2], iter("12"), {"1": 0, "2": 0}]
)
def test_any_sequence_of_ids_will_do(ids: Any, tmp_path: Path) -> None:
    _, path = notebook._on_disk(np.zeros((2, 24), np.float32), ids, tmp_path)
    assert json.loads(path.read_text()) == ["1", "2"]


def test_a_preset_is_where_stage_2_starts_from() -> None:
    settings, rest = notebook._stage2({"preset": "reference", "steps": 3, "threads": 1})
    assert settings == replace(PRESETS["reference"], steps=3)
    assert rest == {"threads": 1}
    settings, _ = notebook._stage2({"refiner": "adam", "backprop_steps": None})
    assert settings == AdamSettings()


def test_the_refiner_is_the_presets_and_adam_by_name(
    toy_bundle: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    subject, some = md.open(toy_bundle), {"threads": 1, "progress": False}
    rows = responses_of(subject, rng)
    subject.reconstruct(rows, out=tmp_path / "a", refiner="adam", steps=1, backprop_steps=1, **some)
    subject.reconstruct(rows, out=tmp_path / "b", **CHOICES)
    written = [json.loads((tmp_path / run / "settings.json").read_text())["settings"]["refine"] for run in "ab"]
    assert [refine["refiner"] for refine in written] == ["adam", "guided"]
    assert (written[0]["steps"], written[1]["candidates"]) == (1, 2)


def test_a_live_view_is_given_the_pictures_as_they_grow(
    toy_bundle: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    """A step of the decoded latent, two guided ones of two candidates, and one that finishes: each trial, and control.

    And the run is the same run.
    """
    subject, frames = md.open(toy_bundle), []

    def on_frame(phase: str, trials: Sequence[int], pictures: np.ndarray) -> None:
        assert pictures.dtype == np.uint8
        assert pictures.shape == (len(trials), 32, 32, 3)
        frames.append((phase, tuple(trials), pictures.copy()))

    choices = {**CHOICES, "guided_share": 1.0, "controls": "shuffled"}
    rows = responses_of(subject, rng)
    watched = subject.reconstruct(rows, out=tmp_path / "run", on_frame=on_frame, **choices)
    alone = subject.reconstruct(rows, **choices)
    np.testing.assert_array_equal(watched.final, alone.final)
    for phase in ("stage 2", "shuffled"):
        shown = [trial for name, trials, _ in frames if name == phase for trial in trials]
        assert sorted(shown) == sorted((1 + 2 * 2 + 1) * [0, 1, 2])
    first, last = frames[1][2], frames[2][2]
    assert (first != last).any()
    frames.clear()
    subject.reconstruct(rows, out=tmp_path / "run", on_frame=on_frame, **choices)
    assert frames == [], "what is finished is not drawn again"


def test_plans_are_trusted_as_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path))
    job = notebook._job(tmp_path, tmp_path, tmp_path, {})
    assert job.options.trust_list == trust_list(os.environ)
    assert job.options.trust_list.is_relative_to(tmp_path)
    assert notebook._job(tmp_path, tmp_path, tmp_path, {"trust_list": None}).options.trust_list is None


@pytest.mark.parametrize(
    ("given", "kept"), [("a", ("a",)), (3, ("3",)), ([1, "b"], ("1", "b")), (np.array([4, 5]), ("4", "5")), ((), ())]
)
@pytest.mark.parametrize("name", ["skip_trials", "notes"])
def test_a_lone_text_is_one_and_not_its_letters(name: str, given: Any, kept: tuple[str, ...], tmp_path: Path) -> None:
    job = Job(checkpoint=tmp_path, responses=tmp_path, out=tmp_path, **{name: given})
    assert getattr(job, name) == kept
    for wrong in (None, 1.5, [1.5], [None], b"a"):
        with pytest.raises(InputError, match=f"{name} is"):
            Job(checkpoint=tmp_path, responses=tmp_path, out=tmp_path, **{name: wrong})


def test_without_a_cache_the_shipped_subject_lies_in_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the folder that somebody works in."""
    (tmp_path / "cache").write_text("a file where the folder would be")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "work" / "minddiffuser-shipped").mkdir(parents=True)
    (tmp_path / "work" / "minddiffuser-shipped" / "thesis.txt").write_text("ten years")
    monkeypatch.chdir(tmp_path / "work")
    notebook._temporary.cache_clear()
    subject = md.demo()
    assert subject.folder.is_relative_to(tmp_path / "temporary")
    assert md.demo().folder == subject.folder
    assert [path.name for path in (tmp_path / "work").rglob("*")] == ["minddiffuser-shipped", "thesis.txt"]
    notebook._temporary().cleanup()
    notebook._temporary.cache_clear()


def test_what_dir_lists_is_there() -> None:
    code = "import minddiffuser as md; print([n for n in dir(md) if not hasattr(md, n)]); from minddiffuser import *"
    done = subprocess.run([sys.executable, "-c", f"{code}; print(open)"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "<built-in function open>"]
