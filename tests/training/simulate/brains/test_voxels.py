"""Receptive fields are local and where they are said to be; sparse weights have one length."""

from __future__ import annotations

import numpy as np

from minddiffuser.training.simulate.brains.voxels import draw_fields, receptive_fields, sparse_weights
from minddiffuser.training.simulate.fmri import Area


def test_receptive_fields_are_local_and_normalised() -> None:
    fields = receptive_fields(np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([0.05, 0.3]), 8)
    np.testing.assert_allclose(fields.sum(axis=1), 1, rtol=1e-5)
    # x is the column, y the row: (0.25, 0.75) lies between columns 1 and 2, rows 5 and 6.
    peak = np.argwhere(fields[0].reshape(8, 8) > 0.2)
    assert sorted(map(tuple, peak)) == [(5, 1), (5, 2), (6, 1), (6, 2)]
    assert fields[0].max() > 4 * fields[1].max()
    far = receptive_fields(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([1e-3, 1e-3]), 8)
    assert np.isfinite(far).all()
    assert far[0].argmax() == 0
    assert far[1].argmax() == 63


def test_fields_are_drawn_around_the_area_s_width(rng: np.random.Generator) -> None:
    spread, centre = draw_fields(rng, Area(n_voxels=4_000, field_sd=0.1))
    assert abs(np.median(spread) - 0.1) < 0.005  # standard error 0.0005
    assert abs(np.log(spread).std() - 0.25) < 0.02
    assert centre.shape == (4_000, 2)
    assert 0 <= centre.min() < 0.1 < 0.9 < centre.max() <= 1


def test_sparse_weights(rng: np.random.Generator) -> None:
    weights = sparse_weights(rng, 2_000, 50, 0.1)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, rtol=1e-5)
    assert 0.09 < np.mean(weights != 0) < 0.13
    assert ((sparse_weights(rng, 500, 5, 1e-9) != 0).sum(axis=1) == 1).all()
