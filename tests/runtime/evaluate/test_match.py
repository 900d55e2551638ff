"""Names as other tools write them."""

import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.evaluate.match import match
from minddiffuser.runtime.evaluate.pictures import Item, Pictures


def pictures(*names: str, named: bool = True, each: int = 1) -> Pictures:
    return Pictures(where="a", items=tuple(Item(name, (None,) * each) for name in names), named=named)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stimuli", "given", "expected"),
    [
        (("a", "b"), ("b", "a"), {0: (1,), 1: (0,)}),
        (("0", "1"), ("00001", "00000"), {0: (1,), 1: (0,)}),
        (("Cat_01", "dog-2"), ("cat-1", "Dog_002"), {0: (0,), 1: (1,)}),
        (("000", "001", "010"), ("0_recon", "1_recon", "10_recon"), {0: (0,), 1: (1,), 2: (2,)}),
        (("stim_000", "stim_001"), ("img0-gen", "img1-gen"), {0: (0,), 1: (1,)}),
        (("000", "001"), ("0_0", "0_1", "1_0", "1_1"), {0: (0, 1), 1: (2, 3)}),
        (("cat", "dog"), ("dog_1", "cat_1", "cat_2"), {0: (1, 2), 1: (0,)}),
        (("0007", "0012"), ("sub1_img_7_seed0", "sub1_img_7_seed1", "sub1_img_12_seed0"), {0: (0, 1), 1: (2,)}),
        (("x",), ("y",), {0: (0,)}),
    ],
)
def test_names_that_belong_together(
    stimuli: tuple[str, ...], given: tuple[str, ...], expected: dict[int, tuple[int, ...]]
) -> None:
    found = match(pictures(*stimuli), pictures(*given))
    assert found.of_stimulus == expected
    assert found.complete


def test_equal_names_need_no_word_and_others_get_one() -> None:
    assert match(pictures("a", "b"), pictures("a", "b")).note == ""
    assert "1_recon belongs to 001" in match(pictures("001", "002"), pictures("1_recon", "2_recon")).note


def test_what_has_no_counterpart_is_named() -> None:
    found = match(pictures("0", "1", "2"), pictures("1", "2", "3"))
    assert found.of_stimulus == {1: (0,), 2: (1,)}
    assert found.left_stimuli == ("0",)
    assert found.left_pictures == ("3",)
    # Numbers alone do not make "b_2" one of "a_2".
    other = match(pictures("a_1", "a_2", "b_1"), pictures("b_1", "b_2"))
    assert other.of_stimulus == {2: (0,)}
    assert other.left_pictures == ("b_2",)


def test_names_that_say_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"no picture in a is named as a stimulus .* give --by-order"):
        match(pictures("cat", "dog"), pictures("x", "y"))


def test_order_is_taken_where_asked_or_where_there_are_no_names() -> None:
    asked = match(pictures("cat", "dog"), pictures("x", "y"), by_order=True)
    assert asked.of_stimulus == {0: (0,), 1: (1,)}
    assert "by order: the first is x for cat" in asked.note
    nameless = match(pictures("cat", "dog"), pictures("0", "1", named=False))
    assert "by order, since a has no names" in nameless.note
    with pytest.raises(InputError, match="3 pictures and a 2 stimuli"):
        match(pictures("cat", "dog"), pictures("0", "1", "2", named=False))


def test_a_stimulus_is_one_picture() -> None:
    with pytest.raises(InputError, match="the stimulus a in a has 2 pictures: give one each"):
        match(pictures("a", each=2), pictures("a"))
