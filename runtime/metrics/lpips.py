"""Learned perceptual distance."""

from __future__ import annotations

import numpy as np

from .base import Metric
from .distance import squared_distance

LPIPS = Metric(
    name="lpips",
    label="LPIPS",
    meaning="Perceptual distance by five layers of AlexNet, weighted as people judge (Zhang et al. 2018).",
    needs="lpips",
    function=squared_distance,
    better="lower",
    range=(0, np.inf),
    default=False,
)
