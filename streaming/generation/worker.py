"""The thread that draws on one device: the newest epoch first, the best picture so far when its time is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...runtime.backends.base import Backend
from ...runtime.decoders.belonging import Decoded
from .draw import Drawn, Enough, Frame, Picture, Undrawable, draw
from .newest import Newest
from .plan import Plan

# Frames a second of a picture on its way that are passed on: more, no one sees.
_FRAME_S = 1 / 15
NEWER, LATE, ENDED = (
    "newer ones came before its turn",
    "its deadline had passed when its turn came",
    "the session ended before its turn",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A picture to be drawn: its marker's ordinal, trial id and features, and the local time when it is due, if any."""

    ordinal: int
    trial_id: str
    features: Decoded
    due: float | None = None


@dataclass(frozen=True, kw_only=True)
class DrawStarted:
    """A picture is begun, by this plan, on this device, counted from 0."""

    ordinal: int
    plan: Plan
    at: float
    device: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Grew:
    """A picture after a step, a few times a second: for display alone."""

    ordinal: int
    frame: Frame
    at: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstPicture:
    """Stage 1 is there."""

    ordinal: int
    image: Picture
    at: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DuePicture:
    """The best picture when all that was planned is done, or at the deadline: after `n_frames` frames of it."""

    ordinal: int
    image: Picture
    stage: int
    n_frames: int
    finished: bool
    at: float


@dataclass(frozen=True, kw_only=True, eq=False)
class LastPicture:
    """Nothing more is done for a picture."""

    ordinal: int
    drawn: Drawn
    at: float


@dataclass(frozen=True, kw_only=True)
class NotDrawn:
    """There is no picture: `state` is "skipped" or "failed"."""

    ordinal: int
    state: str
    reason: str
    at: float


FromPainter = DrawStarted | Grew | FirstPicture | DuePicture | LastPicture | NotDrawn
PlanFor = Callable[[float | None], Plan]
"""Seconds that are left, None without a deadline -> what to do."""


class Painter:
    """A thread with a queue of its own, or one of several on one queue.

    A picture that is begun has until its deadline, or until it is finished. After that it goes on growing as long as no
    newer one waits.

    Parameters
    ----------
    backend
        Started; of this device.
    queue
    plan_for
    seed
        Of the session.
    device
        Its number among several.
    post
        Receives what happened, in this thread.
    now
        The local clock.
    """

    def __init__(
        self,
        backend: Backend[Any],
        queue: Newest[Job],
        plan_for: PlanFor,
        *,
        seed: int,
        post: Callable[[FromPainter], None],
        now: Callable[[], float],
        device: int = 0,
    ) -> None:
        self._backend, self._queue, self._plan_for, self._device = backend, queue, plan_for, device
        self._seed, self._post, self._now = seed, post, now
        self._ending, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"draw {device}", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Have a picture drawn, if its turn comes."""
        for dropped in self._queue.put(job):
            self._not(dropped, "skipped", ENDED if dropped is job else NEWER)

    def stop(self) -> None:
        """Draw no more: the picture under way stays as it is, and those that wait are skipped."""
        self._stopped.set()
        for job in self._queue.remove(lambda _job: True):
            self._not(job, "skipped", ENDED)

    def end(self) -> None:
        """Take nothing new; what waits is drawn, each as far as it is planned."""
        self._ending.set()
        self._queue.close()

    def close(self) -> None:
        """As :meth:`end`, and wait for it."""
        self.end()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.take()) is not None:
            self._one(job)

    def _one(self, job: Job) -> None:
        at = self._now()
        if self._stopped.is_set():
            self._not(job, "skipped", ENDED)
            return
        if job.due is not None and at >= job.due:
            self._not(job, "skipped", LATE)
            return
        plan = self._plan_for(None if job.due is None else job.due - at)
        self._post(DrawStarted(ordinal=job.ordinal, plan=plan, at=at, device=self._device))
        watch = _Watch(job, self._post, self._now, self._enough)
        try:
            drawn = draw(self._backend, job.features, job.trial_id, plan, self._seed, watch)
        except Undrawable as error:
            self._not(job, "failed", str(error))
            return
        watch.end()
        self._post(LastPicture(ordinal=job.ordinal, drawn=drawn, at=self._now()))

    def _enough(self, job: Job, is_due: bool) -> bool:
        """Whether a picture ends here: at once when stopped; once it was due, for a newer one or the session's end."""
        newer = is_due and self._queue.waits(lambda other: other.ordinal > job.ordinal)
        return self._stopped.is_set() or newer or (is_due and self._ending.is_set())

    def _not(self, job: Job, state: str, reason: str) -> None:
        self._post(NotDrawn(ordinal=job.ordinal, state=state, reason=reason, at=self._now()))


class _Watch:
    """Looks on while a picture grows, and ends it when it is time."""

    def __init__(
        self,
        job: Job,
        post: Callable[[FromPainter], None],
        now: Callable[[], float],
        enough: Callable[[Job, bool], bool],
    ) -> None:
        self._job, self._post, self._now, self._enough = job, post, now, enough
        self._best: Frame | None = None
        self._n_frames, self._is_due, self._shown_at = 0, False, -1.0
        self._looked_at, self._step_s = now(), 0.0

    def __call__(self, frame: Frame) -> None:
        at, due = self._now(), self._job.due
        # It is due where another step like the longest of stage 2 so far would end too late.
        self._step_s = max(self._step_s, at - self._looked_at) if frame.number > 1 else 0.0
        self._looked_at = at
        self._n_frames = frame.number
        if frame.kept and frame.image is not None:
            self._best = frame
        if frame.number == 1 and frame.image is not None:
            self._post(FirstPicture(ordinal=self._job.ordinal, image=frame.image, at=at))
        elif frame.image is not None and (frame.kept or at - self._shown_at >= _FRAME_S):
            self._shown_at = at
            self._post(Grew(ordinal=self._job.ordinal, frame=frame, at=at))
        if not self._is_due and (frame.finished or (due is not None and at + self._step_s >= due)):
            self._say_due(finished=frame.finished, at=at)
        if self._enough(self._job, self._is_due):
            raise Enough

    def end(self) -> None:
        """Nothing more comes: a picture that was ended before it was due is due now."""
        if not self._is_due:
            self._say_due(finished=False, at=self._now())

    def _say_due(self, *, finished: bool, at: float) -> None:
        self._is_due = True
        if self._best is not None and self._best.image is not None:
            self._post(
                DuePicture(
                    ordinal=self._job.ordinal,
                    image=self._best.image,
                    stage=self._best.stage,
                    n_frames=self._n_frames,
                    finished=finished,
                    at=at,
                )
            )
