"""Inception v3 (Szegedy et al. 2016): its 2048 averages before the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..network import Network, extractors_of
from ..weights import WeightsFile

if TYPE_CHECKING:
    import torch


def build() -> torch.nn.Module:
    """Torchvision's network with its own change of scale, as it is with published weights, and no classifier.

    The weights were trained on pixels from -1 to 1; `transform_input` takes those normalised by ImageNet's statistics
    there.
    """
    import torch
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, transform_input=True, aux_logits=False, init_weights=False)
    network.fc = torch.nn.Identity()
    return network  # type: ignore[no-any-return]


# 342 px and not 299: the published evaluation takes the size that torchvision resizes to before it crops, and no crop.
NETWORK = Network(
    name="inception",
    build=build,
    weights=WeightsFile(
        name="inception_v3_google-0cc3c7bd.pth",
        url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        sha256="0cc3c7bd",
    ),
    side=342,
)

INCEPTION = extractors_of(NETWORK)
