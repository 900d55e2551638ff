"""What every registered decoder must do, with what ``md-train fit`` really gives it: columns, not an array."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from minddiffuser.runtime.checkpoint import DECODER_ARRAYS
from minddiffuser.runtime.errors import InputError
from minddiffuser.training.blocks import Block
from minddiffuser.training.decoders.base import DECODERS, TARGETS, changed, make_decoder, options_of
from minddiffuser.training.normalise import TargetColumns, fit_normaliser
from minddiffuser.training.solvers.columns import Columns

POSITIONS = np.array([1, 2, 5])


def linear_world(rng: np.random.Generator, n_stimuli: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses of every stimulus shown twice, features of which some are targets, and the stimulus of each trial."""
    causes = rng.standard_normal((n_stimuli, 20))
    features = causes @ rng.standard_normal((20, 7)) + 3
    features[:, 5] = 2.5  # a target that does not vary, as some do
    stimulus = rng.permutation(np.tile(np.arange(n_stimuli), 2))
    responses = causes[stimulus] + 0.3 * rng.standard_normal((2 * n_stimuli, 20)) + 7
    responses[:, 4] = 1.0  # a voxel that does not vary
    return responses.astype(np.float32), features.astype(np.float32), stimulus


def given_by_fit(rng: np.random.Generator, n_stimuli: int) -> tuple[np.ndarray, Columns]:
    responses, features, stimulus = linear_world(rng, n_stimuli)
    return fit_normaliser(responses)(responses), TargetColumns(features, stimulus, POSITIONS)


@pytest.mark.parametrize("name", DECODERS)
def test_recovers_a_linear_world(name: str, rng: np.random.Generator) -> None:
    responses, features, stimulus = linear_world(rng, 200)
    known = stimulus < 150
    normaliser = fit_normaliser(responses[known])
    targets = TargetColumns(features, stimulus[known], POSITIONS)
    told: list[tuple[int, int]] = []
    decoder = make_decoder(name, "context")
    fitted = decoder.fit(normaliser(responses[known]), targets, n_threads=1, progress=lambda *now: told.append(now))
    predicted = fitted.predict(normaliser(responses[~known]))
    assert predicted.shape == (100, 3)
    for target, position in enumerate(POSITIONS[:2]):
        assert np.corrcoef(predicted[:, target], features[stimulus[~known], position])[0, 1] > 0.8
    np.testing.assert_allclose(predicted[:, 2], 0, atol=1e-6)
    np.testing.assert_allclose(fitted.predict(normaliser(responses[~known]), 1, 2), predicted[:, 1:2])
    assert told[-1] == (3, 3)


@pytest.mark.parametrize("name", DECODERS)
def test_stores_plain_arrays_with_one_row_per_target(name: str, rng: np.random.Generator) -> None:
    arrays = make_decoder(name, "structure").fit(*given_by_fit(rng, 60)).arrays()
    assert {key: array.dtype.type for key, array in arrays.items()} == DECODER_ARRAYS
    assert arrays["index"].shape == arrays["weight"].shape
    for array in arrays.values():
        assert len(array) == 3


@pytest.mark.parametrize("name", DECODERS)
def test_the_arrays_are_the_whole_decoder(name: str, rng: np.random.Generator) -> None:
    """Reconstruction knows the arrays only: a weighted sum over chosen voxels predicts the same."""
    responses, targets = given_by_fit(rng, 60)
    fitted = make_decoder(name, "structure").fit(responses, targets)
    index, weight, bias = (fitted.arrays()[key] for key in ("index", "weight", "bias"))
    by_hand = np.stack([responses[:, index[t]] @ weight[t] + bias[t] for t in range(3)], axis=1)
    np.testing.assert_allclose(fitted.predict(responses), by_hand, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_blocks_are_whole_targets(name: str, rng: np.random.Generator) -> None:
    """A kind that says how large a block should be gives the same for targets fitted apart."""
    decoder = make_decoder(name, "structure")
    if not hasattr(decoder, "block"):
        pytest.skip("fitted in one go")
    size = decoder.block(120, 20)
    assert size is None or size >= 1
    responses, targets = given_by_fit(rng, 60)
    whole = decoder.fit(responses, targets).arrays()
    for start, stop in ((0, 1), (1, 3)):
        part = decoder.fit(responses, Block(targets, start, stop)).arrays()
        np.testing.assert_array_equal(part["index"], whole["index"][start:stop])
        np.testing.assert_allclose(part["weight"], whole["weight"][start:stop], atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_options_are_the_fields_of_frozen_settings(name: str) -> None:
    decoder = make_decoder(name, "latent")
    assert is_dataclass(decoder)
    assert type(decoder).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert options_of(name) == tuple(field.name for field in fields(decoder))
    assert set(decoder.describe()) == {"kind", *options_of(name)}


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
