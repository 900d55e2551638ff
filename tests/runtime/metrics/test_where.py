from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.metrics import METRICS
from minddiffuser.runtime.metrics.where import overlap, place, size

SIDE = 60


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[:, top : top + height, left : left + width] = True
    return mask


EMPTY = box(0, 0, 0, 0)
THING = box(12, 6, 12, 12)
WHERE = {"place": place, "size": size, "overlap": overlap}


def test_place_is_the_way_from_centre_to_centre() -> None:
    moved = box(12 + 8, 6 + 15, 12, 12)
    assert place(THING, moved) == pytest.approx(17 / SIDE)
    assert place(moved, THING) == pytest.approx(17 / SIDE)
    larger = box(6, 0, 24, 24)  # about the same centre
    assert place(THING, larger) == pytest.approx(0)


def test_size_is_the_same_for_so_many_times_larger_and_smaller() -> None:
    half, twice = box(30, 30, 6, 6), box(0, 0, 24, 24)
    assert size(THING, half) == pytest.approx(np.log(2))
    assert size(THING, twice) == pytest.approx(np.log(2))
    assert size(THING, box(40, 40, 12, 12)) == pytest.approx(0)


def test_size_ends_at_four_times() -> None:
    assert size(box(0, 0, 4, 4), box(0, 0, 16, 16)) == pytest.approx(np.log(4))
    assert size(box(0, 0, 1, 1), box(0, 0, 60, 60)) == pytest.approx(np.log(4))
    assert size(box(0, 0, 4, 4), box(0, 0, 15, 15)) < np.log(4)


def test_overlap_is_what_they_share() -> None:
    assert overlap(THING, box(12, 12, 12, 12)) == pytest.approx(72 / 216)
    assert overlap(THING, box(12, 6, 6, 12)) == pytest.approx(1 / 2)
    assert overlap(THING, box(40, 40, 12, 12)) == 0


@pytest.mark.parametrize(("one", "other"), [(THING, EMPTY), (EMPTY, THING), (EMPTY, EMPTY)])
@pytest.mark.parametrize("name", WHERE)
def test_what_is_not_found_gets_the_worst_that_there_can_be(name: str, one: np.ndarray, other: np.ndarray) -> None:
    metric = METRICS[name]
    worst = metric.range[0 if metric.better == "higher" else 1]
    assert metric(one, other, ()) == pytest.approx(worst)


def test_no_two_things_are_farther_apart_than_one_that_is_not_found() -> None:
    corners = place(box(0, 0, 1, 1), box(SIDE - 1, SIDE - 1, 1, 1))
    assert 0.95 * place(THING, EMPTY) < corners < place(THING, EMPTY)
