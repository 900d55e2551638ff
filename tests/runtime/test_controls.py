import pytest

from minddiffuser.runtime.controls import derangement
from minddiffuser.runtime.errors import InputError


@pytest.mark.parametrize("trials", [(0, 1), (0, 2, 5), tuple(range(40))])
def test_every_trial_takes_anothers_target_and_each_is_taken_once(trials: tuple[int, ...]) -> None:
    for seed in range(5):
        partner = derangement(trials, seed)
        assert sorted(partner) == sorted(partner.values()) == sorted(trials)
        assert all(trial != other for trial, other in partner.items())


def test_it_depends_on_the_seed_and_not_on_the_order_given() -> None:
    assert derangement((4, 1, 9, 7), 3) == derangement((1, 4, 7, 9), 3)
    assert len({tuple(sorted(derangement(range(10), seed).items())) for seed in range(5)}) == 5


def test_one_trial_has_no_other() -> None:
    with pytest.raises(InputError, match="at least 2"):
        derangement((3,), 0)
