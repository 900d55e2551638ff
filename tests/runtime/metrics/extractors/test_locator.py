from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.metrics.extractors import EXTRACTORS, Given, Unavailable
from minddiffuser.runtime.metrics.locator import locator_config, shapes, write_locator


def write(folder: Path, mask_bias: float) -> Path:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes([2, 2, 2]).items()}
    arrays["mask.bias"] += mask_bias
    write_locator(folder, arrays, locator_config(image_size=16, channels=(2, 2, 2)))
    return folder


def test_one_mask_per_picture_and_an_identity_of_the_weights(tmp_path: Path) -> None:
    everything, nothing = (
        EXTRACTORS["locator"].open(Given(locator=write(tmp_path / name, bias)))
        for name, bias in (("everything", 1.0), ("nothing", -1.0))
    )
    images = np.zeros((3, 3, 24, 24), np.float32)
    assert everything.of_pictures is not None
    assert nothing.of_pictures is not None
    np.testing.assert_array_equal(everything.of_pictures(images), np.ones((3, 16, 16), bool))
    np.testing.assert_array_equal(nothing.of_pictures(images), np.zeros((3, 16, 16), bool))
    assert everything.identity != nothing.identity
    assert everything.truth is None


def test_models_without_one_are_named() -> None:
    with pytest.raises(Unavailable, match=r"the models have no locator \(locator/ in their folder\)"):
        EXTRACTORS["locator"].open(Given())
