from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime import backends
from minddiffuser.runtime.backends.base import Backend


@pytest.fixture
def backend(live_bundle: Path) -> Iterator[Backend[Any]]:
    """Its engines."""
    with backends.open(live_bundle, backends.Options(backend="ort", threads=1)) as opened:
        opened.start()
        yield opened


@pytest.fixture
def epochs(backend: Backend[Any], rng: np.random.Generator) -> np.ndarray:
    """(40, 3, 41) float32 on the scale of training."""
    training = backend.decoder.training
    scores = rng.standard_normal((40, *training.mean.shape))
    return (training.mean + training.std * scores).astype(np.float32)
