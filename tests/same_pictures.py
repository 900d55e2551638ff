"""Compare two run folders, picture by picture; run by CI from an environment without PyTorch.

The gate's own terms: stage 1 within the fp32 tolerance of export/verify/parity.py, and both stages' PixCorr and SSIM to
the stimulus within 0.005.
"""

import json
import sys
from pathlib import Path

import numpy as np

from minddiffuser.export.verify.parity import PICTURES, psnr
from minddiffuser.runtime.images import read_image, to_float

one, two = map(Path, sys.argv[1:3])
names = sorted(path.name for path in (one / "images" / "stage1").glob("*.png"))
if len(names) < 2:
    raise SystemExit(f"{one} holds {len(names)} pictures")
for stage in ("stage1", "stage2"):
    first, second = (
        to_float(np.stack([read_image(run / "images" / stage / name) for name in names])) for run in (one, two)
    )
    print(f"{stage}: lowest PSNR {psnr(second, first):.1f} dB over {len(names)} pictures")  # noqa: T201
    if stage == "stage1" and psnr(second, first) < PICTURES["fp32"].psnr:
        raise SystemExit("the pictures of stage 1 differ")
figures = [json.loads((run / "summary.json").read_text())["metrics"] for run in (one, two)]
for metric in ("pixcorr", "ssim"):
    for stage in ("stage1", "stage2"):
        difference = figures[1][metric][stage] - figures[0][metric][stage]
        print(f"{metric} of {stage}: difference {difference:+.5f}")  # noqa: T201
        if abs(difference) > 0.005:
            raise SystemExit(f"{metric} of {stage} differs by {difference:+.5f}")
