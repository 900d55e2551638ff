"""The five lines of a notebook: what is opened, reconstructed, saved and shown."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minddiffuser as md
from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.images import read_image
from minddiffuser.runtime.notebook import Reconstructed

CHOICES = {"steps": 2, "backprop_steps": 1, "threads": 1, "progress": False}


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
    with pytest.raises(InputError, match="unknown option stepz: there are .*steps"):
        subject.reconstruct(np.zeros((2, 24), np.float32), stepz=3)
