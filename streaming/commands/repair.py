"""md-stream repair."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, add_command

_EXAMPLE = """
example (offline):
  md-stream repair my_session
"""


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "repair",
        _repair,
        help="finish the files of a session that was killed, or any damaged XDF file",
        description="Keep what is whole of a session's folder or of an XDF file, and finish its files. Where bytes in "
        "the middle of a file are lost, it stays beside the new one as FILE.damaged.",
        epilog=_EXAMPLE,
    )
    command.add_argument("path", type=Path, metavar="SESSION|FILE.xdf", help="the session's folder, or an XDF file")


def _repair(args: argparse.Namespace) -> int:
    from ..recording.repair import repair

    for done in repair(args.path):
        print(done.text)
    return DONE
