"""What is said of a clock, with measurements given; and the thread that takes them, over a clock of a test's own."""

import threading

import pytest

from minddiffuser.streaming.lsl.inlet import LostStream, NoAnswer
from minddiffuser.streaming.lsl.offsets import OffsetKeeper, OffsetThread
from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, Notice


def offset(at: float, value: float, uncertainty: float = 2e-4) -> ClockOffset:
    return ClockOffset(stream=SIGNAL, at=at, offset=value, uncertainty=uncertainty)


def test_each_measurement_is_given_once() -> None:
    keeper = OffsetKeeper(SIGNAL, "Amp")
    assert keeper.measured(0.5, 2e-4, remote=9.4, at=10.0) == [offset(10.0, 0.5)]
    assert keeper.measured(0.5, 2e-4, remote=9.4, at=12.0) == []  # liblsl has no new one
    assert keeper.measured(0.5001, 2e-4, remote=11.4, at=12.0) == [offset(12.0, 0.5001)]


@pytest.mark.parametrize(("step", "said"), [(0.0049, 0), (-0.0049, 0), (0.0055, 1), (-1.0, 1)])
def test_a_step_of_the_clock_is_said(step: float, said: int) -> None:
    keeper = OffsetKeeper(SIGNAL, "Amp")
    keeper.measured(0.5, 2e-4, remote=9.4, at=10.0)
    given, *notices = keeper.measured(0.5 + step, 2e-4, remote=11.4 - step, at=12.0)
    assert given == offset(12.0, 0.5 + step)
    assert [(one.kind, f"{step * 1e3:+.1f} ms" in one.text) for one in notices if isinstance(one, Notice)] == [
        ("clock", True)
    ] * said


def test_a_clock_that_stops_answering_is_said_once_and_again_when_it_answers() -> None:
    keeper = OffsetKeeper(SIGNAL, "Amp")
    assert [one.kind for one in keeper.failed(5.0) if isinstance(one, Notice)] == ["clock"]
    assert keeper.failed(10.0) == []
    again = keeper.measured(0.5, 2e-4, remote=11.5, at=12.0)
    assert [one.kind if isinstance(one, Notice) else one for one in again] == [offset(12.0, 0.5), "clock"]
    # liblsl repeats the last offset while nothing answers: 20 s later that is no measurement.
    old = keeper.measured(0.5, 2e-4, remote=11.5, at=32.0)
    assert [one.kind for one in old if isinstance(one, Notice)] == ["clock"]
    assert not any(isinstance(one, ClockOffset) for one in old)


class Clock:
    """Gives what it was told to, then says that it gave everything."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.empty = threading.Event()

    def clock_offset(self, timeout: float) -> tuple[float, float, float]:
        if not self._answers:
            self.empty.set()
            raise LostStream("gone")
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]


def test_the_thread_takes_measurements_until_the_stream_is_gone() -> None:
    clock = Clock(NoAnswer("no"), (0.5, 2e-4, 1.0), (0.6, 2e-4, 3.0))
    thread = OffsetThread(clock, OffsetKeeper(MARKERS, "Amp"), now=lambda: 3.6, every=0.001)
    assert thread.wait(10.0)
    assert clock.empty.wait(10.0)
    offsets = [one.offset for one in thread.take() if isinstance(one, ClockOffset)]
    assert offsets == [0.5, 0.6]
    assert thread.take() == []
