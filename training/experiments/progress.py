"""How far an experiment is, over all its cells: steps done, and the time that those take which are left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import TextIO

from ...runtime.progress import Clock, Progress, duration

# How long steps of kinds of which none is finished take, as shares of each other: of a simulated fMRI subject.
_GUESS = {"fit": 4.0, "run": 1.0, "measure": 0.2, "weights": 0.5, "maps": 0.5, "windows": 2.0}

# Less of a step says nothing about the rest.
_LEAST_SHARE = 0.05


class Overall(Progress):
    """Steps done of all, with the time left: a step takes as long as the others of its kind.

    Parameters
    ----------
    name : the experiment's.
    kinds : of every step that is left, in their order.
    finished : kind and seconds of steps that were finished before.
    stream, clock : as in :class:`~minddiffuser.runtime.progress.Progress`.
    """

    def __init__(
        self,
        name: str,
        kinds: Sequence[str],
        finished: Sequence[tuple[str, float]] = (),
        *,
        stream: TextIO | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._kinds, self._next = list(kinds), 0
        self._known: dict[str, list[float]] = defaultdict(list)
        for kind, seconds in finished:
            self._known[kind].append(seconds)
        self._detail, self._step_began = "", clock()
        self._share: float | None = None
        n_before = len(finished)
        super().__init__(
            n_before + len(kinds), f"experiment {name}", stream=stream, unit="steps", done=n_before, clock=clock
        )

    def begin(self, detail: str) -> None:
        """Say which step begins."""
        self._step_began = self._clock()
        self.now(detail)

    def now(self, detail: str, share: float | None = None) -> None:
        """Say what a step is doing, and the share of it that is done, where that is known."""
        self._detail, self._share = detail, share
        self(self.done)

    def end(self, kind: str | None = None) -> None:
        """Say that the step that began last is finished, and as which kind, where that is another one."""
        now = self._clock()
        self._known[kind or self._kinds[self._next]].append(now - self._step_began)
        self._step_began = now
        self._next += 1
        self(self.done + 1)

    def seconds_left(self, now: float) -> float | None:
        """How long the rest takes; None before anything is known."""
        spent = max(now - self._step_began, 0.0)
        known = {kind: mean(several) for kind, several in self._known.items() if several}
        kinds = self._kinds[self._next :]
        longer = bool(kinds) and spent >= known.get(kinds[0], 0.0)
        if longer and self._share is not None and self._share > _LEAST_SHARE:  # by itself, where others say nothing
            own = spent / self._share
            known.setdefault(kinds[0], own)
            spent -= own - known[kinds[0]]
        if not known:
            return None
        unit = mean(seconds / _GUESS.get(kind, 1.0) for kind, seconds in known.items())
        return max(sum(known.get(kind, unit * _GUESS.get(kind, 1.0)) for kind in kinds) - spent, 0.0)

    def line(self, now: float) -> str:
        """The line for the time `now` (seconds of the clock)."""
        text = f"{self.label}: {self.done}/{self.total} steps"
        if self.done >= self.total:
            return f"{text}, took {duration(max(now - self._started, 0.0))}"
        left = self.seconds_left(now)
        return text + ("" if left is None else f", about {duration(left)} left") + f", {self._detail}"
