"""The classifier's network: strided convolutions, a mean over positions, one linear head for each kind of word.

The only file of this package that imports torch; it is imported when a classifier is built or opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


def _convolution(n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    ]


class ClassifierNetwork(nn.Module):
    """Classifies a picture three times: by concept, colour and background.

    Each entry of `channels` halves the picture's side; from the second on, a further convolution at the same
    resolution widens the view, so that at 64 pixels and three entries a position sees 41 pixels.

    Parameters
    ----------
    channels
        Width of each stage, first to last.
    n_labels
        Number of labels of each head, in the order of the outputs.
    """

    def __init__(self, channels: Sequence[int], n_labels: Mapping[str, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = _convolution(3, channels[0], kernel=5, stride=2)
        for n_in, n_out in zip(channels, channels[1:], strict=False):
            layers += _convolution(n_in, n_out, stride=2) + _convolution(n_out, n_out)
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(channels[-1], n) for name, n in n_labels.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits of each head, (n, n_labels), for images (n, 3, H, W) in [0, 1]."""
        pooled = self.features((images - 0.5) * 4).mean(dim=(2, 3))
        return tuple(head(pooled) for head in self.heads.values())


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the normalisation statistics anew, as plain means over `batches` of training images.

    To be called once after training: averaged weights, or a training resumed from its parameters alone, do not
    have the running statistics that their batch normalisation needs. Leaves the network in evaluation mode.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for the cumulative mean
    network.train()
    for images in batches:
        network(images)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    network.eval()
