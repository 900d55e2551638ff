"""What every registered fitter must do, with what ``md-train fit`` really gives it: columns, not an array.

Responses have any shape, normalised; targets are read a few columns at a time; trials of one picture belong together.
What is fitted is of a kind that the runtime opens, and the runtime predicts from its arrays what it predicts itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.decoders import KINDS
from minddiffuser.runtime.decoders.base import Stored, open_decoder
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.features import FEATURES
from minddiffuser.runtime.files import write_tensors
from minddiffuser.training.decoders import DECODERS
from minddiffuser.training.decoders.base import changed, make_decoder, options_of, predictor, settled, validates_itself
from minddiffuser.training.decoders.blocks import Block
from minddiffuser.training.normalise import TargetColumns, column_statistics, fit_normaliser
from minddiffuser.training.solvers.columns import Columns

POSITIONS = np.array([1, 2, 5])
SHAPES = [(20,), (4, 5)]
# Small enough for a test; what is not named takes its defaults.
PLAIN: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.005, "weight_decay": 0.01}
TSCONV = {"filters": 16, "kernel": 1, "pool": 1, "stride": 1, "dropout": 0.1, "embedding": 32, **PLAIN}
OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": 48, "depth": 1, "dropout": 0.1, "learning_rate": 0.005},
    "transformer": {"n_tokens": 4, "width": 32, "heads": 4, "feed_forward": 32, "dropout": 0.1, **PLAIN},
    "nice": TSCONV,
    "eegnet": {"kernel": 2, "separable_kernel": 2, "pool_1": 1, "pool_2": 1, "dropout": 0.1, **PLAIN},
    "atm": {"heads": 1, "feed_forward": 16, "attention_dropout": 0.1, **TSCONV},
    "brain_module": {
        "positions": [[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [0.1, 0.1, 0.1]],
        **{"virtual_channels": 16, "frequencies": 3, "hidden": 32, "backbone": 32, "spatial_dropout": 0.1, **PLAIN},
    },
}
# For what needs no good fit.
SHORT: dict[str, dict[str, Any]] = {name: {"epochs": 3} for name in OPTIONS}
# On one axis, fMRI, and on two, EEG and MEG.
TAKES = {name: SHAPES if name in ("ridge", "mlp", "transformer") else SHAPES[1:] for name in DECODERS}
CASES = [(name, shape) for name in DECODERS for shape in TAKES[name]]
on_what_it_takes = pytest.mark.parametrize(("name", "shape"), CASES, ids=str)


def linear_world(
    rng: np.random.Generator, n_stimuli: int, shape: Sequence[int] = (20,)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses of every stimulus shown twice, features of which some are targets, and the stimulus of each trial."""
    causes = rng.standard_normal((n_stimuli, 20))
    features = causes @ rng.standard_normal((20, 7)) + 3
    features[:, 5] = 2.5  # a target that does not vary, as some do
    stimulus = rng.permutation(np.tile(np.arange(n_stimuli), 2))
    responses = causes[stimulus] + 0.3 * rng.standard_normal((2 * n_stimuli, 20)) + 7
    responses[:, 4] = 1.0  # a voxel that does not vary
    return responses.reshape(-1, *shape).astype(np.float32), features.astype(np.float32), stimulus


def given_by_fit(
    rng: np.random.Generator, n_stimuli: int, shape: Sequence[int] = (20,)
) -> tuple[np.ndarray, Columns, np.ndarray]:
    responses, features, stimulus = linear_world(rng, n_stimuli, shape)
    return fit_normaliser(responses)(responses), TargetColumns(features, stimulus, POSITIONS), stimulus


@on_what_it_takes
def test_recovers_a_linear_world(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    responses, features, stimulus = linear_world(rng, 200, shape)
    known = stimulus < 150
    normaliser = fit_normaliser(responses[known])
    targets = TargetColumns(features, stimulus[known], POSITIONS)
    reported: list[tuple[int, int]] = []
    decoder = make_decoder(name, "context", **OPTIONS.get(name, {}))
    fitted = decoder.fit(
        normaliser(responses[known]),
        targets,
        pictures=stimulus[known],
        n_threads=1,
        progress=lambda *now: reported.append(now),
    )
    predicted = fitted.predict(normaliser(responses[~known]))
    assert predicted.shape == (100, 3)
    for target, position in enumerate(POSITIONS[:2]):
        found = np.corrcoef(predicted[:, target], features[stimulus[~known], position])[0, 1]
        # Chance is 0 with a deviation of 0.1. Attention over four channels is not made for what is linear.
        assert found > (0.4 if name in ("transformer", "atm") else 0.8)
    # In the feature's units a target that did not vary is its mean: targets are z-scored, and its deviation is 0.
    assert (targets.std[POSITIONS[2]], targets.mean[POSITIONS[2]]) == (0, 2.5)
    assert np.abs(predicted[:, 2]).max() < 0.5
    np.testing.assert_allclose(fitted.predict(normaliser(responses[~known]), 1, 2), predicted[:, 1:2])
    assert reported[-1][0] == reported[-1][1] > 0


@on_what_it_takes
def test_the_arrays_are_the_whole_decoder(
    name: str, shape: tuple[int, ...], rng: np.random.Generator, tmp_path: Path
) -> None:
    """The runtime knows the arrays and the description only, through a file and JSON, and predicts the same."""
    responses, targets, pictures = given_by_fit(rng, 60, shape)
    fitted = make_decoder(name, "semantic", **{**OPTIONS.get(name, {}), **SHORT.get(name, {})}).fit(
        responses, targets, pictures=pictures
    )
    assert fitted.kind in KINDS
    placement = {
        "semantic.position": np.arange(3, dtype=np.int32),
        "semantic.mean": np.zeros(3, np.float32),
        "semantic.std": np.ones(3, np.float32),
    }
    write_tensors(tmp_path / "semantic.safetensors", {**fitted.arrays(), **placement})
    entry = json.loads(json.dumps({"kind": fitted.kind, "features": ["semantic"], **fitted.described()}))
    opened = open_decoder(Stored(tmp_path / "semantic.safetensors", entry, shape, {"semantic": (3,)}))
    found = opened.predict(responses.astype(np.float32), ["semantic"])["semantic"]
    # float32 sums of at most some hundred terms of order 1.
    np.testing.assert_allclose(found, fitted.predict(responses), atol=3e-5)
    assert opened.predict(responses.astype(np.float32), ["latent"]) == {}


@pytest.mark.parametrize("name", [name for name in DECODERS if not validates_itself(make_decoder(name, "latent"))])
def test_a_linear_fit_is_a_weighted_sum_over_chosen_values(name: str, rng: np.random.Generator) -> None:
    responses, targets, _ = given_by_fit(rng, 60)
    fitted = make_decoder(name, "structure").fit(responses, targets)
    assert fitted.kind == "linear"
    index, weight, bias = (fitted.arrays()[key] for key in ("index", "weight", "bias"))
    assert (index.dtype, weight.dtype, bias.dtype) == (np.int32, np.float32, np.float32)
    by_hand = np.stack([responses[:, index[t]] @ weight[t] + bias[t] for t in range(3)], axis=1)
    np.testing.assert_allclose(fitted.predict(responses), by_hand, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in DECODERS if validates_itself(make_decoder(name, "latent"))])
def test_what_is_held_out_is_whole_pictures_and_decides_no_weight(name: str, rng: np.random.Generator) -> None:
    """Other responses in the held-out trials leave every weight of one epoch as it is."""
    responses, targets, pictures = given_by_fit(rng, 30, TAKES[name][0])
    decoder = make_decoder(name, "latent", **OPTIONS.get(name, {}), epochs=1)
    fitted: Any = decoder.fit(responses, targets, pictures=pictures)
    held_out = fitted.held_out
    assert held_out.dtype == bool
    assert 2 <= len(np.unique(pictures[held_out])) < 28
    assert not set(pictures[held_out]) & set(pictures[~held_out])
    other = responses.copy()
    other[held_out] = rng.standard_normal(other[held_out].shape)
    again = decoder.fit(other, targets, pictures=pictures)
    for key, array in fitted.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[key], err_msg=key)


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_what_is_held_out_decides_when_to_stop(name: str, rng: np.random.Generator) -> None:
    """Held-out targets of the opposite sign: what is learned only makes them worse, so the first epochs are the best.

    The weights are then those of a fit that was given no more epochs, with whatever targets. Convolutions learn so few
    trials by heart before they learn what is to be learned.
    """
    raw, features, stimulus = linear_world(rng, 60, TAKES[name][0])
    responses, statistics = fit_normaliser(raw)(raw), column_statistics(features, stimulus)

    def fit(given: np.ndarray, **options: Any) -> Any:
        decoder = make_decoder(name, "latent", **{**OPTIONS.get(name, {}), **options})
        return decoder.fit(responses, TargetColumns(given, stimulus, POSITIONS, statistics), pictures=stimulus)

    fitted = fit(features, epochs=30, patience=3)
    pictures = np.unique(stimulus[fitted.held_out])
    turned = features.copy()
    turned[pictures] = 2 * features.mean(axis=0) - features[pictures]
    stopped = fit(turned, epochs=30, patience=3)
    np.testing.assert_array_equal(stopped.held_out, fitted.held_out)
    assert stopped.epoch < fitted.epoch
    short = fit(features, epochs=stopped.epoch, patience=3)
    assert short.epoch == stopped.epoch, "with the true targets every one of the first epochs is better"
    for key, array in stopped.arrays().items():
        np.testing.assert_array_equal(array, short.arrays()[key], err_msg=key)
    assert any((array != fitted.arrays()[key]).any() for key, array in stopped.arrays().items())


@pytest.mark.parametrize("name", DECODERS)
def test_the_same_data_and_settings_give_the_same_decoder(name: str, rng: np.random.Generator) -> None:
    responses, targets, pictures = given_by_fit(rng, 30, TAKES[name][0])
    decoder = make_decoder(name, "latent", **{**OPTIONS.get(name, {}), **SHORT.get(name, {})})
    first, second = (decoder.fit(responses, targets, pictures=pictures, n_threads=1).arrays() for _ in range(2))
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


@pytest.mark.parametrize("name", DECODERS)
def test_blocks_are_whole_targets(name: str, rng: np.random.Generator) -> None:
    """A kind that says how large a block should be gives the same for targets fitted apart."""
    decoder = make_decoder(name, "structure")
    if not hasattr(decoder, "block"):
        pytest.skip("fitted in one go")
    size = decoder.block(120, 20)
    assert size is None or size >= 1
    responses, targets, _ = given_by_fit(rng, 60)
    whole = decoder.fit(responses, targets).arrays()
    for start, stop in ((0, 1), (1, 3)):
        part = decoder.fit(responses, Block(targets, start, stop)).arrays()
        np.testing.assert_array_equal(part["index"], whole["index"][start:stop])
        np.testing.assert_allclose(part["weight"], whole["weight"][start:stop], atol=1e-5)


@pytest.mark.parametrize("n_targets", [1, 1000])
@pytest.mark.parametrize("alpha", ["cv", 0.15])
@pytest.mark.parametrize(
    ("name", "shape"), [case for case in CASES if hasattr(make_decoder(case[0], "latent"), "predictor")], ids=str
)
def test_what_predicts_without_weights_gives_what_the_weights_do(
    name: str, shape: tuple[int, ...], alpha: Any, n_targets: int, rng: np.random.Generator
) -> None:
    """Of every kind that does, from as many values as there are, with more trials than these and with fewer."""
    given = {"n_selected": 20, "alpha": alpha} if name == "ridge" else {}
    decoder = make_decoder(name, "structure", **given)
    for n_stimuli in (8, 40):
        responses, targets, pictures = given_by_fit(rng, n_stimuli, shape)
        others = rng.standard_normal((7, *shape))
        decided, _ = settled(decoder, responses, targets, pictures=pictures)
        found = predictor(decided, responses, others, n_targets=n_targets)
        assert found is not None
        fitted = decoder.fit(responses, targets, pictures=pictures, n_threads=1)
        np.testing.assert_allclose(
            found.predict(targets.columns(0, targets.shape[1])), fitted.predict(others), atol=2e-6
        )


@pytest.mark.parametrize("name", DECODERS)
def test_options_are_the_fields_of_frozen_settings(name: str) -> None:
    decoder = make_decoder(name, "latent")
    assert is_dataclass(decoder)
    assert type(decoder).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert options_of(name) == tuple(field.name for field in fields(decoder))
    assert set(decoder.describe()) == {"fitter", *options_of(name)}


@pytest.mark.parametrize("target", FEATURES)
@pytest.mark.parametrize("name", DECODERS)
def test_describes_itself_in_json(name: str, target: str) -> None:
    described = json.loads(json.dumps(make_decoder(name, target).describe()))
    assert described["fitter"] == name


def test_the_papers_defaults() -> None:
    found = {target: make_decoder("ridge", target).describe() for target in ("context", "latent", "structure")}
    assert {target: settings["n_selected"] for target, settings in found.items()} == {
        "context": 250,
        "latent": 4000,
        "structure": 350,
    }
    assert {settings["alpha"] for settings in found.values()} == {0.15}


@pytest.mark.parametrize(
    ("name", "contrastive", "learning_rate", "batch_size"),
    [
        ("nice", 0.99, 2e-4, 1000),
        ("eegnet", 0.1, 3e-4, 1024),
        ("atm", 0.1, 3e-4, 64),
        ("brain_module", 0.75, 3e-4, 128),
    ],
)
def test_the_published_training(name: str, contrastive: float, learning_rate: float, batch_size: int) -> None:
    """What the papers decode is an embedding; what is none is compared by its values, from a head of fixed width."""
    for feature, share in (("semantic", contrastive), ("embedding", contrastive), ("context", 0), ("structure", 0)):
        described = make_decoder(name, feature).describe()
        assert (described["contrastive"], described["learning_rate"]) == (share, learning_rate)
        assert described["batch_size"] == batch_size
        if name in ("nice", "atm"):
            assert described["embedding"] == (None if share else 1024)


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
    assert other.describe() == {"fitter": "ridge", "n_selected": 3, "alpha": 2.5, "device": "cpu"}
