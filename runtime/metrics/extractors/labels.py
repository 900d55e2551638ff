"""Concepts: those that captions name, and those that a separately trained classifier finds in pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...files import sha256_of
from ..base import Array
from .base import Extractor, Features, Given, Unavailable


def open_labels(given: Given) -> Features:
    """The classifier inside the model folder, where captions say what was shown."""
    if given.classifier is None:
        raise Unavailable(given.without_models or "the model folder has no classifier (classifier/)")
    if not given.captions:
        raise Unavailable("the stimuli have no captions that name what they show")
    from ..classifier import open_classifier

    classifier = open_classifier(given.classifier, given.device)
    truth = caption_labels(given.captions, classifier.labels["concept"])
    if truth is None:
        raise Unavailable("the captions of some trial name none, or more than one, of the things the classifier knows")
    files = [sha256_of(given.classifier / f"classifier.{kind}") for kind in ("json", "safetensors")]

    def classify(images: Array) -> Array:
        return classifier.predict(images)[:, 0]

    return Features(identity=f"labels {' '.join(files)} {given.device}", of_pictures=classify, truth=truth)


def caption_labels(captions: Sequence[Sequence[str]], words: Sequence[str]) -> NDArray[np.int64] | None:
    """The index of the one word of `words` that each trial's captions name, or None where a trial is not so clear."""
    labels = []
    for texts in captions:
        spoken = " ".join(texts).lower()
        named = [i for i, word in enumerate(words) if re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", spoken)]
        if len(named) != 1:
            return None
        labels.append(named[0])
    return np.asarray(labels, dtype=np.int64) if labels else None


LABELS = Extractor(name="labels", open=open_labels)
