"""Currents: where and when."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mne")

from minddiffuser.training.simulate.fmri import AREAS, Drives, FmriSettings
from minddiffuser.training.simulate.sensors import head_model
from minddiffuser.training.simulate.sources import (
    KERNEL_S,
    PLACES,
    draw_cortex,
    draw_occipital,
    draw_scattered,
    eyes,
    parts_of,
    time_course,
)

SETTINGS = FmriSettings()


def test_every_area_has_a_place_and_structure_comes_before_meaning() -> None:
    assert set(PLACES) == set(AREAS)
    for name, area in AREAS.items():
        if area.structural[1] > 0:
            assert 0.08 < PLACES[name].structural_s < 0.2
        if area.structural[0] < 1:
            assert 0.2 < PLACES[name].semantic_s < 0.5


@pytest.mark.parametrize(("kind", "peak"), [("structural", 0.11), ("semantic", 0.29)])
def test_time_courses_peak_when_they_say(kind: str, peak: float) -> None:
    course = time_course(kind, peak, 1000.0)
    assert len(course) == round(KERNEL_S * 1000)
    assert abs(course.argmax() - 1000 * peak) <= 1
    assert course.max() == pytest.approx(1, abs=0.03)  # the rebound begins
    assert abs(course[0]) < 1e-9
    assert abs(course[-1]) < 0.02  # it has faded
    assert (course.min() < -0.2) == (kind == "structural")


def test_dipoles_lie_in_the_brain_and_the_cortex_behind(rng: np.random.Generator) -> None:
    cortex = draw_cortex(SETTINGS, rng)
    centre, radius = head_model()["r0"], head_model()["layers"][0]["rad"]
    for made in (cortex.dipoles, draw_scattered(300, rng), draw_occipital(20, rng), eyes()):
        assert np.linalg.norm(made.positions - centre, axis=1).max() < radius
        np.testing.assert_allclose(np.linalg.norm(made.directions, axis=1), 1)
    v1 = cortex.dipoles.positions[slice(*SETTINGS.rois["V1"])]
    assert (v1[:, 1] < centre[1] - 0.03).all()
    left = cortex.dipoles.positions[slice(*SETTINGS.rois["LO"])][:, 0] < centre[0]
    assert left.sum() == AREAS["LO"].n_voxels // 2
    assert eyes().positions[:, 1].min() > centre[1] + 0.05


def test_parts_have_their_share_of_the_variance(rng: np.random.Generator) -> None:
    """Over the training pictures a voxel's parts have variances share and 1 - share, and sum to all voxels."""
    cortex = draw_cortex(SETTINGS, rng)
    share = rng.uniform(0, 1, SETTINGS.n_voxels).astype(np.float32)
    share[slice(*SETTINGS.rois["V1"])] = 1
    share[slice(*SETTINGS.rois["VO"])] = 0
    drives = {
        split: Drives(
            structural=rng.standard_normal((n, SETTINGS.n_voxels), dtype=np.float32),
            semantic=rng.standard_normal((n, SETTINGS.n_voxels), dtype=np.float32),
        )
        for split, n in (("train", 50), ("test", 7))
    }
    parts = parts_of(cortex, share, drives, 0.3)
    for kind, expected in (("structural", share), ("semantic", 1 - share)):
        voxels = np.concatenate([part.voxels for part in parts if part.kind == kind])
        variance = np.concatenate([part.amplitudes["train"].var(axis=0) for part in parts if part.kind == kind])
        assert sorted(voxels) == np.flatnonzero(expected > 0).tolist()
        np.testing.assert_allclose(variance, expected[voxels], rtol=1e-3)
    assert {part.amplitudes["test"].shape[0] for part in parts} == {7}
