"""md-stream demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...runtime.command import add_command
from .options import seconds
from .run import closed, out, say

_EXAMPLE = """
example (offline):
  md-stream demo
  md-stream demo --modality meg --record session-01
  md-stream demo --average-by none --deadline 1s

Ctrl-C ends it. From a machine without a screen it prints the line for an SSH tunnel.
"""


def add(commands: Any) -> None:
    """Add the command."""
    demo = add_command(
        commands,
        "demo",
        _demo,
        help="a simulated EEG or MEG session that comes with the package, live from the streams to the pictures",
        description="Play a simulated session as LSL streams that only this machine sees, decode it and draw pictures, "
        "as md-stream run does with an amplifier's. A session lasts two and a half minutes: eight pictures, twelve "
        "times each, in random order.",
        epilog=_EXAMPLE,
    )
    demo.add_argument("--modality", choices=("eeg", "meg"), default="eeg", help="(default: %(default)s)")
    demo.add_argument(
        "--deadline", type=seconds, default=2.0, metavar="TIME", help="from an epoch's end to its picture (default: 2s)"
    )
    demo.add_argument(
        "--average-by",
        choices=("event", "none"),
        default="event",
        help="decode the growing mean over the showings of a picture, or each showing (default: %(default)s)",
    )
    demo.add_argument("--record", type=Path, metavar="DIR", help="write the session into this new folder")
    demo.add_argument(
        "--dashboard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the session on a page of this machine (default: %(default)s)",
    )
    demo.add_argument("--port", type=int, default=0, help="of the dashboard (default: a free one)")


def _demo(args: argparse.Namespace) -> int:
    from ..demo.run import Demo, run_demo

    demo = Demo(
        modality=args.modality,
        deadline=args.deadline,
        average=args.average_by == "event",
        record=args.record,
        dashboard=args.dashboard,
        port=args.port,
    )
    return closed(run_demo(demo, out=out, say=say))
