"""Pixel metrics of pictures that were resized as other published evaluations do, against those libraries."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torchvision.transforms import Resize

from minddiffuser.runtime.images import to_float
from minddiffuser.runtime.metrics import METRICS


def pictures(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 300, 512, 3)).astype(np.uint8)


def aliased(picture: np.ndarray) -> np.ndarray:
    step = Resize((256, 256), antialias=False)(torch.from_numpy(picture).permute(2, 0, 1).double() / 255)
    return Resize(425, antialias=False)(step).permute(1, 2, 0).numpy()


def by_pillow(picture: np.ndarray) -> np.ndarray:
    return np.array(Image.fromarray(picture).resize((425, 425))) / 255.0


def pixcorr(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.reshape(1, -1), b.reshape(1, -1))[0, 1])


def ssim(a: np.ndarray, b: np.ndarray, channel_axis: int | None = None) -> float:
    return float(
        structural_similarity(
            rgb2gray(a), rgb2gray(b), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0,
            channel_axis=channel_axis,
        )
    )  # fmt: skip


def ssim_columns(a: np.ndarray, b: np.ndarray) -> float:
    return ssim(a, b, channel_axis=-1)


@pytest.mark.parametrize(("way", "resized"), [("aliased", aliased), ("pil425", by_pillow)])
@pytest.mark.parametrize(("name", "measure"), [("pixcorr", pixcorr), ("ssim", ssim), ("ssim_columns", ssim_columns)])
def test_variants_equal_the_libraries(
    name: str, measure: Callable[..., float], way: str, resized: Callable[[np.ndarray], np.ndarray]
) -> None:
    stimuli = pictures(0)
    others = (0.6 * stimuli + 0.4 * pictures(1)).astype(np.uint8)
    expected = [measure(resized(one), resized(other)) for one, other in zip(stimuli, others, strict=True)]
    given = to_float(stimuli), to_float(others)
    np.testing.assert_allclose(METRICS[f"{name}_{way}"](*given, ()), expected, atol=1e-6)
    assert abs(METRICS[name](*given, ())[0] - expected[0]) > 1e-5
