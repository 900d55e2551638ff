"""A small network that says where the thing in a picture of the tiny world is, trained apart from everything else.

Stage 2 follows CLIP's features through the VAE; whether things come to their place should be measured by neither. The
locator is trained on degraded renderings alone and needs numpy alone, so that it measures wherever a run is made.

Folder: `locator.json` (format, version, image_size, channels) and `locator.safetensors` (see :func:`shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..errors import FileError
from ..fields import Field
from ..files import check_format, read_json, read_tensors, write_json, write_tensors
from .base import Array, check_picture_set
from .masks import centres, radii
from .resize import resize

VERSION = 1
_BATCH = 16
_WIDEST = 1_024
_Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Located:
    """Where the thing in each of n pictures is.

    Attributes
    ----------
    mask
        (n, side, side) bool, the pixels that it covers at the locator's resolution; none where nothing is found.
    centre
        (n, 2) float64, x and y of the mask's centre of mass in picture widths from the upper left; NaN where nothing
        is found.
    size
        (n,) float64, the root mean square distance of the mask's pixels from that centre, in picture widths; NaN where
        nothing is found.
    tilt_deg
        (n,) float64, how far the thing leans clockwise from upright. Meaningful within 35 degrees either way, as things
        of the tiny world stand; a flower and a star look the same after 60 and 72 degrees.
    """

    mask: NDArray[np.bool_]
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]


@dataclass(frozen=True)
class Locator:
    """A locator with frozen weights.

    Attributes
    ----------
    image_size
        Side in pixels at which it looks, and of its masks; other pictures are resized (antialiased bilinear).
    """

    image_size: int
    weights: Mapping[str, _Float32] = field(repr=False)

    def locate(self, images: Array) -> Located:
        """Where things are in images (n, 3, H, W) in [0, 1], n >= 1.

        Raises
        ------
        ShapeError, InputError
            For other shapes or types, and for values outside [0, 1].
        """
        logits, direction = self._forward(images)
        mask = logits > 0
        return Located(mask, centres(mask), radii(mask), np.rad2deg(np.arctan2(direction[:, 0], direction[:, 1])))

    def masks(self, images: Array) -> NDArray[np.bool_]:
        """The masks of :meth:`locate` alone."""
        return self._forward(images)[0] > 0

    def _forward(self, images: Array) -> tuple[_Float32, _Float32]:
        check_picture_set("images", images)
        parts = [self._of_batch(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        return np.concatenate([logits for logits, _ in parts]), np.concatenate([tilt for _, tilt in parts])

    def _of_batch(self, images: Array) -> tuple[_Float32, _Float32]:
        if images.shape[2:] != (self.image_size, self.image_size):
            images = resize(images, self.image_size, self.image_size)
        one = self._layer("down1", (images.transpose(0, 2, 3, 1).astype(np.float32) - 0.5) * 4, stride=2)
        two = self._layer("same2", self._layer("down2", one, stride=2))
        three = self._layer("same3b", self._layer("same3a", self._layer("down3", two, stride=2)))
        back = self._layer("up1", _joined(self._layer("up2", _joined(three, two)), one))
        # Four channels are the four quarters of a pixel: upper left, upper right, lower left, lower right.
        quarters = convolve(back, self.weights["mask.weight"], self.weights["mask.bias"])
        n, height, width, _ = quarters.shape
        logits = quarters.reshape(n, height, width, 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, 2 * height, 2 * width)
        share = _block_means(1 / (1 + np.exp(-logits.clip(-50, 50))))[..., None]
        of_thing = (share * three).sum((1, 2)) / (share.sum((1, 2)) + 0.01)
        lean = np.maximum(of_thing @ self.weights["lean.weight"] + self.weights["lean.bias"], 0)
        return logits, lean @ self.weights["tilt.weight"] + self.weights["tilt.bias"]

    def _layer(self, name: str, maps: _Float32, stride: int = 1) -> _Float32:
        found = convolve(maps, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride)
        return np.maximum(found, 0, out=found)


def convolve(maps: _Float32, weight: _Float32, bias: _Float32, stride: int = 1) -> _Float32:
    """Convolution (as networks mean it: correlation) of (n, h, w, n_in) with (k, k, n_in, n_out), padded with zeros.

    Returns
    -------
    (n, h / stride, w / stride, n_out) float32, for odd k and sides that `stride` divides.
    """
    side, _, n_in, n_out = weight.shape
    around = side // 2
    padded = np.pad(maps, ((0, 0), (around, around), (around, around), (0, 0)))
    windows = sliding_window_view(padded, (side, side), axis=(1, 2))[:, ::stride, ::stride]  # (n, h, w, n_in, k, k)
    columns = np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, side * side * n_in)
    found: _Float32 = columns @ weight.reshape(-1, n_out) + bias
    return found.reshape(*windows.shape[:3], n_out)


def _block_means(pictures: _Float32) -> _Float32:
    """Means of the blocks of 8 x 8 pixels: (n, h, w) to (n, h / 8, w / 8)."""
    n, height, width = pictures.shape
    means: _Float32 = pictures.reshape(n, height // 8, 8, width // 8, 8).mean((2, 4))
    return means


def _joined(coarse: _Float32, fine: _Float32) -> _Float32:
    return np.concatenate([coarse.repeat(2, axis=1).repeat(2, axis=2), fine], axis=-1)


def locator_config(*, image_size: int, channels: tuple[int, int, int]) -> dict[str, Any]:
    """The content of locator.json for this size and these channel widths, finest resolution first."""
    return {
        "format": "minddiffuser-locator",
        "version": VERSION,
        "image_size": image_size,
        "channels": list(channels),
    }


def write_locator(folder: Path, arrays: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    """Write a trained locator, its kernels as float16."""
    half = {name: value.astype(np.float16) if value.ndim > 1 else value for name, value in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "locator.safetensors", half)
    write_json(folder / "locator.json", dict(config))


def open_locator(folder: Path) -> Locator:
    """Open a locator's folder.

    Raises
    ------
    FileError
        If a file is missing, damaged, of another kind or version, or does not fit the other one.
    """
    path = Path(folder) / "locator.json"
    config = read_json(path, "the locator's description")
    check_format(config, path, "locator", VERSION)
    top = Field(path, "", config, "make it again")
    size = top.get("image_size")
    if size.whole() % 8:
        size.refuse("a multiple of 8")
    channels = [item.whole(1, _WIDEST) for item in top.get("channels").items(3, 3, "whole numbers")]
    return Locator(size.whole(), _weights(Path(folder) / "locator.safetensors", channels))


def shapes(channels: list[int]) -> dict[str, tuple[int, ...]]:
    """Array -> shape, for these channel widths."""
    fine, middle, coarse = channels
    kernels = {
        "down1": (5, 5, 3, fine),
        "down2": (3, 3, fine, middle),
        "same2": (3, 3, middle, middle),
        "down3": (3, 3, middle, coarse),
        "same3a": (3, 3, coarse, coarse),
        "same3b": (3, 3, coarse, coarse),
        "up2": (3, 3, coarse + middle, middle),
        "up1": (3, 3, middle + fine, fine),
        "mask": (3, 3, fine, 4),
        "lean": (coarse, coarse),
        "tilt": (coarse, 2),
    }
    weights = {f"{name}.weight": shape for name, shape in kernels.items()}
    return {**weights, **{f"{name}.bias": shape[-1:] for name, shape in kernels.items()}}


def _weights(path: Path, channels: list[int]) -> dict[str, _Float32]:
    arrays = read_tensors(path, "the locator's weights")
    expected, given = shapes(channels), {name: value.shape for name, value in arrays.items()}
    if given != expected:
        odd = sorted(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        raise FileError(
            f"the locator's weights at {path} do not fit locator.json ({len(odd)} arrays differ, first {odd[0]}): "
            "take both files from the same training"
        )
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise FileError(f"the locator's weights at {path} hold NaN or infinite values in {name}: train it again")
    return {name: value.astype(np.float32) for name, value in arrays.items()}
