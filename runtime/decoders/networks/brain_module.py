"""`brain_module`: the convolutional decoder of Défossez et al. 2023 and Benchetrit et al. 2024 (ICLR), EEG and MEG.

Sensors are merged by attention over their positions, a stack of dilated convolutions follows, and a weighted mean over
time: SimpleConvTimeAgg, with the sizes of its publication under the MIT licence (facebookresearch/neuroai,
neuralbench's simpleconv_time_agg). A checkpoint has one subject, so there is no layer for each subject.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from .settings import DEEPEST, WIDEST, check_share, check_whole, sensor_axes

if TYPE_CHECKING:
    from torch import Tensor, nn

# The dilation doubles from layer to layer, and is 1 again after so many.
_PERIOD = 5
# The Fourier series of positions has 1.4 times their extent as its period, 0.2 on either side.
_MARGIN = 0.2


@dataclass(frozen=True, kw_only=True)
class Config:
    """The architecture's settings, as they stand in checkpoint.json.

    Attributes
    ----------
    positions : tuple of (x, y, z)
        Of each channel, in its order, in metres or any other unit: only their relation counts.
    virtual_channels : int
        Channels that the sensors are merged into.
    frequencies : int
        Of the Fourier series along each of x, y and z; a sensor has 2 x frequencies³ values.
    hidden, depth, kernel : int
        Channels, number and samples (odd) of the convolutions.
    backbone : int
        Channels of the last convolution, which are the network's features.
    spatial_dropout : float
        In training no sensor is heard within this distance of a random place, the sensors' extent being 1.
    """

    positions: tuple[tuple[float, float, float], ...] = ()
    virtual_channels: int = 270
    frequencies: int = 10
    hidden: int = 320
    depth: int = 4
    kernel: int = 3
    backbone: int = 512
    spatial_dropout: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", _checked(self.positions))
        check_whole(WIDEST, virtual_channels=self.virtual_channels, hidden=self.hidden, backbone=self.backbone)
        check_whole(DEEPEST, depth=self.depth, kernel=self.kernel)
        check_whole(32, frequencies=self.frequencies)
        check_share(spatial_dropout=self.spatial_dropout)
        if self.kernel % 2 == 0:
            raise InputError(f"kernel is {self.kernel}, expected an odd number of samples, so that it has a middle")


def _checked(positions: object) -> tuple[tuple[float, float, float], ...]:
    if not isinstance(positions, list | tuple):
        raise InputError(f"positions is {positions!r:.60}, expected [x, y, z] for each channel")
    for place in positions:
        good = isinstance(place, list | tuple) and len(place) == 3
        if not good or not all(type(value) in (int, float) and math.isfinite(value) for value in place):
            raise InputError(f"positions has {place!r:.60}, expected [x, y, z] for each channel")
    return tuple((float(x), float(y), float(z)) for x, y, z in positions)


def build(config: Config, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]) -> nn.Module:
    """Make the network with fresh weights, from PyTorch's own random numbers; see :func:`..network.build_network`.

    Raises
    ------
    InputError
        The responses are fMRI, or there are more or fewer positions than channels.
    """
    _check_shape(config, response_shape)
    from torch import nn

    _, n_times = response_shape

    class BrainModule(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.merger = _merger(config)
            self.mix = nn.Conv1d(config.virtual_channels, config.virtual_channels, 1)
            widths = [config.virtual_channels, *[config.hidden] * (config.depth - 1), config.backbone]
            self.layers = nn.Sequential(
                *(_layer(config, number, *widths[number : number + 2]) for number in range(config.depth))
            )
            self.over_time = nn.Linear(n_times, 1)
            self.heads = nn.ModuleList(nn.Linear(config.backbone, n) for n in n_outputs.values())

        def forward(self, scores: Tensor) -> tuple[Tensor, ...]:
            found = self.over_time(self.layers(self.mix(self.merger(scores)))).squeeze(2)
            return tuple(head(found) for head in self.heads)

    return BrainModule()


def _check_shape(config: Config, response_shape: tuple[int, ...]) -> None:
    """Refuse responses of another shape than (n_channels, n_times), with a position for each channel."""
    n_channels, _ = sensor_axes("brain_module", response_shape)
    if len(config.positions) != n_channels:
        raise InputError(
            f"the decoder 'brain_module' merges sensors by their positions: {len(config.positions)} are given for "
            f"{n_channels} channels, give one for each"
        )


def _merger(config: Config) -> nn.Module:
    """(n, n_channels, n_times) to (n, virtual_channels, n_times): weights by the sensors' positions alone."""
    import torch
    from torch import nn

    n_values = 2 * config.frequencies**3

    class Merger(nn.Module):
        places: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("places", torch.tensor(_within_one(config.positions)))
            self.queries = nn.Parameter(torch.randn(config.virtual_channels, n_values) * n_values**-0.5)

        def forward(self, scores: Tensor) -> Tensor:
            likeness = self.queries @ self._series().T
            if self.training and config.spatial_dropout:
                away = self.places - torch.rand(3, dtype=self.places.dtype, device=self.places.device)
                likeness = likeness.masked_fill(away.norm(dim=1) <= config.spatial_dropout, -math.inf)
            weights = likeness.softmax(dim=1).nan_to_num() if self.training else likeness.softmax(dim=1)
            return weights @ scores

        def _series(self) -> Tensor:
            """Cosines and sines of all sums of a frequency along x, y and z each: (n_channels, n_values)."""
            steps = torch.arange(config.frequencies, dtype=self.places.dtype, device=self.places.device)
            phases = (self.places + _MARGIN)[:, :, None] * (2 * math.pi / (1 + 2 * _MARGIN) * steps)
            x, y, z = phases.unbind(1)
            sums = (x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]).flatten(1)
            return torch.cat([sums.cos(), sums.sin()], dim=1)

    return Merger()


def _within_one(positions: tuple[tuple[float, float, float], ...]) -> list[list[float]]:
    """From 0 to 1 along each axis; where all lie at one place of an axis, 0."""
    axes = []
    for axis in zip(*positions, strict=True):
        least, extent = min(axis), max(axis) - min(axis)
        axes.append([(value - least) / (extent or 1.0) for value in axis])
    return [list(place) for place in zip(*axes, strict=True)]


def _layer(config: Config, number: int, n_in: int, n_out: int) -> nn.Module:
    """One convolution; where it keeps the width, what it read is added; every second one is followed by a GLU.

    The last has neither BatchNorm nor GELU.
    """
    from torch import nn

    dilation = 2 ** (number % _PERIOD)
    layers: list[nn.Module] = [
        nn.Conv1d(n_in, n_out, config.kernel, padding=config.kernel // 2 * dilation, dilation=dilation)
    ]
    if number < config.depth - 1:
        layers += [nn.BatchNorm1d(n_out), nn.GELU()]

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(*layers)
            self.gate: nn.Module = nn.Identity()
            if number % 2:
                self.gate = nn.Sequential(nn.Conv1d(n_out, 2 * n_out, 3, padding=1), nn.GLU(dim=1))

        def forward(self, signals: Tensor) -> Tensor:
            found = self.inner(signals)
            gated: Tensor = self.gate(found + signals if n_in == n_out else found)
            return gated

    return Layer()
