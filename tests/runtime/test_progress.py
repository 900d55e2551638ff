"""Progress under a clock that the test turns."""

from __future__ import annotations

import io

import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.progress import Phases, Progress, duration


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_plain_lines_come_every_five_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(20, "stage 1", stream=stream, unit="images", clock=clock) as progress:
        for done in range(1, 13):
            clock.now += 1
            progress(done)
    assert stream.getvalue().splitlines() == [
        "stage 1: 5/20 (25 %), 1.0 images/s, 15 s left",
        "stage 1: 10/20 (50 %), 1.0 images/s, 10 s left",
        "stage 1: 12/20 (60 %), 1.0 images/s, 8 s left",
    ]


def test_last_line_is_written_once(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(2, "x", stream=stream, clock=clock) as progress:
        clock.now += 6
        progress(2)
        progress.close()
        progress(1)
    assert stream.getvalue() == "x: 2/2 (100 %), 20.0/min, took 6 s\n"


def test_terminal_line_is_rewritten_in_place(clock: Clock) -> None:
    stream = Terminal()
    with Progress(1000, "fit", stream=stream, clock=clock) as progress:
        progress(0)
        clock.now += 0.05
        progress(1)  # too soon after the first
        clock.now += 0.06
        progress(100)
        clock.now += 0.89
        progress(1000)
    text = stream.getvalue()
    assert text.count("\r") == 3
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "1/1000 " not in text
    last, before = text.rstrip("\n").split("\r")[-1], text.split("\r")[-2]
    assert last.startswith("fit: 1000/1000 (100 %), 1000.0/s, took 1 s")
    assert len(last) >= len(before)  # what was longer is wiped


def test_resumed_steps_do_not_count_as_speed(clock: Clock) -> None:
    progress = Progress(100, "x", stream=io.StringIO(), done=80, clock=clock)
    progress(82)
    assert progress.line(clock.now + 4) == "x: 82/100 (82 %), 30.0/min, 36 s left"


def test_nothing_done_yet_promises_nothing(clock: Clock) -> None:
    progress = Progress(3, "x", stream=io.StringIO(), clock=clock)
    assert progress.line(clock.now + 9) == "x: 0/3 (0 %)"
    empty = Progress(0, "y", stream=io.StringIO(), clock=clock)
    assert empty.line(clock.now) == "y: 0/0, took 0 s"


def test_broken_stream_does_not_stop_the_work(clock: Clock) -> None:
    stream = io.StringIO()
    stream.close()
    with Progress(2, "x", stream=stream, clock=clock) as progress:
        clock.now += 10
        progress(1)
        clock.now += 10
        progress(2)
    assert progress.done == 2


def test_phases_follow_each_other(clock: Clock) -> None:
    stream = io.StringIO()
    with Phases(stream=stream, clock=clock) as phases:
        for label in ("draw", "fit"):
            phases(label, 0, 2)
            clock.now += 2
            phases(label, 1, 2)
            clock.now += 2
            phases(label, 2, 2)
    assert stream.getvalue().splitlines() == [
        "draw: 2/2 (100 %), 30.0/min, took 4 s",
        "fit: 2/2 (100 %), 30.0/min, took 4 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7640, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_negative_counts_are_refused() -> None:
    with pytest.raises(InputError, match="-1"):
        Progress(-1, "x")
