"""Messages from acquisition to the session: epochs go as they lie in memory, beside the rest of their message.

An epoch of 306 channels is a megabyte, and every copy of it takes as long as all else that is done for it.
"""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..intake.events import Accepted, Event
from .acquisition import FromAcquisition, Happened

# What a process may ask for on Linux without privileges: an epoch of 306 channels and 0.8 s at 1 kHz.
_PIPE_BYTES = 1 << 20
_ELSEWHERE: NDArray[np.float32] = np.empty(0, np.float32)


def widen(connection: Connection) -> None:
    """Where the system allows it, a whole epoch goes through at once, not in pieces for each of which both wake up."""
    try:
        import fcntl

        fcntl.fcntl(connection.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, AttributeError, OSError):  # not on Linux, or not so much
        pass


def send(connection: Connection, message: FromAcquisition) -> None:
    """Send a message.

    Raises
    ------
    OSError
        The other end is gone.
    """
    epochs: list[NDArray[Any]] = []
    if isinstance(message, Happened):
        epochs = [np.ascontiguousarray(event.data) for event in message.events if isinstance(event, Accepted)]
        message = _with(message, [_ELSEWHERE] * len(epochs))
    connection.send((message, [(epoch.dtype.str, epoch.shape) for epoch in epochs]))
    for epoch in epochs:
        connection.send_bytes(epoch.reshape(-1).view(np.uint8).data)


def receive(connection: Connection) -> FromAcquisition:
    """The next message; its epochs cannot be written to.

    Raises
    ------
    EOFError, OSError
        The other end is gone, or this one was closed.
    """
    message, layouts = connection.recv()
    if not layouts:
        return message  # type: ignore[no-any-return]
    return _with(message, [np.frombuffer(connection.recv_bytes(), dtype).reshape(shape) for dtype, shape in layouts])


def _with(happened: Happened, epochs: list[NDArray[Any]]) -> Happened:
    """The same with these epochs, one for each event that has one."""
    rest = iter(epochs)
    events: tuple[Event, ...] = tuple(
        replace(event, data=next(rest)) if isinstance(event, Accepted) else event for event in happened.events
    )
    return replace(happened, events=events)
