"""Sentences on the simulator say what its tables hold."""

import re

import pytest

from minddiffuser.training.experiments import put_in
from minddiffuser.training.simulate.brains import BRAINS


@pytest.mark.parametrize("brain", BRAINS)
def test_areas(brain: str) -> None:
    text = " ".join(put_in.areas(brain))
    assert "V1, V2, V3, V3ab, hV4 hold" in text
    assert "LO (0 to 30 % of the former), IPS (30 to 70 % of the former)" in text
    assert "1,240 voxels; HVC is VO, PHC, MT, MST, LO, IPS, 760" in text


def test_sensors() -> None:
    numbers = re.findall(r"[0-9][0-9.,]*[0-9]|[0-9]", put_in.sensors())
    assert numbers == ["2,000", "95", "160", "230", "340", "0.2", "1.5", "80", "12"]
