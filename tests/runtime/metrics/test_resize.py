from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import Resize

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.metrics.resize import resize, to_working_size
from minddiffuser.runtime.resampling import resize_matrix

SIZES = [(64, 64, 256, 256), (40, 56, 17, 90), (512, 300, 256, 256), (5, 7, 5, 7), (256, 256, 425, 425), (9, 4, 1, 1)]


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SIZES)
def test_equals_torch_with_antialias(height: int, width: int, new_height: int, new_width: int) -> None:
    pictures = np.random.default_rng(0).random((2, 3, height, width))
    expected = F.interpolate(
        torch.from_numpy(pictures), (new_height, new_width), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(resize(pictures, new_height, new_width), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [32, 64, 300, 512])
def test_working_size_equals_two_torchvision_resizes(size: int, dtype: type) -> None:
    """torch rounds the position of a pixel (a product and the scale in it) to half a unit in its last place, twice.

    Neighbours differ by at most 1, so a value moves by at most as much as its position; and there are two resizes.
    """
    tolerance = 2 * 2 * max(size, 256) * np.finfo(dtype).eps / 2
    picture = np.random.default_rng(1).random((3, size, size)).astype(dtype)
    step = Resize((256, 256), antialias=True)(torch.from_numpy(picture))
    expected = Resize((425, 425), antialias=True)(step).numpy()
    np.testing.assert_allclose(to_working_size(picture), expected, rtol=0, atol=tolerance)


def test_two_sides_are_not_mixed_up() -> None:
    ramp = np.tile(np.linspace(0, 1, 30, dtype=np.float32), (2, 3, 10, 1))
    resized = resize(ramp, 20, 15)
    assert resized.shape == (2, 3, 20, 15)
    assert np.ptp(resized, axis=2).max() < 1e-6
    assert (np.diff(resized, axis=3) > 0).all()


def test_shared_matrices_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        resize_matrix(8, 4, "bilinear")[0, 0] = 2


def test_an_empty_size_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 x 1"):
        resize(np.zeros((1, 3, 4, 4)), 0, 4)
