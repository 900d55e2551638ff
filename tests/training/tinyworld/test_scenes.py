import re
from collections import Counter

import numpy as np
import pytest

from minddiffuser.training.tinyworld.scenes import BACKGROUNDS, COLOURS, CONCEPTS, is_held_out, sample_scene, scenes


def test_there_is_enough_to_show() -> None:
    assert len(CONCEPTS) >= 24
    assert len(COLOURS) == 12
    assert len(BACKGROUNDS) == 8


def test_captions_say_what_and_not_where() -> None:
    allowed = {"a", "in", "the", *CONCEPTS, *COLOURS, *BACKGROUNDS}
    for scene in scenes(0, 200, combinations="all"):
        words = scene.caption.split()
        assert set(words) <= allowed
        assert {scene.concept, scene.colour, scene.background} <= set(words)
        assert not re.search(r"left|right|top|bottom|small|large|\d", scene.caption)


def test_seen_and_held_out_combinations_never_meet() -> None:
    seen = {scene.labels for scene in scenes(1, 4_000)}
    held_out = {scene.labels for scene in scenes(1, 1_000, combinations="held-out")}
    assert not seen & held_out
    assert all(is_held_out(*labels) for labels in held_out)
    share = np.mean([is_held_out(c, k, b) for c in range(24) for k in range(12) for b in range(8)])
    assert 0.03 < share < 0.07


@pytest.mark.parametrize(("position", "n_words"), [(0, 24), (1, 12), (2, 8)])
def test_every_single_word_is_seen_and_roughly_evenly(position: int, n_words: int) -> None:
    counts = Counter(scene.labels[position] for scene in scenes(2, 4_000))
    assert set(counts) == set(range(n_words))
    assert min(counts.values()) > 0.6 * 4_000 / n_words


def test_geometry_is_free_and_independent_of_the_words() -> None:
    many = list(scenes(3, 3_000))
    geometry = np.array([(s.x, s.y, s.size, s.tilt_deg, s.mirrored) for s in many], dtype=float)
    words = np.array([s.labels for s in many], dtype=float)
    assert (geometry.std(axis=0) > [0.1, 0.1, 0.04, 12, 0.4]).all()
    assert np.abs(np.corrcoef(geometry.T, words.T)[:5, 5:]).max() < 0.08


def test_same_seed_same_scene() -> None:
    first, again, other = (sample_scene(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again != other
