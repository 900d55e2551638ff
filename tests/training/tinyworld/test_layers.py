"""Renderings in layers: drawn once, read back, and true to what the renderer draws as a whole."""

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.training.tinyworld import layers
from minddiffuser.training.tinyworld.draw import draw
from minddiffuser.training.tinyworld.scenes import is_held_out


def test_layers_are_drawn_once_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_CHUNK", 3)
    reported: list[tuple[int, int]] = []
    drawn = layers.open_layers(tmp_path, n_pictures=5, seed=9, progress=lambda *step: reported.append(step))
    assert reported == [(3, 5), (5, 5)]
    assert drawn.layers.shape == (5, 64, 64, 7)
    assert isinstance(drawn.layers, np.memmap)
    rng = np.random.default_rng(9)
    first = layers.wider(rng)
    np.testing.assert_array_equal(drawn.layers[0, ..., :3], draw(first))
    assert drawn.tilt_deg[0] == pytest.approx(first.tilt_deg)
    monkeypatch.setattr(layers, "_chunk", None)  # a second call draws nothing
    again = layers.open_layers(tmp_path, n_pictures=5, seed=9)
    np.testing.assert_array_equal(again.layers, drawn.layers)


def test_scenes_are_wider_than_the_worlds_and_keep_its_words() -> None:
    rng = np.random.default_rng(0)
    many = [layers.wider(rng) for _ in range(300)]
    sizes = [scene.size for scene in many]
    assert min(sizes) < 0.20
    assert max(sizes) > 0.46
    assert not any(is_held_out(*scene.labels) for scene in many)
