"""One picture as it grows: stage 1, then guided passes from one start noise after the other, the best one kept.

What is done depends on the decoded features, the trial's id and the plan alone, never on the time: somebody who looks
on may end it after any step, and the same number of steps gives the same picture again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.base import Backend, Start
from ...runtime.decoders.belonging import Decoded
from ...runtime.generators.noise import trial_noise
from ...runtime.images import to_uint8
from ...runtime.refine.arrays import on_host
from ...runtime.refine.base import Problem, Step
from ...runtime.refine.search import Passes
from ...runtime.refine.settings import GuidedSettings
from .plan import Plan

Picture = NDArray[np.uint8]


class Enough(Exception):
    """Raised by whoever looks on, to end a picture where it is."""


class Undrawable(Exception):
    """Raised where there is no picture; the text is the reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """The picture after a step.

    Attributes
    ----------
    number
        Counts the frames of one picture from 1; frame 1 is stage 1.
    stage
        1 or 2.
    step, steps
        Of stage 2, as far as it goes until the picture is finished; there may be further ones.
    image : (H, W, 3) uint8, or None where a step gives none
    kept
        Whether this is the best picture so far, and not one on its way.
    finished
        Whether all is done that the plan has before the picture counts as finished.
    """

    number: int
    stage: int
    step: int
    steps: int
    image: Picture | None
    kept: bool = False
    finished: bool = False


OnFrame = Callable[[Frame], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What came of it.

    Attributes
    ----------
    image : (H, W, 3) uint8
        The best picture.
    stage
        That it is of: 1 where stage 2 found none.
    n_frames
        How many frames there were.
    n_candidates
        How many start noises were tried to their end.
    loss
        Of the best picture of stage 2, or None.
    fault
        Why stage 2 broke off, or "".
    """

    image: Picture
    stage: int
    n_frames: int
    n_candidates: int
    loss: float | None
    fault: str = ""


def draw(backend: Backend[Any], decoded: Decoded, trial_id: str, plan: Plan, seed: int, on_frame: OnFrame) -> Drawn:
    """Draw one picture.

    Parameters
    ----------
    backend
        Started.
    decoded
        Features of one trial.
    trial_id
        It decides the noise, with `seed`.
    plan
        What is done.
    seed
        Of the session.
    on_frame
        Sees every step; may raise :class:`Enough`.

    Returns
    -------
    Drawn
        Where it goes through to the end of `plan.refine.candidates`, the very picture of the refiner `guided`.

    Raises
    ------
    Undrawable
        There is none of stage 1. What stage 2 raises leaves the best picture before that.
    """
    drawing = _Drawing(backend, decoded, trial_id, plan, seed, on_frame)
    try:
        drawing.run()
    except Enough:
        return drawing.drawn()
    except Exception as error:  # whatever it is, the session goes on
        return drawing.drawn(fault=f"{type(error).__name__}: {error}")
    return drawing.drawn()


class _Drawing:
    """A picture in the making."""

    def __init__(
        self, backend: Backend[Any], decoded: Decoded, trial_id: str, plan: Plan, seed: int, on_frame: OnFrame
    ) -> None:
        self._backend, self._decoded, self._trial_id = backend, decoded, trial_id
        self._plan, self._seed, self._on_frame = plan, seed, on_frame
        self._image: Picture | None = None
        self._stage, self._n_frames, self._n_candidates = 1, 0, 0
        self._loss: float | None = None
        self._finished = False

    def run(self) -> None:
        generator = self._backend.generator(self._decoded, self._noise(0), self._plan.sampling)
        images = generator.stage1()
        self._image = _picture(images)
        if self._image is None:
            return
        refine = self._plan.refine
        self._frame(1, 1, 1, self._image, kept=True, finished=refine is None)
        if refine is not None:
            self._refine(refine, generator, images)

    def drawn(self, fault: str = "") -> Drawn:
        if self._image is None:
            raise Undrawable(fault or "its picture of stage 1 holds NaN or infinite values")
        return Drawn(
            image=self._image,
            stage=self._stage,
            n_frames=self._n_frames,
            n_candidates=self._n_candidates,
            loss=self._loss,
            fault=fault,
        )

    def _refine(self, refine: GuidedSettings, generator: Any, images: Any) -> None:
        """The candidates that are planned, the best of them finished; then more, each finished where it is better."""
        planned = refine.candidates or 1
        passes = Passes(self._problem(generator, images), refine, self._on_step)
        start = passes.start()
        best, unfinished, finish = np.inf, np.inf, np.inf
        latent: Any = None
        for candidate in range(max(planned, self._plan.most_candidates)):
            found = passes.run([(candidate, 0)], start)
            self._n_candidates += 1
            loss = float(found.curve[-1, 0])
            if loss < unfinished:  # NaN is not
                unfinished, latent = loss, found.latent
                if candidate < planned:
                    self._keep(found.image, loss, finished=False)
            if candidate < planned - 1:
                continue
            if unfinished < best:
                best = unfinished
                if refine.n_finish:
                    found = passes.finish([0], latent)
                    loss = float(np.nanmin(found.curve))
                if loss < finish:
                    finish = loss
                    self._keep(found.image, loss, finished=True)
            if not self._finished:
                self._frame(2, self._steps, self._steps, self._image, kept=True, finished=True)

    def _problem(self, generator: Any, images: Any) -> Problem[Any]:
        decoded = self._decoded
        return Problem(
            backend=self._backend,
            start=lambda _rows: Start(context=decoded.context, latent=decoded.latent),
            noise=self._noise,
            generator=generator,
            stage1=images,
            sampling=self._plan.sampling,
            target=decoded.structure,
            mask=self._backend.decoder.mask,
            semantic=decoded.semantic,
            rows_at_once=1,
        )

    def _noise(self, candidate: int) -> NDArray[np.float32]:
        return trial_noise(self._seed, [self._trial_id], self._backend.latent_shape, candidate)

    def _on_step(self, step: Step[Any]) -> None:
        self._frame(2, step.step, step.steps, None if step.image is None else _picture(step.image))

    def _keep(self, images: Any, loss: float, *, finished: bool) -> None:
        image = _picture(images)
        if image is None:
            return
        self._image, self._stage, self._loss = image, 2, loss
        self._frame(2, self._steps, self._steps, image, kept=True, finished=finished)

    @property
    def _steps(self) -> int:
        refine = self._plan.refine
        return 1 if refine is None else refine.n_reports(self._plan.sampling)

    def _frame(
        self, stage: int, step: int, steps: int, image: Picture | None, *, kept: bool = False, finished: bool = False
    ) -> None:
        self._n_frames += 1
        self._finished |= finished
        self._on_frame(
            Frame(
                number=self._n_frames,
                stage=stage,
                step=min(step, steps),
                steps=steps,
                image=image,
                kept=kept,
                finished=finished,
            )
        )


def _picture(images: Any) -> Picture | None:
    """Images (1, 3, H, W) as (H, W, 3) uint8; None where they are not finite."""
    values = on_host(images)
    return to_uint8(values)[0] if np.isfinite(values).all() else None
