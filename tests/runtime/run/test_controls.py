import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.run.controls import control_names, controls_text, partners


@pytest.mark.parametrize("trials", [(0, 1), (0, 2, 5), tuple(range(40))])
def test_every_trial_takes_anothers_target_and_each_is_taken_once(trials: tuple[int, ...]) -> None:
    for seed in range(5):
        partner = partners(trials, seed)
        assert sorted(partner) == sorted(partner.values()) == sorted(trials)
        assert all(trial != other for trial, other in partner.items())


@pytest.mark.parametrize(
    "shown",
    ["aaabbb", "abab", "aabbc", "abcabcabcabc", "aab", "aaaaaab", "abbbbbbb", "aaaaabbc", "abcdefghhhhhhh"],
)
def test_a_partner_showed_another_picture(shown: str) -> None:
    trials = tuple(range(len(shown)))
    most = max(shown.count(picture) for picture in shown)
    for seed in range(20):
        partner = partners(trials, seed, tuple(shown))
        assert sorted(partner) == list(trials)
        assert all(shown[trial] != shown[other] for trial, other in partner.items())
        if 2 * most <= len(shown):
            assert sorted(partner.values()) == list(trials), "each target once, where that can be"
        else:  # the others take turns, so none is taken much more often than another
            times = [list(partner.values()).count(trial) for trial in trials if shown.count(shown[trial]) != most]
            assert max(times) - min(times) <= 1


def test_ids_belong_to_trial_numbers_also_where_trials_are_missing() -> None:
    shown = {4: "a", 9: "b", 11: "a", 30: "b"}
    assert all(shown[t] != shown[o] for t, o in partners((4, 9, 11, 30), 0, shown).items())
    sequence = ["a"] * 5 + ["b"] * 5
    assert all(sequence[t] != sequence[o] for t, o in partners((1, 3, 6, 8), 0, sequence).items())


def test_it_depends_on_the_seed_and_not_on_the_order_given() -> None:
    assert partners((4, 1, 9, 7), 3) == partners((1, 4, 7, 9), 3)
    shown = {4: "a", 1: "a", 9: "b", 7: "c"}
    assert partners((4, 1, 9, 7), 3, shown) == partners((1, 4, 7, 9), 3, shown)
    assert len({tuple(sorted(partners(range(10), seed).items())) for seed in range(5)}) == 5


def test_distinct_ids_are_as_good_as_none() -> None:
    assert partners(range(9), 2, [f"picture {n}" for n in range(9)]) == partners(range(9), 2)


def test_one_trial_or_one_picture_has_no_other() -> None:
    with pytest.raises(InputError, match="at least 2 good trials, there are 1"):
        partners((3,), 0)
    with pytest.raises(InputError, match="all 3 good ones showed the same: leave the control out"):
        partners((0, 2, 5), 0, ["p", "q", "p", "q", "q", "p"])


@pytest.mark.parametrize(
    ("text", "names", "kept"),
    [
        ("none", (), "none"),
        ("both", ("shuffled", "oracle"), "both"),
        ("oracle, shuffled", ("shuffled", "oracle"), "both"),
        ("oracle", ("oracle",), "oracle"),
        ("nearest,both", ("shuffled", "oracle", "nearest"), "shuffled,oracle,nearest"),
        ("all", ("shuffled", "oracle", "generator", "nearest"), "shuffled,oracle,generator,nearest"),
        ("generator,generator", ("generator",), "generator"),
    ],
)
def test_controls_are_asked_for_one_by_one_or_in_groups(text: str, names: tuple[str, ...], kept: str) -> None:
    assert control_names(text) == names
    assert controls_text(names) == kept
    assert control_names(kept) == names


@pytest.mark.parametrize("text", ["", "some", "both,", "none,oracle", "shuffled oracle"])
def test_other_controls_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="control"):
        control_names(text)
