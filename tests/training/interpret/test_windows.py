"""Windows of an epoch, and accuracies of signals that are put into one moment."""

from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.errors import InputError
from minddiffuser.training.interpret.windows import (
    Split,
    drawn_dimensions,
    held_out_peak,
    peak,
    top1,
    window_hits,
    windows,
)


def layout(n_times: int = 50, sfreq: float = 100.0, tmin: float = -0.1) -> ResponseLayout:
    channels = tuple(Channel(name=name, type="eeg") for name in ("Oz", "O1", "O2"))
    return ResponseLayout(
        modality="eeg", shape=(3, n_times), channels=channels, sfreq=sfreq, tmin=tmin, unit="V", signal=None
    )


def test_windows_of_a_tenth_of_a_second_every_fortieth() -> None:
    found = windows(layout())
    assert all(window.stop - window.start == 10 for window in found)
    assert found[0].start == 0
    assert found[-1].stop <= 50
    assert found[-1].stop + 3 > 50
    # 25 ms is 2.5 samples: no drift from rounding.
    assert [window.start for window in found[:5]] == [0, 2, 5, 8, 10]
    for window in found:
        assert window.time == pytest.approx(np.mean(-0.1 + np.arange(window.start, window.stop) / 100))


@pytest.mark.parametrize(
    ("given", "width", "step", "said"),
    [(layout(5), 0.1, 0.025, "shorter"), (layout(), 0.001, 0.025, "shorter"), (layout(), 0.1, 0.001, "shorter")],
)
def test_windows_that_cannot_be_are_refused(given: ResponseLayout, width: float, step: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        windows(given, width=width, step=step)
    with pytest.raises(InputError, match="no time"):
        windows(ResponseLayout(modality="fmri", shape=(3,)))


def test_top1_is_the_nearest_by_correlation() -> None:
    rng = np.random.default_rng(1)
    candidates, decoded = rng.standard_normal((5, 8)), rng.standard_normal((7, 8))
    right = rng.integers(5, size=7)
    expected = [
        np.argmax([np.corrcoef(row, other)[0, 1] for other in candidates]) == r
        for row, r in zip(decoded, right, strict=True)
    ]
    np.testing.assert_array_equal(top1(decoded, candidates, right), expected)
    same = np.ones((3, 8))
    assert not top1(same, same, np.arange(3)).any(), "a tie is no hit"


def made(rng: np.random.Generator, n: int, weights: Any, moment: slice) -> Split:
    features = rng.standard_normal((n, 6))
    responses = rng.standard_normal((n, 3, 50))
    responses[:, :, moment] += np.einsum("nd,dct->nct", features, weights)
    layers = {"structure 1": features[:, :3], "structure 2": features[:, 3:]}
    return Split(responses=responses, stimulus=np.arange(n), features=layers)


def test_what_is_put_into_one_moment_is_found_there() -> None:
    rng = np.random.default_rng(3)
    moment = slice(20, 26)
    weights = 2 * rng.standard_normal((6, 3, 6))
    train, test = made(rng, 150, weights, moment), made(rng, 30, weights, moment)
    found = windows(layout())
    each = [window_hits(train, test, one, pictures=np.arange(150))[0] for one in found]
    hits = np.stack([one["structure"] for one in each])
    assert each[0].keys() == {"structure 1", "structure 2", "structure"}
    assert hits.shape == (len(found), 30)
    inside = [number for number, one in enumerate(found) if one.start <= 20 and one.stop >= 26]
    outside = [number for number, one in enumerate(found) if one.stop <= 20 or one.start >= 26]
    assert hits[inside].mean(axis=1).min() > 0.9
    # Four standard deviations, of windows of which fewer than nine overlap with each other.
    assert hits[outside].mean() < 1 / 30 + 4 * (1 / 30 / (30 * len(outside))) ** 0.5 * 3
    time, low, high = peak([one.time for one in found], hits, rng)
    assert found[inside[0]].time - 0.06 <= low <= time <= high <= found[inside[-1]].time + 0.06


def test_the_peak_of_a_picture_is_chosen_without_it(rng: np.random.Generator) -> None:
    clear = np.zeros((6, 40))
    clear[2] = np.arange(40) % 4 > 0
    np.testing.assert_allclose(held_out_peak(clear, rng), clear[2])
    # Of noise alone the highest accuracy is above chance, and this is not.
    noise = (rng.random((30, 300)) < 0.1).astype(float)
    assert noise.mean(axis=1).max() > 0.13
    assert held_out_peak(noise, rng).mean() == pytest.approx(0.1, abs=0.025)
    # Two windows that find the same number of pictures: each picture has the mean of both.
    even = np.zeros((2, 400))
    even[0, ::2] = even[1, 1::2] = 1
    assert held_out_peak(even, rng).mean() == pytest.approx(0.5, abs=0.05)
    assert held_out_peak(np.array([[0.0], [1.0]]), rng).tolist() == [1.0]


def test_equally_good_windows_share_the_peak(rng: np.random.Generator) -> None:
    hits = np.zeros((4, 12))
    hits[1:3] = 1
    assert peak([0.0, 0.1, 0.2, 0.3], hits, rng) == pytest.approx((0.15, 0.15, 0.15))


def test_dimensions_that_do_not_vary_are_not_drawn() -> None:
    targets = np.random.default_rng(0).standard_normal((9, 20))
    targets[:, ::2] = 1
    np.testing.assert_array_equal(drawn_dimensions(targets, 99, np.random.default_rng(0)), np.arange(1, 20, 2))
    some = drawn_dimensions(targets, 4, np.random.default_rng(0))
    assert len(some) == 4
    assert (some % 2 == 1).all()
    assert (np.diff(some) > 0).all()
