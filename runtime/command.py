"""What the commands share: a parser that raises, exit codes, and one line instead of a traceback, or after it."""

from __future__ import annotations

import argparse
import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any, NoReturn

from .errors import InputError, MindDiffuserError, MissingExtra

DONE, SOME_SKIPPED, USERS_MISTAKE, INTERRUPTED, READER_GONE = 0, 1, 2, 130, 141


MAX_COUNT = 1_000_000
DEBUG = "--debug"
_WHERE = f"({DEBUG} shows where it happened)"


class Parser(argparse.ArgumentParser):
    """argparse that raises: a mistake is one line, as everywhere else. Every command of it takes `DEBUG`."""

    def __init__(self, *args: Any, **choices: Any) -> None:
        super().__init__(*args, **choices)
        # Nothing is set by default, so that a subcommand does not take back what was given before its name.
        self.add_argument(DEBUG, action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def program(prog: str, description: str | None, epilog: str) -> tuple[Parser, Any]:
    """A command line's parser, and what its commands are added to, by :func:`add_command`."""
    top = Parser(
        prog=prog,
        description=description,
        epilog=epilog.strip("\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"{prog} {version()}")
    return top, top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)


def add_command(commands: Any, name: str, function: Callable[[argparse.Namespace], int], **texts: str) -> Any:
    """Add one command, which `function` runs; returns its parser."""
    made = commands.add_parser(name, formatter_class=argparse.RawDescriptionHelpFormatter, **texts)
    made.set_defaults(function=function)
    return made


def count(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_COUNT:,}")
    return int(text)


def run_command(
    prog: str,
    parser: Callable[[], Parser],
    argv: Sequence[str] | None,
    *,
    interrupted: str,
    out_of_memory: str,
    extras: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run the command that `argv` names, as :func:`guarded` does.

    Parameters
    ----------
    extras : library to the extra that brings it, to be named where it is missing.
    """

    def run() -> int:
        args = parser().parse_args(argv)
        try:
            return int(args.function(args))
        except ModuleNotFoundError as error:
            extra = extras.get(str(error.name).partition(".")[0])
            if extra is None:
                raise
            raise MissingExtra(f"this needs {error.name}: pip install 'minddiffuser[{extra}]'") from error

    return guarded(prog, run, interrupted=interrupted, out_of_memory=out_of_memory, argv=argv)


def guarded(
    prog: str,
    command: Callable[[], int],
    *,
    interrupted: str,
    out_of_memory: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run `command` and return its exit code; what the user can fix becomes one line on standard error.

    Parameters
    ----------
    prog : the command's name, which starts the line.
    interrupted, out_of_memory : what to do then, to follow the words "interrupted: " and "out of memory: ".
    argv : the arguments, None for the process's own. `DEBUG` among them puts the traceback before the line.
    """
    try:
        code = command()
        if sys.stdout is not None:  # closed before the command began
            sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return READER_GONE
        line, code = _explained(error, interrupted=interrupted, out_of_memory=out_of_memory)
        if line is None:
            raise
        if DEBUG in (sys.argv[1:] if argv is None else argv):
            traceback.print_exception(error, file=sys.stderr)
        return tell(prog, line, code)


def _explained(error: BaseException, *, interrupted: str, out_of_memory: str) -> tuple[str | None, int]:
    """One line and the exit code for what the user can fix; no line for a fault of the program."""
    if isinstance(error, MindDiffuserError):
        return str(error), USERS_MISTAKE
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted: {interrupted}", INTERRUPTED
    if isinstance(error, OSError):  # of the system, and perhaps a fault of ours: nobody has explained it
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}: fix that and run the same command again {_WHERE}", USERS_MISTAKE
    if is_out_of_memory(error):
        return f"out of memory: {out_of_memory} {_WHERE}", USERS_MISTAKE
    return None, USERS_MISTAKE


def _reader_is_gone() -> bool:
    """Whether it is the standard output that broke: its reader has ended, as `head` does."""
    if sys.stdout is None or not hasattr(select, "poll"):
        return False
    try:
        output = sys.stdout.fileno()
    except OSError:  # a program that runs the command has put something else there
        return False
    watch = select.poll()
    watch.register(output, 0)
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in watch.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # or Python complains when it ends
    return True


def tell(prog: str, message: str, code: int) -> int:
    """Write one line to standard error and give `code` back."""
    sys.stderr.write(f"{prog}: {' '.join(message.split())}\n")
    return code


def is_out_of_memory(error: BaseException) -> bool:
    """Whether numpy, the system, PyTorch (CPU or GPU) or ONNX Runtime had no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text, kind = str(error), type(error)
    # ONNX Runtime's errors share no base class but Exception.
    known = isinstance(error, RuntimeError) or kind.__module__.startswith("onnxruntime")
    words = ("can't allocate memory", "not enough memory", "out of memory", "Failed to allocate memory", "bad_alloc")
    return known and any(part in text for part in words)


def version() -> str:
    """The installed version of MindDiffuser."""
    try:
        return metadata.version("minddiffuser")
    except metadata.PackageNotFoundError:
        return "unknown"
