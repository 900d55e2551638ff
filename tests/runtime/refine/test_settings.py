import json
from dataclasses import replace

import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.refine import REFINERS
from minddiffuser.runtime.refine.settings import PRESETS, AdamSettings, GuidedSettings, RefineSettings
from minddiffuser.runtime.sampling import Sampling


@pytest.mark.parametrize(
    "settings",
    [
        *PRESETS.values(),
        AdamSettings(layer_weights=(1.0, 0.5, 2.0), params=("level_0",), patience=3),
        GuidedSettings(layer_weights=(1.0, 0.5), n_steps=None, strength=None, candidates=None, budget=700.5),
    ],
)
def test_settings_survive_json(settings: RefineSettings) -> None:
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start_steps", -1),
        ("start_steps", 2.0),
        ("start_step_size", -0.1),
        ("start_step_size", float("inf")),
        ("finish_steps", -1),
        ("finish_steps", 0.5),
        ("finish_step_size", -0.1),
        ("finish_step_size", None),
        ("finish_smoothing", -1.0),
        ("finish_smoothing", float("inf")),
        ("finish_semantic_share", 1.1),
        ("finish_semantic_share", "some"),
        ("step_size", -0.1),
        ("step_size", float("nan")),
        ("step_size", True),
        ("guided_share", 1.01),
        ("guided_share", -0.1),
        ("guided_share", "all"),
        ("candidates", 0),
        ("candidates", 2.0),
        ("n_steps", 0),
        ("n_steps", 10.5),
        ("strength", 0.0),
        ("strength", 1.2),
        ("strength", float("inf")),
        ("jacobian", 1),
        ("budget", 0),
        ("budget", float("inf")),
        ("deadline", -1.0),
        ("deadline", "soon"),
        ("semantic_weight", -1.0),
    ],
)
def test_a_value_of_guided_outside_its_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} is "):
        GuidedSettings(**{"n_steps": 20, "strength": 0.5, name: value})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_steps": None, "strength": 0.5}, "n_steps and strength both, or neither"),
        ({"n_steps": 20, "strength": None}, "n_steps and strength both, or neither"),
        ({"candidates": None}, "a whole number, or either a budget or a deadline"),
        ({"candidates": None, "budget": 100.0, "deadline": 3.0}, "either a budget or a deadline"),
    ],
)
def test_values_of_guided_that_do_not_go_together_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        GuidedSettings(**given)


@pytest.mark.parametrize(
    ("n_steps", "strength", "share", "n_reverse", "n_guided"),
    [
        (20, 0.5, 0.7, 10, 7),
        (25, 0.5, 0.5, 13, 7),  # halves go up
        (10, 0.01, 0.01, 1, 1),  # one step at least, and it is guided
        (10, 1.0, 0.0, 10, 0),
        (None, None, 1.0, 35, 35),
    ],
)
def test_steps_of_guided(
    n_steps: int | None, strength: float | None, share: float, n_reverse: int, n_guided: int
) -> None:
    settings = GuidedSettings(
        n_steps=n_steps, strength=strength, guided_share=share, candidates=3, start_steps=7, finish_steps=4
    )
    stage1 = Sampling(guidance_scale=2.5)
    found = settings.sampling(stage1)
    assert (found.n_reverse, found.guidance_scale) == (n_reverse, 2.5)
    if n_steps is None:
        assert found == stage1
    else:
        assert (found.n_steps, found.start) == (n_steps, n_reverse - 1)
    assert settings.n_guided(stage1) == n_guided
    assert settings.n_reports(stage1) == 7 + 3 * n_reverse + 4
    assert replace(settings, finish_step_size=0.0).n_reports(stage1) == 7 + 3 * n_reverse  # nothing to do
    assert replace(settings, start_step_size=0.0).n_reports(stage1) == 3 * n_reverse + 4
    still = GuidedSettings(n_steps=n_steps, strength=strength, step_size=0.0)
    assert still.n_guided(stage1) == 0


def test_which_refiners_go_back_through_the_steps() -> None:
    assert GuidedSettings(step_size=0.1, guided_share=0.5, jacobian=True).steps_back
    assert not GuidedSettings(step_size=0.1, guided_share=0.5, jacobian=False).steps_back
    assert not GuidedSettings(step_size=0.0).steps_back
    assert not GuidedSettings(guided_share=0.0).steps_back
    assert AdamSettings(backprop_steps=4).steps_back
    assert not AdamSettings(backprop_steps=0).steps_back
