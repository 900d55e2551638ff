"""What a session is given, made up by seed; and a reader of XDF written from its specification alone.

https://github.com/sccn/xdf/wiki/Specifications. numpy alone: neither pyxdf nor our own code has a part in what is read.
"""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import ClockOffset, Item, Marker, Notice, Samples, SignalInfo

SFREQ, OFFSET = 250.0, -400.25
Steps = list[tuple[float, list[Item]]]


def signal_info(n_channels: int = 3, *, sfreq: float = SFREQ, dtype: str = "float32", unit: str = "uV") -> SignalInfo:
    names = ("Oz", "Cz", "Pz", "Fz", "O1", "O2", "P3", "P4")[:n_channels]
    places = ((0.0, -0.09, 0.03), None, (0.01, -0.07, 0.06)) + (None,) * 5
    channels = tuple(Channel(name=name, type="eeg", position=place) for name, place in zip(names, places, strict=False))
    return SignalInfo(
        name="amplifier <1> & co", channels=channels, sfreq=sfreq, units=(unit,) * n_channels, source_id="amp-17",
        uid="0f", hostname="lab", dtype=dtype,
    )  # fmt: skip


def made_up_steps(
    seed: int, n_steps: int, info: SignalInfo, *, texts: Sequence[bytes] = (b"7", b"\xff\xfe no UTF-8", b"", b"face/12")
) -> Steps:
    """Steps of 0 to 9 samples, now and then a marker, a clock offset, a notice, or nothing at all."""
    rng = np.random.default_rng(seed)
    steps: Steps = []
    n_samples = n_markers = 0
    for k in range(n_steps):
        now = 100.0 + 0.02 * k + rng.uniform(0, 1e-3)
        items: list[Item] = []
        n = int(rng.integers(0, 10))
        if n:
            stamps = 500.0 + (n_samples + np.arange(n)) / info.sfreq + rng.normal(0, 1e-4, n)
            data = (rng.standard_normal((len(info.channels), n)) * 10).astype(info.dtype).astype(np.float64)
            items.append(Samples(stamps=stamps, data=data, arrived=now - 1e-3))
            n_samples += n
        if rng.random() < 0.2:
            raw = texts[n_markers % len(texts)]
            items.append(Marker(ordinal=n_markers, stamp=499.99 + n_samples / info.sfreq, arrived=now - 5e-4, raw=raw))
            n_markers += 1
        if k % 20 == 0:
            for stream in ("signal", "markers"):
                items.append(ClockOffset(stream=stream, at=now - 2e-3, offset=OFFSET + 1e-6 * k, uncertainty=2e-4))
        if k % 37 == 36:
            items.append(Notice(kind="silent", stream="signal", at=now, text="nothing came for 1 s, “said” so"))
        if rng.random() < 0.3:
            items.reverse()
        steps.append((now, items))
    return steps


def joined(steps: Steps) -> tuple[Any, Any, list[Marker]]:
    """All stamps (n,), all data (n_channels, n) and all markers."""
    items = [item for _, some in steps for item in some]
    parts = [item for item in items if isinstance(item, Samples)]
    stamps = np.concatenate([part.stamps for part in parts]) if parts else np.empty(0)
    data = np.concatenate([part.data for part in parts], axis=1) if parts else np.empty((0, 0))
    return stamps, data, [item for item in items if isinstance(item, Marker)]


def same_item(one: Item, other: Item) -> bool:
    """To the bit."""
    if isinstance(one, Samples) and isinstance(other, Samples):
        return (
            one.arrived == other.arrived
            and np.array_equal(one.stamps, other.stamps)
            and one.data.tobytes() == other.data.tobytes()
            and one.data.shape == other.data.shape
        )
    return bool(one == other)


def same_steps(one: Steps, other: Steps) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and len(a[1]) == len(b[1]) and all(map(same_item, a[1], b[1]))
        for a, b in zip(one, other, strict=True)
    )


def write_xdf_steps(path: Path, steps: Steps, info: SignalInfo, *, flush_every: int = 5) -> Path:
    """A session's file, as the recorder writes it."""
    writer = Writer(path, info, started="2026-01-01T12:00:00+01:00")
    for k, (now, items) in enumerate(steps):
        writer.add(items, now)
        if k % flush_every == 0:
            writer.flush()
        if k % (7 * flush_every) == 0:
            writer.sync()
    writer.close(steps[-1][0] + 1)
    return path


def read_xdf_by_the_book(path: Path) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Each stream of a whole file, and the tags of all chunks in their order; anything unusual raises.

    A stream has `header` and `footer` (XML), `stamps`, `values` (numbers (n, n_channels), or bytes) and `offsets`.
    """
    data = path.read_bytes()
    assert data[:4] == b"XDF:"
    place, streams, tags = 4, dict[int, dict[str, Any]](), list[int]()

    def varlen(at: int) -> tuple[int, int]:
        size = data[at]
        assert size in (1, 4, 8)
        return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size

    while place < len(data):
        length, start = varlen(place)
        end = start + length
        assert end <= len(data)
        tag = struct.unpack_from("<H", data, start)[0]
        tags.append(tag)
        at = start + 2
        if tag == 1:
            header = ET.fromstring(data[at:end])
            assert header.tag == "info"
            assert header.findtext("version") == "1.0"
        elif tag == 5:
            assert data[at:end].hex() == "43a546dccbf5410fb30ed5467383cbe4"
        else:
            number = struct.unpack_from("<I", data, at)[0]
            at += 4
            if tag == 2:
                assert number not in streams
                root = ET.fromstring(data[at:end])
                streams[number] = {"header": root, "stamps": [], "values": [], "offsets": [], "footer": None}
            stream = streams[number]
            if tag == 6:
                stream["footer"] = ET.fromstring(data[at:end])
            elif tag == 4:
                assert end - at == 16
                stream["offsets"].append(struct.unpack_from("<dd", data, at))
            elif tag == 3:
                n, at = varlen(at)
                n_channels = int(stream["header"].findtext("channel_count"))
                form = {"float32": "f", "double64": "d", "int16": "h", "int32": "i", "int8": "b"}
                for _ in range(n):
                    assert data[at] == 8
                    stream["stamps"].append(struct.unpack_from("<d", data, at + 1)[0])
                    at += 9
                    if stream["header"].findtext("channel_format") == "string":
                        for _ in range(n_channels):
                            size, at = varlen(at)
                            stream["values"].append(data[at : at + size])
                            at += size
                    else:
                        code = f"<{n_channels}{form[stream['header'].findtext('channel_format')]}"
                        stream["values"].append(struct.unpack_from(code, data, at))
                        at += struct.calcsize(code)
                assert at == end
        place = end
    return streams, tags


def by_role(streams: dict[int, dict[str, Any]], role: str) -> list[dict[str, Any]]:
    """The streams of a session that have a role."""
    return [one for one in streams.values() if one["header"].findtext("desc/minddiffuser/role") == role]
