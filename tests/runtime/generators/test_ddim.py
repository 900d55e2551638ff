import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.generators.ddim import (
    NoiseTable,
    add_noise,
    clean_estimate,
    ddim_schedule,
    ddim_update,
    step_table,
)
from minddiffuser.runtime.sampling import Sampling

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def theirs(*, offset: int = 1, to_one: bool = False) -> DDIMScheduler:
    return DDIMScheduler(**SD, num_train_timesteps=1000, steps_offset=offset, set_alpha_to_one=to_one)


def alphas() -> np.ndarray:
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


SD14 = NoiseTable(alphas())


def fake_noise(latent, timestep):
    """Roughly what the perfect network finds in unit-variance data (latents keep their scale), and some curvature."""
    return (1 - alphas()[timestep]) ** 0.5 * latent + 0.1 * latent / (1 + latent**2)


@pytest.mark.parametrize(("offset", "to_one"), [(1, False), (0, True)])
@pytest.mark.parametrize(("n_steps", "n_reverse"), [(50, 50), (50, 35), (20, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_chain_agrees_with_diffusers(offset, to_one, n_steps, n_reverse, dtype, rng) -> None:
    scheduler = theirs(offset=offset, to_one=to_one)
    scheduler.set_timesteps(n_steps)
    ours = ddim_schedule(
        NoiseTable(alphas(), offset, to_one), Sampling(n_steps=n_steps, n_noise=None, n_reverse=n_reverse)
    )
    expected_timesteps = scheduler.timesteps[n_steps - n_reverse :]
    np.testing.assert_array_equal(ours.timesteps, expected_timesteps.numpy())
    clean, noise = (torch.from_numpy(rng.standard_normal((2, 4, 4, 4))).to(dtype) for _ in range(2))
    latent = add_noise(clean, noise, ours.noise_keep)
    expected = scheduler.add_noise(clean, noise, expected_timesteps[:1])
    # diffusers holds its table of alphas in float32 whatever the latents are, and a step has some ten roundings of
    # numbers up to the largest latent; what a step makes wrong the later ones keep at its size.
    tolerance = 10 * (1 + n_reverse) * torch.finfo(torch.float32).eps / 2 * float(expected.abs().max())
    torch.testing.assert_close(latent, expected, atol=tolerance, rtol=0)
    for (timestep, keep, keep_next), their_timestep in zip(ours, expected_timesteps, strict=True):
        latent = ddim_update(latent, fake_noise(latent, timestep), keep, keep_next)
        expected = scheduler.step(fake_noise(expected, int(their_timestep)), their_timestep, expected).prev_sample
        torch.testing.assert_close(latent, expected, atol=tolerance, rtol=0)
    assert latent.dtype == dtype


def test_timesteps_of_stable_diffusion() -> None:
    full = ddim_schedule(SD14, Sampling(n_reverse=50, n_noise=None))
    assert full.timesteps.tolist() == list(range(981, 0, -20))
    assert len(full) == 50
    np.testing.assert_array_equal(full.keep[1:], full.keep_next[:-1])
    assert full.keep_next[-1] == alphas()[0]


def test_default_is_the_published_setting_and_none_matches_noise_to_denoising() -> None:
    published, matched = ddim_schedule(SD14), ddim_schedule(SD14, Sampling(n_noise=None))
    assert published.timesteps[0] == 681
    assert len(published) == 35
    assert published.noise_keep == alphas()[741]
    assert matched.noise_keep == matched.keep[0] == alphas()[681]


def test_numpy_and_torch_take_the_same_step_and_keep_float32(rng) -> None:
    latent, noise = (rng.standard_normal((2, 4, 3, 3), dtype=np.float32) for _ in range(2))
    in_numpy = ddim_update(add_noise(latent, noise, 0.3), noise, 0.3, 0.6)
    in_torch = ddim_update(
        add_noise(torch.from_numpy(latent), torch.from_numpy(noise), 0.3), torch.from_numpy(noise), 0.3, 0.6
    )
    assert in_numpy.dtype == np.float32
    # The true noise was given: what is left is the latent noised to 0.6.
    # Ten roundings in float32 of numbers up to the largest.
    close = {"rtol": 0, "atol": 10 * np.finfo(np.float32).eps / 2 * np.abs(in_numpy).max()}
    np.testing.assert_allclose(in_numpy, 0.6**0.5 * latent + 0.4**0.5 * noise, **close)
    np.testing.assert_allclose(in_numpy, in_torch.numpy(), **close)


@pytest.mark.parametrize(
    ("trained", "chosen", "named"),
    [
        (SD14, {"n_steps": 1001}, "n_steps is 1001: choose 1 to 1000"),
        (NoiseTable(alphas(), 20), {"n_noise": 49}, "steps_offset 20"),
        (NoiseTable(alphas(), -1), {}, "steps_offset -1"),
    ],
)
def test_a_grid_outside_the_trained_timesteps_is_refused(trained, chosen, named) -> None:
    with pytest.raises(InputError, match=named):
        ddim_schedule(trained, Sampling(**chosen))


def test_bad_alphas_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 500\)"):
        ddim_schedule(NoiseTable(alphas().reshape(2, 500)))
    for bad in (alphas()[::-1], alphas() * np.nan, alphas() - 1):
        with pytest.raises(InputError, match="alphas_cumprod"):
            ddim_schedule(NoiseTable(bad))


@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(n_steps=10, n_reverse=10, n_noise=None), Sampling(n_reverse=1)]
)
def test_a_row_is_the_ddim_update_with_its_terms_collected(
    sampling: Sampling, set_alpha_to_one: bool, rng: np.random.Generator
) -> None:
    schedule = ddim_schedule(NoiseTable(alphas(), set_alpha_to_one=set_alpha_to_one), sampling)
    table = step_table(schedule)
    assert (table.dtype, table.shape) == (np.float32, (len(schedule), 3))
    latent, noise = rng.standard_normal((2, 50))
    for (timestep, latent_scale, noise_scale), (expected, keep, keep_next) in zip(table, schedule, strict=True):
        assert timestep == expected
        found = np.float64(latent_scale) * latent + np.float64(noise_scale) * noise
        # Coefficients are rounded once, to float32: half a unit in the last place of the larger.
        np.testing.assert_allclose(found, ddim_update(latent, noise, keep, keep_next), atol=1e-6)


def test_timesteps_of_a_thousand_are_exact() -> None:
    table = step_table(ddim_schedule(SD14, Sampling(n_steps=1000, n_noise=None, n_reverse=999)))
    assert (table[:, 0] == np.arange(999, 0, -1)).all()


def test_coefficients_are_rounded_once() -> None:
    """In float32 arithmetic the difference of two nearly equal roots would lose five of its seven digits."""
    schedule = ddim_schedule(SD14, Sampling(n_steps=1000, n_noise=None, n_reverse=999))
    keep, after = (np.asarray(a, np.longdouble) for a in (schedule.keep, schedule.keep_next))
    exact = np.sqrt(1 - after) - np.sqrt(after / keep) * np.sqrt(1 - keep)
    np.testing.assert_allclose(step_table(schedule)[:, 2], exact.astype(float), rtol=1e-7)
    narrow, narrow_after = keep.astype(np.float32), after.astype(np.float32)
    careless = np.sqrt(1 - narrow_after) - np.sqrt(narrow_after / narrow) * np.sqrt(1 - narrow)
    assert np.abs(careless / exact - 1).max() > 1e-5


def test_the_clean_estimate_is_diffusers_own(rng) -> None:
    scheduler = theirs()
    scheduler.set_timesteps(50)
    latent, noise = (torch.from_numpy(rng.standard_normal((2, 4, 4, 4))) for _ in range(2))
    for timestep, keep, _ in ddim_schedule(SD14):
        expected = scheduler.step(noise, timestep, latent).pred_original_sample
        # Their alpha is a float32 product of `timestep` factors, off by at most that many halves of a unit in the last
        # place; it enters as the roots of itself and of 1 - itself.
        off = (timestep + 2) * torch.finfo(torch.float32).eps / 2
        tolerance = off * float(expected.abs().max() + noise.abs().max() / (keep * (1 - keep)) ** 0.5)
        torch.testing.assert_close(clean_estimate(latent, noise, keep), expected, atol=tolerance, rtol=0)
