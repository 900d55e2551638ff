from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import Resize

from minddiffuser.runtime.metrics.pixcorr import pixcorr


def _oracle(image: np.ndarray, other: np.ndarray) -> float:
    flat = []
    for picture in (image, other):
        step = Resize((256, 256), antialias=True)(torch.from_numpy(picture).double())
        flat.append(Resize((425, 425), antialias=True)(step).numpy().ravel())
    return float(np.corrcoef(*flat)[0, 1])


@pytest.mark.parametrize("size", [24, 64, 300])
def test_equals_numpy_on_torch_resized_pictures(size: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((3, 3, size, size), dtype=np.float32)
    noise = rng.random((3, 3, size, size), dtype=np.float32)
    share = np.array([0.1, 0.5, 1.0], dtype=np.float32)[:, None, None, None]
    reconstructions = (1 - share) * images + share * noise
    expected = [_oracle(image, other) for image, other in zip(images, reconstructions, strict=True)]
    np.testing.assert_allclose(pixcorr(images, reconstructions), expected, atol=1e-10)


def test_brightness_and_contrast_do_not_count_and_the_sign_does() -> None:
    images = np.random.default_rng(1).random((2, 3, 16, 16))
    np.testing.assert_allclose(pixcorr(images, 0.3 * images + 0.2), 1, atol=1e-12)
    np.testing.assert_allclose(pixcorr(images, 1 - images), -1, atol=1e-12)


@pytest.mark.parametrize("grey", [0.0, 0.1, 1.0])
def test_a_flat_picture_scores_zero_and_not_nan(grey: float) -> None:
    images = np.random.default_rng(2).random((2, 3, 30, 30), dtype=np.float32)
    flat = np.full_like(images, grey)
    assert pixcorr(images, flat).tolist() == [0, 0]
    assert pixcorr(flat, images).tolist() == [0, 0]
    assert pixcorr(flat, flat).tolist() == [0, 0]


def test_a_flat_picture_of_a_colour_is_not_flat() -> None:
    """The three colours are one vector, so a red square correlates with a red square."""
    red = np.zeros((2, 3, 16, 16), dtype=np.float32)
    red[:, 0] = 1
    np.testing.assert_allclose(pixcorr(red, red), 1)


def test_the_faintest_8_bit_picture_is_not_flat() -> None:
    images = np.full((2, 3, 64, 64), 0.5, dtype=np.float32)
    images[:, 1, 20, 30] += 1 / 255
    np.testing.assert_allclose(pixcorr(images, images), 1)
