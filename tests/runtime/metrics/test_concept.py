from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.errors import ShapeError
from minddiffuser.runtime.metrics.concept import concept_top1


def test_right_and_wrong() -> None:
    score = concept_top1(np.array([3, 0, 2, 2]), np.array([3, 1, 2, 0], dtype=np.int32))
    assert score.tolist() == [1, 0, 1, 0]
    assert score.dtype == np.float64


def test_names_are_refused() -> None:
    with pytest.raises(ShapeError, match="class indices"):
        concept_top1(np.array(["cat", "dog"]), np.array([0, 1]))
