"""What every registered decoder must do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minddiffuser.runtime.checkpoint import DECODER_ARRAYS
from minddiffuser.runtime.errors import InputError
from minddiffuser.training.decoders.base import DECODERS, TARGETS, changed, make_decoder


def linear_world(rng: np.random.Generator, n_trials: int) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.standard_normal((20, 2))
    responses = rng.standard_normal((n_trials, 20))
    return responses, responses @ truth + 0.5 * rng.standard_normal((n_trials, 2))


@pytest.mark.parametrize("name", DECODERS)
def test_recovers_a_linear_world(name: str, rng: np.random.Generator) -> None:
    responses, targets = linear_world(rng, 200)
    fitted = make_decoder(name, "context").fit(responses[:150], targets[:150])
    predicted = fitted.predict(responses[150:])
    assert predicted.shape == (50, 2)
    for target in range(2):
        assert np.corrcoef(predicted[:, target], targets[150:, target])[0, 1] > 0.8
    np.testing.assert_allclose(fitted.predict(responses[150:], 1, 2), predicted[:, 1:])


@pytest.mark.parametrize("name", DECODERS)
def test_stores_plain_arrays_with_one_row_per_target(name: str, rng: np.random.Generator) -> None:
    responses, targets = linear_world(rng, 60)
    arrays = make_decoder(name, "structure").fit(responses, targets).arrays()
    assert {key: array.dtype.type for key, array in arrays.items()} == DECODER_ARRAYS
    assert arrays["index"].shape == arrays["weight"].shape
    for array in arrays.values():
        assert len(array) == 2


@pytest.mark.parametrize("name", DECODERS)
def test_the_arrays_are_the_whole_decoder(name: str, rng: np.random.Generator) -> None:
    """Reconstruction knows the arrays only: a weighted sum over chosen voxels predicts the same."""
    responses, targets = linear_world(rng, 60)
    fitted = make_decoder(name, "structure").fit(responses, targets)
    index, weight, bias = (fitted.arrays()[key] for key in ("index", "weight", "bias"))
    by_hand = np.stack([responses[:, index[t]] @ weight[t] + bias[t] for t in range(2)], axis=1)
    np.testing.assert_allclose(fitted.predict(responses), by_hand, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", DECODERS)
def test_describes_itself_in_json(name: str, target: str) -> None:
    described = json.loads(json.dumps(make_decoder(name, target).describe()))
    assert described["kind"] == name


def test_the_papers_defaults() -> None:
    found = {target: make_decoder("ridge", target).describe() for target in ("context", "latent", "structure")}
    assert {target: settings["n_selected"] for target, settings in found.items()} == {
        "context": 250,
        "latent": 4000,
        "structure": 350,
    }
    assert {settings["alpha"] for settings in found.values()} == {0.15}


@pytest.mark.parametrize("name", DECODERS)
def test_unknown_names_and_values_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="choose one of"):
        make_decoder("oracle", "context")
    with pytest.raises(InputError, match="choose one of context"):
        make_decoder(name, "colour")
    with pytest.raises(InputError, match="no option 'n_voxel'"):
        make_decoder(name, "context", n_voxel=3)


def test_ridge_values_are_refused() -> None:
    with pytest.raises(InputError, match="n_selected is 0"):
        make_decoder("ridge", "context", n_selected=0)
    with pytest.raises(InputError, match="alpha is -0.1"):
        make_decoder("ridge", "context", alpha=-0.1)


@pytest.mark.parametrize("name", DECODERS)
def test_is_made_again_from_its_description(name: str) -> None:
    decoder = make_decoder(name, "latent")
    assert changed(decoder, "latent").describe() == decoder.describe()
    other = changed(make_decoder("ridge", "latent", alpha=2.5), "latent", n_selected=3)
    assert other.describe() == {"kind": "ridge", "n_selected": 3, "alpha": 2.5}
