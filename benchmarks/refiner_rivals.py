"""Two refiners from the literature, written for the bench over the protocols that the package's own refiners use.

Each is ``refine(problem, settings, on_step) -> Refined`` as in :mod:`minddiffuser.runtime.refine`, keeps trials
independent, and takes torch tensors and engines' numpy arrays alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.data.json_types import is_number, is_whole
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.ddim import ddim_update
from minddiffuser.runtime.refine.arrays import as_float64, assign, copied
from minddiffuser.runtime.refine.base import OnStep, Problem, Refined, Step
from minddiffuser.runtime.refine.costs import Costs
from minddiffuser.runtime.refine.settings import RefineSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

Loss = Callable[[Any], tuple[Any, Any, Any]]


@dataclass(frozen=True, kw_only=True)
class RawScaleSettings(RefineSettings):
    """See :func:`raw_scale`.

    `scale` multiplies the raw gradient of eq. 5, in whatever units that has; `guided_share` of stage 1's steps is
    guided, from the first one on.
    """

    refiner: ClassVar[str] = "raw scale"

    scale: float = 100.0
    guided_share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_structural_alone(self)
        _check(is_number(self.scale) and self.scale >= 0, "scale", self.scale, "0 or a positive number")
        in_range = is_number(self.guided_share) and 0 <= self.guided_share <= 1
        _check(in_range, "guided_share", self.guided_share, "a share of the steps, 0 to 1")

    @property
    def steps_back(self) -> bool:
        return True

    def n_reports(self, sampling: Sampling) -> int:
        return sampling.n_reverse

    def n_guided(self, sampling: Sampling) -> int:
        return int(self.guided_share * sampling.n_reverse)

    def cost(self, costs: Costs, sampling: Sampling) -> float:
        at = costs.at_guidance(sampling.guidance_scale)
        guided = self.n_guided(sampling) * (at.back_only + at.structural)
        return sampling.n_reverse * at.predict + guided + at.structural


def raw_scale(problem: Problem[Any], settings: RawScaleSettings, on_step: OnStep) -> Refined[Any]:
    """One fixed scale on the raw gradient: NeuralDiffuser's form (Li et al. 2024, arXiv 2402.13809).

    ``e <- e + scale * sqrt(1 - keep) * dL/dx`` in the first steps (theirs: a fifth), then the ordinary DDIM update,
    with stage 1's sampling and start noise. Theirs differs where ours has no counterpart: the gradient goes through the
    conditional half of the guided noise alone, and the picture compared is a blend of x and the clean estimate.
    """
    sampler, loss = problem.generator, _loss_of(problem, settings)
    n_guided, n_steps = settings.n_guided(problem.sampling), problem.sampling.n_reverse
    x: Any = sampler.start(problem.noise(0))
    curve = []
    for k, (_, keep, keep_next) in enumerate(sampler.schedule):
        image = None
        if k < n_guided:
            clean, noise, pull_back = sampler.linearise(x, k)
            value, gradient, image = loss(clean)
            noise = noise + settings.scale * (1 - keep) ** 0.5 * pull_back(gradient)
            curve.append(as_float64(value))
        else:
            _, noise = sampler.predict(x, k)
        x = ddim_update(x, noise, keep, keep_next)
        on_step(Step(step=k + 1, steps=n_steps, rows=range(len(problem.target)), image=image))
    value, _, image = loss(x)
    curve.append(as_float64(value))
    kept = copied(problem.stage1)
    finite = np.isfinite(curve[-1])
    assign(kept, image, finite)
    last = np.full(len(finite), len(curve) - 1, np.int64)
    return Refined({"latent": x}, kept, np.stack(curve), last, last.copy(), ~finite)


@dataclass(frozen=True, kw_only=True)
class StartNoiseSettings(RefineSettings):
    """See :func:`start_noise`.

    The sampler takes `n_reverse` steps of a grid of `n_steps`, from the noise that belongs there; `evaluations` are
    gradients. `learning_rate`, `momentum`, `clip` (the largest length of a trial's gradient) and `regularisation` are
    those of the published code but for the first, which is tuned.
    """

    refiner: ClassVar[str] = "start noise"

    evaluations: int = 12
    n_steps: int = 8
    n_reverse: int = 5
    learning_rate: float = 100.0
    momentum: float = 0.9
    clip: float = 0.1
    regularisation: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_structural_alone(self)
        for name in ("evaluations", "n_steps", "n_reverse"):
            value = getattr(self, name)
            _check(is_whole(value) and value >= 1, name, value, "a whole number of 1 or more")
        _check(self.n_reverse <= self.n_steps, "n_reverse", self.n_reverse, f"1 to n_steps, which is {self.n_steps}")
        for name in ("learning_rate", "momentum", "regularisation"):
            value = getattr(self, name)
            _check(is_number(value) and value >= 0, name, value, "0 or a positive number")
        _check(self.momentum < 1, "momentum", self.momentum, "a number in [0, 1)")
        _check(is_number(self.clip) and self.clip > 0, "clip", self.clip, "a positive number")

    @property
    def steps_back(self) -> bool:
        return True

    def n_reports(self, sampling: Sampling) -> int:
        del sampling
        return self.evaluations

    def sampling(self, stage1: Sampling) -> Sampling:
        return Sampling(
            guidance_scale=stage1.guidance_scale, n_steps=self.n_steps, n_noise=None, n_reverse=self.n_reverse
        )

    def cost(self, costs: Costs, sampling: Sampling) -> float:
        at = costs.at_guidance(sampling.guidance_scale)
        return self.evaluations * (self.n_reverse * (at.predict + at.back_only) + at.structural)


def start_noise(problem: Problem[Any], settings: StartNoiseSettings, on_step: OnStep) -> Refined[Any]:
    """Gradient steps on the start noise through a few denoising steps: ReNO's form (Eyring et al. 2024, 2406.04312).

    The loss is eq. 5 of the picture plus ``regularisation * (|noise|^2 / 2 - (d - 1) log |noise|)``, which keeps the
    noise as long as Gaussian noise of d values is. Nesterov's momentum as in torch.optim.SGD; the gradient's length is
    clipped, trial by trial. The picture with the lowest structural loss is kept. ReNO itself has a distilled model
    that needs one step.
    """
    n, loss = len(problem.target), _loss_of(problem, settings)
    noise = np.array(problem.noise(0))
    n_values = noise[0].size
    sampler = problem.backend.generator(problem.start(range(n)), noise, settings.sampling(problem.sampling))
    velocity = np.zeros(noise.shape)
    best, best_step = np.full(n, np.inf), np.zeros(n, np.int64)
    kept, latent, curve = copied(problem.stage1), None, []
    for k in range(settings.evaluations):
        value, gradient, image, x = noise_gradient(sampler, noise, loss)
        better = value < best  # NaN is not
        assign(kept, image, better)
        latent = copied(x) if latent is None else latent
        assign(latent, x, better)
        best, best_step[better] = np.where(better, value, best), k
        curve.append(value)
        on_step(Step(step=k + 1, steps=settings.evaluations, rows=range(n), image=image))
        squared = (noise.astype(np.float64) ** 2).sum((1, 2, 3), keepdims=True)
        gradient = gradient + settings.regularisation * (1 - (n_values - 1) / squared) * noise
        length = np.sqrt((gradient**2).sum((1, 2, 3), keepdims=True))
        gradient = gradient * np.minimum(1, settings.clip / np.maximum(length, np.finfo(np.float64).tiny))
        velocity = settings.momentum * velocity + gradient
        noise = (noise - settings.learning_rate * (gradient + settings.momentum * velocity)).astype(np.float32)
    last = np.full(n, len(curve) - 1, np.int64)
    return Refined({"latent": latent}, kept, np.stack(curve), best_step, last, np.isinf(best))


def noise_gradient(
    sampler: Any, noise: NDArray[np.float32], loss: Loss
) -> tuple[NDArray[np.float64], NDArray[np.float64], Any, Any]:
    """Loss (n,) of the picture that start noise (n, 4, h, w) becomes, its gradient at the noise, picture and latent."""
    x: Any = sampler.start(noise)
    passed = []
    for k, (_, keep, keep_next) in enumerate(sampler.schedule):
        _, found, pull_back = sampler.linearise(x, k)
        passed.append((keep, keep_next, pull_back))
        x = ddim_update(x, found, keep, keep_next)
    value, v, image = loss(x)
    for keep, keep_next, pull_back in reversed(passed):
        # The noise is e = (x - sqrt(keep) x0) / sqrt(1 - keep), so a step is a sum of x and x0 alone.
        of_x = ((1 - keep_next) / (1 - keep)) ** 0.5
        v = (keep_next**0.5 - of_x * keep**0.5) * pull_back(v) + of_x * v
    return as_float64(value), (1 - sampler.schedule.noise_keep) ** 0.5 * as_float64(v), image, x


def _loss_of(problem: Problem[Any], settings: RefineSettings) -> Loss:
    weights = StructuralWeights.of_settings(settings, problem.target, problem.mask)
    return lambda x0: problem.backend.structural(x0, problem.target, weights)


def _check_structural_alone(settings: RefineSettings) -> None:
    given = settings.semantic_weight
    _check(given == 0, "semantic_weight", given, "0: the rivals have no semantic term")


def _check(good: bool, name: str, given: object, expected: str) -> None:
    if not good:
        raise InputError(f"refine setting {name} is {given!r}: give {expected}")
