"""AlexNet (Krizhevsky 2014) as torchvision has it: an early and a middle layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..network import Network, extractors_of
from ..weights import WeightsFile

if TYPE_CHECKING:
    import torch

WEIGHTS = WeightsFile(
    name="alexnet-owt-7be5be79.pth",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be79",
)


def _second() -> torch.nn.Module:
    """Up to the rectifier after the second convolution: 192 x 31 x 31 of 256 px."""
    return _up_to(5)


def _fifth() -> torch.nn.Module:
    """Up to the rectifier after the fifth convolution: 256 x 15 x 15 of 256 px."""
    return _up_to(12)


def _up_to(n_layers: int) -> torch.nn.Module:
    import torch
    from torchvision.models import alexnet

    network = torch.nn.Sequential()  # names its tensors as the whole network does, whose file is read
    network.add_module("features", alexnet(weights=None).features[:n_layers])
    return network


# 184,512 numbers a picture: a thousand pictures of three kinds would be 2 GB.
SECOND = Network(name="alexnet2", build=_second, weights=WEIGHTS, side=256, keep=False)
FIFTH = Network(name="alexnet5", build=_fifth, weights=WEIGHTS, side=256, keep=False)

ALEXNET = (*extractors_of(SECOND), *extractors_of(FIFTH))
