"""md-stream replay."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, SOME_SKIPPED, add_command, count
from ...runtime.engines.trust import trust_list

_EXAMPLE = """
example (offline):
  md-stream replay my_session

exit codes: 0 all to the bit, 1 something is not, 2 an error that you can fix, 130 interrupted.
"""
_MOST_SHOWN = 12


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "replay",
        _replay,
        help="run a recorded session again and compare features and pictures, bit for bit",
        description="Run a session again on its recorded schedule: the same samples and markers in the same steps, and "
        "every picture by the plan, and for as many frames, that it had. Says whether markers, features and pictures "
        "are the same to the bit, and where and why they are not.",
        epilog=_EXAMPLE,
    )
    command.add_argument("session", type=Path, metavar="SESSION", help="the session's folder")
    command.add_argument("--bundle", type=Path, metavar="DIR", help="what decodes (default: that of the session)")
    command.add_argument(
        "--pictures", action=argparse.BooleanOptionalAction, default=True, help="draw again (default: yes)"
    )
    command.add_argument("--backend", metavar="NAME", help="of a bundle (default: that of the session)")
    command.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: as many as then)")
    command.add_argument("--models", metavar="DIR", help="of a checkpoint: its model folder")


def _replay(args: argparse.Namespace) -> int:
    from ...runtime import backends
    from ...runtime.backends.base import Options
    from ...runtime.errors import FileError
    from ..recording.opened import open_session
    from ..rerun.recorded import read_recorded
    from ..rerun.run import rerun

    session = open_session(args.session)
    recorded = read_recorded(session)
    bundle = args.bundle or recorded.bundle
    if not bundle.exists():
        raise FileError(f"{bundle}, on which the session ran, is not there: say with --bundle where it is now")
    threads, name = recorded.computing.get("threads"), recorded.computing.get("backend")
    options = Options(
        models=args.models,
        backend=args.backend,
        threads=args.threads,
        earlier_backend=name if isinstance(name, str) else None,
        earlier_threads=threads if isinstance(threads, int) and threads > 0 else None,
        share_threads=True,
        trust_list=trust_list(os.environ),
    )
    with backends.open(bundle, replace(options, needs=recorded.needs)) as backend:
        backend.start()
        done = rerun(session, recorded, backend, pictures=args.pictures, say=_say)
    print(f"markers: {done.n_same_states} of {done.n_markers} ended as then")
    print(f"features: {done.n_same_features} of {done.n_decoded} the same to the bit")
    if args.pictures:
        n_skipped = len(recorded.decoded) - len(recorded.pictures)
        more = f"; {n_skipped} were not drawn then" if n_skipped else ""
        print(f"pictures: {done.n_same_pictures} of {done.n_pictures} the same to the bit{more}")
    if done.same:
        return DONE
    for line in done.different[:_MOST_SHOWN]:
        print(line)
    if len(done.different) > _MOST_SHOWN:
        print(f"and {len(done.different) - _MOST_SHOWN} more")
    for reason in done.reasons or ["unknown: bundle, libraries, machine and settings are the recorded session's"]:
        print(f"reason: {reason}")
    return SOME_SKIPPED


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
