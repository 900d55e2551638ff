"""Reverse mode by hand over engines: against autograd through the same networks, and against finite differences."""

import gc
import weakref
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.generators.noise import fresh_noise
from minddiffuser.runtime.refine.adam import minimise
from minddiffuser.runtime.refine.autograd import AutogradObjective
from minddiffuser.runtime.refine.engines import EngineObjective
from minddiffuser.runtime.refine.settings import AdamSettings
from minddiffuser.runtime.sampling import Sampling

SHORT: dict[str, Any] = {"sampling": Sampling(n_steps=10, n_noise=7, n_reverse=6)}
FORMS = {"full": None, "truncated": 2, "latent alone": 0}
Array = np.ndarray
Make = Callable[..., dict[str, TorchEngine]]


@pytest.fixture
def inputs(small_models: Any, rng: np.random.Generator) -> dict[str, Array]:
    latent, noise = (rng.standard_normal((2, *small_models.latent_shape)).astype(np.float32) for _ in "zn")
    context = rng.standard_normal((3, *small_models.context_shape)).astype(np.float32)
    return {"latent": latent, "context": context[:2], "uncond_context": context[2], "noise": noise}


@pytest.fixture
def target(small_models: Any, rng: np.random.Generator) -> Array:
    """Structure of two random pictures."""
    with torch.no_grad():
        structure, _ = small_models.structure(torch.from_numpy(rng.random((2, 3, 32, 32)).astype(np.float32)))
    return structure.numpy()


@pytest.fixture
def mask(small_models: Any, rng: np.random.Generator) -> Array:
    """Another share of each layer: a mean over all dimensions weighs layers otherwise than one over the kept."""
    shares = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.8])[:, None, None]
    return rng.random(small_models.structure_shape) < shares


def on_engines(
    models: Any, engines: Mapping[str, Any], inputs: dict[str, Any], settings: AdamSettings, *rest: Any, **steps: Any
) -> tuple[EngineGenerator, EngineObjective]:
    steps = {**SHORT, "backprop_steps": settings.backprop_steps, **steps}
    generator = EngineGenerator(engines, models, *inputs.values(), **steps)
    target, mask, *semantic = rest
    return generator, EngineObjective(engines, generator, target, mask, settings, *semantic)


def by_autograd(
    models: Any, inputs: dict[str, Any], settings: AdamSettings, *rest: Any, **steps: Any
) -> tuple[DiffusionGenerator, AutogradObjective]:
    steps = {**SHORT, "backprop_steps": settings.backprop_steps, **steps}
    generator = DiffusionGenerator(models, **inputs, **steps, checkpointing=False)
    target, mask, *semantic = rest
    return generator, AutogradObjective(models, generator, target, mask, settings, *semantic)


def compare(found: tuple[Any, Any, Any], expected: tuple[Any, Any, Any], relative: float = 1e-5) -> None:
    """Losses, gradients and pictures; gradients relative to each trial's own norm."""
    np.testing.assert_allclose(found[0], expected[0].numpy(), rtol=relative)
    assert list(found[1]) == list(expected[1])
    for name, gradient in expected[1].items():
        assert found[1][name].dtype == np.float32
        reference, given = gradient.flatten(1).double().numpy(), found[1][name].reshape(len(gradient), -1)
        norms = np.linalg.norm(reference, axis=1)
        assert norms.min() > 0
        assert (np.linalg.norm(given - reference, axis=1) / norms).max() < relative, name
    np.testing.assert_allclose(found[2], expected[2].numpy(), atol=2e-5)


CHOICES: dict[str, dict[str, Any]] = {
    "plain": {},
    "mean over all": {"loss_mean": "all"},
    "reference layers": {"layer_weights": "reference"},
    "reference layers, mean over all": {"layer_weights": "reference", "loss_mean": "all"},
    "chosen layers": {"layer_weights": (0.0, 3.0, 1.0, 0.5, 0.0, 2.0)},
    "latent": {"params": ("latent",)},
    "semantic": {"semantic_weight": 0.7},
}


# Through all steps the other choices are tried with the long tests: what they change is the loss.
CASES = [
    pytest.param(form, choice, marks=pytest.mark.long if form == "full" and choice != "plain" else ())
    for form in FORMS
    for choice in CHOICES
]


@pytest.mark.parametrize(("form", "choice"), CASES)
def test_gradients_are_those_of_autograd(
    form: str,
    choice: str,
    small_models: Any,
    torch_engines: Make,
    inputs: dict[str, Array],
    target: Array,
    mask: Array,
    rng: np.random.Generator,
) -> None:
    settings = AdamSettings(backprop_steps=FORMS[form], **CHOICES[choice])
    semantic = rng.standard_normal((2, 32)).astype(np.float32) if choice == "semantic" else None
    engines = torch_engines(small_models, semantic=choice == "semantic")
    generator, objective = on_engines(small_models, engines, inputs, settings, target, mask, semantic)
    reference, exact = by_autograd(small_models, inputs, settings, target, mask, semantic)
    start = generator.initial()
    compare(objective.value_and_gradient(start), exact.value_and_gradient(reference.initial()))
    # And away from the start.
    moved = {name: array + 0.2 * rng.standard_normal(array.shape).astype(np.float32) for name, array in start.items()}
    given = {name: torch.from_numpy(array) for name, array in moved.items()}
    compare(objective.value_and_gradient(moved), exact.value_and_gradient(given))


def test_all_of_the_published_steps(
    small_models: Any, torch_engines: Make, inputs: dict[str, Array], target: Array, mask: Array
) -> None:
    """35 steps from a latent that was noised to step 37."""
    steps = {"sampling": Sampling()}
    settings = AdamSettings()
    generator, objective = on_engines(
        small_models, torch_engines(small_models), inputs, settings, target, mask, **steps
    )
    reference, exact = by_autograd(small_models, inputs, settings, target, mask, **steps)
    found, expected = (objective.value_and_gradient(generator.initial()), exact.value_and_gradient(reference.initial()))
    compare(found, expected, relative=1e-4)


def test_an_engine_with_the_semantic_term_is_indifferent_to_it_at_weight_0(
    small_models: Any, torch_engines: Make, inputs: dict[str, Array], target: Array, mask: Array
) -> None:
    settings = AdamSettings(backprop_steps=2)
    engines = torch_engines(small_models, semantic=True)
    generator, objective = on_engines(small_models, engines, inputs, settings, target, mask)
    reference, exact = by_autograd(small_models, inputs, settings, target, mask)
    compare(objective.value_and_gradient(generator.initial()), exact.value_and_gradient(reference.initial()))


def test_the_beginning_of_sequence_token_has_no_gradient(
    small_models: Any, torch_engines: Make, inputs: dict[str, Array], target: Array, mask: Array
) -> None:
    """The network's own gradient at token 0 is not zero: it is put to zero because the token never moves."""
    engines = torch_engines(small_models)
    generator, objective = on_engines(small_models, engines, inputs, AdamSettings(), target, mask)
    _, gradients, _ = objective.value_and_gradient(generator.initial())
    assert (gradients["context"][:, 0] == 0).all()
    assert (np.abs(gradients["context"][:, 1:]).max(axis=(1, 2)) > 0).all()
    feeds = generator.step_inputs(inputs["latent"], inputs["context"], 0)
    found = engines["denoise_gradient"].run({**feeds, "next_gradient": inputs["latent"]})
    assert found["context_gradient"][:, 0].abs().max() > 0


def test_fresh_noise_is_drawn_anew_at_each_evaluation(
    small_models: Any, torch_engines: Make, inputs: dict[str, Any], target: Array, mask: Array
) -> None:
    inputs["noise"] = fresh_noise(3, ["4", "7"], small_models.latent_shape)
    settings = AdamSettings(fresh_noise=True)
    generator, objective = on_engines(small_models, torch_engines(small_models), inputs, settings, target, mask)
    reference, exact = by_autograd(small_models, inputs, settings, target, mask)
    start, start_of_reference = generator.initial(), reference.initial()
    losses = []
    for _ in range(2):
        found = objective.value_and_gradient(start)
        compare(found, exact.value_and_gradient(start_of_reference))
        losses.append(found[0])
    assert (losses[0] != losses[1]).all()


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.long if form == "full" else ()) for form in FORMS]
)
def test_a_refinement_reaches_the_same_picture(
    form: str, small_models: Any, torch_engines: Make, inputs: dict[str, Array], target: Array, mask: Array
) -> None:
    """Adam in numpy on engines, and in torch on autograd: six updates."""
    settings = AdamSettings(steps=6, learning_rate=0.05, backprop_steps=FORMS[form])
    generator, objective = on_engines(small_models, torch_engines(small_models), inputs, settings, target, mask)
    reference, exact = by_autograd(small_models, inputs, settings, target, mask)
    found = minimise(objective, generator.initial(), settings)
    expected = minimise(exact, reference.initial(), settings)
    assert (expected.loss_curve[-1] < 0.99 * expected.loss_curve[0]).all()
    np.testing.assert_allclose(found.loss_curve, expected.loss_curve, rtol=1e-3)
    np.testing.assert_allclose(found.image, expected.image.numpy(), atol=1e-3)
    assert type(found.image) is np.ndarray


# A world of formulas in float64, whose derivatives are written down beside them.


class Toy:
    """``next = s1 * z + s2 * (u + g * (c - u))`` with u, c = tanh of latent, timestep and context; 8 latent numbers.

    The picture is sin of the latent; structure is a linear map of it. What the engines return is float64.
    """

    shape, tokens, width, structure = (2, 2, 2), 3, 4, (6, 2, 3)

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.see = rng.standard_normal((8, 36)) / 3
        self.mix = rng.standard_normal((12, 8)) / 3
        self.turn = rng.standard_normal((8, 8)) / 3

    def noise(self, latent: Array, timestep: float, context: Array) -> Array:
        return np.tanh(latent.reshape(-1, 8) @ self.turn + context.reshape(-1, 12) @ self.mix + timestep / 1000)

    def denoise(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        wide = {name: np.asarray(array, np.float64) for name, array in feeds.items()}
        latent, (timestep, *scales) = wide["latent"], wide["step"]
        uncond = np.tile(wide["uncond_context"], (len(latent), 1, 1))
        without, given = (self.noise(latent, timestep, c) for c in (uncond, wide["context"]))
        guided = without + wide["guidance"] * (given - without)
        return {"next_latent": scales[0] * latent + scales[1] * guided.reshape(latent.shape)}

    def denoise_gradient(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        wide = {name: np.asarray(array, np.float64) for name, array in feeds.items()}
        latent, (timestep, *scales) = wide["latent"], wide["step"]
        uncond = np.tile(wide["uncond_context"], (len(latent), 1, 1))
        without, given = (1 - self.noise(latent, timestep, c) ** 2 for c in (uncond, wide["context"]))
        gradient, guidance = wide["next_gradient"].reshape(-1, 8), wide["guidance"]
        at_latent = (gradient * ((1 - guidance) * without + guidance * given)) @ self.turn.T
        at_context = scales[1] * guidance * (gradient * given) @ self.mix.T
        return {
            "latent_gradient": scales[0] * wide["next_gradient"] + scales[1] * at_latent.reshape(latent.shape),
            "context_gradient": at_context.reshape(wide["context"].shape),
        }

    def structure_gradient(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        wide = {name: np.asarray(array, np.float64) for name, array in feeds.items()}
        flat = wide["latent"].reshape(-1, 8)
        error = ((np.sin(flat) @ self.see).reshape(-1, *self.structure) - wide["target"]) * wide["mask"]
        share = wide["layer_weights"] / wide["mask"].sum((1, 2)).clip(1)
        gradient = (2 * error * share[:, :, None, None]).reshape(-1, 36) @ self.see.T * np.cos(flat)
        return {
            "loss": ((error**2).sum((2, 3)) * share).sum(1),
            "latent_gradient": gradient.reshape(wide["latent"].shape),
            "image": np.sin(flat).reshape(wide["latent"].shape),
        }

    def engines(self) -> dict[str, Any]:
        taken = {"target": SimpleNamespace(shape=("batch", *self.structure))}
        return {
            name: SimpleNamespace(run=getattr(self, name), place=np.asarray, inputs=taken)
            for name in ("denoise", "denoise_gradient", "structure_gradient")
        }


def toy_inputs(rng: np.random.Generator) -> dict[str, Array]:
    """Numbers that float32 holds exactly, also when a sixty-fourth is added."""

    def drawn(*shape: int) -> Array:
        return (rng.integers(-512, 512, shape) / 256).astype(np.float32)

    return {
        "latent": drawn(2, *Toy.shape),
        "context": drawn(2, Toy.tokens, Toy.width),
        "uncond_context": drawn(Toy.tokens, Toy.width),
        "noise": drawn(2, *Toy.shape),
    }


WORLD = SimpleNamespace(
    alphas_cumprod=np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
    steps_offset=1,
    set_alpha_to_one=False,
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss_mean", ["kept", "all"])
def test_gradients_are_those_of_finite_differences(form: str, loss_mean: str, rng: np.random.Generator) -> None:
    """Every entry of both parameters, by differences of fourth order over steps that float32 holds exactly."""
    inputs = toy_inputs(rng)
    settings = AdamSettings(backprop_steps=FORMS[form], loss_mean=loss_mean)
    target = rng.standard_normal((2, *Toy.structure)).astype(np.float32)
    mask = rng.random(Toy.structure) < np.array([0.3, 0.9, 0.5, 0.5, 0.5, 0.5])[:, None, None]
    steps = {"sampling": Sampling(n_noise=None, n_reverse=4, guidance_scale=2.0)}
    generator, objective = on_engines(WORLD, Toy().engines(), inputs, settings, target, mask, **steps)
    start = {name: (np.round(array * 256) / 256).astype(np.float32) for name, array in generator.initial().items()}
    _, gradients, _ = objective.value_and_gradient(start)
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float64
        found = np.zeros(gradient.shape)
        width = 1 / 64
        for entry in np.ndindex(gradient.shape[1:]):
            # Both trials at once: neither may feel the other.
            losses = []
            for factor in (1, -1, 2, -2):
                moved = start[name].copy()
                moved[:, *entry] += np.float32(factor * width)
                losses.append(objective.value_and_gradient({**start, name: moved})[0])
            near, far = losses[0] - losses[1], losses[2] - losses[3]
            found[:, *entry] = (8 * near - far) / (12 * width)
        largest = np.abs(gradient).max()
        assert largest > 1e-3
        np.testing.assert_allclose(gradient, found, atol=2e-5 * largest, rtol=0)


class Watched(Toy):
    """Counts runs, and the arrays it gave out that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, int] = {}
        self.alive = self.most = 0

    def engines(self) -> dict[str, Any]:
        return {name: self._watched(name, engine) for name, engine in super().engines().items()}

    def _watched(self, name: str, engine: Any) -> Any:
        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            self.runs[name] = self.runs.get(name, 0) + 1
            found: dict[str, Array] = engine.run(feeds)
            for array in found.values():
                self.alive += array.size
                weakref.finalize(array, self._gone, array.size)
            self.most = max(self.most, self.alive)
            return found

        return SimpleNamespace(run=run, place=engine.place, inputs=engine.inputs)

    def _gone(self, size: int) -> None:
        self.alive -= size


@pytest.mark.parametrize("form", FORMS)
def test_an_evaluation_runs_each_step_once_and_holds_one_latent_per_step(form: str, rng: np.random.Generator) -> None:
    settings = AdamSettings(backprop_steps=FORMS[form])
    target, mask = rng.standard_normal((2, *Toy.structure)).astype(np.float32), np.ones(Toy.structure, bool)
    inputs = toy_inputs(rng)
    most = {}
    for n_reverse in (5, 25):
        toy = Watched()
        steps = {"sampling": Sampling(n_noise=None, n_reverse=n_reverse)}
        generator, objective = on_engines(WORLD, toy.engines(), inputs, settings, target, mask, **steps)
        start = generator.initial()
        toy.runs.clear()
        gc.collect()
        before = toy.most = toy.alive
        gc.disable()  # what only a cycle keeps alive counts as held
        try:
            objective.value_and_gradient(start)
        finally:
            gc.enable()
        n = n_reverse if FORMS[form] is None else FORMS[form]
        expected = {"denoise": n, "structure_gradient": 1, "denoise_gradient": n}
        assert toy.runs == {name: count for name, count in expected.items() if count > 0}
        assert toy.alive == before
        most[n_reverse] = toy.most - before
    latent, context = inputs["latent"].size, inputs["context"].size
    grown = 20 * latent if FORMS[form] is None else 0
    assert most[25] - most[5] == grown, "memory grows by something else than a latent per step"
    assert most[5] <= (5 + 4) * latent + 3 * context


class OnGpu:
    """An array that only the host can add up; reading it waits for everything before."""

    def __init__(self, value: Array, log: list[str]) -> None:
        self.value, self.log = value, log
        self.dtype, self.shape = value.dtype, value.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self.log.append("read")
        return self.value


def test_nothing_is_read_before_the_last_step_is_queued(rng: np.random.Generator) -> None:
    target, mask = rng.standard_normal((2, *Toy.structure)).astype(np.float32), np.ones(Toy.structure, bool)
    inputs, settings, log = toy_inputs(rng), AdamSettings(backprop_steps=None), []
    plain: dict[str, Any] = Toy().engines()
    steps = {"sampling": Sampling(n_noise=None, n_reverse=4)}

    def remote(name: str, engine: Any) -> Any:
        def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
            log.append(name)
            given = {key: array.value for key, array in feeds.items()}  # what is not placed has no value
            return {key: OnGpu(array, log) for key, array in engine.run(given).items()}

        def place(array: Any) -> Any:
            return array if isinstance(array, OnGpu) else OnGpu(np.asarray(array), log)

        return SimpleNamespace(run=run, place=place, inputs=engine.inputs)

    gradients = []
    for engines in (plain, {name: remote(name, engine) for name, engine in plain.items()}):
        generator, objective = on_engines(WORLD, engines, inputs, settings, target, mask, **steps)
        gradients.append(objective.value_and_gradient(generator.initial())[1])
    queued = ["denoise"] * 4 + ["structure_gradient"] + ["denoise_gradient"] * 4
    assert log[: len(queued)] == queued
    assert set(log[len(queued) :]) == {"read"}
    for name, expected in gradients[0].items():
        np.testing.assert_array_equal(gradients[1][name], expected)


def test_arrays_that_do_not_fit_are_refused(
    small_models: Any, torch_engines: Make, inputs: dict[str, Array], target: Array, mask: Array
) -> None:
    engines = torch_engines(small_models)
    generator, _ = on_engines(small_models, engines, inputs, AdamSettings(), target, mask)

    def build(
        target: Array = target,
        mask: Array = mask,
        settings: AdamSettings = AdamSettings(),  # noqa: B008
        semantic: Array | None = None,
        engines: Mapping[str, Any] = engines,
    ) -> EngineObjective:
        return EngineObjective(engines, generator, target, mask, settings, semantic)

    with pytest.raises(ShapeError, match="bool mask"):
        build(mask=mask[:5])
    with pytest.raises(ShapeError, match="of float64"):
        build(mask=mask.astype(float))
    with pytest.raises(InputError, match="keeps no structure"):
        build(mask=np.zeros_like(mask))
    bad = target.copy()
    bad[1][mask] = np.nan
    with pytest.raises(InputError, match=r"row \[1\]"):
        build(target=bad)
    with pytest.raises(ShapeError, match=r"engines take \(n, 6, 17, 32\).*layer preset"):
        build(target=target[:, :, :9], mask=mask[:, :9])
    with pytest.raises(ShapeError, match="batch = 2"):
        build(target=target[:1]).value_and_gradient(generator.initial())
    with pytest.raises(InputError, match="context, latent"):
        build(settings=AdamSettings(params=("level_0",))).value_and_gradient(generator.initial())
    weighed = AdamSettings(semantic_weight=0.5)
    with pytest.raises(InputError, match="exported without the semantic term"):
        build(settings=weighed, semantic=np.zeros((2, 32), np.float32))
    semantic_engines = torch_engines(small_models, semantic=True)
    with pytest.raises(InputError, match="needs a semantic_target"):
        build(settings=weighed, engines=semantic_engines)
    with pytest.raises(InputError, match=r"semantic_target of shape \(2, d\)"):
        build(settings=weighed, engines=semantic_engines, semantic=np.zeros((3, 32), np.float32))


def test_a_target_may_be_anything_outside_the_mask(
    small_models: Any, torch_engines: Make, inputs: dict[str, Array], target: Array, mask: Array
) -> None:
    settings = AdamSettings(backprop_steps=0, layer_weights="reference")
    engines = torch_engines(small_models)
    generator, objective = on_engines(small_models, engines, inputs, settings, target, mask)
    holes = np.where(mask, target, np.nan)
    _, with_holes = on_engines(small_models, engines, inputs, settings, holes, mask)
    expected, found = (o.value_and_gradient(generator.initial()) for o in (objective, with_holes))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1]["latent"], expected[1]["latent"])
