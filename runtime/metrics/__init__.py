"""How close reconstructions are to what was shown.

A new metric is one file and one line here; the contract test in tests/runtime/metrics runs over `METRICS`, and summary
and report show it as it describes itself. Features that no extractor gives yet are one more file and one line in
`extractors`.
"""

from __future__ import annotations

from .alexnet import ALEXNET2, ALEXNET5
from .base import Metric
from .clip_vit_l14 import CLIP_VIT_L14
from .concept import CONCEPT_TOP1
from .dreamsim import DREAMSIM
from .effnet import EFFNET, EFFNET_V1
from .identification import CLIP_TWO_WAY
from .inception import INCEPTION
from .lpips import LPIPS
from .near_pair import NEAR_PAIR, NEAR_PAIR_OWN
from .pixcorr import PIXCORR, PIXCORR_ALIASED, PIXCORR_PIL425
from .ssim import SSIM, SSIM_COLUMNS, SSIM_VARIANTS
from .swav import SWAV
from .where import OVERLAP, PLACE, SIZE

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        PIXCORR,
        SSIM,
        SSIM_COLUMNS,
        CLIP_TWO_WAY,
        CONCEPT_TOP1,
        PLACE,
        SIZE,
        OVERLAP,
        PIXCORR_ALIASED,
        PIXCORR_PIL425,
        *SSIM_VARIANTS,
        *ALEXNET2,
        *ALEXNET5,
        *INCEPTION,
        *CLIP_VIT_L14,
        *EFFNET,
        *EFFNET_V1,
        *SWAV,
        LPIPS,
        DREAMSIM,
        NEAR_PAIR,
        NEAR_PAIR_OWN,
    )
}

__all__ = ["METRICS", "Metric"]
