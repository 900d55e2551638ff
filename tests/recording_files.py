"""Files of continuous EEG, written byte by byte from their public formats: BrainVision, EDF+, XDF. And what is shown.

numpy alone: neither MNE nor pyxdf has a part in what they read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.images import write_png

Array = NDArray[Any]
NAMES = ("O1", "Oz", "O2", "Pz", "Cz")


def noise(n_samples: int, seed: int = 0, n_channels: int = len(NAMES)) -> Array:
    """(n_channels, n_samples) in V: white noise of 8 µV, a slow drift and an offset of electrodes of some mV."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((n_channels, n_samples)) * 8e-6
    drift = np.cumsum(rng.standard_normal((n_channels, n_samples)), axis=1) * 2e-7
    return np.asarray(white + drift + rng.standard_normal((n_channels, 1)) * 1e-3)


def write_pictures(folder: Path, n: int) -> list[str]:
    """Small pictures of one colour each, and their names."""
    for k in range(n):
        write_png(folder / f"{k}.png", np.full((20, 24, 3), 9 * k + 5, np.uint8))
    return [f"{k}.png" for k in range(n)]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A CSV, or with that ending a TSV, of dictionaries with the same keys."""
    sign = "\t" if path.suffix == ".tsv" else ","
    lines = [sign.join(rows[0]), *(sign.join(str(value) for value in row.values()) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_brainvision(folder: Path, name: str, data: Array, sfreq: float, marks: Sequence[tuple[int, str]]) -> Path:
    """Volts as float32 in µV; a mark is a sample, from 0, and "Stimulus/S  7"."""
    folder.mkdir(parents=True, exist_ok=True)
    (data.T * 1e6).astype("<f4").tofile(folder / f"{name}.eeg")
    channels = "\n".join(f"Ch{row + 1}={label},,1,µV" for row, label in enumerate(NAMES[: len(data)]))
    (folder / f"{name}.vhdr").write_text(
        "BrainVision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={name}.eeg\nMarkerFile={name}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(data)}\nSamplingInterval={1e6 / sfreq:g}\n\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    lines = ["Mk1=New Segment,,1,1,0,20260101000000000000"]
    lines += [
        f"Mk{k},{s + 1},1,0".replace(",", f"={text.split('/')[0]},{text.split('/')[1]},", 1)
        for k, (s, text) in enumerate(marks, 2)
    ]
    (folder / f"{name}.vmrk").write_text(
        "BrainVision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={name}.eeg\n\n[Marker Infos]\n" + "\n".join(lines) + "\n",
        encoding="utf-8",
    )
    return folder / f"{name}.vhdr"


def write_edf(path: Path, data: Array, sfreq: int, marks: Sequence[tuple[float, str]], unit: str = "uV") -> Path:
    """EDF+C of records of a second, int16 over -5000 to 5000 of the unit; a mark is a time in seconds and a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_records, width, most = data.shape[1] // sfreq, 60, 5000.0
    labels = [*NAMES[: len(data)], "EDF Annotations"]

    def field(values: Sequence[Any], size: int) -> bytes:
        return b"".join(str(value).encode("ascii").ljust(size)[:size] for value in values)

    n = len(labels)
    physical = [(-most, most)] * len(data) + [(-1, 1)]
    header = field(["0"], 8) + field(["X X X X", "Startdate 01-JAN-2026 X X X"], 80)
    header += field(["01.01.26", "00.00.00", 256 * (n + 1)], 8) + field(["EDF+C"], 44)
    header += field([n_records, 1], 8) + field([n], 4)
    header += field(labels, 16) + field([""] * n, 80) + field([unit] * len(data) + [""], 8)
    header += field([low for low, _ in physical], 8) + field([high for _, high in physical], 8)
    header += field([-32768] * n, 8) + field([32767] * n, 8) + field([""] * n, 80)
    header += field([sfreq] * len(data) + [width], 8) + field([""] * n, 32)
    levels = np.round((data * 1e6 + most) / (2 * most) * 65535 - 32768).clip(-32768, 32767).astype("<i2")
    body = b""
    for record in range(n_records):
        body += levels[:, record * sfreq : (record + 1) * sfreq].tobytes()
        texts = f"+{record}\x14\x14\x00" + "".join(
            f"+{time:.4f}\x14{text}\x14\x00" for time, text in marks if record <= time < record + 1
        )
        body += texts.encode("utf-8").ljust(2 * width, b"\0")
    path.write_bytes(header + body)
    return path


def edf_step() -> float:
    """Volts between two levels of :func:`write_edf`."""
    return 1e-2 / 65535


def _chunk(tag: int, content: bytes) -> bytes:
    return _length(len(content) + 2) + struct.pack("<H", tag) + content


def _length(size: int) -> bytes:
    return struct.pack("<BB", 1, size) if size < 256 else struct.pack("<BI", 4, size)


def _signal(number: int, stamps: Array, values: Array) -> bytes:
    """A chunk of samples: each with its time stamp, and doubles."""
    rows = (
        struct.pack("<Bd", 8, stamp) + row.astype("<f8").tobytes() for stamp, row in zip(stamps, values, strict=True)
    )
    return _chunk(3, struct.pack("<I", number) + _length(len(stamps)) + b"".join(rows))


def _texts(number: int, marks: Sequence[tuple[float, str]]) -> bytes:
    rows = b"".join(struct.pack("<Bd", 8, stamp) + _length(len(text.encode())) + text.encode() for stamp, text in marks)
    return _chunk(3, struct.pack("<I", number) + _length(len(marks)) + rows)


def write_xdf(
    path: Path,
    data: Array,
    stamps: Array,
    sfreq: float,
    marks: Sequence[tuple[float, str]],
    *,
    unit: str | None = "microvolts",
    offset: float = 0.0,
    stated: float | None = None,
) -> Path:
    """XDF 1.0: a stream "Amp" of EEG, (n_channels, n) in the unit, and one of string markers, on another clock.

    `stamps` (n,) and the markers' times are in seconds; the markers' own clock is `offset` seconds behind, as clock
    offset chunks say. `stated` is the rate in the header, where it is a wrong one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    declared = "" if unit is None else f"<unit>{unit}</unit>"
    channels = "".join(
        f"<channel><label>{label}</label>{declared}<type>EEG</type></channel>" for label in NAMES[: len(data)]
    )

    def head(name: str, kind: str, n: int, rate: float, form: str, desc: str = "") -> bytes:
        text = (
            f'<?xml version="1.0"?><info><name>{name}</name><type>{kind}</type><channel_count>{n}</channel_count>'
            f"<nominal_srate>{rate:g}</nominal_srate><channel_format>{form}</channel_format>"
            f"<source_id>{name}</source_id><created_at>1</created_at><desc>{desc}</desc></info>"
        )
        return text.encode()

    def foot(first: float, last: float, n: int) -> bytes:
        text = (
            f'<?xml version="1.0"?><info><first_timestamp>{first}</first_timestamp><last_timestamp>{last}'
            f"</last_timestamp><sample_count>{n}</sample_count></info>"
        )
        return text.encode()

    blocks = [b"XDF:", _chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')]
    amplifier = head("Amp", "EEG", len(data), stated or sfreq, "double64", f"<channels>{channels}</channels>")
    blocks.append(_chunk(2, struct.pack("<I", 1) + amplifier))
    blocks.append(_chunk(2, struct.pack("<I", 2) + head("Stimuli", "Markers", 1, 0, "string")))
    for number, shift in ((1, 0.0), (2, offset)):
        for time in (stamps[0], stamps[-1]):
            blocks.append(_chunk(4, struct.pack("<Idd", number, time - shift, shift)))
    for start in range(0, len(stamps), 500):
        blocks.append(_signal(1, stamps[start : start + 500], data[:, start : start + 500].T))
    blocks.append(_texts(2, [(time - offset, text) for time, text in marks]))
    blocks.append(_chunk(6, struct.pack("<I", 1) + foot(float(stamps[0]), float(stamps[-1]), len(stamps))))
    blocks.append(_chunk(6, struct.pack("<I", 2) + foot(0, 0, len(marks))))
    path.write_bytes(b"".join(blocks))
    return path
