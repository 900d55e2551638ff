"""When the next epoch's last sample is expected, so that a source may rest until then."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import pytest


def test_it_is_known_from_the_marker_on_and_over_with_the_epoch(feed: Any) -> None:
    one = feed()
    assert one.intake.due() is None  # no clock is known
    one.clocks()
    one.samples(0, 100)
    assert one.intake.due() is None
    one.marker(105)
    last = 1050.0 + 1.05 + 0.3
    assert one.intake.due() == pytest.approx(last)  # by the clocks, before its sample has come
    one.samples(100, 120)
    assert one.intake.due() == pytest.approx(last)  # by its sample
    one.marker(103)
    assert one.intake.due() == pytest.approx(last - 0.02)
    one.samples(120, 134)
    assert one.intake.due() == pytest.approx(last)
    one.samples(134, 136)
    assert len(one.accepted) == 2
    assert one.intake.due() is None


def test_of_epochs_that_end_with_their_markers_nothing_is_foreseen(feed: Any) -> None:
    one = feed(steps=({"name": "epoch", "tmin": -0.1, "tmax": 0.02},))
    one.clocks()
    assert one.intake.due() == -math.inf


def test_markers_whose_epochs_came_are_forgotten_where_nobody_asks_what_is_due(feed: Any) -> None:
    """A replay in chunks that are each worked on at once: an hour of it must not hold more than a minute."""
    one, held = feed(), []
    one.clocks()
    one.samples(0, 100)
    tracemalloc.start()
    try:
        for number in range(900):
            one.marker(105 + 50 * number)
            one.samples(100 + 50 * number, 150 + 50 * number)
            one.events.clear()
            if number in (500, 899):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 399 * 24  # a number for each would be more
