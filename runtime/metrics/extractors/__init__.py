"""What metrics compare: features of pictures, each kind from one extractor.

A new extractor is one file and one line here.
"""

from __future__ import annotations

from .base import Extractor, Features, Given, Unavailable
from .clip import CLIP
from .images import IMAGES
from .labels import LABELS
from .locator import LOCATOR

EXTRACTORS: dict[str, Extractor] = {extractor.name: extractor for extractor in (IMAGES, CLIP, LABELS, LOCATOR)}

__all__ = ["EXTRACTORS", "Extractor", "Features", "Given", "Unavailable"]
