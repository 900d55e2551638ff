"""What the steps of both stages cost on this machine, in seconds, measured once before a session begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from ...runtime.backends.base import Backend
from ...runtime.generators.base import Sampler
from ...runtime.generators.noise import trial_noise
from ...runtime.refine.arrays import as_float64, on_host
from ...runtime.refine.base import Loss
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


def warm_up(backend: Backend[Any], refine: GuidedSettings | None, sampling: Sampling) -> None:
    """Call everything once, so that the first picture does not wait for what loads and compiles.

    Raises
    ------
    InputError
        Stage 2 asks for what the backend does not have.
    """
    parts = _Parts(backend, refine, sampling)
    parts.decode()
    parts.stage1(1)
    if refine is not None:
        parts.one_pass(1)


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
    parts = _Parts(backend, refine, sampling)
    decode = _seconds(parts.decode, clock)
    short, long = (_seconds(partial(parts.stage1, n), clock) for n in (1, 3))
    step = max(long - short, 0.0) / 2
    pace = Pace(decode=decode, render=max(short - step, 0.0), step=step)
    if refine is None:
        return pace
    of_loss = _seconds(parts.one_loss, clock)
    return replace(pace, loss=of_loss, guided=max(_seconds(partial(parts.one_pass, 1), clock) - of_loss, 0.0))


class _Parts:
    """The calls that are measured, on the features of the mean of training."""

    def __init__(self, backend: Backend[Any], refine: GuidedSettings | None, sampling: Sampling) -> None:
        self._backend, self._refine, self._sampling = backend, refine, sampling
        self._response = np.asarray(backend.decoder.training.mean, np.float32)[None]
        self._semantic = refine is not None and refine.semantic_weight > 0
        self._decoded = backend.decode(self._response, semantic=self._semantic)
        self._noise = trial_noise(0, ["measured"], backend.latent_shape)
        self._loss = None if refine is None else self._relative_loss(refine)

    def decode(self) -> None:
        self._backend.decode(self._response, semantic=self._semantic)

    def stage1(self, n_reverse: int) -> None:
        on_host(self._generator(n_reverse).stage1())

    def one_loss(self) -> None:
        if self._loss is not None:
            as_float64(self._loss(self._decoded.latent)[0])  # on the host: a GPU is waited for

    def one_pass(self, n_guided: int) -> None:
        """A guided pass of one step, which ends with a loss."""
        if self._loss is not None and self._refine is not None:
            sampler = self._generator(1)
            guided_pass(
                sampler,
                sampler.start(self._noise),
                self._loss,
                step_size=self._refine.step_size,
                n_guided=n_guided,
                jacobian=self._refine.jacobian,
            )

    def _generator(self, n_reverse: int) -> Sampler[Any]:
        sampling = replace(self._sampling, n_steps=3, n_noise=None, n_reverse=n_reverse)
        return self._backend.generator(self._decoded, self._noise, sampling)

    def _relative_loss(self, refine: GuidedSettings) -> Loss:
        weights = StructuralWeights.of_settings(refine, self._decoded.structure, self._backend.decoder.mask)
        semantic = self._decoded.semantic if self._semantic else None
        weight = refine.semantic_weight if self._semantic else 0.0
        return relative_loss(self._backend.structural, self._decoded.structure, weights, semantic, weight)


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    spent = []
    for _ in range(1 + _TIMES):
        started = clock()
        call()
        spent.append(clock() - started)
    return median(spent[1:])
