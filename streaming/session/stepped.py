"""Acquisition stepped by a thread of this process, as fast as it goes: for recordings that are run without a clock."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ...runtime.errors import MindDiffuserError
from .acquisition import Acquisition
from .process import Post


class SteppedFeed:
    """See :class:`.process.Feed`.

    Parameters
    ----------
    acquisition
        Not opened yet.
    before
        Called before each step with its number, in the feed's thread.
    """

    def __init__(self, acquisition: Acquisition, before: Callable[[int], object] = lambda _step: None) -> None:
        self._acquisition, self._before = acquisition, before
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, post: Post) -> None:
        """See :meth:`.process.Feed.start`."""
        self._thread = threading.Thread(target=self._run, args=(post,), name="acquisition", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """See :meth:`.process.Feed.stop`."""
        self._stop.set()

    def close(self, patience: float = 60.0) -> None:
        """See :meth:`.process.Feed.close`."""
        self.stop()
        if self._thread is not None:
            self._thread.join(patience)

    def _run(self, post: Post) -> None:
        fault, users = "", True
        try:
            post(self._acquisition.open())
            number = 0
            while not self._acquisition.ended and not self._stop.is_set():
                self._before(number)
                for message in self._acquisition.step(0.0):
                    post(message)
                number += 1
        except MindDiffuserError as error:
            fault = str(error)
        except Exception as error:
            fault, users = f"acquisition failed ({type(error).__name__}: {error})", False
        for message in self._acquisition.close(fault, users=users):
            post(message)
