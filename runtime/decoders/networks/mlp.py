"""`mlp`: responses of any shape, flattened, through a few hidden layers to one linear head per feature.

The paper replaces its linear decoders by a "3-layer MLP" (table 7): three linear maps, two of them hidden layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .settings import DEEPEST, WIDEST, check_share, check_whole

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Config:
    """The architecture's settings, as they stand in checkpoint.json.

    Attributes
    ----------
    hidden : int
        Width of each hidden layer.
    depth : int
        Hidden layers; each is a linear map, LayerNorm, GELU and dropout.
    dropout : float
        Share of each hidden layer that is dropped in training; nothing is dropped in decoding.
    """

    hidden: int = 512
    depth: int = 2
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_whole(WIDEST, hidden=self.hidden)
        check_whole(DEEPEST, depth=self.depth)
        check_share(dropout=self.dropout)


def build(config: Config, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]) -> nn.Module:
    """Make the network with fresh weights, from PyTorch's own random numbers; see :func:`..network.build_network`."""
    import torch
    from torch import nn

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width, layers = math.prod(response_shape), list[nn.Module]()
            for _ in range(config.depth):
                layers += [nn.Linear(width, config.hidden), nn.LayerNorm(config.hidden), nn.GELU()]
                layers += [nn.Dropout(config.dropout)]
                width = config.hidden
            self.trunk = nn.Sequential(nn.Flatten(), *layers)
            self.heads = nn.ModuleList(nn.Linear(width, n) for n in n_outputs.values())

        def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
            hidden = self.trunk(scores)
            return tuple(head(hidden) for head in self.heads)

    return Mlp()
