"""What the steps of both stages cost on this machine, in seconds, measured once before a session begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from ...runtime.backends.base import Backend
from ...runtime.generators.noise import trial_noise
from ...runtime.refine.arrays import as_float64, on_host
from ...runtime.refine.guided import guided_pass
from ...runtime.refine.search import relative_loss
from ...runtime.refine.settings import GuidedSettings
from ...runtime.refine.weights import StructuralWeights
from ...runtime.sampling import Sampling

# Everything is measured so many times after a first one, which loads and compiles.
_TIMES = 3


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of one picture.

    Attributes
    ----------
    decode
        Of the features.
    render
        What stage 1 takes besides its steps: the VAE's decoder.
    step
        One denoising step.
    loss
        The loss of stage 2 with its gradient at the latent.
    guided
        One guided denoising step; 0 where there is no stage 2, as `loss`.
    """

    decode: float
    render: float
    step: float
    loss: float = 0.0
    guided: float = 0.0

    def stage1(self, sampling: Sampling) -> float:
        """A picture of stage 1."""
        return self.render + sampling.n_reverse * self.step

    def once(self, refine: GuidedSettings) -> float:
        """What stage 2 does once: before the candidates, and after them."""
        return (refine.n_start + (refine.n_finish + 1 if refine.n_finish else 0)) * self.loss

    def candidate(self, refine: GuidedSettings, stage1: Sampling) -> float:
        """One candidate of stage 2, where stage 1 samples as given."""
        n_guided, n_steps = refine.n_guided(stage1), refine.sampling(stage1).n_reverse
        return n_guided * self.guided + (n_steps - n_guided) * self.step + self.loss

    def as_json(self) -> dict[str, float]:
        """The figures."""
        return asdict(self)


def measured(
    backend: Backend[Any], refine: GuidedSettings | None, sampling: Sampling, clock: Callable[[], float]
) -> Pace:
    """Measure on the mean of training, which every decoder takes.

    Parameters
    ----------
    backend
        Started.
    refine
        None: stage 1 alone.
    sampling
        Of stage 1.
    clock
        Gives seconds.
    """
    response = np.asarray(backend.decoder.training.mean, np.float32)[None]
    semantic = refine is not None and refine.semantic_weight > 0
    decode = _seconds(lambda: backend.decode(response, semantic=semantic), clock)
    decoded = backend.decode(response, semantic=semantic)
    noise = trial_noise(0, ["measured"], backend.latent_shape)
    one, three = (replace(sampling, n_steps=3, n_noise=None, n_reverse=n) for n in (1, 3))
    short = _seconds(lambda: on_host(backend.generator(decoded, noise, one).stage1()), clock)
    long = _seconds(lambda: on_host(backend.generator(decoded, noise, three).stage1()), clock)
    step = max(long - short, 0.0) / 2
    pace = Pace(decode=decode, render=max(short - step, 0.0), step=step)
    if refine is None:
        return pace
    weights = StructuralWeights.of_settings(refine, decoded.structure, backend.decoder.mask)
    loss = relative_loss(
        backend.structural,
        decoded.structure,
        weights,
        decoded.semantic if semantic else None,
        refine.semantic_weight if semantic else 0.0,
    )
    sampler = backend.generator(decoded, noise, one)

    def one_pass(n_guided: int) -> None:
        start = sampler.start(noise)
        guided_pass(sampler, start, loss, step_size=refine.step_size, n_guided=n_guided, jacobian=refine.jacobian)

    of_loss = _seconds(lambda: as_float64(loss(decoded.latent)[0]), clock)  # as_float64 waits for a GPU
    return replace(pace, loss=of_loss, guided=max(_seconds(lambda: one_pass(1), clock) - of_loss, 0.0))


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    spent = []
    for _ in range(1 + _TIMES):
        started = clock()
        call()
        spent.append(clock() - started)
    return median(spent[1:])
