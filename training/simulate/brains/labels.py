"""Meaning without a text encoder: random vectors for the tiny world's labels, alike for labels of one sort."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...tinyworld.scenes import BACKGROUNDS, COLOURS, CONCEPTS
from ..fmri import F32

DIMENSIONS = 32
# Share of a label's variance that all labels of its sort have in common: categories cluster in higher visual areas.
ALIKE = 0.5

# Kind of label -> sort -> labels. A label without a sort would be a KeyError at the first draw; a test reads them all.
SORTS: dict[str, dict[str, tuple[str, ...]]] = {
    "concept": {
        "animal": ("fish", "cat", "rabbit", "butterfly"),
        "plant": ("tree", "flower", "mushroom"),
        "vehicle": ("car", "boat", "plane", "rocket"),
        "furnishing": ("house", "lamp", "chair", "clock"),
        "implement": ("cup", "bottle", "key", "hammer", "umbrella"),
        "emblem": ("star", "heart", "moon", "crown"),
    },
    "colour": {
        "warm": ("red", "orange", "yellow", "pink", "brown"),
        "cool": ("green", "cyan", "blue", "purple"),
        "neutral": ("white", "gray", "black"),
    },
    "background": {
        "air": ("sky", "sunset", "night"),
        "ground": ("meadow", "desert", "snow"),
        "water": ("sea",),
        "indoors": ("room",),
    },
}
# In the order of a scene's labels.
WORDS: dict[str, tuple[str, ...]] = {"concept": CONCEPTS, "colour": tuple(COLOURS), "background": BACKGROUNDS}


def draw_embeddings(rng: np.random.Generator) -> dict[str, F32]:
    """Draw a vector for every label.

    Returns
    -------
    Kind of label to (n_labels, DIMENSIONS) float32 in the order of `WORDS`; entries have mean 0 and variance 1, and two
    labels of one sort correlate at `ALIKE` on average.
    """
    return {kind: _draw(rng, words, SORTS[kind]) for kind, words in WORDS.items()}


def _draw(rng: np.random.Generator, words: tuple[str, ...], sorts: Mapping[str, tuple[str, ...]]) -> F32:
    of_sort = {sort: rng.standard_normal(DIMENSIONS) for sort in sorts}
    sort_of = {word: sort for sort, members in sorts.items() for word in members}
    own = rng.standard_normal((len(words), DIMENSIONS))
    common = np.stack([of_sort[sort_of[word]] for word in words])
    vectors: F32 = (np.sqrt(ALIKE) * common + np.sqrt(1 - ALIKE) * own).astype(np.float32)
    return vectors


def label_numbers(rows: NDArray[np.int64], words: Mapping[str, tuple[str, ...]]) -> NDArray[np.int64]:
    """Labels (n, 3) that index a classifier's `words` as indices into `WORDS`."""
    columns = [[WORDS[kind].index(words[kind][int(row[k])]) for row in rows] for k, kind in enumerate(WORDS)]
    return np.array(columns, np.int64).T
