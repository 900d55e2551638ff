from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.metrics.masks import centres, radii


def box(top: int, bottom: int, left: int, right: int, height: int = 40, width: int = 40) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_centre_of_a_box_is_its_middle() -> None:
    found = centres(np.stack([box(0, 10, 20, 40), box(7, 8, 3, 4)]))
    np.testing.assert_allclose(found, [[30 / 40, 5 / 40], [3.5 / 40, 7.5 / 40]])


def test_lengths_are_in_picture_widths_in_both_directions() -> None:
    found = centres(box(20, 40, 0, 80, height=40, width=80)[None])
    np.testing.assert_allclose(found, [[0.5, 30 / 80]])


def test_the_radius_of_boxes_is_their_formula() -> None:
    """A box of sides a and b has a mean square distance of (a^2 + b^2) / 12, one pixel and the whole picture too."""
    masks = np.stack([box(3, 15, 5, 10), box(7, 8, 3, 4), box(0, 40, 0, 40)])
    expected = np.sqrt([(12**2 + 5**2) / 12, 2 / 12, 2 * 40**2 / 12]) / 40
    np.testing.assert_allclose(radii(masks), expected)


def test_the_radius_is_that_of_the_points_of_all_pixels() -> None:
    mask = np.random.default_rng(0).random((1, 9, 9)) < 0.3
    fine = mask[0].repeat(50, axis=0).repeat(50, axis=1)  # nearly points
    rows, columns = np.nonzero(fine)
    expected = np.sqrt(rows.var() + columns.var()) / 450
    assert radii(mask)[0] == pytest.approx(expected, rel=1e-3)


def test_an_empty_mask_has_neither() -> None:
    masks = np.stack([box(0, 0, 0, 0), box(1, 3, 1, 3)])
    assert np.isnan(centres(masks)).all(axis=1).tolist() == [True, False]
    assert np.isnan(radii(masks)).tolist() == [True, False]
