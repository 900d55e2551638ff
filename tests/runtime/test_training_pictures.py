"""The table of training pictures: what a sketch keeps, which picture is the nearest, and files that do not fit."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.training_pictures import WIDTH, read_training_pictures, unit
from minddiffuser.training.training_pictures import made_sketch, medoid

SHAPES = {"context": (3, 4), "latent": (4, 2, 2), "structure": (6, 5, 7), "semantic": (8,)}
N = 9


def correlated(rng: np.random.Generator, size: int, r: float) -> np.ndarray:
    one, other = rng.standard_normal((2, size))
    return np.stack([one, r * one + (1 - r * r) ** 0.5 * other]).astype(np.float32)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.95])
def test_a_sketch_keeps_the_cosine_to_its_stated_error(r: float) -> None:
    """Drawn 200 times: right on average, and no wider than 1 / sqrt(w)."""
    size = 8 * WIDTH
    pair = correlated(np.random.default_rng(1), size, r)
    true = unit(pair)[0] @ unit(pair)[1]
    found = []
    for seed in range(200):
        sketch = made_sketch(np.arange(size), np.zeros(size), np.ones(size), seed=seed)
        one, two = unit(sketch(pair))
        found.append(one @ two)
    bound = WIDTH**-0.5
    assert np.std(found) < 1.15 * bound  # the standard deviation of 200 draws is known to 5 %
    assert np.mean(found) == pytest.approx(true, abs=4 * bound / 200**0.5)


def test_a_small_feature_is_kept_as_it_is() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    mean, std = np.full(20, 0.5, np.float32), np.full(20, 2.0, np.float32)
    position = np.array([1, 4, 19])
    sketch = made_sketch(position, mean, std, seed=0)
    np.testing.assert_allclose(sketch(rows), (rows.reshape(3, -1)[:, position] - 0.5) / 2, rtol=1e-6)


def test_the_medoid_is_the_row_nearest_to_the_mean() -> None:
    assert medoid(np.array([[0.0, 0.0], [10.0, 0.0], [2.0, 1.0], [4.0, 2.0], [2.0, 1.0]])) == 3


def arrays_of(features: dict[str, np.ndarray]) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "number": np.arange(N, dtype=np.int32),
        "pixels": np.random.default_rng(5).integers(0, 256, (N, 32)).astype(np.uint8),
        "typical.context": features["context"][0],
        "mean.latent": features["latent"].mean(0),
    }
    for name, rows in features.items():
        flat = rows.reshape(N, -1)
        sketch = made_sketch(np.arange(flat.shape[1]), flat.mean(0), flat.std(0), seed=0)
        arrays |= {f"{name}.{part}": getattr(sketch, part) for part in ("position", "mean", "std", "sign")}
        arrays[f"{name}.table"] = sketch(rows).astype(np.float16)
    return arrays


@pytest.fixture
def features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {name: rng.standard_normal((N, *shape)).astype(np.float32) + 2 for name, shape in SHAPES.items()}


@pytest.fixture
def path(tmp_path: Path, features: dict[str, np.ndarray]) -> Path:
    save_file(arrays_of(features), tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors"


def decoded_of(features: dict[str, np.ndarray], **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**features, **changes})


def test_the_nearest_picture_is_the_one_of_highest_mean_cosine(path: Path, features: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(9)
    noisy = {name: rows + 1.5 * rng.standard_normal(rows.shape).astype(np.float32) for name, rows in features.items()}
    table = read_training_pictures(path, SHAPES, "")
    for names in (list(SHAPES), ["context", "latent", "structure"]):
        expected = np.zeros((N, N))
        for name in names:
            flat, given = (rows[name].reshape(N, -1).astype(float) for rows in (features, noisy))
            z, g = ((x - flat.mean(0)) / flat.std(0) for x in (flat, given))
            expected += (
                (g / np.linalg.norm(g, axis=1)[:, None]) @ (z / np.linalg.norm(z, axis=1)[:, None]).T / len(names)
            )
        places, similarity = table.nearest(decoded_of(noisy, **{n: None for n in SHAPES if n not in names}))
        np.testing.assert_array_equal(places, expected.argmax(1))
        np.testing.assert_allclose(similarity, expected.max(1), atol=2e-3)  # of float16's 11 bits
        alone = table.nearest(decoded_of({name: rows[4:5] for name, rows in noisy.items()}))
    assert (alone[0][0], alone[1][0]) == tuple(part[4] for part in table.nearest(decoded_of(noisy)))


def test_what_is_the_mean_is_similar_to_nothing_and_finite(path: Path, features: dict[str, np.ndarray]) -> None:
    mean = {name: rows.mean(0, keepdims=True) for name, rows in features.items()}
    places, similarity = read_training_pictures(path, SHAPES, "").nearest(decoded_of(mean))
    assert np.isfinite(similarity).all()
    assert 0 <= places[0] < N


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"number": None}, "'number' is missing"),
        ({"number": np.zeros(0, np.int32)}, "expected"),
        ({f"{name}.table": None for name in SHAPES}, "says nothing of any feature"),
        ({"latent.position": np.full(16, 16, np.int32)}, "does not name dimensions of a latent of size 16"),
        ({"latent.std": np.zeros(16, np.float32)}, "not above 0"),
        ({"semantic.sign": np.ones(7, np.int8)}, "semantic.sign"),
        ({"structure.table": np.zeros((N - 1, 3), np.float16)}, "structure.table"),
        ({"typical.context": np.full((3, 4), np.nan, np.float32)}, "NaN"),
        ({"mean.latent": np.zeros((4, 3, 3), np.float32)}, "mean.latent"),
    ],
)
def test_tables_that_do_not_fit_are_refused(path: Path, change: dict[str, Any], said: str) -> None:
    arrays = load_file(path) | change
    save_file({name: array for name, array in arrays.items() if array is not None}, path)
    with pytest.raises(FileError, match=said) as error:
        read_training_pictures(path, SHAPES, "fit again")
    assert "fit again" in str(error.value)
