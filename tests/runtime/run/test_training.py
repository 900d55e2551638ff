"""The controls "generator" and "nearest", from the command's line to the pictures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime import cli
from minddiffuser.runtime.data.folder import SplitData, write_data
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.images import fit_square, read_image, to_uint8, write_png
from minddiffuser.runtime.models.open import load_models

N_TRIALS, N_TRAINING = 4, 7
RNG = np.random.default_rng(4)
ROWS = RNG.standard_normal((N_TRIALS, 24)).astype(np.float32)
SHOWN = RNG.integers(0, 256, (N_TRIALS, 40, 40, 3)).astype(np.uint8)
TRAINING = RNG.integers(0, 256, (N_TRAINING, 40, 40, 3)).astype(np.uint8)
FAST = "--refiner adam --steps 1 --backprop-steps 1 --batch-size 3 --threads 1 --device cpu".split()


def write_folder(folder: Path, training: np.ndarray = TRAINING) -> Path:
    train = RNG.standard_normal((len(training), 24)).astype(np.float32)
    splits = {
        name: SplitData(
            responses=rows, stimulus=np.arange(len(rows)), images=list(images), captions=[["x"]] * len(rows)
        )
        for name, rows, images in (("train", train, training), ("test", ROWS, SHOWN))
    }
    write_data(folder, splits, subject="someone", rois={"all": (0, 24)})
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture
def checkpoint(small_checkpoint: Path, tmp_path: Path) -> Path:
    from small_checkpoint import add_training_pictures

    folder = tmp_path / "checkpoint"
    shutil.copytree(small_checkpoint, folder)
    add_training_pictures(folder, TRAINING)
    return folder


def run(checkpoint: Path, responses: Path, out: Path, models: Path, *more: str) -> int:
    return cli.main(["run", str(checkpoint), str(responses), "--out", str(out), "--models", str(models), *FAST, *more])


def test_all_controls_of_a_run(checkpoint: Path, data: Path, small_world: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(checkpoint, data, out, small_world, "--controls", "all") == 0
    opened, models = open_checkpoint(checkpoint), load_models(str(small_world))
    table = opened.training_pictures
    assert table is not None
    decoded = opened.decode(ROWS)
    places, similarity = table.nearest(decoded)
    rows = json.loads((out / "trials.json").read_text())
    for trial in range(N_TRIALS):
        shown = read_image(out / "images" / "nearest" / f"{trial:06d}.png")
        np.testing.assert_array_equal(shown, fit_square(TRAINING[places[trial]], 32))
        assert rows[trial]["nearest"] == {"picture": places[trial], "similarity": pytest.approx(similarity[trial])}
        assert set(rows[trial]["controls"]) == {"shuffled", "oracle", "generator", "nearest"}
    settings = json.loads((out / "settings.json").read_text())["settings"]
    assert settings["controls"] == "shuffled,oracle,generator,nearest"
    # The generator alone: the noise of stage 1, and one context and one latent for every trial.
    noise = trial_noise(settings["refine"]["seed"], [f"test/{trial}/0" for trial in range(3)], models.latent_shape)
    contexts, latents = (np.stack([part] * 3) for part in (table.typical_context, table.mean_latent))
    expected = DiffusionGenerator(models, latents, contexts, opened.uncond_context, noise).stage1()
    for trial, picture in enumerate(to_uint8(expected.numpy())):
        np.testing.assert_array_equal(read_image(out / "images" / "generator" / f"{trial:06d}.png"), picture)
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    (out / "images" / "nearest" / "000001.png").unlink()
    assert run(checkpoint, data, out, small_world, "--controls", "shuffled,oracle,generator,nearest") == 0
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before
    assert json.loads((out / "trials.json").read_text()) == rows


def test_stage_1_has_the_controls_of_training(checkpoint: Path, data: Path, small_world: Path, tmp_path: Path) -> None:
    assert run(checkpoint, data, tmp_path / "run", small_world, "--stage", "1", "--controls", "generator,nearest") == 0
    assert {path.name for path in (tmp_path / "run" / "images").iterdir()} == {"stage1", "generator", "nearest"}
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    missing = {rung["name"]: rung["missing"] for rung in evidence["rungs"]}
    assert missing["generator"] is missing["nearest"] is None
    assert missing["shuffled"] == missing["oracle"] == "the run stopped after stage 1"
    assert "seed" not in evidence["about"]["settings"]["refine"]


def test_a_trial_whose_features_are_not_finite_has_no_picture(
    checkpoint: Path, data: Path, small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minddiffuser.runtime.decoders.checkpoint import Checkpoint

    decoded = Checkpoint.decoded

    def broken(self: Checkpoint, responses: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        found = decoded(self, responses, names)
        if "structure" in found and len(responses) > 1:
            found["structure"] = np.array(found["structure"])
            found["structure"][1] = np.nan
        return found

    monkeypatch.setattr(Checkpoint, "decoded", broken)
    assert run(checkpoint, data, tmp_path / "run", small_world, "--stage", "1", "--controls", "nearest") == 1
    assert [row["trial"] for row in json.loads((tmp_path / "run" / "trials.json").read_text())] == [0, 2, 3]
    (failed,) = json.loads((tmp_path / "run" / "summary.json").read_text())["failed"]
    assert "decoded features hold NaN" in failed["reason"]


def test_nearest_by_nothing_is_refused_at_once(checkpoint: Path) -> None:
    from minddiffuser.runtime.run.reconstruct import ReconstructSettings, Training, check_training

    table = open_checkpoint(checkpoint).training_pictures
    assert table is not None
    training = Training(table=table, read=lambda places: TRAINING[list(places)])
    settings = ReconstructSettings(stage=1, controls="nearest", without=("context", "latent"))
    check_training(settings, training)
    alone = replace(training, table=replace(table, tables={"latent": table.tables["latent"]}))
    with pytest.raises(InputError, match="no decoded feature is left"):
        check_training(settings, alone)


def test_a_bundle_makes_them_too(checkpoint: Path, data: Path, toy_bundle: Path, tmp_path: Path) -> None:
    from toy_bundle import write_toy_bundle

    bundle = write_toy_bundle(tmp_path / "bundle", checkpoint)
    out = tmp_path / "run"
    fast = [*FAST[: FAST.index("--device")], "--controls", "generator,nearest"]
    assert cli.main(["run", str(bundle), str(data), "--out", str(out), *fast]) == 0
    table = open_checkpoint(checkpoint).training_pictures
    assert table is not None
    places, _ = table.nearest(open_checkpoint(checkpoint).decode(ROWS))
    for trial, place in enumerate(places):
        shown = read_image(out / "images" / "nearest" / f"{trial:06d}.png")
        np.testing.assert_array_equal(shown, fit_square(TRAINING[place], 32))


@pytest.mark.long
def test_pictures_are_found_by_their_pixels_where_numbers_have_changed(
    checkpoint: Path, data: Path, small_world: Path, tmp_path: Path
) -> None:
    other = write_folder(tmp_path / "other", TRAINING[::-1].copy())
    arguments = ("--stage", "1", "--controls", "nearest")
    assert run(checkpoint, data, tmp_path / "one", small_world, *arguments) == 0
    assert run(checkpoint, data, tmp_path / "two", small_world, *arguments, "--train-data", str(other)) == 0
    names = [f"images/nearest/{trial:06d}.png" for trial in range(N_TRIALS)]
    assert [(tmp_path / "one" / n).read_bytes() for n in names] == [(tmp_path / "two" / n).read_bytes() for n in names]


@pytest.mark.parametrize(
    "case",
    [
        "an older checkpoint",
        pytest.param("responses without a folder", marks=pytest.mark.long),
        pytest.param("other pictures", marks=pytest.mark.long),
    ],
)
def test_what_cannot_be_made_is_left_out_with_the_reason(
    case: str, checkpoint: Path, small_checkpoint: Path, data: Path, small_world: Path, tmp_path: Path
) -> None:
    out, responses, more, left = tmp_path / "run", data, (), {"nearest"}
    if case == "an older checkpoint":
        checkpoint, said, left = small_checkpoint, "holds no table of the training pictures", {"generator", "nearest"}
    elif case == "other pictures":
        responses, said = write_folder(tmp_path / "other", 255 - TRAINING), "is not in"
    else:
        responses, said = tmp_path / "rows.npy", "--train-data"
        np.save(responses, ROWS)
        for trial, picture in enumerate(SHOWN):
            write_png(tmp_path / "seen" / f"{trial}.png", picture)
        more = ("--stimuli", str(tmp_path / "seen"))
    assert run(checkpoint, responses, out, small_world, "--stage", "1", "--controls", "generator,nearest", *more) == 0
    notes = json.loads((out / "summary.json").read_text())["notes"]
    for name in left:
        assert any(f"the control {name} is left out" in note and said in note for note in notes), notes
    made = {path.name for path in (out / "images").iterdir()}
    assert made == {"stage1", "generator", "nearest"} - left
    controls = json.loads((out / "settings.json").read_text())["settings"]["controls"]
    assert controls == ("generator" if len(left) == 1 else "none")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--controls", "nearest", "--train-data", "nowhere"), "nowhere is no data folder"),
        (("--controls", "generator", "--train-data", "data"), "is for the control nearest"),
        (("--controls", "everything"), "everything"),
        (("--controls", "all", "--stage", "1"), "the controls shuffled and oracle belong to stage 2"),
        (("--controls", "nearest", "--train-data", "damaged"), "image_size"),
    ],
)
def test_mistakes_are_one_line(
    more: tuple[str, ...],
    said: str,
    checkpoint: Path,
    data: Path,
    small_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, "damaged")
    content = json.loads((data / "data.json").read_text())
    (tmp_path / "damaged" / "data.json").write_text(json.dumps(content | {"image_size": "large"}))
    assert run(checkpoint, data, tmp_path / "run", small_world, *more) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert not (tmp_path / "run").exists()
