import numpy as np

from minddiffuser.runtime.generators.noise import fresh_noise, trial_noise


def test_noise_belongs_to_the_trial_and_not_to_its_batch() -> None:
    together, alone = trial_noise(3, [5, 9, 2], (4, 6, 6)), trial_noise(3, [9], (4, 6, 6))
    assert together.shape == (3, 4, 6, 6)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together[1], alone[0])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(alone, trial_noise(4, [9], (4, 6, 6)))


def test_noise_is_standard_normal() -> None:
    noise = trial_noise(0, range(20), (4, 16, 16))
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03


def test_fresh_noise_replays_and_begins_at_the_fixed_noise() -> None:
    at = fresh_noise(3, [5, 9], (4, 6, 6))
    np.testing.assert_array_equal(at(0), trial_noise(3, [5, 9], (4, 6, 6)))
    np.testing.assert_array_equal(at(2), fresh_noise(3, [5, 9], (4, 6, 6))(2))
    assert not np.array_equal(at(1), at(2))
    np.testing.assert_array_equal(at(2)[1:], fresh_noise(3, [9], (4, 6, 6))(2))
