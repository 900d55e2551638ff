"""Degraded renderings: their masks stay true, and everything follows from the generator."""

import numpy as np
import pytest
import torch

from minddiffuser.training.tinyworld.degrade import Ranges, blur, degrade

N, SIDE = 64, 64


def scenes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A white box on a dark ramp of grey."""
    background = (torch.linspace(0.1, 0.3, SIDE).expand(N, 3, SIDE, SIDE)).clone()
    coverage = torch.zeros(N, 1, SIDE, SIDE)
    coverage[:, :, 20:40, 24:48] = 1
    return background + coverage * (1 - background), background, coverage


def test_it_repeats_and_stays_in_range() -> None:
    image, background, coverage = scenes()
    one = degrade(image, background, coverage, np.random.default_rng(3))
    again = degrade(image, background, coverage, np.random.default_rng(3))
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert one[0].shape == image.shape
    assert one[1].shape == coverage.shape
    assert 0 <= one[0].min() <= one[0].max() <= 1
    assert not torch.equal(one[0], degrade(image, background, coverage, np.random.default_rng(4))[0])


def test_the_mask_goes_where_the_thing_goes() -> None:
    """Bent alone: what is bright is what is covered."""
    image, background, coverage = scenes()
    bent_only = Ranges(warped=1, faded=0, empty=0, recoloured=0, blurred=0, coarsened=0, noise=0, blotches=0)
    bent, covered = degrade(image, background, coverage, np.random.default_rng(0), bent_only)
    middle = (bent.amax((2, 3), keepdim=True) + bent.amin((2, 3), keepdim=True)) / 2
    bright, inside = (bent > middle)[:, 0], (covered > 0.5)[:, 0]
    assert (bright & inside).sum() / (bright | inside).sum() > 0.97
    moved = (covered - coverage).abs().mean((1, 2, 3))
    assert (moved > 0.005).float().mean() > 0.5


def test_where_the_thing_is_gone_the_mask_is_empty() -> None:
    image, background, coverage = scenes()
    gone = Ranges(warped=0, empty=1, blurred=0, coarsened=0, noise=0, blotches=0, recoloured=0)
    bare, covered = degrade(image, background, coverage, np.random.default_rng(0), gone)
    assert covered.sum() == 0
    assert torch.allclose(bare[:, :, 0], bare[:, :, 30], atol=1e-6)  # the ramp alone: all rows alike


@pytest.mark.parametrize("sigma_px", [0.7, 2.0])
def test_blur_is_a_gaussian(sigma_px: float) -> None:
    from scipy.ndimage import gaussian_filter

    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter(images.double().numpy(), (0, 0, sigma_px, sigma_px), mode="nearest", truncate=4)
    # The window ends at 2.5 standard deviations, beyond which a Gaussian has 1.2 % of its mass.
    np.testing.assert_allclose(blur(images, sigma_px).numpy(), expected, atol=0.03)
    assert torch.allclose(blur(torch.full((1, 3, 20, 20), 0.3), sigma_px), torch.tensor(0.3))
