"""The thread that decodes: every accepted epoch, in the order in which they came, whatever else the machine does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from .control import Score
from .decode import DecodedEpoch, EpochDecoder, Undecodable


@dataclass(frozen=True, kw_only=True, eq=False)
class WasDecoded:
    """An epoch has features; decoding ran from `started` to `done`, seconds of the local clock."""

    epoch: DecodedEpoch
    started: float
    done: float


@dataclass(frozen=True, kw_only=True)
class WasNotDecoded:
    """An epoch has none: the state of its marker and the reason."""

    ordinal: int
    state: str
    reason: str
    started: float
    done: float


@dataclass(frozen=True, kw_only=True)
class StandsBeside:
    """What is known after an epoch: the running control, the channels outside training, and perhaps a sentence."""

    ordinal: int
    scores: tuple[Score, ...]
    outside: tuple[str, ...]
    said: str | None


FromDecoder = WasDecoded | WasNotDecoded | StandsBeside


class DecodeWorker:
    """A thread around an :class:`.decode.EpochDecoder`.

    Parameters
    ----------
    decoder
    post
        Receives what happened, in the worker's thread.
    now
        The local clock.
    """

    def __init__(self, decoder: EpochDecoder, post: Callable[[FromDecoder], None], now: Callable[[], float]) -> None:
        self._decoder, self._post, self._now = decoder, post, now
        self._queue: SimpleQueue[tuple[int, str, NDArray[np.float32]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def put(self, ordinal: int, text: str, epoch: NDArray[np.float32]) -> None:
        """Have an epoch (n_channels, n_times) decoded; none is ever left out."""
        self._queue.put((ordinal, text, epoch))

    @property
    def n_waiting(self) -> int:
        """How many epochs wait."""
        return self._queue.qsize()

    def close(self) -> None:
        """Decode what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._one(*item)

    def _one(self, ordinal: int, text: str, epoch: NDArray[np.float32]) -> None:
        started = self._now()
        try:
            decoded = self._decoder.decode(ordinal, text, epoch)
        except Undecodable as error:
            self._post(
                WasNotDecoded(ordinal=ordinal, state=error.state, reason=str(error), started=started, done=self._now())
            )
            return
        except Exception as error:  # a fault of the program costs this epoch, and not all those behind it
            reason = f"it could not be decoded ({type(error).__name__}: {error})"
            self._post(
                WasNotDecoded(ordinal=ordinal, state="refused", reason=reason, started=started, done=self._now())
            )
            return
        self._post(WasDecoded(epoch=decoded, started=started, done=self._now()))
        try:
            said = self._decoder.after(decoded)
        except Exception as error:  # the copies of the control are decoded too
            said = f"the control of marker {ordinal} could not be computed ({type(error).__name__}: {error})"
        self._post(
            StandsBeside(ordinal=ordinal, scores=self._decoder.scores(), outside=self._decoder.outside, said=said)
        )
