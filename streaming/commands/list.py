"""``md-stream list``: what is on the network, and what will make trouble with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ...runtime.command import DONE, SOME_SKIPPED, add_command
from .options import seconds


def add(commands: Any) -> None:
    """See `COMMANDS`."""
    command = add_command(
        commands,
        "list",
        _list,
        help="streams on the network, and problems with them",
        description="List the streams of the Lab Streaming Layer that answer, and what is wrong with them: no "
        "source_id, no units, two with one identity, a clock that does not answer.",
        epilog="exit code: 0 if all is well, 1 if a stream has a problem or none answers\n\n"
        "example (offline):\n  md-stream list --timeout 1",
    )
    command.add_argument("--timeout", type=seconds, default=2.0, metavar="S", help="seconds to look (2)")
    command.add_argument("--json", action="store_true", help="print JSON")


def _list(args: argparse.Namespace) -> int:
    from ..lsl.survey import survey

    seen = survey(args.timeout)
    if args.json:
        print(json.dumps([one.as_json() for one in seen], indent=1))
    else:
        _print(seen)
    return SOME_SKIPPED if not seen or any(one.problems for one in seen) else DONE


def _print(seen: Sequence[Any]) -> None:
    if not seen:
        print("no streams answer: start the amplifier's program; md-stream doctor says what may be in the way")
        return
    columns = ("name", "type", "channels", "rate", "format", "source_id", "host")
    rows = [one.cells() for one in seen]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for row, one in zip((columns, *rows), (None, *seen), strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for problem in () if one is None else one.problems:
            print(f"    problem: {problem}")
