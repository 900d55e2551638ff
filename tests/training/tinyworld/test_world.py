"""The shipped weights keep what the model card says, and the command that makes a world makes a whole one."""

import errno
import json
import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

from minddiffuser.runtime import files
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.locks import inside, locked
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training.tinyworld import card, loop, places, quality, world
from minddiffuser.training.tinyworld.scenes import scenes

SHIPPED = Path(world.__file__).parent / "world"
FLOORS = {
    "clip_zero_shot": {"concept": 0.90, "colour": 0.95, "background": 0.98},
    "classifier_on_samples": {"concept": 0.75, "colour": 0.85, "background": 0.90},
}


def test_the_card_states_figures_above_the_floors() -> None:
    metrics = json.loads((SHIPPED / "quality.json").read_text())
    assert metrics["vae_psnr_db"] >= 27
    assert metrics["n_samples"] >= 500
    for name, floors in FLOORS.items():
        for head, floor in floors.items():
            assert metrics[name][head] >= floor, (name, head)


@pytest.mark.long
def test_the_weights_do_what_the_card_says() -> None:
    """A smaller measurement of the same, within what 100 renderings and 12 samples can tell (3 standard errors)."""
    metrics = json.loads((SHIPPED / "quality.json").read_text())
    again = quality.measure(SHIPPED, n_renderings=100, n_samples=12)
    assert again["vae_psnr_db"] == pytest.approx(metrics["vae_psnr_db"], abs=0.7)
    for name, n_classified in (
        ("clip_zero_shot", 100),
        ("classifier_on_renderings", 100),
        ("classifier_on_samples", 12),
    ):
        for head, share in metrics[name].items():
            error = np.sqrt(max(share * (1 - share), 0.01) / n_classified)
            assert again[name][head] >= share - 3 * error, (name, head)


@pytest.mark.slow
def test_the_card_repeats() -> None:
    metrics = json.loads((SHIPPED / "quality.json").read_text())
    again = quality.measure(SHIPPED)
    for name, value in metrics.items():
        if isinstance(value, dict):
            assert again[name] == pytest.approx(value, abs=0.01), name
        elif name in again:  # the numbers of training pictures are not measured
            assert again[name] == pytest.approx(value, rel=1e-3), name


def test_the_shipped_card_follows_from_the_shipped_records(tmp_path: Path) -> None:
    metrics = json.loads((SHIPPED / "quality.json").read_text())
    training = card.read_training(SHIPPED)
    assert training is not None
    card.write_card(tmp_path, metrics, quality.count_parameters(SHIPPED), training)
    assert (tmp_path / "README.md").read_bytes() == (SHIPPED / "README.md").read_bytes()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiling, which takes longer than two steps, and metrics that are not measured."""
    monkeypatch.setattr(loop.shutil, "which", lambda name: None)
    shares = dict.fromkeys(("concept", "colour", "background"), 0.5)
    names = ("clip_zero_shot", "clip_zero_shot_held_out", "classifier_on_samples", "classifier_on_renderings")
    metrics = {name: shares for name in (*names, "classifier_on_vae_round_trip")}
    kinds = ("renderings", "renderings_held_out", "vae_round_trip", "blurred")
    metrics |= {f"locator_on_{kind}": {"place": 0.1, "size": 0.2, "overlap": 0.3, "tilt_deg": 4.0} for kind in kinds}
    metrics |= {"n_renderings": 7, "n_samples": 3, "vae_psnr_db": 12.34}
    monkeypatch.setattr(quality, "measure", lambda folder, progress=None: dict(metrics))
    monkeypatch.setattr(quality, "samples_page", lambda folder, path: path.write_bytes(b"page"))


def _table(folder: Path) -> str:
    return (folder / "README.md").read_text().partition("## How it was made")[2].partition("## What it can do")[0]


@pytest.mark.usefixtures("quick")
def test_a_part_is_trained_once_and_the_folder_waits_for_all(tmp_path: Path) -> None:
    out, parts = tmp_path / "world", ["tokenizer", "classifier"]
    world.make_world(out, parts=parts, effort=2e-4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "world.work" / "parts").rglob("*.json")}
    assert json.loads((tmp_path / "world.work/parts/classifier/training.json").read_text())["steps"] == 2
    world.make_world(out, parts=parts, effort=2e-4)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(FileError, match="'clip' has not been trained"):
        world.make_world(out, parts=["folder"], effort=2e-4)


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_a_world_is_made_whole_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "world"
    early = [name for name in world.PARTS if name not in ("folder", "quality")]
    world.make_world(out, parts=early[:2], effort=2e-4)
    with pytest.raises(FileError, match="'clip' has not been trained"):
        world.make_world(out, parts=["folder"], effort=2e-4)
    with pytest.raises(FileError, match="effort 0.0002, this run has 1.0: give another --work or --out"):
        world.make_world(out)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "world.work" / "parts").rglob("*.json")}
    world.make_world(out, effort=2e-4)
    for path, changed in before.items():
        assert path.stat().st_mtime_ns == changed, f"{path} was trained again"
    models = load_models(str(out))
    assert models.latent_shape == (4, 8, 8)
    assert models.context_shape == (15, 64)
    assert models.structure_shape == (6, 65, 96)
    drawn = quality.generate(models, [scene.caption for scene in scenes(0, 2)], seed=0, n_steps=2)
    assert drawn.shape == (2, 3, 64, 64)
    assert np.isfinite(drawn).all()
    assert json.loads((out / "quality.json").read_text())["vae_psnr_db"] == 12.34
    assert not list(out.glob("*/training.json"))
    assert "12.3 dB" in (out / "README.md").read_text()
    _check_the_card_of_a_trial(out)


def _check_the_card_of_a_trial(out: Path) -> None:
    """What the card says of the training is what was done, and what is recorded stays without the work folder."""
    training = json.loads((out / "training.json").read_text())
    assert list(training["parts"]) == ["autoencoder", "decoder", "contrastive", "denoiser", "classifier", "locator"]
    made = _table(out)
    assert "--effort 0.0002`, on 64 renderings" in made
    assert "(the classifier on\n64 of another seed, the locator on 64 with wider ranges" in made
    assert (
        "| renderings blurred (Gaussian, 2 pixels) | 0.100 | 0.200 | 4.0 | 0.300 |" in (out / "README.md").read_text()
    )
    assert "| denoiser | 2 | 64 | under 1 |" in made
    assert f"Trained on the CPU ({platform.machine()}) with PyTorch {torch.__version__}." in made
    training["note"] = "By hand."
    training["parts"]["denoiser"] |= {"steps": 1_234, "minutes": 56}
    (out / "training.json").write_text(json.dumps(training))
    shutil.rmtree(out.with_name("world.work"))
    world.make_world(out, parts=["quality"])
    made = _table(out)
    assert "| denoiser | 1,234 | 64 | 56 |" in made
    assert "| classifier | 2 | 64 | under 1 |" in made
    assert "By hand." in made
    assert "Trained on" not in made
    assert not out.with_name("world.work").exists()


def _training(hardware: tuple[str, str, str]) -> dict[str, object]:
    parts = {
        name: {"steps": 10, "batch": 4, "minutes": 3.0, "hardware": machine, "n_pictures": 640}
        for name, machine in zip(("denoiser", "classifier", "locator"), hardware, strict=True)
    }
    return card.describe_training(parts, effort=1.0)


def test_the_card_names_every_machine_and_admits_what_is_not_recorded(tmp_path: Path) -> None:
    metrics = json.loads((SHIPPED / "quality.json").read_text())
    n_parameters = dict.fromkeys(("vae", "unet", "text", "clip", "classifier", "locator"), 1)
    card.write_card(tmp_path, metrics, n_parameters, _training(("machine A", "machine B", "machine B")))
    assert "Trained on machine A (denoiser); on machine B (classifier, locator)." in _table(tmp_path)
    card.write_card(tmp_path, metrics, n_parameters, None)
    assert "not recorded" in _table(tmp_path)
    assert "60,000" not in _table(tmp_path)
    with pytest.raises(FileError, match=r"training.json lacks what the model card states"):
        card.write_card(tmp_path, metrics, n_parameters, {"effort": 1.0, "parts": {}})


@pytest.mark.usefixtures("quick")
def test_a_note_stays_only_beside_its_own_trainings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    bench = world._Bench(out, tmp_path / "work", "cpu", 1.0, None)
    entry = {"steps": 1, "batch": 1, "minutes": 1.0, "hardware": "A", "n_pictures": 64}
    for part in world.TRAININGS:
        files.write_json(bench.work / "parts" / part / "training.json", entry)
    parts = {training.name: entry for training in world.TRAININGS.values()}
    files.write_json(out / "training.json", card.describe_training(parts, effort=1.0, note="True of these."))
    world._write_training(bench)
    assert json.loads((out / "training.json").read_text())["note"] == "True of these."
    files.write_json(bench.work / "parts" / "classifier" / "training.json", {**entry, "steps": 2})
    world._write_training(bench)
    assert "note" not in json.loads((out / "training.json").read_text())


def test_every_machine_that_trained_a_part_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = world._Bench(tmp_path, tmp_path, "cpu", 1.0, None)
    monkeypatch.setattr(world._Bench, "hardware", "A")
    bench.settings("classifier")
    (tmp_path / "classifier.safetensors").touch()  # its state: what follows continues it
    monkeypatch.setattr(world._Bench, "hardware", "B")
    bench.settings("classifier")
    bench.settings("classifier")
    monkeypatch.setattr(world, "reached", lambda state: (5, 90.0))
    entry = bench._entry(world.TRAININGS["classifier"])
    assert entry == {"steps": 5, "batch": 64, "minutes": 1.5, "hardware": "A, then B", "n_pictures": 30_000}
    (tmp_path / "classifier.safetensors").unlink()  # from nothing: the earlier machines have no part in it
    bench.settings("classifier")
    assert bench._entry(world.TRAININGS["classifier"])["hardware"] == "B"


def test_bad_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="part 'unet' is unknown"):
        world.make_world(tmp_path / "w", parts=["unet"])
    with pytest.raises(InputError, match="effort is 2"):
        world.make_world(tmp_path / "w", effort=2.0)
    with pytest.raises(InputError, match="device 'gpu' is unknown"):
        world.make_world(tmp_path / "w", device="gpu")
    with pytest.raises(InputError, match="device 'cuda:99' is not there"):
        world.make_world(tmp_path / "w", device="cuda:99")
    assert not any(tmp_path.iterdir())
    with pytest.raises(FileError, match="holds no tiny world"):
        world.make_world(tmp_path / "w", parts=["quality"])


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> list[world._Bench]:
    """One part only, which notes what it is given."""
    seen: list[world._Bench] = []
    monkeypatch.setattr(world, "PARTS", {"tokenizer": seen.append})
    return seen


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubbed: list[world._Bench]) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    assert world.make_world(Path()) == tmp_path / "here" / "below"
    assert stubbed[0].work == tmp_path / "here" / "below.work"
    assert places.choose_places(Path(".."), None)[1] == tmp_path / "here.work"
    assert places.choose_places(Path("../w"), Path("x"))[1] == tmp_path / "here" / "below" / "x"
    with pytest.raises(FileError, match="root of the file system"):
        places.choose_places(Path("/"), None)
    for work in (Path("w"), Path("w/work")):
        with pytest.raises(InputError, match="inside the model folder"):
            places.choose_places(Path("w"), work)


def test_folders_that_cannot_be_used_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubbed: list[world._Bench]
) -> None:
    (tmp_path / "file").write_text("mine")
    for options in ({"out": "file"}, {"out": "file/x"}, {"out": "o", "work": "file"}, {"out": "o", "work": "file/x"}):
        with pytest.raises(FileError, match="is a file"):
            world.make_world(**{name: tmp_path / value for name, value in options.items()})

    monkeypatch.setattr(os, "access", lambda *_asked: False)
    with pytest.raises(FileError, match=r"cannot be written \(no permission to write"):
        world.make_world(tmp_path / "o")
    assert not stubbed
    assert (tmp_path / "file").read_text() == "mine"


def test_nobody_elses_folder_is_overwritten(tmp_path: Path, stubbed: list[world._Bench]) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileError, match="is not a tiny world"):
        world.make_world(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")  # a pipeline, but of somebody else
    with pytest.raises(FileError, match="is not a tiny world"):
        world.make_world(tmp_path)
    assert not stubbed
    (tmp_path / "training.json").write_bytes((SHIPPED / "training.json").read_bytes())
    world.make_world(tmp_path, work=tmp_path.with_name(f"{tmp_path.name}.w"))
    assert len(stubbed) == 1


def test_what_a_desktop_leaves_is_nobody_s_folder(tmp_path: Path, stubbed: list[world._Bench]) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".DS_Store").write_bytes(b"x")
    world.make_world(tmp_path / "w")
    assert stubbed


@pytest.mark.parametrize("part", ["folder", "quality"])
def test_a_model_folder_that_another_process_writes_is_refused(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setitem(world.PARTS, part, lambda bench: done.append(part))
    out = tmp_path / "w"
    with locked(inside(out), out), pytest.raises(FileError, match=f"another process is working in {out}: wait for it"):
        world.make_world(out, parts=[part])
    assert done == []
    world.make_world(out, parts=[part])
    assert done == [part]


def test_a_part_that_another_process_trains_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def tokenizer(bench: world._Bench) -> None:
        done.append("tokenizer")
        with pytest.raises(FileError, match=f"another process is working in {tmp_path / 'w.work'}: wait for it"):
            world.make_world(tmp_path / "w", parts=["tokenizer"])
        world.make_world(tmp_path / "w", parts=["clip"])  # beside it, as documented

    monkeypatch.setattr(world, "PARTS", {"tokenizer": tokenizer, "clip": lambda bench: done.append("clip")})
    world.make_world(tmp_path / "w", parts=["tokenizer"])
    assert done == ["tokenizer", "clip"]


@pytest.mark.usefixtures("stubbed")
def test_work_of_other_settings_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, work = tmp_path / "w", tmp_path / "w.work"
    world.make_world(out, effort=1)
    world.make_world(out, effort=1.0)
    content = json.loads((work / "world.json").read_text())
    assert content["settings"]["classifier"]["n_pictures"] == 30_000
    assert content["settings"]["contrastive"]["steps"] == 3_400
    with pytest.raises(
        FileError, match=r"training states with effort 1.0, this run has 0.5: give another --work or --out"
    ):
        world.make_world(out, effort=0.5)
    longer = replace(world.TRAININGS["classifier"], batch=128)
    monkeypatch.setitem(world.TRAININGS, "classifier", longer)
    with pytest.raises(FileError, match=r"training states with other settings of classifier: give another"):
        world.make_world(out)
    (work / "world.json").unlink()
    world.make_world(out)
    (work / "world.json").unlink()
    (work / "parts").mkdir()
    with pytest.raises(FileError, match=r"unknown settings \(no world.json\)"):
        world.make_world(out)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "big.npy"), "^the disk is full while writing big.npy: free"),
        (safetensors.SafetensorError("I/O error: No space left on device (os error 28)"), "^the disk is full while"),
        (OSError(errno.EIO, "Input/output error"), r"cannot be written \(Input/output error\)"),
        (OSError("Can't load\nthe model"), r"cannot be written \(Can't load the model\)"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: world._Bench) -> None:
        raise error

    monkeypatch.setattr(world, "PARTS", {"tokenizer": broken})
    with pytest.raises(FileError, match=message) as caught:
        world.make_world(tmp_path / "w")
    assert "\n" not in str(caught.value)


def test_other_failures_pass_unchanged(tmp_path: Path) -> None:
    for error in (RuntimeError("a fault"), BrokenPipeError(errno.EPIPE, "Broken pipe"), FileError("said already")):
        with pytest.raises(type(error)) as caught, places.system_errors(tmp_path):
            raise error
        assert caught.value is error
