"""Holes in responses: which voxels or trials hold them, and which cost less to leave out."""

from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.data import nan
from minddiffuser.runtime.data.nan import chunks, find_holes, numbers


def responses(n_trials: int = 200, n_voxels: int = 50) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n_trials, n_voxels)).astype(np.float32)


def test_none() -> None:
    assert find_holes(responses()) is None


@pytest.mark.parametrize("chunk", [1, 70, 1 << 23])
def test_the_same_holes_however_the_rows_are_cut(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nan, "_CHUNK_VALUES", chunk)
    rows = responses()
    rows[20:40, [3, 9]] = np.nan
    rows[77] = np.inf
    rows[:, 49] = -np.inf
    holes = find_holes(rows)
    assert holes is not None
    assert holes.trials.tolist() == list(range(200))
    assert holes.broken.tolist() == [77]
    assert holes.places.tolist() == [3, 9, 49]
    assert holes.empty.tolist() == [49]


@pytest.mark.parametrize(
    ("bad_trials", "bad_voxels", "cure"),
    [
        (slice(10, 30), [4, 6, 7], "leave 3 voxels (4, 6, 7) out of both splits and keep the rest, or leave 20 trials"),
        (slice(10, 12), [4, 6, 7], "leave 2 trials (10, 11) out"),
        (slice(10, 11), slice(None), "leave trial 10 out"),
        (slice(0, 100), [4], "leave voxel 4 out of both splits"),
    ],
)
def test_the_cheaper_cure_comes_first(bad_trials: slice, bad_voxels: list[int], cure: str) -> None:
    rows = responses()
    rows[bad_trials, bad_voxels] = np.nan
    holes = find_holes(rows)
    assert holes is not None
    assert holes.cure().startswith(cure)


def test_a_broken_trial_goes_with_the_voxels() -> None:
    rows = responses()
    rows[50:90, 2] = np.nan
    rows[199] = np.nan
    holes = find_holes(rows)
    assert holes is not None
    assert holes.cure().startswith("leave voxel 2 and trial 199 out of both splits")


def test_following_the_cure_leaves_none() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        rows = responses(60, 20)
        rows[np.ix_(rng.integers(60, size=8), rng.integers(20, size=3))] = np.nan
        rows[rng.integers(60)] = np.nan
        holes = find_holes(rows)
        assert holes is not None
        assert find_holes(np.delete(np.delete(rows, holes.broken, 0), holes.places, 1)) is None
        assert find_holes(np.delete(rows, holes.trials, 0)) is None


def test_a_channel_has_a_hole_where_one_of_its_samples_is_one() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6, 9)).astype(np.float32)
    rows[3:20, 4, 7] = np.nan
    rows[30, :, 0] = np.inf
    holes = find_holes(rows, "channel")
    assert holes is not None
    assert (holes.n_trials, holes.n_places) == (40, 6)
    assert (holes.places.tolist(), holes.broken.tolist(), holes.empty.tolist()) == ([4], [30], [])
    assert holes.cure().startswith("leave channel 4 and trial 30 out of both splits")


def test_chunks_cover_the_rows_once() -> None:
    covered = np.zeros(1000, int)
    for part in chunks((1000, 1 << 20)):
        covered[part] += 1
    assert (covered == 1).all()
    assert list(chunks((0, 5))) == []


def test_numbers() -> None:
    assert numbers("voxel", [7]) == "voxel 7"
    assert numbers("trial", range(40)).startswith("40 trials (0, 1, 2, ")
    assert numbers("trial", range(40)).endswith(", …)")
