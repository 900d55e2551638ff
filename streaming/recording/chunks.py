"""Reading the chunks of an XDF file, whoever wrote it, and finding the way again behind damage."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import FileError, shown
from ...runtime.files import cannot_open
from . import xdf

_OF_STREAMS = (xdf.STREAM_HEADER, xdf.SAMPLES, xdf.CLOCK_OFFSET, xdf.STREAM_FOOTER)
_LENGTHS = {1: "<B", 4: "<I", 8: "<Q"}
_BOUNDARY = xdf.boundary()
# Elements of a description; a file that nests deeper is no recording.
_MOST_DEEP = 32
# Length, tag and stream of a chunk, at most.
_HEAD_BYTES = 9 + 2 + 4
# Bytes of a description; a longer one is a length that is damaged.
_LONGEST_TEXT = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a file says about a stream: its numbers' type as XDF has it, and all of it as nested names."""

    name: str
    type: str
    n_channels: int
    sfreq: float
    channel_format: str
    tree: Mapping[str, Any]

    @property
    def role(self) -> str:
        """What the stream is in a session of ours, or ""."""
        found = _inside(self.tree, "desc", "minddiffuser", "role")
        return found if isinstance(found, str) else ""

    @property
    def info(self) -> str:
        """The JSON of a signal of ours, or ""."""
        found = _inside(self.tree, "desc", "minddiffuser", "info")
        return found if isinstance(found, str) else ""

    @property
    def row_bytes(self) -> int:
        """Of a sample's numbers."""
        return self.n_channels * np.dtype(xdf.DTYPES[self.channel_format]).itemsize


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A whole chunk: bytes `start` to `stop` of the file, its tag, its stream (0 for none), and its content.

    `about` describes the stream of a header and of samples.
    """

    start: int
    stop: int
    tag: int
    stream: int
    content: memoryview
    about: Description | None = None


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Bytes `start` to `stop` that are no chunk.

    `tail` is a chunk that the end of the file has cut, with what there is of its content; None where the bytes make no
    sense.
    """

    start: int
    stop: int
    tail: Chunk | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """The samples of a chunk: `values` is (n, n_channels) numbers, or a list of n lists of bytes.

    A stamp that the file leaves out is NaN. `n_bytes` is how much of the chunk they took, `whole` whether that was
    all of it.
    """

    stamps: NDArray[np.float64]
    values: Any
    n_bytes: int
    whole: bool


def mapped(path: Path) -> memoryview:
    """The bytes of a file, not loaded; the file stays open as long as a part of it is used.

    Raises
    ------
    FileError
        It is missing, empty, or no XDF file.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) != xdf.MAGIC:
                raise FileError(f"{path} is no XDF file: such a file starts with 'XDF:'")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise FileError(f"the recording {path} does not exist: check the path") from None
    except FileError:
        raise
    except OSError as error:
        raise cannot_open("the recording", path, error) from error


def chunks(data: memoryview) -> Iterator[Chunk | Damage]:
    """The chunks of a file in their order, and what lies between them where it is damaged."""
    place, end, known = len(xdf.MAGIC), len(data), dict[int, Description]()
    while place < end:
        head = _head(data, place, end)
        if head is not None:
            about = _description(head) if head.tag == xdf.STREAM_HEADER else known.get(head.stream)
            head = replace(head, about=about)
        if head is not None and head.stop <= end and _makes_sense(head):
            if head.tag == xdf.STREAM_HEADER and head.about is not None:
                known[head.stream] = head.about
            yield head
            place = head.stop
            continue
        if head is not None and head.stop > end and _cut_by_the_end(head):
            yield Damage(start=place, stop=end, tail=head)
            return
        if head is None and end - place < _HEAD_BYTES:
            yield Damage(start=place, stop=end, tail=_stub(place, end))
            return
        after = _next_boundary(data, place)
        yield Damage(start=place, stop=after, tail=None)
        place = after


def _description(chunk: Chunk) -> Description | None:
    """What a stream's header says; None where it is damaged."""
    try:
        tree = _tree(ElementTree.fromstring(bytes(chunk.content).decode("utf-8", "replace")), 0)
        if not isinstance(tree, dict):
            raise ValueError("no elements")
        found = Description(
            name=str(tree.get("name") or ""),
            type=str(tree.get("type") or ""),
            n_channels=int(tree["channel_count"]),
            sfreq=float(tree["nominal_srate"]),
            channel_format=str(tree["channel_format"]),
            tree=tree,
        )
    except (ElementTree.ParseError, KeyError, TypeError, ValueError):
        return None
    if found.n_channels < 1 or (found.channel_format != "string" and found.channel_format not in xdf.DTYPES):
        return None
    return found


def is_xml(content: memoryview) -> bool:
    """Whether a file's header or a stream's footer can be read."""
    try:
        ElementTree.fromstring(bytes(content))
    except (ElementTree.ParseError, ValueError):
        return False
    return True


def samples(chunk: Chunk) -> Block:
    """The samples of a chunk, or of the beginning of one; those that are whole and make sense."""
    content, about = chunk.content, chunk.about
    head = _varlen(content, 0)
    if head is None or about is None:
        return Block(stamps=np.empty(0), values=[], n_bytes=0, whole=False)
    n, place = head
    if about.channel_format == "string":
        return _texts(content, n, place, about.n_channels)
    kind = np.dtype(xdf.DTYPES[about.channel_format])
    row = np.dtype([("size", "u1"), ("stamp", "<f8"), ("values", kind, (about.n_channels,))])
    used = place + n * row.itemsize
    if used == len(content):  # as it is, unless stamps were left out or the end was cut
        table = np.frombuffer(content, row, n, place)
        if (table["size"] == 8).all():
            return Block(stamps=table["stamp"].copy(), values=table["values"].copy(), n_bytes=used, whole=True)
    return _numbers(content, n, place, about, kind)


def _numbers(content: memoryview, n: int, place: int, about: Description, kind: np.dtype[Any]) -> Block:
    """Samples of which some have no stamp."""
    stamps: list[float] = []
    rows: list[NDArray[Any]] = []
    while len(rows) < n and place < len(content):
        stamp = _stamp(content, place)
        if stamp is None or stamp[1] + about.row_bytes > len(content):
            break
        rows.append(np.frombuffer(content, kind, about.n_channels, stamp[1]))
        stamps.append(stamp[0])
        place = stamp[1] + about.row_bytes
    values = np.array(rows, kind).reshape(len(rows), about.n_channels)
    whole = len(rows) == n and place == len(content)
    return Block(stamps=np.array(stamps, float), values=values, n_bytes=place, whole=whole)


def _texts(content: memoryview, n: int, place: int, n_channels: int) -> Block:
    stamps: list[float] = []
    values: list[list[bytes]] = []
    while len(values) < n:
        stamp = _stamp(content, place)
        if stamp is None:
            break
        at, texts = stamp[1], []
        for _ in range(n_channels):
            length = _varlen(content, at)
            if length is None or length[1] + length[0] > len(content):
                break
            texts.append(bytes(content[length[1] : length[1] + length[0]]))
            at = length[1] + length[0]
        if len(texts) < n_channels:
            break
        stamps.append(stamp[0])
        values.append(texts)
        place = at
    whole = len(values) == n and place == len(content)
    return Block(stamps=np.array(stamps, float), values=values, n_bytes=place, whole=whole)


def _stamp(content: memoryview, place: int) -> tuple[float, int] | None:
    """A sample's stamp and where its values start; None where there is none."""
    if place < len(content) and content[place] == 0:
        return float("nan"), place + 1
    if place + 9 > len(content) or content[place] != 8:
        return None
    return struct.unpack_from("<d", content, place + 1)[0], place + 9


def _head(data: memoryview, place: int, end: int) -> Chunk | None:
    """A chunk, of which the end of the file may have cut something; None where it starts with nonsense."""
    length = _varlen(data, place)
    if length is None:
        return None
    size, content = length
    stop = content + size
    if content + 2 > end:
        return None
    tag = struct.unpack_from("<H", data, content)[0]
    content += 2
    stream = 0
    if tag in _OF_STREAMS:
        if content + 4 > end or content + 4 > stop:
            return None
        stream = struct.unpack_from("<I", data, content)[0]
        content += 4
    if not xdf.FILE_HEADER <= tag <= xdf.STREAM_FOOTER or content > stop:
        return None
    return Chunk(start=place, stop=stop, tag=tag, stream=stream, content=data[content : min(stop, end)])


def _stub(place: int, end: int) -> Chunk:
    """A chunk of which there is not even the head."""
    return Chunk(start=place, stop=end, tag=0, stream=0, content=memoryview(b""))


def _makes_sense(chunk: Chunk) -> bool:
    """Whether a chunk holds what its tag says."""
    if chunk.tag == xdf.STREAM_HEADER:
        return chunk.about is not None
    if chunk.tag == xdf.SAMPLES:
        return chunk.about is not None and samples(chunk).whole
    if chunk.tag == xdf.CLOCK_OFFSET:
        return len(chunk.content) == 16
    if chunk.tag == xdf.STREAM_FOOTER:
        return is_xml(chunk.content)
    return chunk.tag != xdf.BOUNDARY or bytes(chunk.content) == xdf.BOUNDARY_UUID


def _cut_by_the_end(chunk: Chunk) -> bool:
    """Whether the file just ends inside the chunk: what is there of it is as it must be.

    Only then nothing behind it is looked for, where a marker might look like a chunk.
    """
    if chunk.tag != xdf.SAMPLES:
        return chunk.stop - chunk.start < _LONGEST_TEXT
    if chunk.about is None:
        return False
    rest = len(chunk.content) - samples(chunk).n_bytes
    return chunk.about.channel_format == "string" or rest < 9 + chunk.about.row_bytes


def _next_boundary(data: memoryview, place: int) -> int:
    """Behind the next boundary after damage; the file's end where there is none."""
    step, start = 1 << 20, place
    while start < len(data):
        found = bytes(data[start : start + step + len(_BOUNDARY)]).find(_BOUNDARY)
        if found >= 0:
            return start + found + len(_BOUNDARY)
        start += step
    return len(data)


def _varlen(data: memoryview, place: int) -> tuple[int, int] | None:
    """A variable-length integer and what stands behind it; None where there is none."""
    form = _LENGTHS.get(data[place]) if place < len(data) else None
    if form is None or place + 1 + struct.calcsize(form) > len(data):
        return None
    return struct.unpack_from(form, data, place + 1)[0], place + 1 + struct.calcsize(form)


def _tree(node: ElementTree.Element, depth: int) -> Any:
    """Nested names; a name that is there several times is a list."""
    if depth > _MOST_DEEP:
        raise ValueError(f"nested deeper than {_MOST_DEEP}")
    if not len(node):
        return node.text or ""
    found: dict[str, Any] = {}
    for child in node:
        value = _tree(child, depth + 1)
        if child.tag not in found:
            found[child.tag] = value
        elif isinstance(found[child.tag], list):
            found[child.tag].append(value)
        else:
            found[child.tag] = [found[child.tag], value]
    return found


def _inside(tree: Any, *names: str) -> Any:
    for name in names:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def no_session(path: Path, what: str) -> FileError:
    """What to say of a file that is no recording of md-stream."""
    return FileError(f"{path} is no recording of md-stream ({shown(what)}): record one with md-stream run --record")
