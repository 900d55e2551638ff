"""Compare two run folders, picture by picture; run by CI from an environment without PyTorch.

The gate's own terms: both stages' pictures within the fp32 tolerances of export/verify/parity.py, and their PixCorr and
SSIM to the stimulus within 0.005.
"""

import json
import sys
from pathlib import Path

import numpy as np

from minddiffuser.export.verify.parity import GUIDED_PICTURES, PICTURES, psnr
from minddiffuser.runtime.images import read_image, to_float

one, two = map(Path, sys.argv[1:3])
names = sorted(path.name for path in (one / "images" / "stage1").glob("*.png"))
if len(names) < 2:
    raise SystemExit(f"{one} holds {len(names)} pictures")
for stage, tolerance in (("stage1", PICTURES["fp32"]), ("stage2", GUIDED_PICTURES["fp32"])):
    first, second = (
        to_float(np.stack([read_image(run / "images" / stage / name) for name in names])) for run in (one, two)
    )
    print(f"{stage}: lowest PSNR {psnr(second, first):.1f} dB over {len(names)} pictures")  # noqa: T201
    if psnr(second, first) < tolerance.psnr:
        raise SystemExit(f"the pictures of {stage} differ")
figures = [json.loads((run / "summary.json").read_text())["metrics"] for run in (one, two)]
for metric in ("pixcorr", "ssim"):
    for stage in ("stage1", "stage2"):
        difference = figures[1][metric][stage] - figures[0][metric][stage]
        print(f"{metric} of {stage}: difference {difference:+.5f}")  # noqa: T201
        if abs(difference) > 0.005:
            raise SystemExit(f"{metric} of {stage} differs by {difference:+.5f}")
