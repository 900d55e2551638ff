"""The same answers from numpy and from PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from minddiffuser.runtime.refine.arrays import (
    as_float64,
    assign,
    copied,
    filled,
    on_host,
    smoothed,
    unit,
    zeros_like,
)

BOTH = pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
Kind = Callable[[Any], Any]


@BOTH
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-10, 1.0, 1e10, 1e30, 1e38])
def test_a_gradient_of_any_size_has_a_direction(kind: Kind, size: float, rng: np.random.Generator) -> None:
    """In float32 the squares of the first would all be 0 and those of the last infinite."""
    drawn = rng.uniform(-1, 1, (3, 4, 5, 6))
    found = unit(kind((drawn * size).astype(np.float32)))
    expected = drawn / np.linalg.norm(drawn.reshape(3, -1), axis=1)[:, None, None, None]
    assert found.dtype in (np.float32, torch.float32)
    # 1e-38 is 2^-126: what is smaller than it has fewer digits.
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-6)


@BOTH
def test_rows_are_apart_and_zeros_stay(kind: Kind) -> None:
    rows = np.float32([[3, 4], [0, 0], [np.nan, 1], [-1e-20, 0]])
    found = np.asarray(unit(kind(rows)))
    np.testing.assert_allclose(found[[0, 1, 3]], [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    assert np.isnan(found[2]).any()


@BOTH
def test_rows_are_copied_and_made(kind: Kind) -> None:
    first = kind(np.arange(6, dtype=np.float32).reshape(3, 2))
    kept = copied(first)
    assign(kept, first + 10, np.array([True, False, True]))
    np.testing.assert_array_equal(np.asarray(kept), [[10, 11], [2, 3], [14, 15]])
    np.testing.assert_array_equal(np.asarray(first)[0], [0, 1])
    assign(kept, first, np.zeros(3, bool))
    np.testing.assert_array_equal(np.asarray(kept)[1], [2, 3])
    assert (zeros_like(first).dtype, tuple(zeros_like(first).shape)) == (first.dtype, (3, 2))
    made = filled(first, 4, np.nan)
    assert (type(made), made.dtype, tuple(made.shape)) == (type(first), first.dtype, (4, 2))
    assert np.isnan(np.asarray(made)).all()
    assert (as_float64(first).dtype, as_float64(first)[2, 1]) == (np.float64, 5.0)


@BOTH
@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
def test_maps_are_blurred_by_what_lies_inside(kind: Kind, width: float, rng: np.random.Generator) -> None:
    """By scipy: outside is 0, and what a map of ones loses by that is divided out."""
    maps = rng.standard_normal((2, 3, 8, 5)).astype(np.float32)
    found = smoothed(kind(maps), width)
    how: dict[str, Any] = {"mode": "constant", "truncate": 20}
    inside = gaussian_filter(np.ones((8, 5)), width, **how)
    expected = gaussian_filter(maps.astype(float), (0, 0, width, width), **how) / inside
    assert (type(found), found.dtype) == (type(kind(maps)), kind(maps).dtype)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(smoothed(kind(maps), 0)), maps)


@BOTH
def test_nan_in_one_row_stays_there(kind: Kind) -> None:
    maps = np.ones((2, 1, 3, 3), np.float32)
    maps[0, 0, 1, 1] = np.nan
    found = np.asarray(smoothed(kind(maps), 1.0))
    assert np.isnan(found[0]).any()
    np.testing.assert_allclose(found[1], 1, rtol=1e-6)


@BOTH
def test_on_the_host_everything_is_float32_of_numpy(kind: Kind) -> None:
    found = on_host(kind(np.array([1.0, 2.5])))
    assert (type(found), found.dtype, found.tolist()) == (np.ndarray, np.float32, [1.0, 2.5])


def test_a_tensor_with_a_gradient_is_taken_without_it() -> None:
    leaf = torch.ones(2, requires_grad=True)
    assert not copied(leaf).requires_grad
    kept = torch.zeros(2)
    assign(kept, leaf * 2, np.array([True, False]))
    assert kept.tolist() == [2, 0]
    assert not kept.requires_grad
    assert as_float64(leaf * 3).tolist() == [3, 3]
