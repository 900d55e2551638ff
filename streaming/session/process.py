"""Acquisition in a process of its own, so that nothing that decodes, draws or shows can keep it waiting.

Messages come through a pipe in their order. Epochs and everything that the books need wait for a slow reader as long as
it takes; previews of the signal are left out, and counted. The process ends by itself, with its file finished, when its
parent is gone.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Protocol

from ...runtime.errors import MindDiffuserError, MissingExtra
from ..clock import now
from ..sources import open_source
from .acquisition import Acquisition, AcquisitionSettings, FromAcquisition, Previewed, Stopped
from .pipe import receive, send, widen

# Seconds that a poll waits for data: how soon the process ends when it is asked to.
POLL_S = 0.1
# Previews that may wait for a slow reader: two seconds of signal.
_MOST_PREVIEWS = 20
# Seconds that the process has to finish its file after it was asked to end.
END_S = 20.0

# How long one of the process's threads may keep the others waiting: Python's own 5 ms are longer than an epoch takes.
_SWITCH_S = 0.0005

_GO, _STOP = "go", "stop"

Post = Callable[[FromAcquisition], None]


class Feed(Protocol):
    """Where a session gets its messages from: a process, or in a test whatever steps an acquisition."""

    def start(self, post: Post) -> None:
        """Begin; `post` receives every message, from any thread."""
        ...

    def stop(self) -> None:
        """Ask it to end, which it says by a last message; may be called twice."""
        ...

    def close(self, patience: float = END_S) -> None:
        """Wait until it has ended, and end it after so many seconds."""
        ...


class AcquisitionProcess:
    """The process and the thread that reads its messages.

    The process is begun at once, with the priority that this one has now, and opens its source when :meth:`prepare` or
    :meth:`start` is called: what takes long to load here is loaded meanwhile there.

    Parameters
    ----------
    settings
    """

    def __init__(self, settings: AcquisitionSettings) -> None:
        # A fork would inherit threads and engines of this process.
        context = multiprocessing.get_context("spawn")
        self._reader, writer = context.Pipe(duplex=False)
        widen(writer)
        orders, self._orders = context.Pipe(duplex=False)
        self._advice = "" if settings.record is None else f": md-stream repair {settings.record} finishes its file"
        self._process = context.Process(
            target=acquire, args=(settings, writer, orders), name="md-stream acquisition", daemon=True
        )
        with _without_interrupts():
            self._process.start()
        # The child's ends alone keep the pipes open, so that its death is seen.
        writer.close()
        orders.close()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of the process; None while it runs."""
        return self._process.exitcode

    def prepare(self) -> None:
        """Let it find its source and begin to receive; what it has to say waits for :meth:`start`."""
        self._ask(_GO)

    def start(self, post: Post) -> None:
        """See :meth:`Feed.start`."""
        self._ask(_GO)
        self._thread = threading.Thread(target=self._read, args=(post,), name="acquisition", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """See :meth:`Feed.stop`."""
        self._ask(_STOP)

    def close(self, patience: float = END_S) -> None:
        """See :meth:`Feed.close`."""
        self.stop()
        if self._thread is None:  # nobody takes what it has to say: it must not wait for that
            self._reader.close()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(END_S)  # what waits for a disk in the kernel may not even die
        if self._thread is not None:
            self._thread.join(END_S)

    def _ask(self, order: str) -> None:
        with suppress(OSError):  # it is gone, which its reader says
            self._orders.send(order)

    def _read(self, post: Post) -> None:
        try:
            for message in self._messages():
                post(message)
                if isinstance(message, Stopped):
                    return
            self._process.join(END_S)
            fault = f"the acquisition process has died (exit code {self._process.exitcode}){self._advice}"
        except Exception as error:  # whatever it is: who hears nothing more would wait for ever
            fault = f"what acquisition said could not be taken ({type(error).__name__}: {error})"
            self._reader.close()  # so that it ends
        post(Stopped(n_markers=-1, at=now(), fault=fault, users=False))

    def _messages(self) -> Iterator[FromAcquisition]:
        """What it says, until the last of it or its death."""
        with suppress(EOFError, OSError):
            while True:
                yield receive(self._reader)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process begun inside does not hear Ctrl-C, which reaches all of a terminal: it ends when it is asked to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def acquire(settings: AcquisitionSettings, connection: Connection, orders: Connection) -> None:
    """What the process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where no terminal's children inherit that
    sys.setswitchinterval(_SWITCH_S)
    asked = _Orders(orders)
    outbox = _Outbox(connection, asked.stop)
    acquisition: Acquisition | None = None
    fault, users, opened = "", True, False
    try:
        wanted = replace(settings.wanted, stopped=asked.stop.is_set)
        acquisition = Acquisition(open_source(settings.source, wanted), settings, now)
        asked.go.wait()
        if not asked.stop.is_set():
            outbox.put(acquisition.open())
            opened = True
        while not asked.stop.is_set() and not acquisition.ended:
            acquisition.previews_dropped = outbox.n_dropped
            for message in acquisition.step(POLL_S):
                outbox.put(message)
    except MindDiffuserError as error:
        given_up = not opened and asked.stop.is_set()  # nobody waits for the source any more
        fault = "" if given_up else str(error)
    except ModuleNotFoundError as error:
        fault = str(MissingExtra(f"this needs {error.name}: pip install 'minddiffuser[stream]'"))
    except Exception as error:
        fault, users = f"acquisition failed ({type(error).__name__}: {error})", False
    if acquisition is None:
        outbox.put(Stopped(n_markers=0, at=now(), fault=fault, users=users))
    else:
        for message in acquisition.close(fault, users=users):
            outbox.put(message)
    outbox.close()


class _Orders:
    """What the session asks of the process, heard by a thread of its own; a session that is gone asks for the end.

    Through a pipe: an event of several processes would be held for ever by one that is killed while it waits for it,
    and each question would cost two of the system's locks.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.go, self.stop = threading.Event(), threading.Event()
        threading.Thread(target=self._hear, name="orders", daemon=True).start()

    def _hear(self) -> None:
        try:
            while self._connection.recv() != _STOP:
                self.go.set()
        except (EOFError, OSError):
            pass
        self.stop.set()
        self.go.set()


class _Outbox:
    """Messages on their way to the session, sent by a thread of its own."""

    def __init__(self, connection: Connection, stop: threading.Event) -> None:
        self._connection, self._stop = connection, stop
        self._waiting: deque[FromAcquisition] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._n_previews = 0
        self.n_dropped = 0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, message: FromAcquisition) -> None:
        """Send a message; a preview is left out where too many wait."""
        with self._changed:
            if isinstance(message, Previewed):
                if self._n_previews >= _MOST_PREVIEWS:
                    self.n_dropped += 1
                    return
                self._n_previews += 1
            self._waiting.append(message)
            self._changed.notify()

    def close(self) -> None:
        """Send what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (message := self._next()) is not None:
                send(self._connection, message)
        except OSError:  # the session is gone: what was received is still recorded
            pass
        finally:  # whatever happened: nobody must wait for more
            self._stop.set()
            self._connection.close()

    def _next(self) -> FromAcquisition | None:
        """The next message; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            message: FromAcquisition = self._waiting.popleft()
            self._n_previews -= isinstance(message, Previewed)
            return message
