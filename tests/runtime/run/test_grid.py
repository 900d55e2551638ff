import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.run.grid import batch_grid


def test_the_grid_does_not_move_when_trials_are_bad() -> None:
    assert batch_grid(7, 3) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert batch_grid(7, 3, {1, 3, 4, 5}) == [(0, 2), (), (6,)]


@pytest.mark.parametrize("size", [0, -2])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=str(size)):
        batch_grid(4, size)
