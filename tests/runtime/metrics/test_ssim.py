from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torchvision.transforms import Resize

from minddiffuser.runtime.metrics.ssim import ssim, ssim_columns


def _oracle(image: np.ndarray, other: np.ndarray, **options: Any) -> float:
    grey = []
    for picture in (image, other):
        step = Resize((256, 256), antialias=True)(torch.from_numpy(picture).double())
        working = Resize((425, 425), antialias=True)(step).permute(1, 2, 0).numpy()
        grey.append(rgb2gray(working))
    return float(
        structural_similarity(
            *grey, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, **options
        )
    )


def _pairs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height)
    images = rng.random((2, 3, height, width), dtype=np.float32)
    share = np.array([0.2, 0.7], dtype=np.float32)[:, None, None, None]
    return images, (1 - share) * images + share * rng.random(images.shape, dtype=np.float32)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 90), (300, 300)])
def test_ssim_equals_skimage(height: int, width: int) -> None:
    images, others = _pairs(height, width)
    expected = [_oracle(*pair) for pair in zip(images, others, strict=True)]
    assert min(expected) < 0.95
    np.testing.assert_allclose(ssim(images, others), expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 90)])
def test_ssim_columns_equals_skimage_with_columns_as_channels(height: int, width: int) -> None:
    images, others = _pairs(height, width)
    expected = [_oracle(*pair, channel_axis=-1) for pair in zip(images, others, strict=True)]
    assert min(expected) < 0.95
    np.testing.assert_allclose(ssim_columns(images, others), expected, atol=1e-6)


def test_the_two_readings_differ() -> None:
    images, others = _pairs(64, 64)
    difference = ssim_columns(images, others) - ssim(images, others)
    assert (difference > 0.001).all()
    assert difference[1] > 0.05


def test_columns_run_from_top_to_bottom() -> None:
    """Within each column a picture of vertical stripes is flat, whatever its neighbours show."""
    stripes = np.zeros((2, 3, 32, 32), dtype=np.float32)
    stripes[..., ::2] = 1
    np.testing.assert_allclose(ssim_columns(stripes, stripes), 1)
    shifted, turned = 1 - stripes, stripes.transpose(0, 1, 3, 2).copy()
    luminance_only = ssim_columns(stripes, shifted)
    assert (luminance_only > 0).all()
    assert (ssim_columns(turned, 1 - turned) < 0).all()


def test_flat_pictures_are_compared_by_luminance() -> None:
    black, grey = np.zeros((2, 3, 16, 16), np.float32), np.full((2, 3, 16, 16), 0.5, np.float32)
    expected = 0.01**2 / (0.5**2 + 0.01**2)
    np.testing.assert_allclose(ssim(black, grey), expected, rtol=1e-9)
    np.testing.assert_allclose(ssim_columns(black, grey), expected, rtol=1e-9)
    np.testing.assert_allclose(ssim(grey, grey), 1)
