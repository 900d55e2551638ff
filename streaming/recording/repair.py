"""A session that was killed, or a file that was damaged: what is whole is kept, and the file is finished.

Of a file that ends inside a chunk, the whole samples of that chunk are kept too. Bytes in the middle that make no sense
are left out up to the next boundary; the file as it was then stays beside the new one.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ...runtime.errors import FileError
from ...runtime.files import replacing
from ...runtime.locks import inside, locked
from ...runtime.output import draft_of
from . import xdf
from .chunks import Chunk, Damage, Description, chunks, is_xml, mapped, samples
from .lines import is_entry
from .names import (
    LEDGER_FILE,
    PICTURES,
    RECORDING,
    REPAIRED,
    RESULTS_FILE,
    SESSION_FILE,
    SIGNAL_FILE,
    signal_lock,
    write_session,
)
from .opened import open_session

_COPY = 1 << 20


@dataclass(kw_only=True)
class _Extent:
    """How much there is of a stream."""

    about: Description
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    finished: bool = False


@dataclass(kw_only=True)
class _Found:
    """What a scan has found in a file."""

    extents: dict[int, _Extent] = field(default_factory=dict)
    kept: list[tuple[int, int, int]] = field(default_factory=list)  # bytes from, to; of which stream
    tail: bytes = b""  # a chunk with the whole samples of the one that was cut
    header: bytes = b""  # in place of one that cannot be read
    n_cut: int = 0
    n_dropped: int = 0
    n_end: int = 0  # as n_dropped, but behind everything else: nothing that is kept says what was lost


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done to a file.

    Attributes
    ----------
    path
        The file.
    changed
        Whether anything was to be done.
    text
        A sentence about it.
    """

    path: Path
    changed: bool
    text: str


def repair(path: Path) -> list[Repair]:
    """Repair a session's folder, or one XDF file, in place.

    Raises
    ------
    FileError
        It is neither, another process is at it, nothing of it can be restored, or the disk refuses.
    """
    if not path.is_dir():
        with ExitStack() as stack:
            if path.name == SIGNAL_FILE and (path.parent / SESSION_FILE).exists():  # which may run
                stack.enter_context(locked(inside(path.parent), path.parent))
                stack.enter_context(locked(signal_lock(path.parent), path.parent))
            return [repair_xdf(path)]
    session = open_session(path)
    with locked(inside(path), path), locked(signal_lock(path), path):
        done = [repair_xdf(session.signal)] if session.signal.exists() else []
        done += [_repair_lines(path / name) for name in (LEDGER_FILE, RESULTS_FILE) if (path / name).exists()]
        for left in (path / PICTURES).glob(".*"):
            if draft_of(left.name) is not None:
                left.unlink()
        if session.about["state"] == RECORDING:
            write_session(path, {**session.about, "state": REPAIRED, "repaired": [one.text for one in done]})
        return done


def repair_xdf(path: Path) -> Repair:
    """Restore an XDF file, whoever wrote it: whole chunks, whole samples, footers.

    A recording of ours that lost bytes in its middle loses its `arrivals` too, which would no longer belong to the
    data; it is then as good as any other recorder's.

    Raises
    ------
    FileError
        It is no XDF file, or its first header is damaged.
    """
    data = mapped(path)
    found = _scan(data, path)
    open_ends = [stream for stream, extent in found.extents.items() if not extent.finished]
    if not (open_ends or found.n_cut or found.n_dropped or found.n_end or found.header):
        return Repair(path=path, changed=False, text=f"{path.name} is whole")
    without = {k for k, extent in found.extents.items() if found.n_dropped and extent.about.role == "arrivals"}
    aside = _set_aside(path) if found.n_dropped or found.n_end or found.header else ""
    with replacing(path) as draft, open(draft, "r+b") as file:
        mode = path.stat().st_mode
        _write(file, data, found, without)
    path.chmod(mode)
    return Repair(path=path, changed=True, text=_text(path, found, without, aside))


def _set_aside(path: Path) -> str:
    """Copy a damaged file beside itself, under a name that nothing has; the name."""
    names = (f"{path.name}.damaged{more}" for more in ("", *(f"-{number}" for number in range(2, 10_000))))
    name = next(name for name in names if not path.with_name(name).exists())
    shutil.copy2(path, path.with_name(name))
    return name


def _scan(data: memoryview, path: Path) -> _Found:
    found = _Found()
    for chunk in chunks(data):
        if isinstance(chunk, Damage):
            _take_damage(chunk, found, at_end=chunk.stop == len(data))
            continue
        if chunk.tag == xdf.FILE_HEADER and not is_xml(chunk.content):
            found.header = xdf.chunk(xdf.FILE_HEADER, xdf.xml({"version": "1.0"}))
            continue
        found.kept.append((chunk.start, chunk.stop, chunk.stream))
        if chunk.tag == xdf.STREAM_HEADER and chunk.about is not None:
            found.extents.setdefault(chunk.stream, _Extent(about=chunk.about))
        elif chunk.tag == xdf.SAMPLES:
            _extend(found.extents[chunk.stream], chunk)
        elif chunk.tag == xdf.STREAM_FOOTER and chunk.stream in found.extents:
            found.extents[chunk.stream].finished = True
    if not found.extents:
        raise FileError(f"{path} ends, or is damaged, before it describes a stream: nothing of it can be restored")
    return found


def _take_damage(damage: Damage, found: _Found, *, at_end: bool) -> None:
    if damage.tail is None:
        if at_end:  # as a power cut leaves it: zeros in place of what was not on the disk yet
            found.n_end = damage.stop - damage.start
        else:
            found.n_dropped += damage.stop - damage.start
        return
    found.n_cut = damage.stop - damage.start
    cut = damage.tail
    if cut.tag == xdf.SAMPLES:
        n = _extend(found.extents[cut.stream], cut)
        if n:
            size = 2 if cut.content[0] == 1 else cut.content[0] + 1  # of the number of samples
            rows = bytes(cut.content[size : samples(cut).n_bytes])
            found.tail = xdf.chunk(xdf.SAMPLES, struct.pack("<I", cut.stream) + xdf.varlen(n) + rows)
            found.n_cut -= len(rows)


def _extend(extent: _Extent, chunk: Chunk) -> int:
    block = samples(chunk)
    n = len(block.stamps)
    if n:
        extent.first = float(block.stamps[0]) if extent.count == 0 else extent.first
        extent.last, extent.count = float(block.stamps[-1]), extent.count + n
    return n


def _write(file: BinaryIO, data: memoryview, found: _Found, without: set[int]) -> None:
    file.write(xdf.MAGIC + found.header)
    for start, stop in _joined(found.kept, without):
        for first in range(start, stop, _COPY):
            file.write(data[first : min(first + _COPY, stop)])
    file.write(found.tail)
    file.write(xdf.boundary())
    for stream, extent in found.extents.items():
        if not extent.finished and stream not in without:
            about = {"first_timestamp": repr(extent.first), "last_timestamp": repr(extent.last)}
            file.write(xdf.stream_footer(stream, {**about, "sample_count": extent.count}))


def _joined(kept: list[tuple[int, int, int]], without: set[int]) -> Iterator[tuple[int, int]]:
    """Ranges of bytes, neighbours as one."""
    start = stop = 0
    for first, last, stream in kept:
        if stream in without:
            continue
        if first != stop:
            yield start, stop
            start = first
        stop = last
    yield start, stop


def _text(path: Path, found: _Found, without: set[int], aside: str) -> str:
    streams = ", ".join(
        f"{extent.count:,} of {extent.about.name!r:.60}"
        for stream, extent in found.extents.items()
        if stream not in without and extent.about.role not in ("arrivals", "notices")
    )
    text = f"{path.name}: finished, with all samples that were in it ({streams})"
    if found.n_cut:
        text += f"; {found.n_cut:,} bytes of a sample or description that was not whole were cut off its end"
    if found.n_dropped:
        text += f"; {found.n_dropped:,} bytes in its middle made no sense and are left out: what it was is {aside}"
    if found.n_end:
        text += f"; {found.n_end:,} bytes at its end made no sense and are cut off: the file as it was is {aside}"
    if found.header:
        text += f"; its header was damaged and is made anew: the file as it was is {aside}"
    if without:
        text += "; when each sample arrived is no longer known"
    return text


def _repair_lines(path: Path) -> Repair:
    """Leave out what is no JSON object."""
    *whole, cut = path.read_bytes().split(b"\n")
    good = [line for line in whole if is_entry(line)]
    n_bad = len(whole) - len(good)
    if not cut and not n_bad:
        return Repair(path=path, changed=False, text=f"{path.name} is whole")
    aside = _set_aside(path) if n_bad else ""
    with replacing(path) as draft:
        draft.write_bytes(b"".join(line + b"\n" for line in good))
    path.chmod(0o600)
    text = f"{path.name}: {len(good):,} lines are whole"
    text += f"; {len(cut):,} bytes of a line that was not whole were cut off its end" if cut else ""
    text += f"; {n_bad} damaged lines are left out: the file as it was is {aside}" if n_bad else ""
    return Repair(path=path, changed=True, text=text)
