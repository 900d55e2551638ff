"""`eegnet`: EEGNet, version 4 of Lawhern et al. 2018 (J Neural Eng 15, 056013), for EEG and MEG.

The same outputs as braindecode's EEGNet with the same weights. The defaults are those with which Li et al. 2024 compare
ATM with it (F1 8, D 20, F2 160, a kernel of 4 samples).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from .settings import WIDEST, check_flag, check_length, check_share, check_whole, sensor_axes

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Config:
    """The architecture's settings, as they stand in checkpoint.json.

    Attributes
    ----------
    filters : int
        Filters in time, F1.
    spatial : int
        Filters over the channels for each filter in time, D.
    pointwise : int
        Filters of the separable convolution, F2.
    kernel, separable_kernel : int
        Samples of the convolution in time, and of the separable one after the first pooling.
    pool_1, pool_2 : int
        Samples that are averaged after the convolution over channels, and after the separable one.
    dropout : float
        Share that is dropped in training after each pooling.
    max_norm : float
        Largest norm of a filter over the channels.
    reference : bool
        The outputs are log-probabilities over the feature's dimensions, as ATM's benchmark took them (braindecode's
        LogSoftmax of that time); no further weights.
    """

    filters: int = 8
    spatial: int = 20
    pointwise: int = 160
    kernel: int = 4
    separable_kernel: int = 16
    pool_1: int = 4
    pool_2: int = 8
    dropout: float = 0.25
    max_norm: float = 1.0
    reference: bool = False

    def __post_init__(self) -> None:
        check_whole(WIDEST, filters=self.filters, spatial=self.spatial, pointwise=self.pointwise, kernel=self.kernel)
        check_whole(WIDEST, separable_kernel=self.separable_kernel, pool_1=self.pool_1, pool_2=self.pool_2)
        check_share(dropout=self.dropout)
        check_flag(reference=self.reference)
        if type(self.max_norm) not in (int, float) or not 0 < self.max_norm <= 1e6:
            raise InputError(f"max_norm is {self.max_norm!r:.60}, expected a number above 0")


def build(config: Config, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]) -> nn.Module:
    """Make the network with fresh weights, from PyTorch's own random numbers; see :func:`..network.build_network`.

    Raises
    ------
    InputError
        The responses are fMRI or too short.
    """
    _check_shape(config, response_shape)
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    n_channels, n_times = response_shape
    n_maps = config.filters * config.spatial

    def padded(kernel: int) -> tuple[int, int]:
        return (0, kernel // 2)

    class EegNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temporal = nn.Conv2d(1, config.filters, (1, config.kernel), bias=False, padding=padded(config.kernel))
            self.norm_1 = _norm(config.filters)
            self.spatial = nn.Conv2d(config.filters, n_maps, (n_channels, 1), bias=False, groups=config.filters)
            self.norm_2 = _norm(n_maps)
            kernel = config.separable_kernel
            self.depthwise = nn.Conv2d(n_maps, n_maps, (1, kernel), bias=False, groups=n_maps, padding=padded(kernel))
            self.pointwise = nn.Conv2d(n_maps, config.pointwise, 1, bias=False)
            self.norm_3 = _norm(config.pointwise)
            self.pool_1, self.pool_2 = nn.AvgPool2d((1, config.pool_1)), nn.AvgPool2d((1, config.pool_2))
            self.dropout = nn.Dropout(config.dropout)
            left = (n_times + (config.kernel % 2 == 0)) // config.pool_1
            left = (left + (kernel % 2 == 0)) // config.pool_2
            self.heads = nn.ModuleList(nn.Linear(config.pointwise * left, n) for n in n_outputs.values())
            nn.init.xavier_uniform_(self.spatial.weight)
            for head in self.heads:
                nn.init.zeros_(head.bias)  # type: ignore[arg-type]

        def forward(self, scores: Tensor) -> tuple[Tensor, ...]:
            found = self.norm_1(self.temporal(scores.unsqueeze(1)))
            found = functional.conv2d(found, self._limited(), groups=config.filters)
            found = self.dropout(self.pool_1(functional.elu(self.norm_2(found))))
            found = self.norm_3(self.pointwise(self.depthwise(found)))
            found = self.dropout(self.pool_2(functional.elu(found))).flatten(1)
            outputs = (head(found) for head in self.heads)
            return tuple(output.log_softmax(-1) if config.reference else output for output in outputs)

        def _limited(self) -> Tensor:
            """The filters over the channels, scaled down where their norm is above the largest."""
            weight = self.spatial.weight
            norm = weight.flatten(1).norm(dim=1)[:, None, None, None]
            # As torch.renorm does, which ONNX does not have: a norm of 0 is never divided by.
            return torch.where(norm > config.max_norm, weight * (config.max_norm / (norm + 1e-7)), weight)

    def _norm(n: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(n, momentum=0.01, eps=1e-3)

    return EegNet()


def _check_shape(config: Config, response_shape: tuple[int, ...]) -> None:
    """Refuse responses of another shape than (n_channels, n_times) with samples enough for kernels and pooling."""
    _, n_times = sensor_axes("eegnet", response_shape)
    # A convolution with half its kernel on either side adds one sample where the kernel is even.
    before_pool_2 = config.pool_2 - (config.separable_kernel % 2 == 0)
    check_length("eegnet", n_times, max(1, before_pool_2 * config.pool_1 - (config.kernel % 2 == 0)))
