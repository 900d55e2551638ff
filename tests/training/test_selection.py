"""Algorithm 1 against a loop that anyone can check."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.decoders.best import best_per_layer
from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.training.decoders import blocks as block_rule
from minddiffuser.training.decoders.ridge import Ridge
from minddiffuser.training.selection import (
    SelectionSettings,
    Trials,
    correlation,
    fold_correlations,
    folds_of,
    mean_over_folds,
)
from minddiffuser.training.solvers import ridge as ridge_module


def naive_score(
    responses: np.ndarray, features: np.ndarray, fold: np.ndarray, n_selected: int, alpha: float, absolute: bool
) -> np.ndarray:
    """Fold by fold and dimension by dimension, with corrcoef and the normal equations."""
    score = np.zeros((fold.max() + 1, features.shape[1]))
    for number in range(fold.max() + 1):
        train, test = fold != number, fold == number
        mean, std = responses[train].mean(0), responses[train].std(0)
        x, unseen = (responses[train] - mean) / std, (responses[test] - mean) / std
        for dimension in range(features.shape[1]):
            y = features[train, dimension]
            y = (y - y.mean()) / y.std()
            strength = [abs(np.corrcoef(x[:, voxel], y)[0, 1]) for voxel in range(x.shape[1])]
            best = np.argsort(strength)[::-1][:n_selected]
            design = np.column_stack([x[:, best], np.ones(len(x))])
            weight = np.linalg.solve(design.T @ design + alpha * np.eye(len(best) + 1), design.T @ y)
            predicted = np.column_stack([unseen[:, best], np.ones(len(unseen))]) @ weight
            r = np.corrcoef(predicted, features[test, dimension])[0, 1]
            score[number, dimension] = abs(r) if absolute else r
    return score.mean(0)


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    features = rng.standard_normal((n, 8))
    responses = features @ rng.standard_normal((8, 15)) + 4 * rng.standard_normal((n, 15))
    return (responses + 3).astype(np.float32), features.astype(np.float32)


def score_of(
    responses: np.ndarray,
    features: np.ndarray,
    stimulus: np.ndarray,
    decoder: Ridge,
    settings: SelectionSettings,
    **options: Any,
) -> np.ndarray:
    """What dimensions are ranked by."""
    return mean_over_folds(
        fold_correlations(Trials(responses, stimulus), features, decoder, settings, **options), settings
    )


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("n_selected", [6, 15])
def test_score_equals_the_naive_loop(n_selected: int, absolute: bool, rng: np.random.Generator) -> None:
    responses, features = world(rng, 43)
    found = score_of(
        responses,
        features,
        np.arange(43),
        Ridge(n_selected=n_selected, alpha=0.15),
        SelectionSettings(absolute=absolute),
    )
    fold = np.repeat(np.arange(5), [9, 9, 9, 8, 8])  # K-fold over 43: the first three folds have one more
    expected = naive_score(responses.astype(float), features.astype(float), fold, n_selected, 0.15, absolute)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    if absolute:
        assert (found >= 0).all()


def test_repetitions_of_a_stimulus_stay_in_one_fold() -> None:
    stimulus = np.array([7, 7, 2, 2, 9, 9, 4, 4, 7, 2])
    fold = folds_of(stimulus, 2)
    np.testing.assert_array_equal(fold, [0, 0, 0, 0, 1, 1, 1, 1, 0, 0])


def test_folds_are_contiguous_runs_of_trials_whatever_the_stimulus_numbers(rng: np.random.Generator) -> None:
    fold = folds_of(rng.permutation(11), 3)
    np.testing.assert_array_equal(fold, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])


def test_drawn_folds_are_as_large_and_repeatable() -> None:
    one = folds_of(np.arange(20), 4, np.random.default_rng(3))
    np.testing.assert_array_equal(one, folds_of(np.arange(20), 4, np.random.default_rng(3)))
    assert np.bincount(one).tolist() == [5, 5, 5, 5]
    assert (np.diff(one) < 0).any()


def test_features_are_looked_up_by_stimulus(rng: np.random.Generator) -> None:
    responses, features = world(rng, 40)
    order = rng.permutation(40)
    decoder, settings = Ridge(n_selected=5), SelectionSettings(n_folds=4)
    direct = score_of(responses, features[order], np.arange(40), decoder, settings)
    through = score_of(responses, features, order, decoder, settings)
    np.testing.assert_allclose(direct, through, atol=1e-6)


def test_correlation_of_columns(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 30, 4))
    b[:, 1], a[:, 2] = 5.0, -b[:, 2]
    found = correlation(a, b)
    expected = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in (0, 3)]
    np.testing.assert_allclose(found[[0, 3]], expected)
    np.testing.assert_allclose(found[1:3], [0.0, -1.0], atol=1e-12)


def test_mask_keeps_the_best_of_each_layer_and_ties_go_to_the_lower_position() -> None:
    score = np.array([[[0.1, 0.9], [0.5, 0.2]], [[0.3, 0.3], [0.3, 0.3]], [[-0.9, -0.2], [-0.3, -0.4]]], np.float32)
    half = best_per_layer(score, 50)
    expected = [[[False, True], [True, False]], [[True, True], [False, False]], [[False, True], [True, False]]]
    np.testing.assert_array_equal(half, expected)
    assert best_per_layer(score, 1).sum() == 3
    assert best_per_layer(score, 100).all()


def test_a_dimension_of_noise_is_not_kept(rng: np.random.Generator) -> None:
    responses, features = world(rng, 120)
    features[:, 4:] = rng.standard_normal((120, 4))
    score = score_of(responses, features, np.arange(120), Ridge(n_selected=10), SelectionSettings(percent=50))
    np.testing.assert_array_equal(best_per_layer(score[None], 50)[0], [True] * 4 + [False] * 4)


def test_progress_runs_over_all_folds(rng: np.random.Generator) -> None:
    responses, features = world(rng, 20)
    reported: list[tuple[int, int]] = []
    score_of(
        responses,
        features,
        np.arange(20),
        Ridge(n_selected=3),
        SelectionSettings(n_folds=2),
        progress=lambda *a: reported.append(a),
    )
    assert reported == [(8, 16), (16, 16)]


def test_bad_input_is_refused(rng: np.random.Generator) -> None:
    responses, features = world(rng, 9)
    with pytest.raises(InputError, match="9 training stimuli cannot be split into 5 folds"):
        score_of(responses, features, np.arange(9), Ridge(n_selected=3), SelectionSettings())
    with pytest.raises(ShapeError, match="selection got"):
        score_of(responses, features, np.arange(8), Ridge(n_selected=3), SelectionSettings())
    for wrong in ({"percent": 0}, {"percent": 101}, {"n_folds": 1}, {"n_selected": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            SelectionSettings(**wrong)


class Weighing(Ridge):
    """Makes its weights, as decoders do that cannot predict without them."""

    def predictor(self, responses: Any, others: Any, **_options: Any) -> None:
        return None


@pytest.mark.parametrize("alpha", ["cv", 0.15])
@pytest.mark.parametrize("n_stimuli", [12, 60])
def test_a_ridge_from_every_value_needs_no_weights(
    alpha: Any, n_stimuli: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more trials than values and with fewer, of several blocks, and of a target that does not vary."""
    monkeypatch.setattr("minddiffuser.training.decoders.blocks._BLOCK", 4)
    monkeypatch.setattr("minddiffuser.training.decoders.blocks._BLOCK_PER_VALUE", 0)
    responses = rng.standard_normal((n_stimuli, 6, 5)).astype(np.float32)
    features = (responses.reshape(n_stimuli, -1) @ rng.standard_normal((30, 11))).astype(np.float32)
    features[:, 3] = 1.5
    asked: list[Any] = []
    original = Ridge.predictor
    monkeypatch.setattr(Ridge, "predictor", lambda self, *a, **k: asked.append(self) or original(self, *a, **k))
    found, expected = (
        score_of(
            responses, features, np.arange(n_stimuli), kind(n_selected=30, alpha=alpha), SelectionSettings(n_folds=3)
        )
        for kind in (Ridge, Weighing)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(asked) == 3  # once in each fold, however many blocks


def test_memory_does_not_grow_with_the_number_of_dimensions(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Memory shared with workers is not seen by tracemalloc; ordinary arrays of the same sizes are.
    monkeypatch.setattr(ridge_module, "shared_array", lambda shape, dtype: np.empty(shape, dtype))
    n_voxels, n_stimuli = 300, 12
    responses = rng.standard_normal((n_stimuli, n_voxels)).astype(np.float32)
    features = rng.standard_normal((n_stimuli, 16384)).astype(np.float32)

    def peak(n_dimensions: int, decoder: type[Ridge] = Weighing) -> int:
        tracemalloc.start()
        try:
            score_of(
                responses,
                features[:, :n_dimensions],
                np.arange(n_stimuli),
                decoder(n_selected=n_voxels),
                SelectionSettings(n_folds=2),
                n_threads=1,
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(4096), peak(16384)
    assert small > 4096 * n_voxels * 4  # the weights of a block are counted
    assert large < 1.3 * small  # four times as many dimensions
    assert peak(16384, Ridge) < 0.5 * large  # no weights at all


@pytest.mark.parametrize("n_selected", [6, 15])
def test_blocks_change_nothing(n_selected: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    responses, features = world(rng, 43)
    reported: list[tuple[int, int]] = []

    def score() -> np.ndarray:
        decoder = Ridge(n_selected=n_selected)
        return score_of(
            responses,
            features,
            np.arange(43),
            decoder,
            SelectionSettings(n_folds=2),
            progress=lambda *a: reported.append(a),
        )

    whole = score()
    monkeypatch.setattr(block_rule, "_BLOCK", 3)
    monkeypatch.setattr(block_rule, "_BLOCK_PER_VALUE", 0)
    reported.clear()
    np.testing.assert_allclose(score(), whole, atol=1e-6)
    assert reported == [(done, 16) for done in (3, 6, 8, 11, 14, 16)]
