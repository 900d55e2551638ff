"""The penalty that cross-validation chooses, against a loop with the normal equations, and what it must not look at."""

from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import ResponseLayout
from minddiffuser.runtime.errors import InputError
from minddiffuser.training.decoders.base import fitted_to, make_decoder
from minddiffuser.training.decoders.ridge import Ridge
from minddiffuser.training.folds import folds_of
from minddiffuser.training.solvers.penalty import ALPHAS, choose_alpha, sampled


class Whole:
    def __init__(self, y: np.ndarray) -> None:
        self._y, self.shape = y, y.shape

    def columns(self, start: int, stop: int) -> np.ndarray:
        return self._y[:, start:stop]


def world(rng: np.random.Generator, noise: float, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    causes = rng.standard_normal((n, 5))
    x = causes @ rng.standard_normal((5, 60)) + noise * rng.standard_normal((n, 60))
    y = causes @ rng.standard_normal((5, 12)) + noise * rng.standard_normal((n, 12))
    return x, y


def naive(x: np.ndarray, y: np.ndarray, fold: np.ndarray, n: int) -> list[float]:
    """Squared error for held-out trials by the normal equations, for each penalty."""
    error = np.zeros(len(ALPHAS))
    for number in np.unique(fold):
        known = fold != number
        mean, std = x[known].mean(0), x[known].std(0)
        a, b = (x[known] - mean) / std, (x[~known] - mean) / std
        for target in y.T:
            t = (target - target[known].mean()) / target[known].std()
            r = [abs(np.corrcoef(voxel, t[known])[0, 1]) for voxel in a.T]
            best = np.argsort(r)[::-1][:n]
            design, hidden = (np.column_stack([rows[:, best], np.ones(len(rows))]) for rows in (a, b))
            for k, alpha in enumerate(ALPHAS):
                weight = np.linalg.solve(design.T @ design + alpha * np.eye(n + 1), design.T @ t[known])
                error[k] += np.sum((hidden @ weight - t[~known]) ** 2)
    return error.tolist()


@pytest.mark.parametrize("n", [10, 60], ids=["selected", "all voxels"])
@pytest.mark.parametrize("noise", [0.05, 1.0, 6.0])
def test_it_is_the_best_of_a_naive_loop(n: int, noise: float, rng: np.random.Generator) -> None:
    x, y = world(rng, noise)
    fold = folds_of(np.arange(120), 5)
    expected = ALPHAS[int(np.argmin(naive(x, y, fold, n)))]
    assert choose_alpha(x, Whole(y), fold, n_selected=n, n_threads=1) == expected


@pytest.mark.parametrize("noise", [0.05, 6.0])
def test_from_all_voxels_of_fewer_trials(noise: float, rng: np.random.Generator) -> None:
    x, y = world(rng, noise, n=40)
    fold = folds_of(np.arange(40), 5)
    expected = ALPHAS[int(np.argmin(naive(x, y, fold, 60)))]
    assert choose_alpha(x, Whole(y), fold, n_selected=99, n_threads=1) == expected


@pytest.mark.parametrize("n", [10, 60], ids=["selected", "all voxels"])
def test_nan_is_refused(n: int, rng: np.random.Generator) -> None:
    x, y = world(rng, 1.0)
    fold = folds_of(np.arange(120), 5)
    y[3, 2] = np.nan
    with pytest.raises(InputError, match="targets hold NaN"):
        choose_alpha(x, Whole(y), fold, n_selected=n, n_threads=1)
    x[3, 2] = np.inf
    with pytest.raises(InputError, match="the responses hold NaN or infinite values"):
        choose_alpha(x, Whole(y), fold, n_selected=n, n_threads=1)


def test_more_noise_asks_for_more(rng: np.random.Generator) -> None:
    fold = folds_of(np.arange(120), 5)
    quiet, loud = (choose_alpha(x, Whole(y), fold, n_selected=20) for x, y in (world(rng, 0.01), world(rng, 10.0)))
    assert quiet < loud


def test_repetitions_of_a_picture_are_held_out_together(rng: np.random.Generator) -> None:
    """Noise that repeats with the picture looks like signal, to whoever knows one of its trials."""
    n, pictures = 60, np.repeat(np.arange(60), 4)
    x, y = rng.standard_normal((n, 80)), rng.standard_normal((n, 8))
    x, y = x[pictures] + 0.01 * rng.standard_normal((4 * n, 80)), y[pictures]
    order = rng.permutation(4 * n)
    x, y, pictures = x[order], y[order], pictures[order]
    ridge = Ridge(n_selected=40, alpha="cv")
    leaky = ridge.settled(x, Whole(y))[1]["alpha"]  # as if all pictures differed
    clean = ridge.settled(x, Whole(y), pictures=pictures)[1]["alpha"]
    assert leaky < clean


def test_what_decides_is_spread_over_the_targets() -> None:
    assert sampled(100) == [(0, 100)]
    spans = sampled(10_000)
    assert len(spans) == 8
    assert (spans[0], spans[-1]) == ((0, 16), (9984, 10_000))


def test_targets_that_do_not_vary_decide_nothing(rng: np.random.Generator) -> None:
    x, y = world(rng, 1.0)
    fold = folds_of(np.arange(120), 5)
    with_constant = np.hstack([y, np.zeros((120, 3))])
    chosen = choose_alpha(x, Whole(y), fold, n_selected=10)
    assert choose_alpha(x, Whole(with_constant), fold, n_selected=10) == chosen
    with pytest.raises(InputError, match="none of the targets varies"):
        choose_alpha(x, Whole(np.ones((120, 3))), fold, n_selected=10)


def test_few_pictures_have_fewer_folds(rng: np.random.Generator) -> None:
    """As are left of ten when a fold of the selection is held out."""
    x, y = world(rng, 1.0, n=8)
    expected = choose_alpha(x, Whole(y), folds_of(np.arange(8), 4), n_selected=6)
    assert Ridge(n_selected=6, alpha="cv").settled(x, Whole(y))[1]["alpha"] == expected


def test_the_fitter_takes_it_by_name(rng: np.random.Generator) -> None:
    x, y = world(rng, 1.0)
    decoder = make_decoder("ridge", "structure", alpha="cv", n_selected=10)
    fitted = decoder.fit(x, Whole(y), n_threads=1)
    alpha = fitted.described()["alpha"]
    assert alpha in ALPHAS
    fixed = make_decoder("ridge", "structure", alpha=alpha, n_selected=10).fit(x, Whole(y), n_threads=1)
    assert fixed.described() == {}
    np.testing.assert_array_equal(fitted.arrays()["weight"], fixed.arrays()["weight"])
    assert decoder.describe()["alpha"] == "cv"
    on_device = make_decoder("ridge", "structure", alpha=alpha, n_selected=10, device="cuda:99")
    with pytest.raises(InputError, match="cannot compute on device"):
        on_device.fit(x, Whole(y))
    with pytest.raises(InputError, match="cannot compute on device"):  # before anything is computed
        fitted_to(on_device, ResponseLayout(modality="fmri", shape=(60,)))
    with pytest.raises(InputError, match="device is 'gpu', expected cpu, cuda or cuda:0"):
        make_decoder("ridge", "structure", device="gpu")
    with pytest.raises(InputError, match="expected a finite penalty of at least 0, or cv"):
        make_decoder("ridge", "structure", alpha="best")
