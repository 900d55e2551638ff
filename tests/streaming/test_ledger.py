from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.streaming.ledger import MOMENTS, PICTURES, STAGES, STATES, Ledger, Unbalanced

REASONS = {state: f"because of {state}" for state in STATES}
STEPS = st.lists(
    st.tuples(st.sampled_from(("receive", "settle", "picture")), st.integers(0, 30), st.sampled_from(STATES[:4])),
    max_size=120,
)


def states_of(lines: list[dict[str, Any]]) -> Counter[str]:
    """What a reader of the file counts: of each ordinal the last line."""
    return Counter(
        {line["ordinal"]: line for line in lines}[ordinal]["state"] for ordinal in {x["ordinal"] for x in lines}
    )


@given(STEPS)
def test_the_books_balance_after_every_step_live_and_in_the_file(steps: list[tuple[str, int, str]]) -> None:
    lines: list[dict[str, Any]] = []
    ledger, expected, pictures = Ledger(lines.append), {}, {}
    for what, number, state in steps:
        if what == "receive":
            ordinal = len(expected)
            ledger.receive(ordinal, f"event {ordinal}", float(ordinal))
            expected[ordinal] = "pending"
        elif what == "settle" and expected.get(number) == "pending":
            ledger.settle(number, state, REASONS[state], picture=True)
            expected[number] = state
            if state == "decoded":
                pictures[number] = "pending"
        elif what == "picture" and pictures.get(number) == "pending":
            pictures[number] = ("drawn", "skipped", "failed")[number % 3]
            ledger.settle_picture(number, pictures[number])
        totals = ledger.totals()
        assert totals.received == len(expected) == sum(totals.states.values())
        assert totals.states == {name: list(expected.values()).count(name) for name in STATES}
        assert totals.pictures == {name: list(pictures.values()).count(name) for name in PICTURES}
        assert totals.balanced
        assert states_of(lines) == Counter(expected.values())
    ledger.close("the session ended")
    totals = ledger.totals()
    assert totals.states["pending"] == totals.pictures["pending"] == 0
    assert totals.balanced
    assert sum(states_of(lines).values()) == len(expected)


def test_a_marker_has_one_state_and_gets_it_once() -> None:
    ledger = Ledger()
    ledger.receive(0, "cat", 1.0)
    ledger.receive(1, "dog", 1.5)
    ledger.settle(0, "decoded", picture=True)
    for state in STATES:
        with pytest.raises(Unbalanced, match="marker 0 is decoded"):
            ledger.settle(0, state)
    ledger.settle(1, "refused", "a gap")
    with pytest.raises(Unbalanced, match="marker 1 is closed"):
        ledger.settle(1, "decoded")
    with pytest.raises(Unbalanced, match="was to become pending"):
        ledger.settle_picture(0, "pending")


@pytest.mark.parametrize("ordinal", [0, 2, -1])
def test_a_marker_that_was_lost_or_came_twice_is_noticed(ordinal: int) -> None:
    ledger = Ledger()
    ledger.receive(0, "cat", 1.0)
    with pytest.raises(Unbalanced, match="1 was to come next"):
        ledger.receive(ordinal, "dog", 2.0)


def test_a_reason_and_the_times_stand_in_the_line() -> None:
    lines: list[dict[str, Any]] = []
    ledger = Ledger(lines.append)
    ledger.receive(0, "cat", 10.01)
    ledger.moment(0, marker=10.0, epoch_end=10.6, ready=10.65)
    ledger.figures(0, sample_age=0.02, offset=-3.5, uncertainty=0.0002)
    ledger.settle(0, "rejected", "channel Oz: 312 µV from peak to peak")
    assert lines[-1] == {
        "ordinal": 0,
        "text": "cat",
        "state": "rejected",
        "reason": "channel Oz: 312 µV from peak to peak",
        "moments": {"arrived": 10.01, "marker": 10.0, "epoch_end": 10.6, "ready": 10.65},
        "sample_age": 0.02,
        "offset": -3.5,
        "uncertainty": 0.0002,
    }


def test_a_giant_marker_is_shown_in_short() -> None:
    ledger = Ledger()
    assert len(ledger.receive(0, "x" * 10**6, 0.0).text) == 200


def test_percentiles_are_those_of_the_sorted_durations(rng: np.random.Generator) -> None:
    ledger, spent = Ledger(), rng.uniform(0, 2, 137)
    for ordinal, seconds in enumerate(spent):
        ledger.receive(ordinal, "cat", 5.0)
        ledger.moment(ordinal, decode_start=1.0, decoded=1.0 + seconds)
        ledger.settle(ordinal, "decoded")
    found = ledger.percentiles()
    assert set(found) == {"decode"}
    ordered = np.sort((1.0 + spent) - 1.0)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        # Nearest rank: the smallest value that so large a share does not exceed.
        assert found["decode"][name] == ordered[[np.mean(ordered <= value) >= share for value in ordered].index(True)]
    assert found["decode"]["n"] == 137


def test_a_marker_that_came_after_its_epochs_end_did_not_wait() -> None:
    ledger = Ledger()
    entry = ledger.receive(0, "late", 12.0)
    ledger.moment(0, marker=10.0, epoch_end=10.6, ready=12.1)
    assert entry.durations["epoch"] == 0
    assert math.isclose(entry.durations["delivery"], 1.5)


def test_memory_does_not_grow_with_what_is_closed() -> None:
    ledger = Ledger()
    for ordinal in range(1000):
        ledger.receive(ordinal, "cat", 0.0)
        ledger.settle(ordinal, "skipped", "not among the events")
    assert ledger.pending() == []
    assert len(ledger.recent) == 50
    with pytest.raises(Unbalanced):
        ledger.moment(3, ready=1.0)


def test_stages_run_between_moments_that_there_are() -> None:
    assert {name for ends in STAGES.values() for name in ends} == set(MOMENTS)


def test_an_unknown_moment_is_a_fault() -> None:
    ledger = Ledger()
    ledger.receive(0, "cat", 0.0)
    with pytest.raises(Unbalanced, match="lunch"):
        ledger.moment(0, lunch=12.0)
