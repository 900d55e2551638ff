"""The gabor brain: no models, local fields, tuned voxels, labels for meaning, own pictures through the classifier."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.images import png_bytes
from minddiffuser.runtime.models.locate import locate
from minddiffuser.training.cli import main
from minddiffuser.training.simulate.brains import gabor
from minddiffuser.training.simulate.brains.base import Sources
from minddiffuser.training.simulate.brains.gabor import (
    GaborBrain,
    Maps,
    Weights,
    draw_weights,
    drive,
    maps,
    meaning_of_labels,
    tuning,
)
from minddiffuser.training.simulate.brains.labels import WORDS
from minddiffuser.training.simulate.fmri import AREAS, Area, FmriSettings
from minddiffuser.training.simulate.shown import rendered
from minddiffuser.training.simulate.subject import Showing, simulate_subject
from minddiffuser.training.tinyworld.draw import draw
from minddiffuser.training.tinyworld.scenes import scenes

SIDE, GRID = 64, 32
ONES = Maps(energy=np.ones((4, 1, 1), np.float32), opponent=np.ones((3, 1), np.float32))
FEW = FmriSettings(areas={"V1": replace(AREAS["V1"], n_voxels=20), "LO": replace(AREAS["LO"], n_voxels=10)})


def no_models() -> Any:
    raise AssertionError("the gabor brain opened models")


def stripes(cycles_per_picture: float, angle: float, *, phase: float = 0.0) -> np.ndarray:
    """A grey grating, (1, SIDE, SIDE, 3) uint8; its frequency vector has this angle."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    wave = np.sin(2 * np.pi * cycles_per_picture * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return np.repeat(np.round(128 + 100 * wave).astype(np.uint8)[None, ..., None], 3, axis=3)


def voxel(*, bands: np.ndarray | None = None, centre: tuple[float, float] = (0.5, 0.5), width: float = 0.1) -> Weights:
    """One voxel with weights given."""
    fields = gabor.receptive_fields(np.array([centre]), np.array([width]), GRID)
    flat = np.full((1, 4, 4), 1 / 16, np.float32)
    return Weights(
        receptive=fields,
        bands=flat if bands is None else bands,
        opponent=np.ones((1, 3), np.float32),
        colour=np.zeros(1, np.float32),
        structural=np.ones(1, np.float32),
        embeddings={},
        meaning={},
    )


def test_simulates_without_models_and_without_torch(tmp_path: Path) -> None:
    """A fresh process: of CLIP, VAE and PyTorch nothing is even imported."""
    code = (
        "import sys; from minddiffuser.training.cli import main; "
        f"assert main(['simulate', 'fmri', '--brain', 'gabor', '--out', {str(tmp_path / 'data')!r}, "
        "'--n-train', '3', '--n-test', '2']) == 0; "
        "print([n for n in ('torch', 'open_clip', 'diffusers', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_responses_are_the_same_whatever_the_models_are(tmp_path: Path, small_world: Path) -> None:
    made = []
    for name, models in (("a", locate("tiny")), ("b", small_world), ("c", None)):
        out = tmp_path / name
        brain = GaborBrain.open(Sources(open_models=no_models, model_folder=models), own_pictures=False)
        simulate_subject(out, brain, FEW, Showing(n_train=4, n_test=2), seed=5)
        made.append((out / "train.safetensors").read_bytes() + (out / "data.json").read_bytes())
    assert made[0] == made[1] == made[2]


def test_a_grating_drives_voxels_that_prefer_it() -> None:
    """A voxel tuned to its frequency and orientation answers more than one tuned an octave or a right angle away."""
    for frequency, angle in ((4.0, 0.0), (8.0, np.pi / 2), (16.0, np.pi / 4)):
        others = ((frequency, angle + np.pi / 2), (frequency / 4, angle), (frequency, angle))
        answers = []
        for f, a in others:
            bands = tuning(np.array([f]), np.array([a % np.pi]), np.array([2.0]))
            answers.append(drive(voxel(bands=bands), ONES, maps(stripes(frequency, angle)))[0].item())
        assert answers[2] > 1.1 * max(answers[:2])


def test_a_complex_cell_does_not_care_for_phase() -> None:
    answers = [drive(voxel(), ONES, maps(stripes(8, 0.0, phase=phase)))[0].item() for phase in np.arange(0, 6, 1.0)]
    assert np.ptp(answers) < 0.02 * np.mean(answers)  # what is left: the picture's edge on the screen, uint8 levels


def test_tuning_is_a_share_of_bands_with_its_peak_at_the_preferred() -> None:
    frequency, angle = np.array([16.0, 2.0, 8.0]), np.array([0.0, np.pi / 2, 3 * np.pi / 4])
    tuned = tuning(frequency, angle, np.array([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(tuned.sum(axis=(1, 2)), 1, rtol=1e-6)
    assert np.unravel_index(tuned[0].argmax(), (4, 4)) == (0, 0)
    assert np.unravel_index(tuned[1].argmax(), (4, 4)) == (3, 2)
    np.testing.assert_allclose(tuned[2], tuned[2][:, :1].repeat(4, axis=1), rtol=1e-6)  # kappa 0: no orientation
    assert tuned[2].sum(axis=1).argmax() == 1
    # Von Mises of the doubled angle, concentration 1: a right angle apart is exp(-2) of the preferred.
    np.testing.assert_allclose(tuned[0][0, 2] / tuned[0][0, 0], np.exp(-2), rtol=1e-5)


def test_energy_on_the_grid_is_the_pyramid_s(rng: np.random.Generator) -> None:
    """The mean energy of a band over the picture, counted another way: the mean of all pixels' squares."""
    image = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    found = maps(image)
    assert found.energy.shape == (2, 4, 4, GRID**2)
    assert found.opponent.shape == (2, 3, GRID**2)
    pixels = image / 255
    luma = pixels @ [0.2126, 0.7152, 0.0722]
    screen = np.pad(luma - 0.5, ((0, 0), (16, 16), (16, 16)))
    for s, k in ((0, 0), (2, 3)):
        band = gabor.pyramid_filters(96, 4, 4)[0][s, k]
        response = np.fft.ifft2(np.fft.fft2(screen) * band)[:, 16:80, 16:80]
        expected = (np.abs(response) ** 2).reshape(2, GRID, 2, GRID, 2).mean(axis=(2, 4)).reshape(2, -1)
        np.testing.assert_allclose(found.energy[:, s, k], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.opponent[:, 0].mean(axis=1), luma.mean(axis=(1, 2)), rtol=1e-5)


def test_opponent_channels() -> None:
    """Grey moves luminance alone; red and green are opposite on one axis, blue and yellow on the other."""

    def of(*rgb: int) -> np.ndarray:
        return maps(np.full((1, SIDE, SIDE, 3), rgb, np.uint8)).opponent[0].mean(axis=1)

    np.testing.assert_allclose(of(51, 51, 51), [0.2, 0, 0], atol=1e-6)
    red, green, blue, yellow = of(255, 0, 0), of(0, 255, 0), of(0, 0, 255), of(255, 255, 0)
    assert red[1] == -green[1] == 1
    assert blue[2] == -yellow[2] == 1
    assert yellow[1] == 0


def test_a_patch_moves_only_voxels_that_look_there() -> None:
    image = np.full((2, SIDE, SIDE, 3), 128, np.uint8)
    image[1, 4:14, 50:60] = (220, 60, 40)  # top right
    found = maps(image)
    answers = {}
    for name, centre in (("here", (0.85, 0.15)), ("far", (0.2, 0.8))):
        energy, colour = drive(voxel(centre=centre, width=0.06), ONES, found)
        answers[name] = abs(energy[1] - energy[0]).item(), abs(colour[1] - colour[0]).item()
    assert answers["far"][0] < 0.05 * answers["here"][0]
    assert answers["far"][1] < 1e-3 * answers["here"][1]


def test_higher_areas_have_wider_fields_and_coarser_scales() -> None:
    settings = FmriSettings()
    weights = draw_weights(settings, np.random.default_rng(1))
    widths, octaves = [], []
    for name in ("V1", "V2", "V3", "V3ab", "hV4"):
        span = slice(*settings.rois[name])
        widths.append(1 / np.median(weights.receptive[span].max(axis=1)))
        octaves.append(weights.bands[span].sum(axis=2).mean(axis=0) @ np.arange(4))
    assert widths == sorted(widths)
    assert octaves == sorted(octaves)
    colour = {name: weights.colour[slice(*span)].mean() for name, span in settings.rois.items()}
    assert max(colour, key=lambda name: colour[name]) == "hV4"


def test_labels_mean_the_same_wherever_they_are_and_combine_by_sum() -> None:
    weights = draw_weights(FEW, np.random.default_rng(0))
    labels = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 3], [1, 1, 3]])
    meant = meaning_of_labels(weights, labels)
    np.testing.assert_allclose(meant[3] - meant[2], meant[1] - meant[0], atol=1e-5)
    np.testing.assert_allclose(meant[5] - meant[4], meant[3] - meant[0], atol=1e-5)
    assert np.abs(meant[1] - meant[0]).max() > 0.1


def test_things_drive_higher_voxels_most() -> None:
    settings = FmriSettings(areas={"VO": Area(n_voxels=600)})
    weights = draw_weights(settings, np.random.default_rng(0))
    power = {kind: (weights.meaning[kind] ** 2).sum(axis=1).mean() for kind in WORDS}
    # Expected shares of a Dirichlet(2, 1, 1); standard error 0.01.
    np.testing.assert_allclose([power[kind] for kind in WORDS], [0.5, 0.25, 0.25], atol=0.04)


def test_weights_are_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Weights] = []
    real = gabor.draw_weights
    monkeypatch.setattr(gabor, "draw_weights", lambda *given: drawn.append(real(*given)) or drawn[-1])
    simulate_subject(tmp_path / "data", GaborBrain(), FEW, Showing(n_train=4, n_test=2), seed=1)
    content = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    (weights,) = drawn
    for array in (weights.receptive, weights.bands, weights.opponent, *weights.embeddings.values()):
        assert np.ascontiguousarray(array[0]).tobytes() not in content


def test_own_pictures_are_labelled_by_the_classifier(tmp_path: Path) -> None:
    """Rendered pictures given as files, without their labels: the classifier finds the same, or nearly all of them."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    many = list(scenes(8, 12))
    for k, scene in enumerate(many):
        (folder / f"{k:02}.png").write_bytes(png_bytes(draw(scene)))
    command = ["simulate", "fmri", "--brain", "gabor", "--n-train", "12", "--seed", "2", "--snr", "1000"]
    assert main([*command, "--out", str(tmp_path / "data"), "--stimuli", str(folder)]) == 0

    from minddiffuser.runtime.data.folder import open_data

    data = open_data(tmp_path / "data")
    files = [locate("tiny") / "classifier" / f"classifier.{kind}" for kind in ("json", "safetensors")]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert data.provenance["classifier"] == " ".join(hashes)
    assert data.captions("test") == []
    # The brain itself, with labels known and without them.
    sources = Sources(open_models=no_models, model_folder=locate("tiny"))
    brain = GaborBrain.open(sources, own_pictures=True)
    shown = rendered(np.random.SeedSequence(4), 12, SIDE, combinations="seen")
    known = brain.look(shown, shown, FEW, np.random.default_rng(0), lambda *_: None)
    truth, shown.labels = shown.labels, None
    found = brain._labels(shown)
    assert truth is not None
    assert (found == truth).mean() > 0.85
    blind = brain.look(shown, shown, FEW, np.random.default_rng(0), lambda *_: None)
    np.testing.assert_array_equal(blind.test.structural, known.test.structural)
    right = (found == truth).all(axis=1)
    np.testing.assert_allclose(blind.test.semantic[right], known.test.semantic[right], atol=1e-5)


def test_own_pictures_without_a_classifier_are_refused(
    tmp_path: Path, small_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    (folder / "a.png").write_bytes(png_bytes(np.zeros((8, 8, 3), np.uint8)))
    given = ["simulate", "fmri", "--brain", "gabor", "--out", str(tmp_path / "data"), "--stimuli", str(folder)]
    assert main([*given, "--models", str(small_world)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "labels of your own pictures" in printed
    assert "--brain clip" in printed
    with pytest.raises(InputError, match="these models come without a classifier"):
        GaborBrain.open(Sources(open_models=no_models), own_pictures=True)
    assert not (tmp_path / "data").exists()


def test_a_classifier_of_another_world_is_refused(tmp_path: Path) -> None:
    shutil.copytree(locate("tiny") / "classifier", tmp_path / "classifier")
    path = tmp_path / "classifier" / "classifier.json"
    content = json.loads(path.read_text())
    content["labels"]["concept"][3] = "dragon"
    path.write_text(json.dumps(content))
    sources = Sources(open_models=no_models, model_folder=tmp_path)
    with pytest.raises(InputError, match="gives others \\(as concept 'dragon'\\): leave out --models"):
        GaborBrain.open(sources, own_pictures=True)


def test_own_pictures_need_a_brain_opened_for_them(tmp_path: Path) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    (folder / "a.png").write_bytes(png_bytes(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(InputError, match="has no classifier: make it with GaborBrain.open"):
        simulate_subject(tmp_path / "data", GaborBrain(), FEW, Showing(n_train=4, stimuli=folder), seed=1)
    assert not (tmp_path / "data").exists()
