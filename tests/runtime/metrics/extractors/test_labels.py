import pytest

from minddiffuser.runtime.metrics.extractors import EXTRACTORS, Given, Unavailable
from minddiffuser.runtime.metrics.extractors.labels import caption_labels

WORDS = ("cat", "house", "ice cream")


def test_the_one_word_that_captions_name() -> None:
    captions = [["A Cat, asleep", "cat"], ["an ice cream"], ["the house"]]
    labels = caption_labels(captions, WORDS)
    assert labels is not None
    assert labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("text", ["a cathedral", "a cat in a house", ""])
def test_captions_that_are_not_so_clear(text: str) -> None:
    assert caption_labels([["a cat"], [text]], WORDS) is None
    assert caption_labels([], WORDS) is None


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if name != "images"])
def test_what_a_run_does_not_have_is_said(name: str) -> None:
    with pytest.raises(
        Unavailable, match="has no classifier|has no graph|have no captions|have no locator|--download-weights"
    ):
        EXTRACTORS[name].open(Given())
