"""`nice`: NICE's convolutions in time and over channels, and a projection head; Song et al. 2024 (ICLR), EEG and MEG.

As in the published code (eeyhsong/NICE-EEG, nice_stand.py), where the network has no weight that does not act. What
differs there lies in the loss: a logit scale that is never optimised, and a head for the image whose output is unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .settings import WIDEST, check_length, check_share, check_whole, sensor_axes

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Config:
    """The architecture's settings, as they stand in checkpoint.json.

    Attributes
    ----------
    filters : int
        Of each of the three convolutions.
    kernel, pool, stride : int
        Samples of the convolution in time, and of the average pooling after it and its step.
    dropout : float
        Share that is dropped in training, after the convolutions and in the head.
    embedding : int or None
        Width of the projection head, from which a linear map gives each feature. None: a projection head as wide as
        the feature, which it gives, as in the paper.
    """

    filters: int = 40
    kernel: int = 25
    pool: int = 51
    stride: int = 5
    dropout: float = 0.5
    embedding: int | None = None

    def __post_init__(self) -> None:
        check_whole(WIDEST, filters=self.filters, kernel=self.kernel, pool=self.pool, stride=self.stride)
        if self.embedding is not None:
            check_whole(WIDEST, embedding=self.embedding)
        check_share(dropout=self.dropout)


def build(config: Config, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]) -> nn.Module:
    """Make the network with fresh weights, from PyTorch's own random numbers; see :func:`..network.build_network`.

    Raises
    ------
    InputError
        The responses are fMRI or too short, or a feature is too wide for a head without `embedding`.
    """
    _check_shape(config, response_shape)
    from torch import Tensor, nn

    from .layers import Heads, TemporalSpatialConv, draw_normal

    class Nice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = TemporalSpatialConv(
                *response_shape,
                filters=config.filters,
                kernel=config.kernel,
                pool=config.pool,
                stride=config.stride,
                dropout=config.dropout,
            )
            self.heads = Heads("nice", self.trunk.n_features, n_outputs, config.embedding, config.dropout)
            draw_normal(self)

        def forward(self, scores: Tensor) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = self.heads(self.trunk(scores))
            return found

    return Nice()


def _check_shape(config: Config, response_shape: tuple[int, ...]) -> None:
    """Refuse responses of another shape than (n_channels, n_times) with samples enough for kernel and pooling."""
    _, n_times = sensor_axes("nice", response_shape)
    check_length("nice", n_times, config.kernel + config.pool - 1)
