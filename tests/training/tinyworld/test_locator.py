"""What is trained is what the runtime computes, and the shipped locator finds what the renderer drew."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from minddiffuser.runtime.images import to_float
from minddiffuser.runtime.metrics.locator import Locator, open_locator, shapes
from minddiffuser.runtime.metrics.where import overlap, place, size
from minddiffuser.training.tinyworld import locator, quality, world
from minddiffuser.training.tinyworld.degrade import blur
from minddiffuser.training.tinyworld.draw import draw_all, draw_background
from minddiffuser.training.tinyworld.layers import open_layers
from minddiffuser.training.tinyworld.loop import LoopSettings
from minddiffuser.training.tinyworld.scenes import scenes

SHIPPED = Path(world.__file__).parent / "world"
SEED = 77_000  # of no training


def test_the_runtime_computes_the_trained_network() -> None:
    torch.manual_seed(0)
    network = locator.LocatorNetwork().train()
    images = torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for _ in range(3):  # running statistics of their own
            network(images)
        logits, direction = network.eval()(images)
    arrays = locator.folded(network)
    assert {name: array.shape for name, array in arrays.items()} == shapes(list(locator.CHANNELS))
    found = Locator(64, arrays).locate(images.numpy())
    sure = logits.abs() > 1e-3
    np.testing.assert_array_equal(found.mask[sure.numpy()], (logits > 0).numpy()[sure.numpy()])
    assert sure.float().mean() > 0.9
    tilt = torch.rad2deg(torch.atan2(direction[:, 0], direction[:, 1]))
    np.testing.assert_allclose(found.tilt_deg, tilt.numpy(), atol=0.05)


SHORT = LoopSettings(steps=12, learning_rate=3e-3, warmup=2, ema=0.5, seed=3, log_every=1)


def test_training_lowers_the_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locator, "BATCH", 16)
    locator.fit(open_layers(tmp_path, n_pictures=64), _folder(tmp_path / "a"), SHORT)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("locator: step")]
    masks = [float(line.partition("mask ")[2].split()[0]) for line in lines]
    assert masks[-1] < 0.9 * masks[0]


@pytest.mark.long
def test_training_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locator, "BATCH", 16)
    drawn = open_layers(tmp_path, n_pictures=64)
    one, again = (locator.folded(locator.fit(drawn, _folder(tmp_path / name), SHORT)) for name in "ab")
    for name, array in one.items():
        np.testing.assert_allclose(array, again[name], rtol=1e-4, atol=1e-5, err_msg=name)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_shipped_locator_is_small() -> None:
    assert sum(path.stat().st_size for path in (SHIPPED / "locator").iterdir()) < 1_000_000


@pytest.mark.parametrize(("sigma_px", "card"), [(None, "locator_on_renderings"), (2.0, "locator_on_blurred")])
def test_it_finds_what_the_renderer_drew(sigma_px: float | None, card: str) -> None:
    """On combinations of words, and scenes, that no training saw: within what 60 of them can tell of the card."""
    stated = json.loads((SHIPPED / "quality.json").read_text())[card]
    many = list(scenes(SEED, 60, combinations="held-out"))
    images = to_float(draw_all(many))
    if sigma_px is not None:
        images = blur(torch.from_numpy(images), sigma_px).clamp(0, 1).numpy()
    truth, found = quality.true_masks(many), open_locator(SHIPPED / "locator").locate(images)
    # A median of 60 lies within some 40 % of the median of all, and single pictures are worse than the mean by more.
    assert np.median(place(truth, found.mask)) < 1.5 * stated["place"] + 0.002
    assert np.median(size(truth, found.mask)) < 1.5 * stated["size"] + 0.005
    assert overlap(truth, found.mask).mean() > stated["overlap"] - 0.04
    turned = np.abs(found.tilt_deg - np.array([scene.tilt_deg for scene in many]))
    assert np.median(turned) < 1.5 * stated["tilt_deg"] + 0.5


def test_the_card_states_figures_that_can_measure() -> None:
    """Its errors are a small share of how far apart, and how unequal in size, two random scenes are."""
    truth = quality.true_masks(list(scenes(SEED, 100, combinations="all")))
    other = np.roll(truth, 1, axis=0)
    apart, unequal = place(truth, other).mean(), size(truth, other).mean()
    stated = json.loads((SHIPPED / "quality.json").read_text())
    for name in ("locator_on_renderings", "locator_on_vae_round_trip", "locator_on_blurred"):
        assert stated[name]["place"] < 0.05 * apart, name
        assert stated[name]["size"] < 0.15 * unequal, name
        assert stated[name]["overlap"] > 0.85, name


def test_nothing_is_found_where_nothing_is() -> None:
    many = list(scenes(SEED + 1, 40, combinations="held-out"))
    bare = to_float(np.stack([draw_background(scene) for scene in many]))
    covered = open_locator(SHIPPED / "locator").masks(bare).mean((1, 2))
    assert np.median(covered) == 0
    assert (covered < 0.02).mean() > 0.9
