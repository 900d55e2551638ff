"""ResNet-50 trained by SwAV (Caron et al. 2020), 800 epochs: its 2048 averages before the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..network import Network, extractors_of
from ..weights import WeightsFile

if TYPE_CHECKING:
    import torch


def build() -> torch.nn.Module:
    """Torchvision's ResNet-50, as the publisher's hub entry has it, without the classifier, which it has no weights of.

    The publisher's training code pads before the first convolution and not in it: the same network.
    """
    import torch
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.fc = torch.nn.Identity()
    return network  # type: ignore[no-any-return]


NETWORK = Network(
    name="swav",
    build=build,
    weights=WeightsFile(
        name="swav_800ep_pretrain.pth.tar",
        url="https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
    ),
    side=224,
    prefix="module.",  # it was saved by a process that trained on several GPUs
)

SWAV = extractors_of(NETWORK)
