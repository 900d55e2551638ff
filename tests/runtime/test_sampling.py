import numpy as np
import pytest

from minddiffuser.runtime.sampling import step_table
from minddiffuser.runtime.schedule import ddim_schedule, ddim_update

ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize("steps", [{}, {"n_steps": 10, "n_reverse": 10, "n_noise": None}, {"n_reverse": 1}])
def test_a_row_is_the_ddim_update_with_its_terms_collected(
    steps: dict[str, int], set_alpha_to_one: bool, rng: np.random.Generator
) -> None:
    schedule = ddim_schedule(ALPHAS, **steps, set_alpha_to_one=set_alpha_to_one)
    table = step_table(schedule)
    assert (table.dtype, table.shape) == (np.float32, (len(schedule), 3))
    latent, noise = rng.standard_normal((2, 50))
    for (timestep, latent_scale, noise_scale), (expected, keep, keep_next) in zip(table, schedule, strict=True):
        assert timestep == expected
        found = np.float64(latent_scale) * latent + np.float64(noise_scale) * noise
        # Coefficients are rounded once, to float32: half a unit in the last place of the larger.
        np.testing.assert_allclose(found, ddim_update(latent, noise, keep, keep_next), atol=1e-6)


def test_timesteps_of_a_thousand_are_exact() -> None:
    table = step_table(ddim_schedule(ALPHAS, n_steps=1000, n_noise=None, n_reverse=999, steps_offset=1))
    assert (table[:, 0] == np.arange(999, 0, -1)).all()


def test_coefficients_are_rounded_once() -> None:
    """In float32 arithmetic the difference of two nearly equal roots would lose five of its seven digits."""
    schedule = ddim_schedule(ALPHAS, n_steps=1000, n_noise=None, n_reverse=999, steps_offset=1)
    keep, after = (np.asarray(a, np.longdouble) for a in (schedule.keep, schedule.keep_next))
    exact = np.sqrt(1 - after) - np.sqrt(after / keep) * np.sqrt(1 - keep)
    np.testing.assert_allclose(step_table(schedule)[:, 2], exact.astype(float), rtol=1e-7)
    narrow, narrow_after = keep.astype(np.float32), after.astype(np.float32)
    careless = np.sqrt(1 - narrow_after) - np.sqrt(narrow_after / narrow) * np.sqrt(1 - narrow)
    assert np.abs(careless / exact - 1).max() > 1e-5
