"""A session's XDF file while it grows: items in, whole chunks out, in a file that is readable at every moment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..records import SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from . import streams, xdf
from .disk import Put, put

F64 = NDArray[np.float64]
_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)


class Writer:
    """The file of one session; :meth:`add` remembers, :meth:`flush` writes.

    Chunks are written whole, so that a kill costs at most the last one; what a failed write has left is cut off again.
    Whoever reads meets the data before the row of `arrivals` that tells of them.

    Parameters
    ----------
    path
        A new file, which only its owner can read.
    info
        Of the signal.
    started
        The wall clock at the start, as text, for the file's header.
    write
        What hands bytes to the system.

    Raises
    ------
    OSError
        The system does not let us write, here and in every method that writes.
    """

    def __init__(self, path: Path, info: SignalInfo, *, started: str, write: Put = put) -> None:
        self._put = write
        self._file = os.open(path, _FLAGS, 0o600)
        self.n_bytes = self.n_samples = self.n_markers = 0
        self._next, self._info, self._format = streams.FIRST_SIGNAL, info, ""
        self._stream = 0
        self._extents: dict[int, tuple[int, float, float]] = {}  # of each stream: how many, first and last stamp
        self._chunks: list[bytes] = []
        self._samples: list[tuple[F64, F64]] = []
        self._markers: list[tuple[float, bytes]] = []
        self._notices: list[tuple[float, bytes]] = []
        self._offsets: list[bytes] = []
        self._rows: list[tuple[float, int, int, int, float]] = []
        self._unnamed: list[int] = []  # rows of samples whose stream is chosen when they are written
        self._n_new = 0
        self._chunks.append(xdf.file_header({"datetime": started}))
        self._describe(streams.MARKERS, xdf.stream_header(streams.MARKERS, streams.markers_tree(info)))
        self._describe(streams.ARRIVALS, xdf.stream_header(streams.ARRIVALS, streams.arrivals_tree()))
        self._describe(streams.NOTICES, xdf.stream_header(streams.NOTICES, streams.notices_tree()))
        self._open_signal(info, streams.xdf_format(info.dtype))
        try:
            self.sync()
        except OSError:
            self._let_go()
            raise

    def add(self, items: Sequence[Item], now: float) -> None:
        """What one step of a session was given, at the local time `now`.

        Raises
        ------
        ValueError
            Samples have another number of channels than the description that was given last.
        """
        self._row(streams.STEP, now, 0, len(items))
        for item in items:
            if isinstance(item, Samples):
                self._add_samples(item)
            elif isinstance(item, Marker):
                self._markers.append((item.stamp, item.raw))
                self._row(streams.MARKER, item.arrived, streams.MARKERS, item.ordinal)
            elif isinstance(item, ClockOffset):
                self._add_offset(item)
            else:
                self._add_notice(item)

    def flush(self) -> None:
        """Hand everything to the system, in which it survives a kill of this process."""
        self._end_samples()
        if self._markers:
            stamps = [stamp for stamp, _ in self._markers]
            self._chunks.append(xdf.texts(streams.MARKERS, stamps, [raw for _, raw in self._markers]))
            self._extend(streams.MARKERS, stamps)
        self._end_notices()
        self._chunks += self._offsets
        if self._rows:
            table = np.array(self._rows, np.float64)
            self._chunks.append(xdf.numbers(streams.ARRIVALS, table[:, 0], table[:, 1:]))
            self._extend(streams.ARRIVALS, table[[0, -1], 0].tolist(), len(table))
        n_markers = len(self._markers)
        self._write(b"".join(self._chunks))
        self.n_samples += self._n_new
        self.n_markers += n_markers
        self._clear()

    def sync(self) -> None:
        """As :meth:`flush`, and wait until it is on the disk, where it survives a power cut."""
        self.flush()
        self._write(xdf.boundary())
        os.fsync(self._file)

    def close(self, now: float) -> None:
        """Write the rest and how much there is of each stream, at the local time `now`; may be called twice."""
        if self._file < 0:
            return
        try:
            self._row(streams.END, now, 0, 0)
            self.flush()
            self._write(b"".join(map(self._footer, self._extents)) + xdf.boundary())
            os.fsync(self._file)
        finally:
            self._let_go()

    def abandon(self) -> None:
        """Close the file as it is; may be called twice."""
        self._let_go()

    def _add_samples(self, item: Samples) -> None:
        n_channels, n = item.data.shape
        if n_channels != len(self._info.channels):
            raise ValueError(f"samples of {n_channels} channels came, and {len(self._info.channels)} were described")
        self._samples.append((item.stamps, item.data))
        self._unnamed.append(len(self._rows))
        self._row(streams.SAMPLES, item.arrived, 0, n)

    def _add_offset(self, item: ClockOffset) -> None:
        of_signal = item.stream == SIGNAL
        stream = self._stream if of_signal else streams.MARKERS
        what = streams.OFFSET_OF_SIGNAL if of_signal else streams.OFFSET_OF_MARKERS
        self._offsets.append(xdf.clock_offset(stream, item.at - item.offset, item.offset))
        self._row(what, item.at, stream, 0, item.uncertainty)

    def _add_notice(self, item: Notice) -> None:
        about = {"kind": item.kind, "stream": item.stream, "text": item.text}
        if item.n_lost:
            about["n_lost"] = item.n_lost  # type: ignore[assignment]
        if item.info is not None:
            about["info"] = streams.info_json(item.info)  # type: ignore[assignment]
        self._notices.append((item.at, json.dumps(about).encode()))
        self._row(streams.NOTICE, item.at, streams.NOTICES, 0)
        if item.info is not None and not streams.same_signal(item.info, self._info):
            self._end_samples()
            self._end_notices()  # before the new stream: no reader meets samples of which nobody said what they are
            self._open_signal(item.info, streams.xdf_format(item.info.dtype))

    def _open_signal(self, info: SignalInfo, channel_format: str) -> None:
        self._stream, self._next = self._next, self._next + 1
        self._info, self._format = info, channel_format
        tree = streams.signal_tree(info, channel_format)
        self._describe(self._stream, xdf.stream_header(self._stream, tree))

    def _describe(self, stream: int, header: bytes) -> None:
        self._extents[stream] = (0, 0.0, 0.0)
        self._chunks.append(header)

    def _fits(self, data: F64) -> bool:
        """Whether the stream's number type holds the samples to the bit."""
        if self._format == "double64":
            return True
        with np.errstate(invalid="ignore", over="ignore"):
            small = data.astype(xdf.DTYPES[self._format])
        return np.array_equal(small.astype(np.float64), data, equal_nan=True)

    def _end_samples(self) -> None:
        """One chunk of the samples that wait: many small ones would make every reader slow."""
        if not self._samples:
            return
        stamps = np.concatenate([stamps for stamps, _ in self._samples])
        data = np.concatenate([data for _, data in self._samples], axis=1).T
        self._samples.clear()
        if not self._fits(data):  # as seldom as a sender that is not what it says
            self._open_signal(self._info, "double64")
        for place in self._unnamed:
            at, what, _, count, uncertainty = self._rows[place]
            self._rows[place] = (at, what, self._stream, count, uncertainty)
        self._unnamed.clear()
        if len(stamps):
            self._chunks.append(xdf.numbers(self._stream, stamps, data.astype(xdf.DTYPES[self._format])))
            self._extend(self._stream, [float(stamps[0]), float(stamps[-1])], len(stamps))
            self._n_new += len(stamps)

    def _end_notices(self) -> None:
        if self._notices:
            stamps = [at for at, _ in self._notices]
            self._chunks.append(xdf.texts(streams.NOTICES, stamps, [raw for _, raw in self._notices]))
            self._extend(streams.NOTICES, stamps)
            self._notices.clear()

    def _row(self, what: int, at: float, stream: int, count: int, uncertainty: float = 0.0) -> None:
        self._rows.append((at, what, stream, count, uncertainty))

    def _extend(self, stream: int, stamps: Sequence[float], n: int | None = None) -> None:
        count, first, _last = self._extents[stream]
        more = len(stamps) if n is None else n
        self._extents[stream] = (count + more, first if count else stamps[0], stamps[-1])

    def _footer(self, stream: int) -> bytes:
        count, first, last = self._extents[stream]
        about = {"first_timestamp": repr(first), "last_timestamp": repr(last), "sample_count": count}
        return xdf.stream_footer(stream, about)

    def _clear(self) -> None:
        for waiting in (self._chunks, self._samples, self._markers, self._notices, self._offsets, self._rows):
            waiting.clear()
        self._n_new = 0

    def _write(self, data: bytes) -> None:
        view, n_before = memoryview(data), self.n_bytes
        try:
            while view:
                n = self._put(self._file, view)
                view, self.n_bytes = view[n:], self.n_bytes + n
        except OSError:
            self.n_bytes = n_before
            with suppress(OSError):
                os.ftruncate(self._file, n_before)
            raise

    def _let_go(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)
