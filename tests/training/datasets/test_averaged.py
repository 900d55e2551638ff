"""Averages over repetitions: one trial per picture, by content, in the order in which they were first shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minddiffuser.training.datasets.averaged import Averaged
from minddiffuser.training.datasets.base import pictures_shown


@dataclass
class Data:
    """Five trials of three pictures, of which numbers 0 and 3 are copies."""

    train: np.ndarray
    subject: str = "S1"

    def responses(self, split: str) -> np.ndarray:
        return self.train if split == "train" else self.train[:1]

    def stimulus(self, split: str) -> np.ndarray:
        return np.array([2, 0, 2, 3, 1]) if split == "train" else np.array([0])

    def picture_ids(self, split: str) -> tuple[str, ...]:
        return "a", "b", "c", "a"


def test_the_train_split_is_one_mean_per_picture(rng: np.random.Generator) -> None:
    responses = rng.standard_normal((5, 2, 3)).astype(np.float32)
    data: Any = Averaged(Data(responses))  # type: ignore[arg-type]
    expected = np.stack([responses[[0, 2]].mean(0), responses[[1, 3]].mean(0), responses[4]])
    np.testing.assert_allclose(data.responses("train"), expected, rtol=1e-6)
    assert data.responses("train").dtype == np.float32
    assert data.stimulus("train").tolist() == [2, 0, 1]
    assert pictures_shown(data, "train").tolist() == [2, 0, 1]
    assert data.subject == "S1"
    np.testing.assert_array_equal(data.responses("test"), responses[:1])
    np.testing.assert_array_equal(Averaged(data).responses("train"), data.responses("train"))
