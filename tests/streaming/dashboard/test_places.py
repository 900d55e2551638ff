"""The projection of sensors on the head, against its formula."""

import math

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.streaming.dashboard.places import places


def at(*positions: tuple[float, float, float] | None) -> list[tuple[float, float] | None]:
    return list(places([Channel(name=f"c{k}", type="eeg", position=p) for k, p in enumerate(positions)]))


def test_vertex_ears_nose_and_between() -> None:
    up, right, nose, half = at((0, 0, 0.1), (0.1, 0, 0), (0, 0.09, 0), (-0.05, 0, 0.05))
    assert up == pytest.approx((0, 0))
    assert right == pytest.approx((1, 0))
    assert nose == pytest.approx((0, 1))
    assert half == pytest.approx((-0.5, 0))  # 45 of 90 degrees


def test_distance_from_the_middle_is_of_no_account() -> None:
    one, two = at((0.03, 0.04, 0.05), (0.06, 0.08, 0.10))
    assert one == pytest.approx(two)
    assert one == pytest.approx((0.6 * 0.5, 0.8 * 0.5))


def test_a_helmet_that_reaches_lower_is_drawn_within_the_rim() -> None:
    lowest, right = at((0, -0.1, -0.1 * math.tan(math.radians(30))), (0.1, 0, 0))  # 120 and 90 degrees
    assert lowest == pytest.approx((0, -1))
    assert right == pytest.approx((0.75, 0))


def test_the_middle_of_a_cap_lies_above_the_ears(rng: np.random.Generator) -> None:
    """A cap on a sphere around (0, 0, 4 cm), in head coordinates: the ring that is level with its middle is the rim."""
    azimuth, angle = rng.uniform(0, 2 * np.pi, 40), rng.uniform(0, np.pi / 2, 40)
    angle[0] = np.pi / 2
    x, y = np.sin(angle) * np.sin(azimuth), np.sin(angle) * np.cos(azimuth)
    found = at(*[(0.09 * a, 0.09 * b, 0.04 + 0.09 * c) for a, b, c in zip(x, y, np.cos(angle), strict=True)])
    expected = np.stack([angle * np.sin(azimuth), angle * np.cos(azimuth)], axis=1) / (np.pi / 2)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_what_is_not_known_stays_so() -> None:
    assert at(None, (0, 0, 0), (0, 0, 1)) == [None, None, (0.0, 0.0)]
    assert at() == []
