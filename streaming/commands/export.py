"""md-stream export."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...runtime.command import DONE, add_command
from ...runtime.output import check_place
from ..export import FORMATS

_EXAMPLE = """
example (offline):
  md-stream export my_session --to fif --out my_session_raw.fif
"""


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "export",
        _export,
        help="write a session's signal and markers as FIF or BIDS",
        description="Write the raw signal of a session, with its markers at their samples and its gaps marked as "
        "BAD_ACQ_SKIP. A signal that came back with other channels or another rate is a file of its own.",
        epilog=_EXAMPLE,
    )
    command.add_argument("session", type=Path, metavar="SESSION", help="a session's folder, or its signal.xdf")
    command.add_argument("--to", required=True, choices=sorted(FORMATS), help="the format")
    command.add_argument(
        "--out", required=True, type=Path, metavar="PATH", help="fif: the file, NAME_raw.fif; bids: the root folder"
    )
    command.add_argument(
        "--unit", metavar="UNIT", help="unit of every channel, such as uV (default: as the source declared)"
    )
    command.add_argument("--single", action="store_true", help="fif: float32 numbers, half the size")
    command.add_argument("--subject", default="01", metavar="LABEL", help="bids (default: %(default)s)")
    command.add_argument("--session-label", default="", metavar="LABEL", help="bids (default: none)")
    command.add_argument("--task", default="live", metavar="LABEL", help="bids (default: %(default)s)")
    command.add_argument(
        "--line-freq", type=float, metavar="HZ", help="bids: of the mains, 50 or 60 (default: unknown)"
    )


def _export(args: argparse.Namespace) -> int:
    from ..export.continuous import parts_of
    from ..export.raw import EXACT, latin
    from ..export.settings import ExportSettings
    from ..recording.opened import open_session

    settings = ExportSettings(
        single=args.single,
        subject=args.subject,
        session=args.session_label,
        task=args.task,
        line_freq=args.line_freq,
    )
    signal, started = args.session, None
    if args.session.is_dir():
        session = open_session(args.session)
        signal, started = session.signal, datetime.fromisoformat(str(session.about["started"]))
    check_place(args.out, beside=args.to == "fif")
    place = args.out.parent if args.to == "fif" else args.out
    place.mkdir(parents=True, exist_ok=True)
    module, function = FORMATS[args.to]
    write = getattr(import_module(module, f"{__package__.rpartition('.')[0]}.export"), function)
    with TemporaryDirectory(dir=place, prefix=".md-stream-") as scratch:
        parts = parts_of(signal, Path(scratch), unit=args.unit)
        for path in write(parts, started, args.out, settings):
            print(path)
        n_outside = sum(part.n_outside for part in parts)
        n_repeated = sum(part.n_repeated for part in parts)
        texts = [event.text for part in parts for event in part.events]
    if n_outside:
        _tell(f"{n_outside} markers lie before or after the signal and are in no file")
    if n_repeated:
        _tell(
            f"{n_repeated} samples came twice, with the same stamp and the same values: they are in the file once, as "
            "in the live session"
        )
    n_rewritten = sum(latin(text) != text for text in texts)
    if args.to == "fif" and n_rewritten:
        _tell(
            f"{n_rewritten} markers have characters that FIF cannot hold: they are written by their numbers, such as "
            f"&#8220;, and the exact texts stand in the annotations' extras under {EXACT!r}"
        )
    return DONE


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
