"""Progress of a run in pictures, moving with every iteration: a batch of pictures takes minutes on a laptop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from ..progress import Progress, duration


class Ticker(Progress):
    """Progress that counts steps and speaks of images: "8/16 images (61 %), 0.21 images/s, 45 s left, stage 2 12/60".

    Parameters
    ----------
    n_images : images to make in all.
    n_finished : images that an earlier run has made; no part of the rate.
    steps_per_image : renderings that one image takes, over all phases.
    stream, clock : as in :class:`~minddiffuser.runtime.progress.Progress`.
    """

    def __init__(
        self,
        n_images: int,
        n_finished: int,
        steps_per_image: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_image, self._n_images = max(steps_per_image, 1), n_images
        self._before_steps = n_finished * self._per_image
        self._began, self._detail = clock(), ""
        super().__init__(
            n_images * self._per_image,
            "reconstructing",
            stream=stream,
            unit="steps",
            done=self._before_steps,
            clock=clock,
        )

    def images(self, n_finished: int) -> None:
        """Say that so many images are finished in all."""
        self._detail = ""
        self(n_finished * self._per_image)

    def step(self, n_images: int, detail: str) -> None:
        """Say that one more rendering of `n_images` images is done, in the phase `detail`."""
        self._detail = f", {detail}"
        self(min(self.done + n_images, self.total))

    def line(self, now: float) -> str:
        """The line for the time `now` (seconds of the clock)."""
        elapsed, made = max(now - self._began, 0.0), self.done - self._before_steps
        text = f"{self.label}: {self.done // self._per_image}/{self._n_images} images"
        if self.total:
            text += f" ({100 * self.done / self.total:.0f} %)"
        if made > 0 and elapsed > 0:
            text += f", {made / self._per_image / elapsed:.2g} images/s"
        if self.done >= self.total:
            return f"{text}, took {duration(elapsed)}"
        if made > 0 and elapsed > 0:
            text += f", {duration(elapsed / made * (self.total - self.done))} left"
        return text + self._detail
