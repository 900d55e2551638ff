"""The work of both stages as each contestant does it: diffusers' pipeline, our PyTorch path, autograd, engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flops import Counts
from rivals import Pipeline, TensorTimestep
from tables import Job
from trials import Trials

from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.refine import autograd, engines
from minddiffuser.runtime.refine.autograd import AutogradObjective
from minddiffuser.runtime.refine.engines import EngineObjective
from minddiffuser.runtime.refine.guided import guided_pass
from minddiffuser.runtime.refine.settings import AdamSettings, GuidedSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

DIFFUSERS, DIFFUSERS_COMPILED = "diffusers, eager", "diffusers, torch.compile"
PYTORCH, ENGINES = "minddiffuser, PyTorch", "minddiffuser, ONNX Runtime"
AUTOGRAD, CHECKPOINTING = "autograd, activations kept", "autograd, checkpointing"
AUTOGRAD_COMPILED = "autograd, torch.compile"
STEP, PICTURE = "stage 1, a guided step", "stage 1, a picture"
ALL_STEPS = "stage 2, all 35 steps"
GUIDED_PASS = "stage 2, a guided pass"
# 10 of 14 steps; the time does not depend on their size, and at this one float32 gives the same pictures everywhere.
PASS = GuidedSettings(candidates=1, n_steps=25, strength=0.56, guided_share=0.7, step_size=0.01)
ITERATIONS: dict[str, int | None] = {ALL_STEPS: None, "stage 2, last 4 steps": 4, "stage 2, latent only": 0}


@dataclass(frozen=True, eq=False)
class Sources:
    """The tiny world's networks, opened for every contestant.

    Attributes
    ----------
    models, compiled : Models, or None for `compiled`
        In PyTorch, each with weights of its own.
    engines : mapping
        Graph -> engine.
    """

    models: Models
    compiled: Models | None
    engines: Any


def stage1_jobs(sources: Sources, trials: Trials, counts: Counts) -> list[Job]:
    """A picture, and its 35 steps without the decoder."""
    pipelines = {DIFFUSERS: Pipeline(sources.models, trials)}
    if sources.compiled is not None:
        pipelines[DIFFUSERS_COMPILED] = Pipeline(sources.compiled, trials)
    steps: dict[str, Any] = {name: _giving("latent", pipeline.latents) for name, pipeline in pipelines.items()}
    steps[PYTORCH] = lambda: {"latent": torch_generator(sources, trials, 0).initial()["latent"]}
    steps[ENGINES] = lambda: {"latent": engine_generator(sources, trials, 0).initial()["latent"]}
    pictures: dict[str, Any] = {name: _giving("picture", pipeline.pictures) for name, pipeline in pipelines.items()}
    pictures[PYTORCH] = _giving("picture", torch_generator(sources, trials, None).stage1)
    pictures[ENGINES] = _giving("picture", engine_generator(sources, trials, None).stage1)
    n = len(trials)
    return [
        Job(
            name=STEP, batch=n, contestants=steps, flops=n * Sampling.n_reverse * counts.step, parts=Sampling.n_reverse
        ),
        Job(name=PICTURE, batch=n, contestants=pictures, flops=n * counts.picture(Sampling.n_reverse)),
    ]


def stage2_jobs(sources: Sources, trials: Trials, counts: Counts) -> list[Job]:
    """The loss and its gradient, through all steps, the last four, or none; and a guided pass."""
    jobs = []
    for name, backprop in ITERATIONS.items():
        contestants = {AUTOGRAD: by_autograd(sources.models, trials, backprop, checkpointing=False)}
        if backprop != 0:
            contestants[CHECKPOINTING] = by_autograd(sources.models, trials, backprop, checkpointing=True)
        if sources.compiled is not None:
            fast = replace(sources.compiled, unet=TensorTimestep(sources.compiled.unet))
            contestants[AUTOGRAD_COMPILED] = by_autograd(fast, trials, backprop, checkpointing=False)
        contestants[ENGINES] = by_engines(sources, trials, backprop)
        flops = len(trials) * counts.iteration(Sampling.n_reverse if backprop is None else backprop)
        jobs.append(Job(name=name, batch=len(trials), contestants=contestants, flops=flops))
    return [*jobs, guided_job(sources, trials, counts)]


def guided_job(sources: Sources, trials: Trials, counts: Counts) -> Job:
    """One pass of the `guided` refiner from one noise."""
    grid = PASS.sampling(Sampling())

    def by_torch(models: Models) -> Callable[[], Any]:
        generator = DiffusionGenerator(models, *trials.start(), sampling=grid)
        return _guided(generator, partial(autograd.structural, models), trials)

    contestants = {AUTOGRAD: by_torch(sources.models)}
    if sources.compiled is not None:
        contestants[AUTOGRAD_COMPILED] = by_torch(replace(sources.compiled, unet=TensorTimestep(sources.compiled.unet)))
    on_engines = EngineGenerator(sources.engines, sources.models, *trials.start(), sampling=grid)
    head = sources.engines["structure_gradient"]
    contestants[ENGINES] = _guided(on_engines, partial(engines.structural, head, largest_batch=None), trials)
    flops = len(trials) * counts.guided(grid.n_reverse, PASS.n_guided(Sampling()))
    return Job(name=GUIDED_PASS, batch=len(trials), contestants=contestants, flops=flops)


def _guided(sampler: Any, structural: Callable[..., Any], trials: Trials) -> Callable[[], Any]:
    weights = StructuralWeights.of_settings(PASS, trials.target, trials.mask)

    def work() -> dict[str, Any]:
        found = guided_pass(
            sampler,
            sampler.start(trials.noise),
            lambda x0: structural(x0, trials.target, weights),
            step_size=PASS.step_size,
            n_guided=PASS.n_guided(Sampling()),
        )
        return {"picture": found.image, "loss": found.curve}

    return work


def torch_generator(sources: Sources, trials: Trials, backprop: int | None) -> DiffusionGenerator:
    return DiffusionGenerator(sources.models, *trials.start(), backprop_steps=backprop)


def engine_generator(sources: Sources, trials: Trials, backprop: int | None) -> EngineGenerator:
    return EngineGenerator(sources.engines, sources.models, *trials.start(), backprop_steps=backprop)


def by_autograd(models: Models, trials: Trials, backprop: int | None, *, checkpointing: bool) -> Callable[[], Any]:
    """One evaluation of stage 2 by PyTorch."""
    generator = DiffusionGenerator(models, *trials.start(), backprop_steps=backprop, checkpointing=checkpointing)
    settings = AdamSettings(backprop_steps=backprop)
    objective = AutogradObjective(models, generator, trials.target, trials.mask, settings)
    params = generator.initial()
    return lambda: _named(*objective.value_and_gradient(params))


def by_engines(sources: Sources, trials: Trials, backprop: int | None) -> Callable[[], Any]:
    """One evaluation of stage 2 by the gradient graphs."""
    generator = engine_generator(sources, trials, backprop)
    settings = AdamSettings(backprop_steps=backprop)
    objective = EngineObjective(sources.engines, generator, trials.target, trials.mask, settings)
    params = generator.initial()
    return lambda: _named(*objective.value_and_gradient(params))


def _named(loss: Any, gradients: Mapping[str, Any], image: Any) -> dict[str, Any]:
    return {"picture": image, "loss": loss, "gradient": gradients["latent"]}


def _giving(name: str, work: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {name: work()}
