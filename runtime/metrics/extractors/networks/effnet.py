"""EfficientNet-B1 (Tan and Le 2019): its 1280 averages before the classifier, with either of two sets of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..network import Network, extractors_of
from ..weights import WeightsFile

if TYPE_CHECKING:
    import torch


def build() -> torch.nn.Module:
    """Torchvision's network without its classifier."""
    import torch
    from torchvision.models import efficientnet_b1

    network = efficientnet_b1(weights=None)
    network.classifier = torch.nn.Identity()
    return network  # type: ignore[no-any-return]


# torchvision's present weights (IMAGENET1K_V2, its "DEFAULT"), which MindEye takes.
SECOND = Network(
    name="effnet",
    build=build,
    weights=WeightsFile(
        name="efficientnet_b1-c27df63c.pth",
        url="https://download.pytorch.org/models/efficientnet_b1-c27df63c.pth",
        sha256="c27df63c",
    ),
    side=255,
)
# Its first ones (IMAGENET1K_V1): what `weights=True` gives, as Brain-Diffuser writes it.
FIRST = Network(
    name="effnet_v1",
    build=build,
    weights=WeightsFile(
        name="efficientnet_b1_rwightman-bac287d4.pth",
        url="https://download.pytorch.org/models/efficientnet_b1_rwightman-bac287d4.pth",
        sha256="bac287d4",
    ),
    side=255,
)

EFFNET = (*extractors_of(SECOND), *extractors_of(FIRST))
