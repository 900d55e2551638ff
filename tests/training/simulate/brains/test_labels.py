"""Embeddings of labels: every label has one sort, and labels of one sort are alike."""

from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.training.simulate.brains.labels import ALIKE, SORTS, WORDS, draw_embeddings, label_numbers
from minddiffuser.training.tinyworld.scenes import BACKGROUNDS, COLOURS, CONCEPTS, scenes


@pytest.mark.parametrize("kind", WORDS)
def test_every_label_has_one_sort(kind: str) -> None:
    members = [word for sort in SORTS[kind].values() for word in sort]
    assert sorted(members) == sorted(WORDS[kind])


def test_kinds_stand_in_the_order_of_a_scene_s_labels() -> None:
    for scene in scenes(3, 20, combinations="all"):
        named = [words[number] for words, number in zip(WORDS.values(), scene.labels, strict=True)]
        assert named == [scene.concept, scene.colour, scene.background]


def test_labels_of_one_sort_are_alike_and_others_are_not() -> None:
    same, other, own = [], [], []
    for seed in range(40):
        vectors = draw_embeddings(np.random.default_rng(seed))["concept"]
        alike = vectors @ vectors.T / vectors.shape[1]
        sort = np.array([next(s for s, m in SORTS["concept"].items() if word in m) for word in CONCEPTS])
        together = sort[:, None] == sort[None, :]
        same.append(alike[together & ~np.eye(len(CONCEPTS), dtype=bool)].mean())
        other.append(alike[~together].mean())
        own.append(np.diag(alike).mean())
    # Standard errors over 40 draws: the sorts' own vectors, 6 of 32 dimensions each, vary most (0.02).
    np.testing.assert_allclose([np.mean(same), np.mean(other), np.mean(own)], [ALIKE, 0, 1], atol=0.06)


def test_a_classifier_s_own_order_of_words() -> None:
    words = {"concept": CONCEPTS[::-1], "colour": tuple(COLOURS)[::-1], "background": BACKGROUNDS}
    rows = np.array([[0, 1, 2], [len(CONCEPTS) - 1, 0, 0]])
    expected = [[len(CONCEPTS) - 1, len(COLOURS) - 2, 2], [0, len(COLOURS) - 1, 0]]
    assert label_numbers(rows, words).tolist() == expected
