from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.runtime.decoders.belonging import Decoded
from minddiffuser.runtime.refine.settings import GuidedSettings
from minddiffuser.runtime.sampling import Sampling
from minddiffuser.streaming.generation.plan import Plan


@pytest.fixture
def features(backend: Backend[Any], epochs: np.ndarray) -> list[Decoded]:
    """Of eight epochs, one each."""
    return [backend.decode(epoch[None]) for epoch in epochs[:8]]


@pytest.fixture
def plan() -> Plan:
    """Short: 3 steps of stage 1; of stage 2 two steps before, 3 candidates of two steps, two steps after."""
    refine = GuidedSettings(candidates=3, start_steps=2, finish_steps=2, n_steps=6, strength=0.32, semantic_weight=0.0)
    return Plan(sampling=Sampling(n_steps=6, n_noise=None, n_reverse=3), refine=refine, most_candidates=3)
