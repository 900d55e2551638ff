from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.runtime.decoders.belonging import Decoded
from minddiffuser.streaming.generation.draw import draw
from minddiffuser.streaming.generation.newest import Newest
from minddiffuser.streaming.generation.plan import Plan
from minddiffuser.streaming.generation.worker import (
    DrawStarted,
    DuePicture,
    FirstPicture,
    Grew,
    Job,
    LastPicture,
    NotDrawn,
    Painter,
)


class Desk:
    """A painter whose clock and whose beginnings a test moves: each frame lasts a second."""

    def __init__(self, backend: Backend[Any], plan: Plan, capacity: int = 3) -> None:
        self.time = 0.0
        self.found: list[Any] = []
        self.begin = threading.Event()
        self.asked: list[float | None] = []
        self.on_start: Callable[[int], None] = lambda _ordinal: None
        self._plan = plan
        self.painter = Painter(backend, Newest(capacity), self.plan_for, seed=42, post=self.found.append, now=self.now)

    def now(self) -> float:
        self.time += 1.0
        return self.time

    def plan_for(self, seconds: float | None) -> Plan:
        self.asked.append(seconds)
        assert self.begin.wait(60)
        self.on_start(len(self.asked))
        return self._plan


def of(messages: list[Any], kind: type) -> list[int]:
    return [message.ordinal for message in messages if isinstance(message, kind)]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never happened")


def test_the_newest_is_drawn_and_the_others_are_named(
    backend: Backend[Any], features: list[Decoded], plan: Plan
) -> None:
    desk = Desk(backend, replace(plan, refine=None), capacity=2)
    desk.painter.put(Job(ordinal=0, trial_id="s/0", features=features[0]))
    wait_for(lambda: desk.asked != [])  # it is being drawn
    for ordinal in range(1, 6):
        desk.painter.put(Job(ordinal=ordinal, trial_id=f"s/{ordinal}", features=features[ordinal]))
    desk.begin.set()
    desk.painter.close()
    found = desk.found
    assert of(found, NotDrawn) == [1, 2, 3]
    assert {message.reason for message in found if isinstance(message, NotDrawn)} == {"newer ones came before its turn"}
    assert of(found, LastPicture) == [0, 5, 4]
    for ordinal in (0, 4, 5):
        last = next(m for m in found if isinstance(m, LastPicture) and m.ordinal == ordinal)
        alone = draw(backend, features[ordinal], f"s/{ordinal}", replace(plan, refine=None), 42, lambda _frame: None)
        np.testing.assert_array_equal(last.drawn.image, alone.image)


def test_a_picture_has_until_its_deadline_and_goes_on_while_nothing_newer_waits(
    backend: Backend[Any], features: list[Decoded], plan: Plan
) -> None:
    desk = Desk(backend, replace(plan, most_candidates=9))
    desk.begin.set()
    # The clock moves by one at each look: due in the middle of the second candidate.
    desk.painter.put(Job(ordinal=0, trial_id="s/0", features=features[0], due=9.5))
    wait_for(lambda: of(desk.found, LastPicture) == [0])
    desk.painter.close()
    found = desk.found
    assert of(found, DuePicture) == [0]
    due = next(message for message in found if isinstance(message, DuePicture))
    last = next(message for message in found if isinstance(message, LastPicture))
    assert not due.finished
    assert due.at <= 9.5 < due.at + 2  # in time, and another step would not have been
    assert due.n_frames < last.drawn.n_frames
    assert isinstance(found[0], DrawStarted)
    assert isinstance(found[1], FirstPicture)
    kept = [m.frame for m in found if isinstance(m, Grew) and m.frame.kept and m.frame.number <= due.n_frames]
    np.testing.assert_array_equal(due.image, kept[-1].image if kept else found[1].image)


def test_a_newer_one_ends_a_picture_that_is_due_and_not_before(
    backend: Backend[Any], features: list[Decoded], plan: Plan
) -> None:
    desk = Desk(backend, replace(plan, most_candidates=9))

    def newer(call: int) -> None:
        if call == 1:
            desk.painter.put(Job(ordinal=1, trial_id="s/1", features=features[1], due=1e9))

    desk.on_start = newer
    desk.begin.set()
    desk.painter.put(Job(ordinal=0, trial_id="s/0", features=features[0], due=12.5))
    wait_for(lambda: len(desk.asked) == 2)
    desk.painter.close()
    found = desk.found
    first = [m for m in found if isinstance(m, DuePicture | LastPicture) and m.ordinal == 0]
    assert isinstance(first[0], DuePicture)
    assert isinstance(first[1], LastPicture)
    assert first[0].at <= 12.5 < first[0].at + 2
    assert first[0].n_frames == first[1].drawn.n_frames
    second = [m for m in found if isinstance(m, DuePicture) and m.ordinal == 1]
    assert second[0].finished


def test_what_comes_too_late_is_skipped_by_name(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    desk = Desk(backend, plan)
    desk.begin.set()
    desk.painter.put(Job(ordinal=0, trial_id="s/0", features=features[0], due=0.5))
    desk.painter.close()
    (only,) = desk.found
    assert isinstance(only, NotDrawn)
    assert (only.state, only.reason) == ("skipped", "its deadline had passed when its turn came")


def test_ended_at_once_every_picture_has_a_state(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    desk = Desk(backend, replace(plan, most_candidates=9))
    desk.painter.put(Job(ordinal=0, trial_id="s/0", features=features[0]))
    wait_for(lambda: desk.asked != [])
    desk.painter.put(Job(ordinal=1, trial_id="s/1", features=features[1]))
    threading.Timer(0.05, desk.begin.set).start()
    desk.painter.stop()
    desk.painter.close()
    found = desk.found
    assert of(found, LastPicture) == [0]
    assert of(found, DuePicture) == [0]
    assert next(m for m in found if isinstance(m, LastPicture)).drawn.n_frames == 1
    assert [(m.ordinal, m.reason) for m in found if isinstance(m, NotDrawn)] == [
        (1, "the session ended before its turn")
    ]
    desk.painter.put(Job(ordinal=2, trial_id="s/2", features=features[2]))
    assert of(desk.found, NotDrawn) == [1, 2]


def test_a_drawing_that_fails_costs_one_picture(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    desk = Desk(backend, replace(plan, refine=None))
    desk.begin.set()
    broken = replace(features[0], context=features[0].context[:, :3])
    desk.painter.put(Job(ordinal=0, trial_id="s/0", features=broken))
    desk.painter.put(Job(ordinal=1, trial_id="s/1", features=features[1]))
    desk.painter.close()
    found = desk.found
    failed = [m for m in found if isinstance(m, NotDrawn)]
    assert [(m.ordinal, m.state) for m in failed] == [(0, "failed")]
    assert "context" in failed[0].reason
    assert of(found, LastPicture) == [1]
