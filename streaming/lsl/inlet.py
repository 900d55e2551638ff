"""One stream, connected: samples and markers as they were sent, with the sender's stamps."""

from __future__ import annotations

import ctypes
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import FileError, shown
from .found import STRING, Found
from .library import pylsl_library

# What the queue holds while nobody reads: seconds of a signal, hundreds of markers.
QUEUE_S = 30
_HUNDREDS_OF_MARKERS = 1000
# Strings of a pull: liblsl before 1.18 allocates one for each slot, used or not.
_MARKERS_AT_ONCE = 32
_SECONDS_AT_ONCE, _FEWEST_AT_ONCE = 0.25, 64
_TIMED_OUT, _LOST = -1, -2

# From the first to the last sample of a chunk, in seconds, on its way through the inlet.
_BURST = 2e-4

Stamps = NDArray[np.float64]
Rows = NDArray[Any]


class LostStream(FileError):
    """The stream is gone; what it had sent before was given."""


class NoAnswer(FileError):
    """The stream is there, as far as is known, and does not answer in time."""


class Inlet:
    """A connection to one outlet, which ends with that outlet: nothing is found again behind the caller's back.

    Parameters
    ----------
    found
        The stream.
    queue_s
        Whole seconds of signal that are kept while nobody reads; then the oldest are lost, see `overrun`.

    Attributes
    ----------
    n_at_once
        The most that one pull gives.
    overrun
        How often the queue was found full, so that something older may be lost.
    """

    def __init__(self, found: Found, queue_s: int = QUEUE_S) -> None:
        pylsl = pylsl_library()
        self.found = found
        self.overrun = 0
        seconds = queue_s if found.is_signal else _HUNDREDS_OF_MARKERS
        self.capacity = int(queue_s * found.sfreq) if found.is_signal else 100 * _HUNDREDS_OF_MARKERS
        # No recovery by liblsl, which waits 15 s, takes another rate in silence and has ended whole processes; and no
        # processing of stamps: its dejitter is wrong for minutes after a gap.
        self._inlet = pylsl.StreamInlet(found.handle, max_buflen=seconds, recover=False, processing_flags=0)
        self._library = pylsl.lib.lib
        self._errors = (pylsl.util.LostError, pylsl.util.TimeoutError, pylsl.util.InternalError)
        self._error = ctypes.c_int()
        self._pulled = 0.0
        n = max(_FEWEST_AT_ONCE, math.ceil(_SECONDS_AT_ONCE * found.sfreq))
        self.n_at_once = n if found.format != STRING else _MARKERS_AT_ONCE
        if found.format != STRING:
            # One block of memory for all pulls: pylsl would allocate the largest for each.
            self._rows = np.empty((n, found.n_channels), self._inlet.np_dtype)
            self._stamps = np.empty(n, np.float64)
            self._rows_at, self._stamps_at = self._rows.ctypes.data, self._stamps.ctypes.data

    def open(self, timeout: float) -> None:
        """Begin to receive: what is sent from now on is kept.

        Raises
        ------
        LostStream
            It is gone, or does not answer in time.
        """
        try:
            self._inlet.open_stream(timeout)
        except self._errors as error:
            raise LostStream(f"the stream {shown(self.found.name)} does not open ({error})") from error

    def full_info(self, timeout: float) -> Any:
        """Pylsl's StreamInfo with the channels.

        Raises
        ------
        LostStream
            It is gone, or does not answer in time.
        """
        try:
            return self._inlet.info(timeout)
        except self._errors as error:
            raise LostStream(f"the stream {shown(self.found.name)} does not describe itself ({error})") from error

    def pull(self, timeout: float, *, gather: float = 0.0, most: float = math.inf) -> tuple[Stamps, Rows]:
        """What has come, oldest first: stamps (n,), values (n, n_channels), of strings as bytes. May be empty.

        The values are good until the next call: copy them.

        Waits up to `timeout` seconds for the first. At a high rate it first rests, until `gather` seconds have passed
        since the last call returned, but for no more than `most` seconds: being woken for each sample costs more than
        all work on it.

        Raises
        ------
        LostStream
            The stream is gone and everything that it had sent has been pulled.
        """
        if self.found.format == STRING:
            return self._pull_strings(timeout)
        if gather * self.found.sfreq >= 1:
            rest = min(timeout, most, self._pulled + gather - time.monotonic())
            if rest > 0:
                time.sleep(rest)
        n = self._pull_into(0, self.n_at_once, 0.0)
        self._count_overrun(n)
        if not n and timeout > 0:
            n = self._pull_into(0, 1, timeout)
            if n:  # the first of a chunk, whose others are on their way
                time.sleep(_BURST)
                n += self._pull_into(n, self.n_at_once - n, 0.0)
        self._pulled = time.monotonic()
        return self._stamps[:n].copy(), self._rows[:n]

    def _count_overrun(self, n_pulled: int) -> None:
        """A full queue has more than one pull gives; to ask before each pull would cost as much as the pull."""
        if n_pulled >= min(self.n_at_once, self.capacity) and n_pulled + self.n_waiting() >= self.capacity:
            self.overrun += 1

    def n_waiting(self) -> int:
        """How many samples or markers can be pulled at once."""
        return int(self._library.lsl_samples_available(self._inlet.obj))

    def _pull_into(self, start: int, most: int, timeout: float) -> int:
        """Pull behind the first `start` rows; a loss counts only where nothing was pulled before."""
        n_channels = self.found.n_channels
        n_values = self._inlet.do_pull_chunk(
            self._inlet.obj,
            ctypes.c_void_p(self._rows_at + start * self._rows.strides[0]),
            ctypes.c_void_p(self._stamps_at + start * self._stamps.itemsize),
            ctypes.c_size_t(most * n_channels),
            ctypes.c_size_t(most),
            ctypes.c_double(timeout),
            ctypes.byref(self._error),
        )
        self._check(self._error.value, start)
        return int(n_values) // n_channels

    def _check(self, code: int, n_before: int) -> None:
        if code and code != _TIMED_OUT and not n_before:
            what = "is gone" if code == _LOST else f"cannot be read (error {code} of liblsl)"
            raise LostStream(f"the stream {shown(self.found.name)} {what}")

    def _pull_strings(self, timeout: float) -> tuple[Stamps, Rows]:
        """As bytes: one that is no UTF-8 would end a pull of texts, and all others with it."""
        if self.n_waiting() >= self.capacity:
            self.overrun += 1
        try:
            rows, stamps = self._inlet.pull_chunk(timeout, max_samples=1, as_numpy=True)
        except self._errors as error:
            raise LostStream(f"the stream {shown(self.found.name)} is gone ({error})") from error
        if not len(stamps):
            return stamps, rows
        try:
            more, later = self._inlet.pull_chunk(0.0, max_samples=self.n_at_once, as_numpy=True)
        except self._errors:  # said by the next pull: these have come
            return stamps, rows
        return np.concatenate([stamps, later]), np.concatenate([rows, more])

    def clock_offset(self, timeout: float) -> tuple[float, float, float]:
        """Offset, its uncertainty and the sender's time of the measurement, all in seconds.

        The first call takes most of a second; later ones give the newest of the measurements that liblsl makes every
        two seconds. May be called from another thread than `pull`.

        Raises
        ------
        LostStream
            The stream is gone.
        NoAnswer
            Its clock could not be measured in time.
        """
        function = self._library.lsl_time_correction_ex
        function.restype = ctypes.c_double
        remote, uncertainty, error = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
        offset = function(
            self._inlet.obj,
            ctypes.byref(remote),
            ctypes.byref(uncertainty),
            ctypes.c_double(timeout),
            ctypes.byref(error),
        )
        if error.value:
            kind = LostStream if error.value == _LOST else NoAnswer
            raise kind(f"the clock of the stream {shown(self.found.name)} does not answer")
        return float(offset), float(uncertainty.value), float(remote.value)

    def close(self) -> None:
        """Disconnect; the queue goes with it."""
        self._inlet.close_stream()
