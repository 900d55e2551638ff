"""What metrics compare: features of pictures, each kind from one extractor.

A new extractor is one file and one line here; a published network is one file in `networks` and one line, which gives
an extractor for each way of preprocessing.
"""

from __future__ import annotations

from .base import Extractor, Features, Given, Unavailable
from .clip import CLIP
from .dreamsim import DREAMSIM
from .images import IMAGES
from .labels import LABELS
from .locator import LOCATOR
from .lpips import LPIPS
from .networks.alexnet import ALEXNET
from .networks.clip_vit_l14 import CLIP_VIT_L14
from .networks.effnet import EFFNET
from .networks.inception import INCEPTION
from .networks.swav import SWAV

EXTRACTORS: dict[str, Extractor] = {
    extractor.name: extractor
    for extractor in (
        IMAGES,
        CLIP,
        LABELS,
        LOCATOR,
        *ALEXNET,
        *INCEPTION,
        *CLIP_VIT_L14,
        *EFFNET,
        *SWAV,
        LPIPS,
        DREAMSIM,
    )
}

__all__ = ["EXTRACTORS", "Extractor", "Features", "Given", "Unavailable"]
