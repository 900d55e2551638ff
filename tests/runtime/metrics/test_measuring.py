"""What is kept of features that are too large to keep, and that it gives the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.metrics import METRICS
from minddiffuser.runtime.metrics.extractors import Features
from minddiffuser.runtime.metrics.measuring import Measurements, Pairs, measure_pairs
from minddiffuser.runtime.metrics.sources import PictureFile
from minddiffuser.runtime.metrics.spool import Spool

IDS = ["a", "b", "a", "c", "d"]
GROUPS = (np.array([0, 2]), np.array([1, 3]))


class Counting:
    """Features that count how many pictures were looked at."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.n += len(images)
        return images.reshape(len(images), -1)[:, ::2].astype(np.float32)


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, list[tuple[Path, Path]]]:
    rng, made = np.random.default_rng(0), {}
    shown = {name: rng.integers(0, 256, (8, 8, 3)) for name in IDS}
    for kind, share in (("stage1", 0.3), ("stage2", 0.6)):
        made[kind] = []
        for trial, name in enumerate(IDS):
            stimulus, picture = tmp_path / f"{trial}.png", tmp_path / kind / f"{trial}.png"
            blend = share * shown[name] + (1 - share) * rng.integers(0, 256, (8, 8, 3))
            write_png(stimulus, shown[name].astype(np.uint8))
            write_png(picture, blend.astype(np.uint8))
            made[kind].append((stimulus, picture))
    return made


METRIC_NAMES = ["alexnet2", "alexnet2_takagi", "lpips"]


def sets_of(pairs: dict, groups: tuple[np.ndarray, ...] = ()) -> dict[str, Pairs]:
    return {
        kind: Pairs(
            pairs=[(PictureFile(one), PictureFile(other)) for one, other in those],
            ids=IDS,
            rows=range(len(IDS)),
            groups=groups,
        )
        for kind, those in pairs.items()
    }


def measured(pairs: dict, kept: Path, look: Callable[[np.ndarray], np.ndarray], keep: bool, **choices: object) -> dict:
    return found_of(sets_of(pairs), kept, look, keep, **choices).values


def found_of(
    sets: dict[str, Pairs], kept: Path, look: Callable[[np.ndarray], np.ndarray], keep: bool, **choices: object
) -> Measurements:
    features = Features(identity="x", of_pictures=look, keep=keep)
    extractors = {"alexnet2": features, "lpips": features}
    found = measure_pairs([METRICS[n] for n in METRIC_NAMES], extractors, sets, kept, **choices)
    assert not found.notes
    return found


def test_large_features_give_what_kept_ones_give(pairs: dict, tmp_path: Path) -> None:
    looked, progress = Counting(), []
    large = measured(pairs, tmp_path / "large", looked, False, on_progress=lambda *far: progress.append(far))
    small = measured(pairs, tmp_path / "small", Counting(), True)
    for kind in pairs:
        for name in METRIC_NAMES:
            np.testing.assert_allclose(large[kind][name], small[kind][name], atol=1e-12)
    # 4 stimuli and 10 pictures for the sets, and both sides of 10 pairs for the distance.
    assert looked.n == 14 + 20
    assert progress[0] == (0, 24)
    assert progress[-1] == (24, 24)
    assert (tmp_path / "large").stat().st_size < (tmp_path / "small").stat().st_size


def test_what_stayed_is_not_looked_at_again(pairs: dict, tmp_path: Path) -> None:
    first = measured(pairs, tmp_path / "kept", Counting(), False)
    again = Counting()
    second = measured(pairs, tmp_path / "kept", again, False)
    assert again.n == 0
    changed, picture = Counting(), pairs["stage2"][4][1]
    write_png(picture, np.zeros((8, 8, 3), np.uint8))
    third = measured(pairs, tmp_path / "kept", changed, False)
    # The whole set of stage 2 (4 stimuli, 5 pictures), and both sides of one pair.
    assert changed.n == 9 + 2
    for name in METRIC_NAMES:
        np.testing.assert_array_equal(first["stage1"][name], second["stage1"][name])
        np.testing.assert_array_equal(first["stage1"][name], third["stage1"][name])
    assert first["stage2"]["lpips"][4] != third["stage2"]["lpips"][4]


def test_features_that_are_not_finite_leave_their_metrics_out(pairs: dict, tmp_path: Path) -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 4), np.nan, np.float32)

    extractors = {name: Features(identity="x", of_pictures=broken, keep=False) for name in ("alexnet2", "lpips")}
    for groups in ((), GROUPS):
        found = measure_pairs(
            [METRICS[n] for n in METRIC_NAMES], extractors, sets_of(pairs, groups), tmp_path / f"kept{len(groups)}"
        )
        assert found.values == found.crossed == {"stage1": {}, "stage2": {}}
        assert [note.partition(" was left out: it is NaN")[0] for note in found.notes] == METRIC_NAMES


def test_pictures_are_compared_with_other_stimuli_once(pairs: dict, tmp_path: Path) -> None:
    """In groups, with several pictures of one stimulus; the same whether features are kept or not."""
    sets, looked, progress = sets_of(pairs, GROUPS), Counting(), []
    large = found_of(sets, tmp_path / "large", looked, False, on_exchange=lambda *far: progress.append(far))
    small = found_of(sets, tmp_path / "small", Counting(), True)
    # Two kinds: 2 stimuli with 3 pictures, and 2 with 2.
    assert progress[0] == (0, 20)
    assert progress[-1] == (20, 20)
    again = Counting()
    second = found_of(sets, tmp_path / "large", again, False)
    assert again.n == 0
    for kind in pairs:
        for name in METRIC_NAMES:
            for one, other, third in zip(
                large.crossed[kind][name], small.crossed[kind][name], second.crossed[kind][name], strict=True
            ):
                np.testing.assert_allclose(one, other, atol=1e-9)
                np.testing.assert_array_equal(one, third)
            own = np.concatenate([np.diag(matrix) for matrix in large.crossed[kind][name]])
            order = np.concatenate(GROUPS)
            which = np.array([list(dict.fromkeys(IDS)).index(name_of) for name_of in IDS])
            means = [large.values[kind][name][which == number].mean() for number in order]
            np.testing.assert_allclose(own, means, atol=1e-9)


def test_a_spool_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    with Spool(tmp_path) as spool:
        spool.add(rows[:2])
        spool.add(rows[2:])
        np.testing.assert_array_equal(spool.rows([4, 0, 0]), rows[[4, 0, 0]])
    assert not list(tmp_path.iterdir())
