"""A live session: one loop that owns the books, and the threads and the process that it hears from.

Acquisition (a process), the decoder and the painters (threads) post messages into one inbox. The loop takes them in
their order and does what has one owner: the books, the files, the page, the lines for people. An epoch goes to the
decoder at once, before the loop sees it; a picture is begun when its features are there (:mod:`.pictures`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from ...runtime.backends.base import Backend
from ..dashboard.messages import Session as SessionMessage
from ..decoding.control import Score
from ..decoding.decode import EpochDecoder
from ..decoding.worker import DecodeWorker, FromDecoder, StandsBeside, WasDecoded, WasNotDecoded
from ..generation.worker import DuePicture, FromPainter, Grew, LastPicture, NotDrawn
from ..intake.events import Accepted, Event, Refused
from ..ledger import Ledger, Totals
from ..records import SIGNAL
from .acquisition import Arrived, FromAcquisition, Happened, Opened, Previewed, Stands, Stopped
from .outputs import Outputs
from .page import Page
from .pictures import Pictures
from .process import END_S, Feed
from .results import decoded_line, decoded_words
from .settings import LiveSettings

# Seconds without a word of the acquisition after which that is said, and between two looks at the books.
_DEAF_S, _BOOKS_S = 2.0, 0.5


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a session ended: the sums, why, and whether it was interrupted or acquisition had a fault."""

    totals: Totals
    summary: dict[str, Any]
    reason: str
    interrupted: bool = False
    fault: str = ""
    users: bool = True


@dataclass(frozen=True)
class _Finished:
    """A part of the session has ended."""

    part: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Marker:
    """What the loop must remember of a marker that has an epoch, until it is decoded."""

    text: str
    arrived: float
    epoch_end: float
    segment: int
    sample: int


class LiveSession:
    """Run by :meth:`run`, once.

    Parameters
    ----------
    backends
        Started: the first one decodes, and each draws; one for each device.
    feed
        Acquisition.
    settings
    about
        For the page.
    outputs
    now
        The local clock.
    """

    def __init__(
        self,
        backends: Sequence[Backend[Any]],
        feed: Feed,
        settings: LiveSettings,
        about: SessionMessage,
        outputs: Outputs,
        *,
        now: Callable[[], float],
    ) -> None:
        self._feed, self._now = feed, now
        folder, hub = outputs.folder, outputs.hub
        self._folder, self._outlet, self._out, self._say = folder, outputs.outlet, outputs.out, outputs.say
        self._inbox: SimpleQueue[FromAcquisition | FromDecoder | FromPainter | _Finished] = SimpleQueue()
        self.ledger = Ledger(None if folder is None else folder.ledger)
        self._page = Page(hub, about, now())
        self._markers: dict[int, _Marker] = {}
        self._scores: tuple[Score, ...] = ()
        self._outside: tuple[str, ...] = ()
        self._heard, self._deaf, self._looked, self._changed = now(), False, 0.0, False
        self._said_recording = self._said_slow = False
        self._receiving = False
        self._stopped: Stopped | None = None
        self._n_interrupts = 0
        self._parts: set[str] = set()
        self._decoder = DecodeWorker(EpochDecoder(backends[0], settings.decode), self._inbox.put, now)
        self._pictures = Pictures(
            backends if settings.pictures else [],
            settings,
            self.ledger,
            self._page,
            folder,
            notice=self._notice,
            post=self._inbox.put,
            now=now,
        )

    def run(self) -> Ended:
        """Run until the source ends or somebody interrupts; then everything is closed, whatever happened.

        A first Ctrl-C ends acquisition, decodes what has come, and keeps the picture that is under way as it is. A
        second one ends at once.
        """
        with _interrupts(self.interrupt):
            self._feed.start(self._hear)
            try:
                while not self._ended and self._n_interrupts < 2:
                    self._turn(0.1)
            finally:
                ended = self._closed()
        return ended

    def interrupt(self) -> None:
        """End the session, as Ctrl-C does."""
        self._n_interrupts += 1
        self._feed.stop()

    def _hear(self, message: FromAcquisition) -> None:
        """Take a message of acquisition, in its thread: an epoch is decoded whatever the loop is busy with."""
        self._inbox.put(message)
        if isinstance(message, Happened):
            for event in message.events:
                if isinstance(event, Accepted):
                    self._decoder.put(event.ordinal, event.text, np.asarray(event.data, np.float32))

    @property
    def _ended(self) -> bool:
        return self._stopped is not None and {"decoder", "pictures"} <= self._parts

    def _turn(self, timeout: float) -> None:
        """Take one message, if one comes in time, and look at the clock."""
        try:
            message = self._inbox.get(timeout=timeout)
        except Empty:
            pass
        else:
            self._take(message)
        at = self._now()
        if self._receiving and at - self._heard > _DEAF_S and not self._deaf:
            self._deaf = True
            self._notice("deaf", f"acquisition has said nothing for {_DEAF_S:g} s: the machine is busy, or it hangs")
        if at - self._looked >= _BOOKS_S and self._changed:
            self._looked, self._changed = at, False
            self._page.books(self.ledger)

    def _take(self, message: Any) -> None:
        """What one message means; a message is of one of the kinds of the three worlds."""
        actions: dict[type, Callable[[Any], None]] = {
            Opened: self._opened,
            Arrived: self._arrived,
            Happened: self._happened,
            Stands: self._stands,
            Previewed: self._page.previewed,
            Stopped: self._acquisition_stopped,
            WasDecoded: self._was_decoded,
            WasNotDecoded: self._was_not_decoded,
            StandsBeside: self._stands_beside,
            _Finished: lambda finished: self._parts.add(finished.part),
        }
        if isinstance(message, Opened | Happened | Stands | Arrived):
            self._heard = self._now()
            if self._deaf:
                self._deaf = False
                self._notice("recovered", "acquisition goes on")
        if not isinstance(message, Stands | Previewed | Grew):
            self._changed = True
        actions.get(type(message), self._pictures.take)(message)
        if isinstance(message, _Finished) and message.part == "decoder":
            self._in_background("pictures", self._pictures.close)

    # Acquisition

    def _opened(self, opened: Opened) -> None:
        info, self._receiving = opened.info, True
        self._say(
            f"receiving {info.name!r}: {len(info.channels)} channels at {info.sfreq:g} Hz; the filters settle in "
            f"{opened.warm_up:.1f} s and delay the signal by {1000 * opened.delay:.0f} ms"
        )
        for note in opened.notes:
            self._notice("filters", note)
        self._page.opened(opened)

    def _arrived(self, arrived: Arrived) -> None:
        self.ledger.receive(arrived.ordinal, arrived.text, arrived.at)
        self._page.marker(arrived.ordinal, arrived.text, arrived.at)

    def _happened(self, happened: Happened) -> None:
        for event in happened.events:
            self._event(event)

    def _event(self, event: Event) -> None:
        if isinstance(event, Accepted):
            times = event.times
            self.ledger.moment(
                event.ordinal,
                marker=times.marker,
                arrived=times.marker_arrived,
                epoch_end=times.epoch_end,
                ready=times.ready,
            )
            self.ledger.figures(
                event.ordinal, sample_age=times.sample_age, offset=times.offset, uncertainty=times.uncertainty
            )
            self._page.marker(event.ordinal, event.text, times.marker)
            self._markers[event.ordinal] = _Marker(
                text=event.text,
                arrived=times.marker_arrived,
                epoch_end=times.epoch_end,
                segment=event.segment,
                sample=event.sample,
            )
        elif isinstance(event, Refused):
            self.ledger.settle(event.ordinal, event.state, event.reason)
            if event.state != "skipped":
                self._out(f"marker {event.ordinal}: {event.state}: {event.reason}")
        else:
            self._notice(event.notice.kind, event.notice.text, stream=event.notice.stream)

    def _stands(self, stands: Stands) -> None:
        folder = "" if self._folder is None else str(self._folder.path)
        self._page.stands(stands, folder)
        if stands.recording is not None and stands.recording.reason and not self._said_recording:
            self._said_recording = True
            self._notice("recording", f"the recording has stopped: {stands.recording.reason}")
        elif (
            stands.recording is not None
            and stands.recording.n_dropped_samples
            and not (self._said_recording or self._said_slow)
        ):
            self._said_slow = True
            self._notice("recording", "the disk is too slow: samples are missing from the recording, decoding goes on")

    def _acquisition_stopped(self, stopped: Stopped) -> None:
        self._stopped, self._receiving = stopped, False
        if stopped.fault:  # what the user can fix is said by the command, as the last line
            self._notice("lost", stopped.fault, stream=SIGNAL, say=not stopped.users)
        reason = stopped.fault or ("the session was interrupted" if self._n_interrupts else "the session has ended")
        for ordinal in self.ledger.pending():
            if ordinal not in self._markers:  # it has no epoch, and none will come
                self.ledger.settle(ordinal, "refused", reason)
        if self._n_interrupts:
            self._pictures.stop()
        self._in_background("decoder", self._decoder.close)

    # Decoding

    def _was_decoded(self, was: WasDecoded) -> None:
        epoch, marker = was.epoch, self._markers.pop(was.epoch.ordinal)
        self.ledger.moment(epoch.ordinal, decode_start=was.started, decoded=was.done)
        entry = self.ledger.settle(epoch.ordinal, "decoded", picture=self._pictures.wanted)
        latency = was.done - marker.epoch_end
        if self._pictures.wanted:
            self._pictures.put(
                epoch.ordinal,
                epoch.trial_id,
                epoch.features,
                text=marker.text,
                epoch_end=marker.epoch_end,
                arrived=marker.arrived,
            )
        if self._outlet is not None:
            self._outlet.push(epoch, latency, was.done)
        if self._folder is not None:
            self._folder.result(decoded_line(epoch, self._scores, marker.segment, marker.sample))
        self._page.decoded(epoch, self._scores, self._outside)
        self._page.durations(entry)
        self._out(decoded_words(epoch, latency))
        for warning in epoch.warnings:
            self._notice("note", f"marker {epoch.ordinal}: {warning}")

    def _was_not_decoded(self, was: WasNotDecoded) -> None:
        del self._markers[was.ordinal]
        self.ledger.moment(was.ordinal, decode_start=was.started)
        self.ledger.settle(was.ordinal, was.state, was.reason)
        self._out(f"marker {was.ordinal}: {was.state}: {was.reason}")

    def _stands_beside(self, beside: StandsBeside) -> None:
        self._scores, self._outside = beside.scores, beside.outside
        if beside.said is not None:
            self._notice("drift", beside.said)

    # The end

    def _in_background(self, part: str, close: Callable[[], None]) -> None:
        """Close a part while the loop goes on taking what it still has to say."""

        def run() -> None:
            close()
            self._inbox.put(_Finished(part))

        threading.Thread(target=run, name=f"end of {part}", daemon=True).start()

    def _closed(self) -> Ended:
        """Everything is closed and written; what had no time gets its state here."""
        self._feed.close(END_S if self._n_interrupts < 2 else 1.0)
        self._take_the_rest()
        stopped = self._stopped
        fault = "" if stopped is None else stopped.fault
        reason = fault or ("the session was interrupted" if self._n_interrupts else "the session has ended")
        self.ledger.close(reason)
        if stopped is not None and stopped.n_markers >= 0 and stopped.n_markers != self.ledger.totals().received:
            fault = fault or (
                f"{stopped.n_markers} markers came and {self.ledger.totals().received} are in the books: this is a "
                "fault of the program"
            )
        summary = self.ledger.summary()
        self._page.books(self.ledger)
        self._page.notice("ended", reason, self._now(), SIGNAL)
        self._page.ended(reason)
        if self._folder is not None:
            self._folder.ledger({"totals": summary})
            self._folder.close({"reason": reason, **summary})
            if self._folder.stopped:
                self._say(f"the session's folder is not whole: {self._folder.stopped}")
        return Ended(
            totals=self.ledger.totals(),
            summary=summary,
            reason=reason,
            interrupted=self._n_interrupts > 0,
            fault=fault,
            users=True if stopped is None else stopped.users,
        )

    def _take_the_rest(self) -> None:
        """What was said before everything had ended, where a session ends at once; nothing new is begun."""
        while not self._inbox.empty():
            message = self._inbox.get_nowait()
            if isinstance(message, Stopped):
                self._stopped = message
            elif isinstance(message, Arrived | Happened | Stands | LastPicture | DuePicture | NotDrawn):
                self._take(message)

    def _notice(self, kind: str, text: str, *, stream: str = "", say: bool = True) -> None:
        self._page.notice(kind, text, self._now(), stream)
        if say and kind != "note":
            self._say(text)


@contextmanager
def _interrupts(heard: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and the signal to end call `heard` instead of breaking off what runs: no message is lost half way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_given: heard()) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
