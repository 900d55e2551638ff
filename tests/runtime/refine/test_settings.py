import json

import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.refine import REFINERS
from minddiffuser.runtime.refine.settings import PRESETS, AdamSettings


@pytest.mark.parametrize(
    "settings",
    [*PRESETS.values(), AdamSettings(layer_weights=(1.0, 0.5, 2.0), params=("level_0",), patience=3)],
)
def test_settings_survive_json(settings: AdamSettings) -> None:
    there = json.loads(json.dumps(settings.as_dict()))
    back = {name: tuple(value) if isinstance(value, list) else value for name, value in there.items()}
    kind, _ = REFINERS[back.pop("refiner")]
    assert kind(**back) == settings


def test_published_settings() -> None:
    paper, reference = PRESETS["paper"], PRESETS["reference"]
    assert (paper.steps, paper.learning_rate, paper.params) == (60, 0.01, ("latent", "context"))
    assert (reference.steps, reference.decay, reference.params) == (300, 0.999, ("latent",))
    assert reference.fresh_noise
    assert reference.learning_rate == pytest.approx(0.00999)
    assert set(PRESETS) == {"default", "paper", "reference", "single"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1),
        ("steps", 2.0),
        ("steps", True),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", "0.01"),
        ("decay", 0.0),
        ("decay", 1.1),
        ("params", ()),
        ("params", ("latent", "latent")),
        ("params", "latent"),
        ("backprop_steps", -1),
        ("backprop_steps", "all"),
        ("layer_weights", "deep"),
        ("layer_weights", (1.0, -1.0)),
        ("layer_weights", (0.0, 0.0)),
        ("loss_mean", "some"),
        ("semantic_weight", -0.1),
        ("patience", 0),
        ("min_change", 1.0),
        ("seed", -1),
        ("fresh_noise", 1),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name, value) -> None:
    with pytest.raises(InputError, match=f"{name} is "):
        AdamSettings(**{name: value})


def test_fresh_noise_needs_all_steps() -> None:
    with pytest.raises(InputError, match="fresh_noise"):
        AdamSettings(fresh_noise=True, backprop_steps=3)


def test_parameters_to_optimise() -> None:
    assert AdamSettings().optimised(["context", "latent", "more"]) == ("latent", "context")
    assert AdamSettings(backprop_steps=0).optimised(["latent"]) == ("latent",)
    with pytest.raises(InputError, match="level_0, level_1"):
        AdamSettings().optimised(["level_1", "level_0"])
    with pytest.raises(InputError, match="latent"):
        AdamSettings(params=("context",), backprop_steps=0).optimised(["latent"])
