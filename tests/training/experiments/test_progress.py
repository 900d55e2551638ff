"""The time that is left over all steps: by the steps of the same kind that are finished."""

import io

from minddiffuser.training.experiments.progress import Overall


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_steps_take_what_others_of_their_kind_took() -> None:
    clock, stream = Clock(), io.StringIO()
    overall = Overall("rois", ["fit", "run", "measure", "fit", "run"], stream=stream, clock=clock)
    overall.begin("one, fit all")
    assert overall.seconds_left(clock.now) is None
    clock.now = 20.0
    overall.now("one, fit all: selection 10 %", 0.25)
    assert overall.seconds_left(clock.now) == 80 / 4 + 80 / 4 * 0.2 + 80 + 80 / 4 + 60
    clock.now = 100.0
    overall.end()
    overall.begin("one, run all")
    assert overall.seconds_left(clock.now) == 25 + 5 + 100 + 25  # a run is taken to last a quarter of a fit
    clock.now = 110.0
    assert overall.seconds_left(clock.now) == 145
    clock.now = 150.0
    overall.end()
    assert overall.seconds_left(clock.now) == 50 + 100 + (100 / 4 + 50) / 2 * 0.2
    assert "2/5 steps" in overall.line(clock.now)


def test_a_step_that_lasts_longer_than_others_is_measured_by_itself() -> None:
    clock = Clock()
    overall = Overall("iterations", ["run"], [("run", 10.0)], stream=io.StringIO(), clock=clock)
    overall.begin("one, run adam")
    clock.now = 30.0
    overall.now("one, run adam: reconstructing", 0.25)
    assert overall.seconds_left(clock.now) == 90


def test_steps_of_before_count() -> None:
    overall = Overall("rois", ["run"], [("fit", 80.0), ("run", 7.0)], stream=io.StringIO(), clock=Clock())
    overall.begin("one, run all")
    assert overall.line(0.0) == "experiment rois: 2/3 steps, about 7 s left, one, run all"
    overall.end()
    assert overall.line(9.0) == "experiment rois: 3/3 steps, took 9 s"
