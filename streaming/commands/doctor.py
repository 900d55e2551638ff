"""``md-stream doctor``: what is missing on this machine for a live session."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from ...runtime.command import DONE, SOME_SKIPPED, add_command


def add(commands: Any) -> None:
    """See `COMMANDS`."""
    command = add_command(
        commands,
        "doctor",
        _doctor,
        help="what this machine lacks for a live session",
        description="Check liblsl, its settings, the clock, ports, multicast, and a stream of this machine's own.",
        epilog="exit code: 0 if nothing failed, 1 otherwise\n\nexample (offline):\n  md-stream doctor",
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def _doctor(args: argparse.Namespace) -> int:
    from ..lsl.doctor import BAD, CHECKS, examine

    width = max(len(name) for name, _, _ in CHECKS)
    found = []
    for finding in examine():
        found.append(finding)
        if not args.json:
            print(f"{finding.state:>6}  {finding.check:<{width}}  {finding.text}", flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    return SOME_SKIPPED if any(finding.state == BAD for finding in found) else DONE
