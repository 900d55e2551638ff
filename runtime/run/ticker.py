"""Progress of a run in pictures, moving with every iteration: a batch of pictures takes minutes on a laptop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from statistics import mean, median
from typing import TextIO

from ..progress import Progress, duration

# Steps of a phase that its pace is taken from: enough to be steady, and few enough to follow a machine that slows down.
_WINDOW = 64


class Ticker(Progress):
    """Progress that counts steps and speaks of images: "8/16 images (61 %), 0.21 images/s, 45 s left, stage 2 12/60".

    Decoding, a rendering and an iteration with gradients cost very differently, so the time left is added up phase by
    phase, each with the seconds that its own steps took. Nothing is promised before all phases are known.

    Parameters
    ----------
    n_images : images to make in all.
    n_finished : images that an earlier run has made; no part of the rate.
    phases : steps that one image takes at most, by phase, in their order. Phases of more than one step are refinements,
        which cost alike: one that has not begun is taken to cost what another does.
    stream, clock : as in :class:`~minddiffuser.runtime.progress.Progress`.
    """

    def __init__(
        self,
        n_images: int,
        n_finished: int,
        phases: Mapping[str, int],
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._phases, self._n_images, self._n_finished = dict(phases), n_images, n_finished
        self._per_image = max(sum(phases.values()), 1)
        self._before_steps = n_finished * self._per_image
        self._began = self._last = clock()
        self._detail = ""
        self._paces = {phase: _Pace(steps) for phase, steps in phases.items()}
        self._writing = _Pace(1)
        # Images times steps of each phase that the present batch has made.
        self._made = dict.fromkeys(phases, 0)
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
        made, self._n_finished, self._detail = n_finished - self._n_finished, n_finished, ""
        if made > 0:
            self._writing.add(self._lap() / made)
            for phase, steps in self._made.items():
                self._paces[phase].end(steps / made)
        self._last, self._made = self._clock(), dict.fromkeys(self._phases, 0)
        self(n_finished * self._per_image)

    def step(self, n_images: int, phase: str, detail: str) -> None:
        """Say that one more step of `n_images` images is done, in this phase; `detail` says which, for display."""
        if phase in self._paces:
            self._paces[phase].add(self._lap() / n_images)
            self._made[phase] += n_images
        self._detail = f", {detail}"
        self(min(self.done + n_images, self.total))

    def line(self, now: float) -> str:
        """The line for the time `now` (seconds of the clock)."""
        elapsed = max(now - self._began, 0.0)
        text = f"{self.label}: {self.done // self._per_image}/{self._n_images} images"
        if self.total:
            text += f" ({100 * self.done / self.total:.0f} %)"
        finished, made = self.done >= self.total, (self.done - self._before_steps) / self._per_image
        per_image = elapsed / made if finished and made > 0 else self._seconds({p: 1.0 for p in self._phases}, 1)
        if per_image:
            text += f", {1 / per_image:.2g} images/s"
        if finished:
            return f"{text}, took {duration(elapsed)}"
        left = self.seconds_left(now)
        return text + ("" if left is None else f", {duration(left)} left") + self._detail

    def seconds_left(self, now: float) -> float | None:
        """How long the rest takes at the present paces; None where some phase was never measured."""
        n_left = self._n_images - self._n_finished
        shares = {phase: n_left - self._made[phase] / pace.steps for phase, pace in self._paces.items()}
        whole = self._seconds(shares, n_left)
        return None if whole is None else max(whole - max(now - self._last, 0.0), 0.0)

    def _seconds(self, images: Mapping[str, float], n_written: float) -> float | None:
        """Seconds for so many images of each phase, and for writing so many."""
        total = n_written * (self._writing.seconds or 0.0)
        known = [pace.seconds for pace in self._paces.values() if pace.most > 1 and pace.seconds is not None]
        for phase, count in images.items():
            pace = self._paces[phase]
            seconds = pace.seconds if pace.seconds is not None else mean(known) if known and pace.most > 1 else None
            if seconds is None:
                return None
            total += max(count, 0.0) * pace.steps * seconds
        return total

    def _lap(self) -> float:
        now = self._clock()
        spent, self._last = now - self._last, now
        return max(spent, 0.0)


class _Pace:
    """What one step of one image takes in a phase of at most so many steps."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._first: float | None = None
        self._laps: deque[float] = deque(maxlen=_WINDOW)
        self._steps: deque[float] = deque(maxlen=_WINDOW)

    def add(self, seconds: float) -> None:
        if self.most > 1 and self._first is None:
            self._first = seconds  # it compiles and warms up: no measure of those that follow
        else:
            self._laps.append(seconds)

    def end(self, steps: float) -> None:
        """A batch has ended with so many steps per image: fewer than at most, where its trials stopped early."""
        if steps > 0:
            self._steps.append(steps)

    @property
    def steps(self) -> float:
        return mean(self._steps) if self._steps else self.most

    @property
    def seconds(self) -> float | None:
        """The median, which a pause does not move; None before there is a step to go by."""
        if self._laps:
            return median(self._laps)
        return self._first if self._steps else None
