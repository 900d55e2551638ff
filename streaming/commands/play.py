"""``md-stream play FILE``: a recording as a stream of the Lab Streaming Layer."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, add_command, count
from ...runtime.errors import InputError, shown
from .options import positive

_FORMATS = ("double64", "float32", "int32", "int16")
_MOST_DIGITS = 10
# Seconds of a recording that have to hold whole numbers, where these are to be sent.
_LOOKED_AT = 10.0
_MARKERS = {"text": "string", "number": "int32", "none": None}


def add(commands: Any) -> None:
    """See `COMMANDS`."""
    command = add_command(
        commands,
        "play",
        _play,
        help="a recording as a live stream with markers",
        description="Play a recording as an LSL stream and a marker stream, in real time: XDF, or any file that MNE "
        "reads, with its annotations and triggers. Each sample and marker is sent with its exact timestamp. Playback "
        "starts when a receiver connects.",
        epilog="examples (offline):\n  md-stream play recording.fif --at-once\n"
        "  md-stream play session.xdf --stream EEG",
    )
    command.add_argument("file", type=Path, metavar="FILE", help="XDF, FIF, EDF, BDF, BrainVision, EEGLAB, CTF, …")
    command.add_argument(
        "--name", help="name of the stream; that of the markers has -markers behind it (default: the file's)"
    )
    command.add_argument("--source-id", metavar="ID", help="source_id of the stream (default: md-play-NAME)")
    command.add_argument("--chunk", type=count, default=1, metavar="N", help="samples per chunk (default: 1)")
    command.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help="number format (default: double64)")
    command.add_argument(
        "--markers",
        choices=_MARKERS,
        default="text",
        help="send markers as texts, as numbers, or not at all (default: text)",
    )
    command.add_argument(
        "--speed", type=positive, default=1.0, metavar="X", help="playback speed; timestamps are unchanged (default: 1)"
    )
    command.add_argument(
        "--modality", choices=("eeg", "meg"), default="eeg", help="which signal of an XDF file (default: eeg)"
    )
    command.add_argument("--stream", metavar="NAME", help="name of the signal's stream in an XDF file that has several")
    command.add_argument(
        "--marker-stream", metavar="NAME", help="name of the marker stream in an XDF file that has several"
    )
    command.add_argument("--trigger", metavar="CHANNEL", help="stimulus channel of a file that is not XDF")
    command.add_argument("--at-once", action="store_true", help="start without waiting for a receiver")


def _play(args: argparse.Namespace) -> int:
    from ..files import open_file
    from ..files.recorded import Choice
    from ..lsl.play import perform
    from ..lsl.recorded import performance

    choice = Choice(
        modality=args.modality,
        stream=args.stream,
        markers=args.marker_stream,
        trigger=args.trigger,
        markers_option="--marker-stream NAME",
    )
    recorded = open_file(args.file, choice)
    if args.markers == "number" and (odd := next((raw for _, raw in recorded.markers if not _is_int32(raw)), None)):
        raise InputError(f"a marker of {args.file} is {shown(odd.decode('utf-8', 'replace'))}: give --markers text")
    if args.format.startswith("int"):
        _require_whole(recorded, args)
    played = performance(
        recorded,
        name=args.name or args.file.name,
        source_id=args.source_id or f"md-play-{args.name or args.file.name}",
        format=args.format,
        marker_format=_MARKERS[args.markers],
        chunk=args.chunk,
        speed=args.speed,
    )
    info = played.info
    _tell(
        f"{len(recorded.stamps)} samples of {len(info.channels)} channels at {info.sfreq:g} Hz, type {played.type}, "
        f"{len(recorded.markers)} markers: receive it with --source lsl:id={info.source_id}"
        + (f",markers={played.marker_name}" if played.marker_name else ",markers=none")
    )
    for _, why in recorded.joints:
        _tell(f"the signal does not continue where {why}, and its stamps do")
    if not args.at_once:
        _tell("waiting for somebody who receives; Ctrl-C ends it")
    n_samples, n_markers = perform(played, wait=0.0 if args.at_once else math.inf)
    print(f"{n_samples} samples and {n_markers} markers sent")
    return DONE


def _is_int32(raw: bytes) -> bool:
    """Whether a marker can be sent as a number: decimal digits, of at most 32 bits."""
    return raw.isdigit() and len(raw) <= _MOST_DIGITS and int(raw) < 2**31


def _require_whole(recorded: Any, args: argparse.Namespace) -> None:
    """Refuse a recording in volts, which would be sent as zeros; the first seconds are looked at."""
    import numpy as np

    data = recorded.read(0, min(len(recorded.stamps), round(_LOOKED_AT * recorded.info.sfreq)))
    most = np.iinfo(args.format)
    wrong = data[(data != np.round(data)) | (data < most.min) | (data > most.max)]
    if wrong.size:
        raise InputError(f"{args.file} has the value {wrong[0]:g}, which is no {args.format}: give --format float32")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
