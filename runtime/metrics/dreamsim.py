"""Perceptual distance of whole pictures."""

from __future__ import annotations

from .base import Metric
from .distance import cosine_distance

DREAMSIM = Metric(
    name="dreamsim",
    label="DreamSim",
    meaning="Perceptual distance by an ensemble of vision transformers that were tuned to people's judgements of whole "
    "pictures (Fu et al. 2023).",
    needs="dreamsim",
    function=cosine_distance,
    better="lower",
    range=(0, 2),
    default=False,
)
