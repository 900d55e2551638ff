"""How often the decoded concept is the true one: counted by hand, over pictures, with the chance that belongs to it."""

from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.candidates import Candidates
from minddiffuser.runtime.run.concepts import DecodedConcepts, concepts_line

NAMES = ("cat", "sea lion", "dog", "fish", "bird", "horse", "cow", "pig")
# Trials: cat right; sea lion second (a tie with the first lies before it); dog sixth; and one that is no candidate.
SIMILARITY = np.array(
    [
        [0.9, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0],
        [0.9, 0.8, 0.2, 0.7, 0.6, 0.5, 0.0, 0.0],
        [0.9, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0],
    ],
    np.float32,
)
TRUE = ("cat", "Sea_Lion", "dog", "unicorn")


def decoded(**changes: object) -> DecodedConcepts:
    candidates = Candidates(names=NAMES, prompt="a {}", prototypes="text")
    given: dict[str, object] = {"candidates": candidates, "similarity": SIMILARITY, "true": TRUE, **changes}
    return DecodedConcepts(**given)  # type: ignore[arg-type]


def test_rows_say_what_was_taken_and_where_the_true_one_is() -> None:
    rows = decoded().rows()
    assert [row["decoded"] for row in rows] == ["cat", "cat", "cat", "cat"]
    assert [row["rank"] for row in rows] == [1, 2, 6, None]
    assert [row["true"] for row in rows] == list(TRUE)
    assert [row["margin"] for row in rows] == pytest.approx([0.6, 0.0, 0.1, 0.6], abs=1e-6)


def test_what_is_no_candidate_counts_as_wrong_and_has_no_chance() -> None:
    found = decoded().summary(0)
    assert (found["n_candidates"], found["n_trials"], found["n_outside"]) == (8, 4, 1)
    assert (found["top1"], found["top5"]) == (1 / 4, 2 / 4)
    assert found["chance1"] == pytest.approx(3 / 4 / 8)
    assert found["chance5"] == pytest.approx(3 / 4 * 5 / 8)
    assert found["top1_minus_chance"] == {"difference": pytest.approx(1 / 4 - 3 / 32), "ci95": None}
    said = concepts_line(found)
    assert "top-1 0.250 (chance 0.094), top-5 0.500 (chance 0.469); 1 of 4 trials showed none of them" in said


def test_a_picture_counts_once() -> None:
    found = decoded(stimulus_ids=["a", "b", "b", "b"]).summary(0)
    assert found["top1"] == pytest.approx((1 + 0) / 2)
    assert found["top5"] == pytest.approx((1 + 1 / 3) / 2)


def test_intervals_are_over_pictures() -> None:
    many = decoded(similarity=np.tile(SIMILARITY, (10, 1)), true=TRUE * 10)
    low, high = many.summary(0)["top1_minus_chance"]["ci95"]
    assert low < 1 / 4 - 3 / 32 < high
    assert many.summary(0) == many.summary(0)


def test_few_candidates_make_chance_one() -> None:
    candidates = Candidates(names=NAMES[:2], prompt="a {}", prototypes="text")
    found = decoded(candidates=candidates, similarity=SIMILARITY[:2, :2], true=TRUE[:2]).summary(0)
    assert (found["chance1"], found["chance5"], found["top5"]) == (0.5, 1.0, 1.0)
    alone = Candidates(names=NAMES[:1], prompt="a {}", prototypes="text")
    one = decoded(candidates=alone, similarity=SIMILARITY[:1, :1], true=TRUE[:1])
    assert one.rows() == [{"decoded": "cat", "margin": None, "true": "cat", "rank": 1}]


def test_where_the_truth_is_not_known_nothing_is_claimed() -> None:
    found = decoded(true=())
    assert [row["rank"] for row in found.rows()] == [None] * 4
    summary = found.summary(0)
    assert (summary["n_trials"], summary["n_outside"], summary["top1"], summary["chance5"]) == (0, 0, None, None)
    assert "which one was shown is not known" in concepts_line(summary)
