"""Weights and patterns against sums and correlations written out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.decoders.base import Placement
from minddiffuser.runtime.decoders.linear import Linear
from minddiffuser.runtime.errors import InputError
from minddiffuser.training.interpret.importance import importance, patterns, relative

N_VALUES, N_LAYERS = 12, 2


def linear(rng: np.random.Generator, feature: str, shape: tuple[int, ...], n_selected: int = 4) -> Linear:
    size = int(np.prod(shape))
    position = np.sort(rng.choice(size, size - 2, replace=False)).astype(np.int32)
    index = np.stack([np.sort(rng.choice(N_VALUES, n_selected, replace=False)) for _ in position]).astype(np.int32)
    weight = rng.standard_normal(index.shape).astype(np.float32)
    place = Placement(shape, position, np.zeros(size, np.float32), np.ones(size, np.float32))
    return Linear(feature, place, index, weight, np.zeros(len(position), np.float32))


@pytest.fixture
def checkpoint(rng: np.random.Generator) -> Any:
    decoders = {
        "context": linear(rng, "context", (3, 4)),
        "structure": linear(rng, "structure", (N_LAYERS, 3, 2)),
        "latent": object(),  # no linear one
    }
    return SimpleNamespace(decoders=decoders, layout=SimpleNamespace(shape=(3, 4)), folder=Path("checkpoint"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def dense(decoder: Linear) -> np.ndarray[Any, Any]:
    out = np.zeros((len(decoder.bias), N_VALUES))
    for row, (index, weight) in enumerate(zip(decoder.index, decoder.weight, strict=True)):
        for place, value in zip(index, weight, strict=True):
            out[row, place] += value
    return out


def layers(decoder: Linear) -> np.ndarray[Any, Any]:
    return np.array([np.unravel_index(place, decoder.placement.shape)[0] for place in decoder.placement.position])


def test_weights_are_averaged_over_dimensions_and_layers(checkpoint: Any) -> None:
    found = importance(checkpoint)
    assert set(found) == {"context", "structure", "structure 1", "structure 2"}
    for name, values in found.items():
        decoder = checkpoint.decoders[name.partition(" ")[0]]
        weights = np.abs(dense(decoder))
        if " " in name:
            weights = weights[layers(decoder) == int(name[-1]) - 1]
        expected = weights.mean(axis=0)
        np.testing.assert_allclose(values, (expected / expected.mean()).reshape(3, 4), rtol=1e-6)
        assert values.mean() == pytest.approx(1)


def test_patterns_are_correlations_with_what_is_decoded(checkpoint: Any, rng: np.random.Generator) -> None:
    scores = rng.standard_normal((40, 3, 4)).astype(np.float32)
    scores[:, 0, 0] = 0  # a value that does not vary
    found = patterns(checkpoint, scores)
    flat = scores.reshape(40, -1).astype(np.float64)
    for name in ("context", "structure 2"):
        decoder = checkpoint.decoders[name.partition(" ")[0]]
        rows = dense(decoder)
        rows = rows[layers(decoder) == 1] if " " in name else rows
        with np.errstate(invalid="ignore"):
            each = [[abs(np.corrcoef(flat[:, v], flat @ w)[0, 1]) for v in range(N_VALUES)] for w in rows]
        np.testing.assert_allclose(found[name].ravel(), np.nan_to_num(each).mean(axis=0), atol=1e-7)
    # Haufe's form, the covariance over the decoded variance, is that of z-scored responses.
    x = flat[:, 5] / flat[:, 5].std()
    y = flat @ dense(checkpoint.decoders["context"])[0]
    haufe = np.cov(x, y)[0, 1] / np.var(y, ddof=1) * y.std(ddof=1)
    assert abs(haufe) == pytest.approx(abs(np.corrcoef(x, y)[0, 1]), rel=0.05)


def test_a_pattern_says_what_a_weight_does_not(rng: np.random.Generator) -> None:
    """Haufe et al.'s example: the second value holds noise alone, gets a large weight, and has no pattern."""
    signal, noise = rng.standard_normal((2, 5000))
    scores = np.stack([signal + noise, noise], axis=1)
    place = Placement((1,), np.zeros(1, np.int32), np.zeros(1, np.float32), np.ones(1, np.float32))
    both = Linear(
        "latent", place, np.array([[0, 1]], np.int32), np.array([[1, -1]], np.float32), np.zeros(1, np.float32)
    )
    made: Any = SimpleNamespace(decoders={"latent": both}, layout=SimpleNamespace(shape=(2,)), folder=Path())
    np.testing.assert_allclose(importance(made)["latent"], [1, 1])
    known, unknown = patterns(made, scores)["latent"]
    assert known == pytest.approx(0.5**0.5, abs=0.05)
    assert unknown < 5 / 5000**0.5


def test_dimensions_are_drawn_by_seed(checkpoint: Any, rng: np.random.Generator) -> None:
    scores = rng.standard_normal((20, 3, 4))
    first, again, other = (patterns(checkpoint, scores, n_dimensions=3, seed=seed)["context"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_values_are_multiples_of_an_even_spread() -> None:
    np.testing.assert_allclose(relative(np.array([1.0, 2.0, 3.0])), [0.5, 1.0, 1.5])
    np.testing.assert_array_equal(relative(np.zeros(3)), np.zeros(3))


def test_in_pieces_it_is_the_same(checkpoint: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = rng.standard_normal((20, 3, 4)).astype(np.float32)
    whole = importance(checkpoint), patterns(checkpoint, scores, n_dimensions=None)
    monkeypatch.setattr(f"{importance.__module__}._AT_ONCE", 50)
    for found, expected in zip((importance(checkpoint), patterns(checkpoint, scores)), whole, strict=True):
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_a_checkpoint_of_networks_is_refused() -> None:
    made: Any = SimpleNamespace(decoders={"latent": object()}, layout=SimpleNamespace(shape=(2,)), folder=Path("net"))
    with pytest.raises(InputError, match="no linear decoder"):
        importance(made)
