from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.sampling import Sampling


def test_the_default_is_the_published_setting() -> None:
    chosen = Sampling()
    assert (chosen.guidance_scale, chosen.n_steps, chosen.n_noise, chosen.n_reverse) == (5.0, 50, 37, 35)
    assert chosen.start == 37
    assert Sampling(n_noise=None).start == 34
    with pytest.raises(FrozenInstanceError):
        chosen.n_steps = 20  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_steps": 0}, "n_steps is 0"),
        ({"n_reverse": 0}, "n_reverse is 0"),
        ({"n_reverse": 51}, "n_reverse is 51"),
        ({"n_noise": 50}, "n_noise is 50"),
        ({"n_noise": -1}, "n_noise is -1"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ],
)
def test_a_step_outside_the_grid_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Sampling(**change)
