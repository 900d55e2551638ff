"""The brain made of CLIP features: local fields, areas that see what they should, weights of its own seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.training.simulate.brains.clip import (
    draw_weights,
    drive,
    measure_scales,
    words_of_neighbours,
)
from minddiffuser.training.simulate.fmri import AREAS, Area, Drives, FmriSettings, simulate_fmri

SIDE, D_VISION, D_WORDS = 6, 12, 20
SHAPE = (6, SIDE * SIDE + 1, D_VISION)


def features(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    structure = rng.standard_normal((n, *SHAPE), dtype=np.float32)
    structure[..., 3] *= 100  # CLIP has such channels
    return structure, rng.standard_normal((n, D_WORDS + D_VISION), dtype=np.float32)


def subject(settings: FmriSettings, seed: int, n_train: int = 60, n_test: int = 40) -> Any:
    rng = np.random.default_rng(5)
    train, test = features(rng, n_train), features(rng, n_test)
    scales = measure_scales(*train)
    brain = draw_weights(settings, SHAPE, (D_WORDS, D_VISION), np.random.default_rng(seed))
    drives = {"train": drive(brain, scales, *train), "test": drive(brain, scales, *test)}
    return brain, scales, drives, train, test


def answers(brain: Any, drives: dict[str, Drives], settings: FmriSettings, seed: int = 0) -> np.ndarray:
    """Responses to the test pictures."""
    return simulate_fmri(brain.structural, drives, settings, np.random.default_rng(seed))["test"].responses


def test_a_corner_moves_only_voxels_that_look_there() -> None:
    settings = FmriSettings()
    brain, scales, _, train, _ = subject(settings, 1)
    before = drive(brain, scales, *train)
    structure = train[0].copy()
    patch = 1 + 0 * SIDE + (SIDE - 1)  # the top right corner; token 0 is the class token
    structure[:, :, patch] += 5 * structure[:, :, patch].std()
    moved = np.abs(drive(brain, scales, structure, train[1]).structural - before.structural).max(axis=0)
    moved /= before.structural.std(axis=0).clip(1e-9)
    start, stop = settings.rois["V1"]
    grid = brain.receptive[start:stop].reshape(-1, SIDE, SIDE)
    here = grid[:, 0, -1] > 0.05
    far = grid[:, :3, 3:].sum(axis=(1, 2)) < 1e-4
    assert here.sum() >= 5
    assert far.sum() >= 50
    assert moved[start:stop][here].min() > 0.2
    assert moved[start:stop][far].max() < 1e-2
    v1, hv4 = (np.mean(moved[slice(*settings.rois[name])] > 0.05) for name in ("V1", "hV4"))
    assert v1 < hv4  # wider fields see more of the picture


def test_class_token_and_semantics_leave_early_areas_alone() -> None:
    settings = FmriSettings(snr=1e6)
    brain, scales, drives, train, _ = subject(settings, 1)
    structure, semantic = train[0].copy(), train[1][::-1].copy()
    structure[:, :, 0] = 7
    changed = {"train": drives["train"], "test": drive(brain, scales, structure, semantic)}
    same = {"train": drives["train"], "test": drives["train"]}
    a, b = (answers(brain, d, settings) for d in (changed, same))
    for name, span in settings.rois.items():
        difference = np.abs(a - b)[:, slice(*span)].mean()
        early = name in ("V1", "V2", "V3", "V3ab", "hV4")
        assert difference < 1e-4 if early else difference > 0.1, name


def test_higher_areas_do_not_see_structure_and_ips_sees_both() -> None:
    settings = FmriSettings(snr=1e6)
    brain, scales, drives, train, _ = subject(settings, 1)
    changed = {"train": drives["train"], "test": drive(brain, scales, train[0][::-1], train[1])}
    same = {"train": drives["train"], "test": drives["train"]}
    a, b = (answers(brain, d, settings) for d in (changed, same))
    for name in ("VO", "PHC", "MT", "MST"):
        assert np.abs(a - b)[:, slice(*settings.rois[name])].max() < 1e-3
    for name in ("LO", "IPS"):
        assert 0.1 < np.abs(a - b)[:, slice(*settings.rois[name])].mean() < 1.0


def test_strong_channels_do_not_drown_the_rest() -> None:
    settings = FmriSettings()
    brain, scales, _, train, _ = subject(settings, 1)
    without = train[0].copy()
    without[..., 3] = without[..., 3].mean()
    a, b = (drive(brain, scales, x, train[1]).structural[:, :340] for x in (train[0], without))
    kept = [np.corrcoef(a[:, v], b[:, v])[0, 1] for v in range(340)]
    assert np.median(kept) > 0.9


def test_structure_can_be_decoded_linearly() -> None:
    """With smooth features of low rank, as pictures have, ridge on single trials finds them again."""
    rng = np.random.default_rng(2)
    n, rank = 600, 20
    latent = rng.standard_normal((n, rank), dtype=np.float32)
    structure = (latent @ rng.standard_normal((rank, int(np.prod(SHAPE))), dtype=np.float32)).reshape(n, *SHAPE)
    semantic = latent @ rng.standard_normal((rank, D_WORDS + D_VISION), dtype=np.float32)
    fewer = {name: replace(area, n_voxels=area.n_voxels // 4) for name, area in AREAS.items()}
    settings = FmriSettings(areas=fewer)
    brain = draw_weights(settings, SHAPE, (D_WORDS, D_VISION), rng)
    scales = measure_scales(structure[:256], semantic[:256])
    parts = drive(brain, scales, structure, semantic)
    drives = {
        "train": Drives(structural=parts.structural[:500], semantic=parts.semantic[:500]),
        "test": Drives(structural=parts.structural[500:], semantic=parts.semantic[500:]),
    }
    split = simulate_fmri(brain.structural, drives, settings, rng)
    x, y = split["train"].responses, structure[:500].reshape(500, -1)[:, ::50]
    weights = np.linalg.solve(x.T @ x + 500 * np.eye(settings.n_voxels), x.T @ y)
    predicted, truth = split["test"].responses @ weights, structure[500:].reshape(100, -1)[:, ::50]
    r = [np.corrcoef(predicted[:, k], truth[:, k])[0, 1] for k in range(truth.shape[1])]
    assert np.median(r) > 0.8


def test_same_seed_same_subject_other_seed_another() -> None:
    settings = FmriSettings()
    one, two, three = (subject(settings, seed)[0] for seed in (1, 1, 2))
    for name in ("layer", "receptive", "channel", "semantic", "structural"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert (getattr(one, name) != getattr(three, name)).any()
    _, _, drives, *_ = subject(settings, 1)
    a, b, c = (answers(one, drives, settings, s) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all(axis=0).all()


def test_wrong_features_are_refused(rng: np.random.Generator) -> None:
    structure, semantic = features(rng, 3)
    with pytest.raises(ShapeError, match="n_tokens"):
        measure_scales(structure[0], semantic)
    with pytest.raises(ShapeError, match="same pictures"):
        measure_scales(structure, semantic[:2])
    with pytest.raises(InputError, match="at least 2"):
        measure_scales(structure[:1], semantic[:1])
    with pytest.raises(ShapeError, match="square grid"):
        draw_weights(FmriSettings(), (6, 7, 4), (5, 4), rng)
    with pytest.raises(InputError, match="V9 sees layer 6"):
        draw_weights(FmriSettings(areas={"V9": Area(n_voxels=2, layers=(6,))}), SHAPE, (5, 4), rng)


def test_words_come_from_pictures_that_look_alike(rng: np.random.Generator) -> None:
    seen = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0) + 0.01 * rng.standard_normal((30, 3), dtype=np.float32)
    words = np.repeat(np.array([[1, 0], [0, 1], [2, 2]], np.float32), 10, axis=0)
    said = words_of_neighbours(np.array([[0, 1, 0], [0, 0, 1]], np.float32), seen, words)
    np.testing.assert_allclose(said, [[0, 1], [2, 2]])
