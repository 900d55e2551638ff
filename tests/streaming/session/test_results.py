"""Lines about results, for people."""

from types import SimpleNamespace
from typing import Any

import pytest

from minddiffuser.streaming.session.results import decoded_words


def epoch(**changes: Any) -> Any:
    made = {"ordinal": 31, "text": "stim/hammer", "n_averaged": 1, "chance": (1 / 24, 5 / 24), "confidence": 0.524}
    nearest = (("hammer", 0.412), ("mushroom", 0.3), ("fish", 0.29), ("cat", 0.1))
    return SimpleNamespace(**{**made, "nearest": nearest, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "marker 31 'stim/hammer': nearest hammer 0.41, mushroom 0.30, fish 0.29 (a guess is right in 4.2 %); "
            "nearer than 52 % of scrambled epochs, 38 ms after the epoch's end",
        ),
        (
            {"confidence": None, "n_averaged": 3},
            "marker 31 'stim/hammer', mean of 3: nearest hammer 0.41, mushroom 0.30, fish 0.29 (a guess is right in "
            "4.2 %), 38 ms after the epoch's end",
        ),
        ({"nearest": (), "chance": None}, "marker 31 'stim/hammer': decoded, 38 ms after the epoch's end"),
    ],
)
def test_a_decoded_epoch_in_words(changes: dict[str, Any], said: str) -> None:
    assert decoded_words(epoch(**changes), 0.0381) == said
