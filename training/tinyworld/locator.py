"""Training of the locator, which says where the thing in a picture is, apart from CLIP, VAE and classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...runtime.metrics.classifier_network import recalibrate
from ...runtime.metrics.locator import locator_config
from .degrade import degrade
from .layers import Layers
from .loop import LoopSettings, train
from .scenes import IMAGE_SIZE

SETTINGS = LoopSettings(steps=2_000, learning_rate=3e-3, warmup=100, weight_decay=0.02, ema=0.995, seed=16)
BATCH = 40
CHANNELS = (16, 32, 64)
_TILT_WEIGHT = 0.5


class _Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(self.kernel(maps)).relu_()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the convolution that does the same: normalising by running statistics is linear."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None  # as they are where a module keeps statistics
        assert variance is not None
        scale = self.norm.weight / (variance + self.norm.eps).sqrt()
        return self.kernel.weight * scale[:, None, None, None], self.norm.bias - mean * scale


class LocatorNetwork(nn.Module):
    """The network of :mod:`minddiffuser.runtime.metrics.locator`, as it is trained.

    Three halvings and back, each resolution joined with its own on the way down. The runtime has it in numpy, with the
    normalisation folded into the convolutions (:func:`folded`).
    """

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.down1 = _Convolution(3, fine, kernel=5, stride=2)
        self.down2 = _Convolution(fine, middle, stride=2)
        self.same2 = _Convolution(middle, middle)
        self.down3 = _Convolution(middle, coarse, stride=2)
        self.same3a = _Convolution(coarse, coarse)
        self.same3b = _Convolution(coarse, coarse)
        self.up2 = _Convolution(coarse + middle, middle)
        self.up1 = _Convolution(middle + fine, fine)
        self.mask = nn.Conv2d(fine, 4, 3, padding=1)
        self.lean = nn.Linear(coarse, coarse)
        self.tilt = nn.Linear(coarse, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (n, h, w) and (sine, cosine) of the tilt (n, 2), not of unit length, for images in [0, 1]."""
        one = self.down1((images - 0.5) * 4)
        two = self.same2(self.down2(one))
        three = self.same3b(self.same3a(self.down3(two)))
        logits = F.pixel_shuffle(self.mask(self.up1(_joined(self.up2(_joined(three, two)), one))), 2)
        share = F.avg_pool2d(logits.detach().sigmoid(), 8)
        of_thing = (share * three).sum((2, 3)) / (share.sum((2, 3)) + 0.01)
        return logits[:, 0], self.tilt(self.lean(of_thing).relu())


def _joined(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cat([F.interpolate(coarse, scale_factor=2, mode="nearest"), fine], dim=1)


def folded(network: LocatorNetwork) -> dict[str, NDArray[np.float32]]:
    """The network's arrays for the runtime: `<layer>.weight` (k, k, n_in, n_out) or (n_in, n_out), and `<layer>.bias`.

    Normalisation goes into weight and bias, see :meth:`_Convolution.folded`.
    """
    layers: dict[str, Any] = dict(network.named_children())
    arrays: dict[str, Tensor] = {}
    for name, layer in layers.items():
        weight, bias = layer.folded() if isinstance(layer, _Convolution) else (layer.weight, layer.bias)
        arrays[f"{name}.weight"] = weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        arrays[f"{name}.bias"] = bias
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in arrays.items()}


def config() -> dict[str, Any]:
    """The locator's description: what locator.json holds."""
    return locator_config(image_size=IMAGE_SIZE, channels=CHANNELS)


def fit(layers: Layers, folder: Path, settings: LoopSettings = SETTINGS, *, device: str = "cpu") -> LocatorNetwork:
    """Train on degraded renderings: cross-entropy and Dice loss of the mask, squared error of the tilt's direction."""
    torch.manual_seed(settings.seed)
    network = LocatorNetwork().to(device).to(memory_format=torch.channels_last)

    def loss(rng: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        image, coverage, tilt = (part.to(device) for part in _batch(layers, rng))
        logits, direction = network(image.contiguous(memory_format=torch.channels_last))
        wrong = F.binary_cross_entropy_with_logits(logits, coverage)
        there = (coverage.amax((1, 2)) > 0).float()
        found = logits.sigmoid()
        shared, total = (found * coverage).sum((1, 2)), (found + coverage).sum((1, 2))
        dice = (there * (1 - 2 * shared / (total + 1))).mean()
        turn = (there * (direction - torch.stack([tilt.sin(), tilt.cos()], 1)).square().sum(1)).mean()
        return wrong + dice + _TILT_WEIGHT * turn, {"mask": wrong.item(), "dice": dice.item(), "tilt": turn.item()}

    train(network, loss, folder, "locator", settings)
    network = network.to("cpu")
    rng = np.random.default_rng([settings.seed, settings.steps])
    recalibrate(network, [_batch(layers, rng)[0] for _ in range(40)])
    return network


def _batch(layers: Layers, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Degraded pictures (n, 3, h, w), what their objects cover (n, h, w), and tilts (n,) in radians."""
    chosen = np.sort(rng.integers(len(layers), size=BATCH))
    drawn = torch.from_numpy(layers.layers[chosen]).permute(0, 3, 1, 2).float() / 255
    tilt = torch.from_numpy(np.deg2rad(layers.tilt_deg[chosen]))
    if rng.integers(2):
        drawn, tilt = drawn.flip(3), -tilt
    image, coverage = degrade(drawn[:, :3], drawn[:, 3:6], drawn[:, 6:], rng)
    return image, coverage[:, 0], tilt
