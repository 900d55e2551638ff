import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.schedule import add_noise, ddim_schedule, ddim_update

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def theirs(*, offset: int = 1, to_one: bool = False) -> DDIMScheduler:
    return DDIMScheduler(**SD, num_train_timesteps=1000, steps_offset=offset, set_alpha_to_one=to_one)


def alphas() -> np.ndarray:
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


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
        alphas(), n_steps=n_steps, n_noise=None, n_reverse=n_reverse, steps_offset=offset, set_alpha_to_one=to_one
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
    full = ddim_schedule(alphas(), n_reverse=50, n_noise=None)
    assert full.timesteps.tolist() == list(range(981, 0, -20))
    assert len(full) == 50
    np.testing.assert_array_equal(full.keep[1:], full.keep_next[:-1])
    assert full.keep_next[-1] == alphas()[0]


def test_default_is_the_published_setting_and_none_matches_noise_to_denoising() -> None:
    published, matched = ddim_schedule(alphas()), ddim_schedule(alphas(), n_noise=None)
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
    ("change", "named"),
    [
        ({"n_steps": 0}, "n_steps"),
        ({"n_steps": 1001}, "n_steps"),
        ({"n_reverse": 0}, "n_reverse"),
        ({"n_reverse": 51}, "n_reverse"),
        ({"n_noise": 50}, "n_noise"),
        ({"n_noise": -1}, "n_noise"),
        ({"n_noise": 49, "steps_offset": 20}, "steps_offset"),
        ({"steps_offset": -1}, "steps_offset"),
    ],
)
def test_a_step_outside_the_grid_is_refused(change, named) -> None:
    with pytest.raises(InputError, match=named):
        ddim_schedule(alphas(), **change)


def test_bad_alphas_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 500\)"):
        ddim_schedule(alphas().reshape(2, 500))
    for bad in (alphas()[::-1], alphas() * np.nan, alphas() - 1):
        with pytest.raises(InputError, match="alphas_cumprod"):
            ddim_schedule(bad)
