"""Which kind of simulated brain a provenance speaks of."""

from __future__ import annotations

from typing import Any

import pytest

from minddiffuser.runtime.data.simulated import simulated_brain


@pytest.mark.parametrize(
    ("provenance", "brain"),
    [
        ({"kind": "simulated fMRI", "brain": "gabor"}, "gabor"),
        ({"kind": "simulated fMRI"}, "clip"),  # of the release that had one kind
        ({"kind": "NSD", "brain": "gabor"}, None),
        ({"brain": "gabor"}, None),
        ({"kind": ["simulated"]}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_kind_of_brain(provenance: Any, brain: str | None) -> None:
    assert simulated_brain(provenance) == brain
