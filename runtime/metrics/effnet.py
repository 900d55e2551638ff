"""Distance by EfficientNet-B1, with torchvision's second (standard) or first weights."""

from __future__ import annotations

from .variants import distance_family

EFFNET = distance_family("effnet", "EffNet-B", "How far apart EfficientNet-B1's last layer puts the two pictures.")
EFFNET_V1 = distance_family(
    "effnet_v1", "EffNet-B, V1", "The same with torchvision's first weights, as in Brain-Diffuser's evaluation."
)
