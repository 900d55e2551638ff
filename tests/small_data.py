"""A whole data folder around a few test trials, written as a user's script does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.data.folder import DataFolder, SplitData, write_data


def write_small_data(folder: Path, rows: NDArray[Any], **changes: Any) -> DataFolder:
    """Test trials `rows` (n_trials, …), the first and the last of which show the same picture.

    Rows of channels and times need their `layout` among the changes.

    Picture k is grey of level 40 k (modulo 256) and its captions are "thing k"; the train split holds ten drawn trials.
    """
    n_trials, shape = len(rows), rows.shape[1:]
    n_pictures = max(1, n_trials - 1)
    test = SplitData(
        responses=rows,
        stimulus=(np.arange(n_trials) + 1) % n_pictures,
        images=[np.full((8, 8, 3), 40 * k % 256, np.uint8) for k in range(n_pictures)],
        captions=[[f"thing {k}"] for k in range(n_pictures)],
    )
    train = SplitData(
        responses=np.random.default_rng(5).standard_normal((10, *shape), dtype=np.float32),
        stimulus=np.arange(10) % 2,
        images=np.zeros((2, 8, 8, 3), np.uint8),
        captions=[["a"], ["b"]],
    )
    rois = {} if "layout" in changes else {"rois": {"all": (0, shape[0])}}
    given: dict[str, Any] = {"subject": "someone", **rois, **changes}
    return write_data(folder, {"train": train, "test": test}, **given)
