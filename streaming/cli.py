"""Reconstruct pictures from EEG or MEG while it is being recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from ..runtime.command import Parser, program, run_command

PROG = "md-stream"
# A command is one module with `add(commands)`, and one line here.
COMMANDS: tuple[str, ...] = (
    "calibrate",
    "certify",
    "chaos",
    "demo",
    "doctor",
    "export",
    "list",
    "play",
    "repair",
    "replay",
    "run",
    "verify",
)
_EXTRAS = dict.fromkeys(("pylsl", "mne", "starlette", "uvicorn", "websockets", "pyxdf", "mne_bids", "scipy"), "stream")
_EXAMPLE = """
example (offline):
  md-stream demo
"""


def parser() -> Parser:
    """The command line of ``md-stream``."""
    top, commands = program(PROG, __doc__, _EXAMPLE)
    for name in COMMANDS:
        add: Callable[[Any], None] = import_module(f".commands.{name}", __package__).add
        add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run_command(
        PROG,
        parser,
        argv,
        interrupted="the session was closed, its files are whole",
        out_of_memory="close other programs, or give a smaller --memory",
        extras=_EXTRAS,
    )


if __name__ == "__main__":
    sys.exit(main())
