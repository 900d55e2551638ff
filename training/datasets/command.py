"""``md-train prepare``: a data folder from the files of a data set."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, Parser, add_command, count
from ...runtime.data.schema import SPLITS
from . import READERS
from .prepare import PrepareSettings, prepare
from .reader import DataSet, data_set

_COMMON = {"function", "command", "data_set", "source", "out", "memory", "image_size", "force", "debug"}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_RESUME = """
To resume a preparation that was stopped, run the same command again. Until it is done, what was read is kept in
DATA.work beside DATA.
"""


def add_prepare(commands: Any) -> None:
    """Add the command and one command of its own for each data set."""
    examples = "".join(data_set(name).example for name in READERS)
    top = commands.add_parser(
        "prepare",
        help="make a data folder of a data set's files",
        description="Read the files of one subject and write a data folder.",
        epilog=f"examples (offline, on miniatures in the same files):\n{examples}{_RESUME}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = top.add_subparsers(dest="data_set", required=True, metavar="NAME", parser_class=Parser)
    for name in READERS:
        _add_data_set(names, name, data_set(name))


def _add_data_set(names: Any, name: str, found: DataSet) -> None:
    command = add_command(
        names,
        name,
        _prepare,
        help=found.help,
        description=found.description,
        epilog=f"example (offline, on a miniature in the same files):\n{found.example}{_RESUME}",
    )
    command.add_argument("source", type=Path, metavar="SOURCE", help="folder of the data set's files")
    command.add_argument("--subject", type=count, required=True, metavar="N", help="which subject, from 1")
    command.add_argument("--out", type=Path, required=True, metavar="DATA", help="data folder to write")
    command.add_argument(
        "--image-size",
        type=count,
        default=512,
        metavar="PX",
        help="side of the pictures as the models see them (default: %(default)s, Stable Diffusion 1.4; tiny world: 64)",
    )
    for split in SPLITS:
        command.add_argument(
            f"--{split}-trials",
            choices=("mean", "single"),
            default="mean" if split in found.averages else "single",
            help=f"whether the {split} split has the mean of a picture's repetitions or single trials "
            "(default: %(default)s)",
        )
    command.add_argument(
        "--memory", type=_bytes, default="2GB", metavar="SIZE", help="memory for responses (default: %(default)s)"
    )
    command.add_argument("--force", action="store_true", help="replace an existing data folder")
    found.add_options(command)


def _prepare(args: argparse.Namespace) -> int:
    from ...runtime.data.destination import check_target
    from ...runtime.progress import Phases

    check_target(args.out, replace=args.force)
    given = {name: value for name, value in vars(args).items() if name not in _COMMON}
    averages = tuple(split for split in SPLITS if given.pop(f"{split}_trials") == "mean")
    settings = PrepareSettings(averages=averages, image_size=args.image_size, memory=args.memory)
    # No more than a quarter for what a reader holds: blocks are copied when they are screened and kept.
    reader = data_set(args.data_set).open(args.source, memory=args.memory // 4, **given)
    with Phases() as progress:
        data, report = prepare(args.data_set, reader, args.out, settings, replace=args.force, progress=progress)
    print(report.text(data))
    print(data.folder)
    return DONE


def _bytes(text: str) -> int:
    """An amount of memory: "2GB", "500M"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    size = 0 if match is None else int(float(match[1]) * _UNITS[match[2]])
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory: give one such as 2GB or 500MB")
    return size
