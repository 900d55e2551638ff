"""How close reconstructions are to what was seen.

A new metric is one file and one line here; the contract test in tests/runtime/metrics runs over `METRICS`.
"""

from __future__ import annotations

from .base import Metric
from .concept import concept_top1
from .identification import two_way
from .pixcorr import pixcorr
from .ssim import ssim, ssim_columns

METRICS: dict[str, Metric] = {
    "pixcorr": Metric(needs="images", function=pixcorr, meaning="correlation of pixel values"),
    "ssim": Metric(needs="images", function=ssim, meaning="structural similarity over two dimensions"),
    "ssim_columns": Metric(
        needs="images", function=ssim_columns, meaning="structural similarity along pixel columns (older tables)"
    ),
    "clip_two_way": Metric(
        needs="clip", function=two_way, meaning="two-way identification by CLIP embeddings, chance 0.5", min_trials=2
    ),
    "concept_top1": Metric(
        needs="labels", function=concept_top1, meaning="right concept according to a separately trained classifier"
    ),
}

__all__ = ["METRICS", "Metric"]
