"""Progress of a run under a clock that the test turns."""

import io
from collections.abc import Iterator

import pytest

from minddiffuser.runtime.run.ticker import Ticker

N_IMAGES, BATCH, STEPS = 8, 2, 61
PHASES = {"decode": 1, "stage 1": 1, "stage 2": STEPS, "shuffled": STEPS, "oracle": STEPS}
# Seconds of one step of one image: a rendering is no iteration, and one control is dearer than the other.
COSTS = {"decode": 2.0, "stage 1": 9.0, "stage 2": 3.0, "shuffled": 3.3, "oracle": 3.0}


def test_the_line_speaks_of_images_rate_and_time_left() -> None:
    now = [100.0]
    stream = io.StringIO()
    ticker = Ticker(4, 2, {"stage 1": 2, "stage 2": 8}, stream=stream, clock=lambda: now[0])
    ticker.images(2)
    for phase, steps in (("stage 1", 2), ("stage 2", 3)):
        for step in range(steps):
            now[0] += 2.0
            ticker.step(2, phase, f"{phase} {step + 1}/8")
    # 5 of 10 steps of 2 images took 10 s: one image's worth.
    assert ticker.line(now[0]) == "reconstructing: 3/4 images (75 %), 0.1 images/s, 10 s left, stage 2 3/8"
    now[0] = 120.0
    ticker.images(4)
    ticker.close()
    assert stream.getvalue().splitlines()[-1] == "reconstructing: 4/4 images (100 %), 0.1 images/s, took 20 s"


def work(n_finished: int = 0, warm_up: float = 1.0) -> Iterator[tuple[Ticker, str, float]]:
    """Runs batch by batch: the ticker and the phase after every step, and how long the rest will really take."""
    now, first = [0.0], True
    ticker = Ticker(N_IMAGES, n_finished, PHASES, stream=io.StringIO(), clock=lambda: now[0])
    ticker.images(n_finished)
    left = (N_IMAGES - n_finished) * sum(steps * COSTS[phase] for phase, steps in PHASES.items())
    for done in range(n_finished, N_IMAGES, BATCH):
        for phase, steps in PHASES.items():
            for step in range(steps):
                spent = BATCH * COSTS[phase]
                left -= spent
                now[0] += spent * (warm_up if first and phase == "stage 2" else 1)
                first = first and phase != "stage 2"
                ticker.step(BATCH, phase, str(step))
                yield ticker, phase, left
        ticker.images(done + BATCH)


@pytest.mark.parametrize("n_finished", [0, 4])
@pytest.mark.parametrize("warm_up", [1.0, 20.0])
def test_the_time_left_is_steady_from_the_second_iteration_on(n_finished: int, warm_up: float) -> None:
    """What is not measured yet is taken to cost what a measured refinement does: wrong by their ratio at most."""
    worst = max(COSTS["shuffled"] / COSTS["stage 2"], 1)
    message = [(ticker.seconds_left(ticker._clock()), left) for ticker, _, left in work(n_finished, warm_up)]
    known = [estimate is not None for estimate, _ in message]
    # Decoding, stage 1, and the first iteration, which warms up; from then on there is always an estimate.
    assert known == [False] * 3 + [True] * (len(message) - 3)
    for estimate, left in message[3:]:
        assert estimate is not None
        assert left / worst - 1e-6 <= estimate <= left * worst + 1e-6


def test_the_time_left_is_exact_once_every_phase_was_measured() -> None:
    for ticker, phase, left in work():
        if ticker.done > N_IMAGES // 4 * sum(PHASES.values()) and phase == "oracle":
            assert ticker.seconds_left(ticker._clock()) == pytest.approx(left, abs=1e-6)


def test_trials_that_stop_early_shorten_the_rest() -> None:
    """Each batch ends after 11 of 61 iterations: after the first one, the rest is expected to do the same."""
    now = [0.0]
    ticker = Ticker(4, 0, {"stage 1": 1, "stage 2": STEPS}, stream=io.StringIO(), clock=lambda: now[0])
    ticker.images(0)
    for _ in range(11 + 1):
        now[0] += 2.0
        ticker.step(2, "stage 2" if now[0] > 2 else "stage 1", "")
    ticker.images(2)
    assert ticker.seconds_left(now[0]) == pytest.approx(2 * (1 + 11) * 1.0)


def test_time_passes_between_two_steps() -> None:
    ticker, _, _ = next(state for n, state in enumerate(work()) if n == 100)
    there = ticker.seconds_left(ticker._clock())
    assert there is not None
    assert ticker.seconds_left(ticker._clock() + 7.0) == pytest.approx(there - 7.0)
