"""What a session has besides its source, and a fault may get at: its decoder, its disk, the browsers of its page."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ...runtime.decoders.belonging import Decoded
from ..recording.disk import put
from .silent_page import SilentPage

# Real seconds after which something that waits for the end of a fault gives up: the session has waited for it.
PATIENCE = 60.0

Disturb = Callable[[Decoded], Decoded]
"""What a decoder gives instead of the features that it has found; may wait or raise."""


class Held:
    """What is not given before it is let go."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._go, self._patience = threading.Event(), patience
        self.gave_up = False

    def wait(self) -> None:
        """Wait until it is let go; `gave_up` says that this did not happen."""
        if not self._go.wait(self._patience):
            self.gave_up = True

    def go(self) -> None:
        """Let everything go that waits, or will wait."""
        self._go.set()


class Disk:
    """A disk that may fill up or hang; see :data:`~..recording.disk.Put`."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._left: int | None = None
        self._held: Held | None = None

    def fill(self, n_bytes: int) -> None:
        """It takes so many bytes more, perhaps a part of what it is given, and then none."""
        with self._guard:
            self._left = n_bytes if self._left is None else min(self._left, n_bytes)

    def hang(self, held: Held | None) -> None:
        """It does not answer before this is let go; None: it answers again."""
        self._held = held

    @property
    def hangs(self) -> bool:
        """Whether it does not answer now."""
        return self._held is not None

    @property
    def full(self) -> bool:
        """Whether it has filled up, or is about to."""
        return self._left is not None

    def write(self, file: int, data: memoryview) -> int:
        """Hand bytes to the system, or not."""
        if self._held is not None:
            self._held.wait()
        with self._guard:
            if self._left is None:
                return put(file, data)
            if self._left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            n = put(file, data[: self._left])
            self._left -= n
            return n


@dataclass(kw_only=True, eq=False)
class Parts:
    """The parts of one session.

    Attributes
    ----------
    disk
        All that the session writes goes through it.
    open_page
        Opens the session's page in a browser that never reads.
    decoder
        What now happens to what is decoded, with the kind of fault; None: nothing.
    waits
        Everything that was ever made to wait: where one of these gave up, the session has waited for it too.
    """

    disk: Disk
    open_page: Callable[[], SilentPage]
    decoder: tuple[str, Disturb] | None = None
    waits: list[Held] = field(default_factory=list)

    def held(self) -> Held:
        """Something new that is made to wait."""
        self.waits.append(Held())
        return self.waits[-1]
