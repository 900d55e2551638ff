from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.metrics.locator import convolve, locator_config, open_locator, shapes, write_locator

SIZE, CHANNELS = 16, (4, 6, 8)


@pytest.fixture
def config() -> dict[str, Any]:
    return locator_config(image_size=SIZE, channels=CHANNELS)


@pytest.fixture
def folder(tmp_path: Path, config: dict[str, Any]) -> Path:
    """Random weights, of a size that keeps the maps' own."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=shape, scale=(2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.1)
        for name, shape in shapes(list(CHANNELS)).items()
    }
    write_locator(tmp_path / "locator", {name: array.astype(np.float32) for name, array in arrays.items()}, config)
    return tmp_path / "locator"


def _images(n: int, size: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.random((n, 3, 1, 1)) * rng.random((n, 3, size, size))).astype(np.float32)


def _by_torch(arrays: dict[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The network written out with PyTorch's functions from its weights' names: mask and tilt in degrees."""
    weights = {name: torch.from_numpy(value.astype(np.float64)) for name, value in arrays.items()}

    def layer(name: str, field: torch.Tensor, stride: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}.weight"].permute(3, 2, 0, 1)
        return F.conv2d(field, kernel, weights[f"{name}.bias"], stride=stride, padding=kernel.shape[-1] // 2)

    def joined(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.interpolate(coarse, scale_factor=2), fine], 1)

    one = layer("down1", (torch.from_numpy(images.astype(np.float64)) - 0.5) * 4, 2).relu()
    two = layer("same2", layer("down2", one, 2).relu()).relu()
    three = layer("same3b", layer("same3a", layer("down3", two, 2).relu()).relu()).relu()
    back = layer("up1", joined(layer("up2", joined(three, two)).relu(), one)).relu()
    logits = F.pixel_shuffle(layer("mask", back), 2)
    share = F.avg_pool2d(logits.sigmoid(), 8)
    of_thing = (share * three).sum((2, 3)) / (share.sum((2, 3)) + 0.01)
    lean = (of_thing @ weights["lean.weight"] + weights["lean.bias"]).relu()
    sine, cosine = (lean @ weights["tilt.weight"] + weights["tilt.bias"]).T
    return logits[:, 0].numpy(), torch.rad2deg(torch.atan2(sine, cosine)).numpy()


def test_it_finds_what_its_weights_say(folder: Path) -> None:
    locator, images = open_locator(folder), _images(20)
    found = locator.locate(images)
    logits, tilt_deg = _by_torch(load_file(folder / "locator.safetensors"), images)
    assert found.mask.dtype == np.bool_
    sure = np.abs(logits) > 1e-4  # float32 sums of at most 216 products of numbers near 1
    np.testing.assert_array_equal(found.mask[sure], logits[sure] > 0)
    assert sure.mean() > 0.99
    assert 0.02 < found.mask.mean() < 0.98
    np.testing.assert_allclose(found.tilt_deg, tilt_deg, atol=0.01)
    np.testing.assert_array_equal(locator.masks(images), found.mask)
    rows, columns = np.nonzero(found.mask[0])
    np.testing.assert_allclose(found.centre[0], [(columns.mean() + 0.5) / SIZE, (rows.mean() + 0.5) / SIZE])
    spread = rows.var() + columns.var() + 2 / 12
    assert found.size[0] == pytest.approx(spread**0.5 / SIZE)


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1)])
def test_convolution_is_pytorchs(side: int, stride: int) -> None:
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(2, 8, 12, 3)).astype(np.float32)
    weight, bias = rng.normal(size=(side, side, 3, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    field, kernel = torch.from_numpy(maps).permute(0, 3, 1, 2), torch.from_numpy(weight).permute(3, 2, 0, 1)
    expected = F.conv2d(field, kernel, torch.from_numpy(bias), stride=stride, padding=side // 2).permute(0, 2, 3, 1)
    np.testing.assert_allclose(convolve(maps, weight, bias, stride), expected.numpy(), atol=1e-4)


def test_a_picture_is_located_alone(folder: Path) -> None:
    locator, images = open_locator(folder), _images(20)
    alone = np.concatenate([locator.masks(images[[index]]) for index in range(20)])
    assert (locator.masks(images) == alone).mean() > 0.999  # sums may be ordered otherwise


def test_other_sizes_are_resized(folder: Path) -> None:
    locator, images = open_locator(folder), _images(10, size=40)
    small = F.interpolate(torch.from_numpy(images), (SIZE, SIZE), mode="bilinear", antialias=True)
    assert (locator.masks(images) == locator.masks(small.clamp(0, 1).numpy())).mean() > 0.99
    with pytest.raises(ShapeError, match="divide uint8"):
        locator.locate(np.zeros((2, 3, SIZE, SIZE), np.uint8))
    with pytest.raises(InputError, match="span"):
        locator.locate(images * 255)


@pytest.mark.parametrize("name", ["locator.json", "locator.safetensors"])
def test_missing_and_truncated_files(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="cannot be read"):
        open_locator(folder)
    (folder / name).unlink()
    with pytest.raises(FileError, match="missing"):
        open_locator(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "minddiffuser-classifier"}, "not a MindDiffuser locator"),
        ({"version": 2}, "version 2"),
        ({"image_size": 0}, "'image_size' is 0"),
        ({"image_size": 20}, "'image_size' is 20, expected a multiple of 8"),
        ({"channels": [4, 6]}, "channels"),
        ({"channels": [4, 6, 10**9]}, "whole number from 1 to 1024"),
        ({"channels": [4, 6, 10]}, "do not fit"),
    ],
)
def test_damaged_descriptions(folder: Path, config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    (folder / "locator.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(FileError, match=message):
        open_locator(folder)


def test_weights_that_are_not_finite_or_not_there(folder: Path) -> None:
    arrays = {name: value.copy() for name, value in load_file(folder / "locator.safetensors").items()}
    save_file({**arrays, "up1.bias": np.full(4, np.nan, np.float32)}, folder / "locator.safetensors")
    with pytest.raises(FileError, match=r"NaN or infinite values in up1.bias"):
        open_locator(folder)
    del arrays["tilt.bias"]
    save_file(arrays, folder / "locator.safetensors")
    with pytest.raises(FileError, match=r"1 arrays differ, first tilt.bias"):
        open_locator(folder)
