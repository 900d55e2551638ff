"""Progress of a TensorRT build while it runs, and how it is cancelled."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...runtime.errors import MindDiffuserError

Report = Callable[[str, int, int], None]
PARTS = 1000
# The phase in which nearly all of a build's time goes: kernels are timed in it, or compiled. The steps before it are
# many and quick, and would promise an end that is not near.
LONG = {"tensorrt": "Computing profile costs", "tensorrt-rtx": "Determining refit engines"}
_QUICK_SHARE = 0.05


class BuildCancelled(MindDiffuserError):
    """A build ended because its caller asked for it; nothing was written."""


class NestedPhases:
    """How much of nested phases is done, from 0 to 1, never less than before.

    A phase has a number of steps, and phases of its own begin and end within one step. How many there will be in a
    step is not known: each takes half of what is left of it, so that the whole fills up without going back. One phase
    counts for nearly all, and the rest for the small remainder.

    Parameters
    ----------
    long : name of that phase.
    """

    def __init__(self, long: str) -> None:
        self._long = long
        self._phases: dict[str, list[Any]] = {}  # name -> [parent, steps, steps done, share of this step that is over]
        self._all = self._long_done = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._phases[name] = [parent, max(steps, 1), 0, 0.0]

    def step(self, name: str) -> None:
        if name in self._phases:
            phase = self._phases[name]
            phase[2], phase[3] = phase[2] + 1, 0.0

    def finish(self, name: str) -> None:
        if name == self._long and name in self._phases:
            self._long_done = 1.0
        phase = self._phases.pop(name, None)
        parent = self._phases.get(phase[0]) if phase else None
        if parent is not None:
            parent[3] += (1 - parent[3]) / 2

    @property
    def done(self) -> float:
        roots = [name for name, phase in self._phases.items() if phase[0] not in self._phases]
        self._all = max([self._all, *(self._of(name) for name in roots)])
        if self._long in self._phases:
            self._long_done = max(self._long_done, self._of(self._long))
        return _QUICK_SHARE * self._all + (1 - _QUICK_SHARE) * self._long_done

    def _of(self, name: str) -> float:
        _, steps, done, over = self._phases[name]
        inside = max((self._of(child) for child, phase in self._phases.items() if phase[0] == name), default=0.0)
        return float(min((done + over + (1 - over) / 2 * inside) / steps, 1.0))


class Watch:
    """Receives every step of a build, reports it, and says whether to go on.

    TensorRT swallows what is raised inside its callbacks: it is kept here, the build ends, and :meth:`check` raises it.

    Parameters
    ----------
    label : what is built, for `report`.
    report : ``report(label, done, total)``, as :class:`~minddiffuser.runtime.progress.Phases` takes it, or None.
    cancelled : asked at every step whether to stop, or None.
    target : whose library builds.
    """

    def __init__(self, label: str, report: Report | None, cancelled: Callable[[], bool] | None, *, target: str) -> None:
        self.label, self.report, self.cancelled = label, report, cancelled
        self.interrupted = False
        self._stopped = False
        self._error: BaseException | None = None
        self._phases = NestedPhases(LONG[target])
        self._shown = -1
        self._lock = threading.RLock()  # TensorRT calls from several threads

    def started(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases.start(name, parent, steps)

    def finished(self, name: str) -> None:
        with self._lock:
            self._phases.finish(name)

    def stepped(self, name: str) -> bool:
        """Whether the build is to go on."""
        with self._lock:
            self._phases.step(name)
            try:
                self._tell(int(PARTS * self._phases.done))
                self._stopped = self._stopped or (self.cancelled is not None and self.cancelled())
            except BaseException as error:
                self._error = self._error or error
            return not (self._stopped or self.interrupted or self._error is not None)

    def complete(self) -> None:
        """Report the end."""
        self._tell(PARTS)

    def check(self) -> None:
        """Raise what ended the build, if it was not TensorRT."""
        if self._error is not None:
            raise self._error
        if self.interrupted:
            raise KeyboardInterrupt
        if self._stopped:
            raise BuildCancelled(f"{self.label}: cancelled, nothing was written")

    def _tell(self, done: int) -> None:
        if self.report is not None and done > self._shown:
            self._shown = done
            self.report(self.label, done, PARTS)


def monitor_of(trt: Any, watch: Watch) -> Any:
    """TensorRT's own form of a :class:`Watch`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.started(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.stepped(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            watch.finished(phase_name)

    return Monitor()


@contextmanager
def interruptible(watch: Watch) -> Iterator[None]:
    """Turn Ctrl-C into a request to stop: raised at once, it would be lost inside one of TensorRT's callbacks.

    In another thread than the main one nothing is changed: there Python interrupts the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(signum: int, frame: Any) -> None:
        watch.interrupted = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        # None: a handler that was not set from Python and cannot be set again from it.
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
