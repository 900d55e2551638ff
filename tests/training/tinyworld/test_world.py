"""The shipped weights keep what the model card says, and the command that makes a world makes a whole one."""

import json
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training.tinyworld import loop, quality, world
from minddiffuser.training.tinyworld.scenes import scenes

SHIPPED = Path(world.__file__).parent / "world"
FLOORS = {
    "clip_zero_shot": {"concept": 0.90, "colour": 0.95, "background": 0.98},
    "samples_judged": {"concept": 0.75, "colour": 0.85, "background": 0.90},
}


def test_the_card_states_figures_above_the_floors() -> None:
    figures = json.loads((SHIPPED / "quality.json").read_text())
    assert figures["vae_psnr_db"] >= 27
    assert figures["n_samples"] >= 500
    for name, floors in FLOORS.items():
        for head, floor in floors.items():
            assert figures[name][head] >= floor, (name, head)


def test_the_weights_do_what_the_card_says() -> None:
    """A smaller measurement of the same, within what 150 renderings and 50 samples can tell (3 standard errors)."""
    figures = json.loads((SHIPPED / "quality.json").read_text())
    again = quality.measure(SHIPPED, n_renderings=150, n_samples=50)
    assert again["vae_psnr_db"] == pytest.approx(figures["vae_psnr_db"], abs=0.7)
    for name, n_judged in (("clip_zero_shot", 150), ("judge_on_renderings", 150), ("samples_judged", 50)):
        for head, share in figures[name].items():
            error = np.sqrt(max(share * (1 - share), 0.01) / n_judged)
            assert again[name][head] >= share - 3 * error, (name, head)


@pytest.mark.slow
def test_the_card_repeats() -> None:
    figures = json.loads((SHIPPED / "quality.json").read_text())
    again = quality.measure(SHIPPED)
    for name, value in figures.items():
        if isinstance(value, dict):
            assert again[name] == pytest.approx(value, abs=0.01), name
        else:
            assert again[name] == pytest.approx(value, rel=1e-3), name


def test_a_world_is_made_whole_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.shutil, "which", lambda name: None)  # compiling takes longer than two steps
    shares = dict.fromkeys(("concept", "colour", "background"), 0.5)
    names = ("clip_zero_shot", "clip_zero_shot_held_out", "samples_judged", "judge_on_renderings")
    figures = {name: shares for name in (*names, "judge_on_vae_round_trip")}
    figures |= {"n_renderings": 7, "n_samples": 3, "vae_psnr_db": 12.34}
    monkeypatch.setattr(quality, "measure", lambda folder, progress=None: dict(figures))
    monkeypatch.setattr(quality, "samples_page", lambda folder, path: path.write_bytes(b"page"))
    out = tmp_path / "world"
    early = [name for name in world.PARTS if name not in ("folder", "quality")]
    world.make_world(out, parts=early[:2], effort=2e-4)
    with pytest.raises(FileError, match="'clip' has not been trained"):
        world.make_world(out, parts=["folder"], effort=2e-4)
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
    card = (out / "README.md").read_text()
    assert "12.3 dB" in card
    assert "| denoiser | 2 | 64 |" in card


def test_bad_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="part 'unet' is unknown"):
        world.make_world(tmp_path / "w", parts=["unet"])
    with pytest.raises(InputError, match="effort is 2"):
        world.make_world(tmp_path / "w", effort=2.0)
