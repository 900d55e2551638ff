"""How close reconstructions are to what was shown.

A new metric is one file and one line here; the contract test in tests/runtime/metrics runs over `METRICS`, and summary
and report show it as it describes itself. Features that no extractor gives yet are one more file and one line in
`extractors`.
"""

from __future__ import annotations

from .base import Metric
from .concept import CONCEPT_TOP1
from .identification import CLIP_TWO_WAY
from .pixcorr import PIXCORR
from .ssim import SSIM, SSIM_COLUMNS
from .where import OVERLAP, PLACE, SIZE

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (PIXCORR, SSIM, SSIM_COLUMNS, CLIP_TWO_WAY, CONCEPT_TOP1, PLACE, SIZE, OVERLAP)
}

__all__ = ["METRICS", "Metric"]
