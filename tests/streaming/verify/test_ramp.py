"""Numbers that say which sample they are: 20 of 20 epochs exact, and none shifted behind a pause."""

from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.verify.ramp import EVERY, FIRST, N_MARKERS, ramp, shifts


@pytest.mark.parametrize("chunk", [0.0, 0.01, 1.0])
def test_every_epoch_is_exact(chunk: float) -> None:
    found = shifts(ramp(), IntakeSettings(), chunk=chunk)
    assert [shift.marker for shift in found] == list(range(N_MARKERS))
    assert all(shift.exact for shift in found)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_epoch_is_exact_in_drawn_chunks(seed: int) -> None:
    assert all(shift.exact for shift in shifts(ramp(), IntakeSettings(), np.random.default_rng(seed)))


@pytest.mark.parametrize("sample", [FIRST + 10 * EVERY - 51, FIRST + 10 * EVERY + 201])
def test_a_pause_between_epochs_shifts_none(sample: int) -> None:
    """The epochs around it begin 50 samples before their marker and end 200 behind it."""
    assert all(shift.exact for shift in shifts(ramp(pause=(sample, 1.0)), IntakeSettings()))


@pytest.mark.parametrize("sample", [FIRST + 10 * EVERY - 49, FIRST + 10 * EVERY + 200])
@pytest.mark.parametrize("seconds", [0.004, 1.0, 30.0])
def test_an_epoch_that_touches_a_pause_is_refused_and_no_other_is_off(sample: int, seconds: float) -> None:
    found = shifts(ramp(pause=(sample, seconds)), IntakeSettings())
    assert [shift.marker for shift in found if not shift.exact] == [10]
    assert found[10].reason == f"the epoch touches a break in the signal: no sample for {seconds + 0.004:.4g} s"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_jitter_of_the_stamps_moves_an_epoch_by_one_sample_at_most(seed: int) -> None:
    found = shifts(ramp(jitter=0.003, seed=seed), IntakeSettings())
    assert all(shift.samples in (-1, 0, 1) for shift in found)
    assert sum(shift.exact for shift in found) >= N_MARKERS - 1
