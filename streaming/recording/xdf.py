"""The chunks of an XDF file as bytes (XDF 1.0, https://github.com/sccn/xdf/wiki/Specifications).

A chunk is [NumLengthBytes][Length][Tag][content]; numbers are little-endian. Whoever appends whole chunks has a file
that is readable at every moment.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

MAGIC = b"XDF:"
FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, BOUNDARY, STREAM_FOOTER = 1, 2, 3, 4, 5, 6
# By which a reader finds its way again behind damage.
BOUNDARY_UUID = bytes.fromhex("43a546dccbf5410fb30ed546 7383cbe4")
# XDF's name of a number type, and numpy's.
DTYPES: Mapping[str, str] = {
    "int8": "<i1", "int16": "<i2", "int32": "<i4", "int64": "<i8", "float32": "<f4", "double64": "<f8",
}  # fmt: skip
# What XML 1.0 has no place for, and so would make a whole file unreadable.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Tree = Mapping[str, Any]


def chunk(tag: int, content: bytes) -> bytes:
    """One chunk."""
    return varlen(len(content) + 2) + struct.pack("<H", tag) + content


def file_header(about: Tree) -> bytes:
    """What a file starts with: the magic number and the header, whose version is 1.0."""
    return MAGIC + chunk(FILE_HEADER, xml({"version": "1.0", **about}))


def stream_header(stream: int, about: Tree) -> bytes:
    """A stream's description: name, type, channel_count, nominal_srate, channel_format, desc and more."""
    return chunk(STREAM_HEADER, struct.pack("<I", stream) + xml(about))


def numbers(stream: int, stamps: NDArray[np.float64], data: NDArray[Any]) -> bytes:
    """Samples of numbers, each with its stamp.

    Parameters
    ----------
    stream
        Its number in the file.
    stamps
        (n,) float64, in seconds.
    data
        (n, n_channels) of the stream's number type.
    """
    n, n_channels = data.shape
    kind = data.dtype.newbyteorder("<")
    table = np.empty(n, np.dtype([("size", "u1"), ("stamp", "<f8"), ("values", kind, (n_channels,))]))
    table["size"], table["stamp"], table["values"] = 8, stamps, data
    return chunk(SAMPLES, struct.pack("<I", stream) + varlen(n) + table.tobytes())


def texts(stream: int, stamps: Sequence[float], values: Sequence[bytes]) -> bytes:
    """Samples of one text each, whose bytes stay what they are."""
    parts = [struct.pack("<Bd", 8, stamp) + varlen(len(raw)) + raw for stamp, raw in zip(stamps, values, strict=True)]
    return chunk(SAMPLES, struct.pack("<I", stream) + varlen(len(parts)) + b"".join(parts))


def clock_offset(stream: int, at: float, offset: float) -> bytes:
    """At the sender's time `at`, which is a stamp, a stamp plus `offset` was the recorder's time."""
    return chunk(CLOCK_OFFSET, struct.pack("<Idd", stream, at, offset))


def boundary() -> bytes:
    """From here on a reader may start again."""
    return chunk(BOUNDARY, BOUNDARY_UUID)


def stream_footer(stream: int, about: Tree) -> bytes:
    """What is known of a stream when it is over: first and last stamp, how many samples."""
    return chunk(STREAM_FOOTER, struct.pack("<I", stream) + xml(about))


def xml(about: Tree) -> bytes:
    """Nested names as the XML of XDF, <info>…</info>; characters that XML cannot hold become U+FFFD."""
    return ('<?xml version="1.0"?><info>' + "".join(map(_element, about, about.values())) + "</info>").encode()


def _element(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        inside = "".join(map(_element, value, value.values()))
    elif isinstance(value, list | tuple):
        return "".join(_element(name, one) for one in value)
    else:
        inside = escape(_NO_XML.sub("\ufffd", str(value)))
    return f"<{name}>{inside}</{name}>"


def varlen(n: int) -> bytes:
    """A variable-length integer of XDF, in as few bytes as it takes."""
    if n < 1 << 8:
        return struct.pack("<BB", 1, n)
    return struct.pack("<BI", 4, n) if n < 1 << 32 else struct.pack("<BQ", 8, n)
