"""The steerable pyramid against what defines it: a tight frame, quadrature, known gratings, turned pictures."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from minddiffuser.training.simulate.brains.pyramid import pyramid, pyramid_filters

SIDE = 64
FRAMES = [(1, 2), (3, 4), (4, 4), (4, 6), (2, 5)]


def opposite(response: np.ndarray) -> np.ndarray:
    """The response at the negative of each frequency."""
    return np.roll(response[..., ::-1, ::-1], 1, axis=(-2, -1))


def grating(cycles_per_px: float, angle: float, phase: float = 0.0) -> np.ndarray:
    """A cosine whose frequency vector has this angle, x to the right, y downwards."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.cos(2 * np.pi * cycles_per_px * (x * np.cos(angle) + y * np.sin(angle)) + phase).astype(np.float32)


def energy(image: np.ndarray, n_scales: int = 4, n_orientations: int = 4) -> np.ndarray:
    bands = pyramid_filters(len(image), n_scales, n_orientations)[0]
    return np.abs(pyramid(image[None], bands)[0]) ** 2


@pytest.mark.parametrize(("n_scales", "n_orientations"), FRAMES)
@pytest.mark.parametrize("side", [SIDE, 33])
def test_squared_responses_sum_to_one_at_every_frequency(n_scales: int, n_orientations: int, side: int) -> None:
    bands, high, low = pyramid_filters(side, n_scales, n_orientations)
    oriented = (bands**2).sum(axis=(0, 1))
    # A band has one of the two lobes of a real filter; a real picture's frequencies come in pairs.
    np.testing.assert_allclose((oriented + opposite(oriented)) / 2 + high**2 + low**2, 1, atol=1e-12)


@pytest.mark.parametrize(("n_scales", "n_orientations"), FRAMES)
def test_parseval(n_scales: int, n_orientations: int, rng: np.random.Generator) -> None:
    image = rng.standard_normal((2, SIDE, SIDE), dtype=np.float32)
    bands, high, low = pyramid_filters(SIDE, n_scales, n_orientations)
    parts = (np.abs(pyramid(image, bands)) ** 2).sum(axis=(1, 2, 3, 4))
    for residual in (high, low):
        parts += (np.abs(pyramid(image, residual[None, None])) ** 2).sum(axis=(1, 2, 3, 4))
    # float32: sums of squares of rounded coefficients.
    np.testing.assert_allclose(parts, (image.astype(np.float64) ** 2).sum(axis=(1, 2)), rtol=1e-5)


def test_a_picture_comes_back_from_its_bands(rng: np.random.Generator) -> None:
    image = rng.standard_normal((1, SIDE, SIDE), dtype=np.float32)
    bands, high, low = pyramid_filters(SIDE, 4, 4)
    back = np.zeros((SIDE, SIDE))
    for filters in (bands, high[None, None], low[None, None]):
        spectra = np.fft.fft2(pyramid(image, filters)[0].astype(np.complex128))
        back += np.fft.ifft2((spectra * filters).sum(axis=(0, 1))).real
    np.testing.assert_allclose(back, image[0], atol=1e-5)


def test_no_band_sees_a_constant_or_the_mean() -> None:
    assert pyramid_filters(SIDE, 4, 4)[0][..., 0, 0].max() < 1e-15  # cos(pi/2), rounded
    assert energy(np.full((SIDE, SIDE), 3, np.float32)).max() < 1e-10


@pytest.mark.parametrize("angle", [0.0, np.pi / 2])
def test_energy_does_not_depend_on_the_phase_of_a_grating(angle: float) -> None:
    parts = [energy(grating(1 / 8, angle, phase)) for phase in np.linspace(0, 2 * np.pi, 7)]
    for part in parts:
        # Neither on the grating's phase nor on the place: a quadrature pair.
        np.testing.assert_allclose(part, parts[0].mean(axis=(2, 3), keepdims=True) + 0 * part, atol=1e-4)


@pytest.mark.parametrize("scale", range(4))
@pytest.mark.parametrize("orientation", range(4))
def test_gratings_of_known_orientation_and_frequency(scale: int, orientation: int) -> None:
    """At 1 / 2^(s+2) cycles per px (a whole number of periods where the grating is not oblique) band s is best."""
    frequency, angle = 1 / 2 ** (scale + 2), orientation * np.pi / 4
    if orientation % 2:  # oblique frequencies that fit the grid, the nearest in both directions
        step = max(1, round(frequency * SIDE / np.sqrt(2)))
        frequency = step * np.sqrt(2) / SIDE
    found = energy(grating(frequency, angle)).mean(axis=(2, 3))
    assert np.unravel_index(found.argmax(), found.shape) == (scale, orientation)


def test_the_best_band_has_the_grating_s_whole_energy_but_for_its_neighbours() -> None:
    """cos^(K-1) tuning: orientation k takes cos(k pi/K)^(2(K-1)) alpha^2 of a vertical grating's energy."""
    n_orientations = 4
    found = energy(grating(1 / 8, 0.0), n_orientations=n_orientations).mean(axis=(2, 3))
    alpha_squared = 4 ** (n_orientations - 1) / (n_orientations * comb(2 * n_orientations - 2, n_orientations - 1))
    share = np.cos(np.pi * np.arange(n_orientations) / n_orientations) ** (2 * (n_orientations - 1)) * alpha_squared
    np.testing.assert_allclose(found[1], share * 0.5, atol=1e-6)  # a cosine's mean square is a half
    np.testing.assert_allclose(found[[0, 2, 3]], 0, atol=1e-6)  # octaves apart: no overlap at the peak


@pytest.mark.parametrize("n_orientations", [2, 4, 6])
def test_a_quarter_turn_moves_energies_and_exchanges_orientations(
    n_orientations: int, rng: np.random.Generator
) -> None:
    image = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    # rot90 takes the frequency vector (x, y) to (y, -x): the angle falls by a quarter turn, orientations are mod pi.
    turned, plain = (energy(picture, 3, n_orientations) for picture in (np.rot90(image), image))
    expected = np.roll(np.rot90(plain, axes=(2, 3)), n_orientations // 2, axis=1)
    np.testing.assert_allclose(turned, expected, rtol=1e-3, atol=1e-4)


def test_energies_of_a_small_turn_follow_the_tuning() -> None:
    """Between two bands, energies cross where the angle is halfway, and their order follows the angle."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    window = np.exp(-(x**2 + y**2) / (2 * 8**2))

    def at(angle: float) -> np.ndarray:
        return energy((window * grating(1 / 8, angle)).astype(np.float32))[1].sum(axis=(1, 2))

    before, half, after = at(np.pi / 8 - 0.15), at(np.pi / 8), at(np.pi / 8 + 0.15)
    assert before[0] > before[1] > max(before[2], before[3])
    assert abs(half[0] - half[1]) < 0.02 * half[0]
    assert after[1] > after[0] > max(after[2], after[3])
