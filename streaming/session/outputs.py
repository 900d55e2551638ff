"""Where a session's results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtime.progress import unheard
from ..dashboard.hub import Hub
from ..decoding.decode import DecodedEpoch
from ..recording.folder import Picture


class Outlet(Protocol):
    """Where results go besides: an LSL stream for other programs."""

    def push(self, decoded: DecodedEpoch, latency: float, at: float) -> None:
        """Send what an epoch was decoded to, `latency` seconds after its end, at the local time `at`."""
        ...


class Folder(Protocol):
    """A session's folder, whoever waits for the disk; see :class:`~..recording.folder.SessionFolder`."""

    path: Path

    @property
    def stopped(self) -> str:
        """Why nothing more is written, or ""."""
        ...

    def ledger(self, entry: Mapping[str, Any]) -> None: ...

    def result(self, entry: Mapping[str, Any]) -> None: ...

    def picture(self, name: str, image: NDArray[np.uint8]) -> Picture: ...

    def close(self, ended: Mapping[str, Any] | None = None) -> None: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """Of one session.

    Attributes
    ----------
    folder
        Where results are written, or None.
    hub
        Of the page, or None.
    outlet
        See :class:`Outlet`; or None.
    out, say
        Receive lines of results, and lines about what happened.
    """

    folder: Folder | None = None
    hub: Hub | None = None
    outlet: Outlet | None = None
    out: Callable[[str], None] = unheard
    say: Callable[[str], None] = unheard
