"""Distance by the ResNet-50 that SwAV trained without labels."""

from __future__ import annotations

from .variants import distance_family

SWAV = distance_family("swav", "SwAV", "How far apart SwAV's ResNet-50 puts the two pictures.")
