"""The projection of sensors on the head, against its formula."""

import math

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


def test_what_is_not_known_stays_so() -> None:
    assert at(None, (0, 0, 0), (0, 0, 1)) == [None, None, (0.0, 0.0)]
    assert at() == []
