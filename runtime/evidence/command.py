"""``md-reconstruct card``: the evidence of several runs on one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..command import DONE, add_command
from ..files import write_bytes, write_json
from ..output import check_output
from ..report.evidence import card_page
from .several import card_of, read_groups
from .tables import csv_of, markdown_of

NAME = "card.json"
_EXAMPLE = """
example (offline):
  md-reconstruct demo --out demo
  md-reconstruct card demo/run --out card

over seeds, single trials beside averages:
  md-reconstruct card --label single=one --label single=two --label averaged=three --out card
"""


def add_card(commands: Any) -> None:
    """Add the command."""
    card = add_command(
        commands,
        "card",
        run_card,
        help="the evidence of several runs on one page",
        description="Put the evidence of runs together: each metric on a line from floor to ceiling, with intervals "
        "over pictures and over seeds. Writes card.html, card.json, card.md and card.csv.",
        epilog=_EXAMPLE,
    )
    card.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="run folders; those of single trials and of averages, and of one split and another, make groups",
    )
    card.add_argument(
        "--label",
        action="append",
        default=[],
        type=_labelled,
        metavar="NAME=RUN",
        help="a run of the group NAME; repeatable, runs of one name are the seeds or subjects of one group",
    )
    card.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder: new, empty, or of a card")
    card.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the bootstrap (default: %(default)s)")


def run_card(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    check_output(args.out, what="folder of a card", marker=NAME, kind="card")
    card = card_of(read_groups(args.label, args.runs), seed=args.seed)
    write_bytes(args.out / "card.html", card_page(card).encode(errors="replace"))
    write_bytes(args.out / "card.md", markdown_of(card).encode(errors="replace"))
    write_bytes(args.out / "card.csv", csv_of(card).encode(errors="replace"))
    write_json(args.out / NAME, card)
    print(args.out / "card.html")
    return DONE


def _labelled(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name.strip() or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is no labelled run: give NAME=RUN, such as single=runs/one")
    return name.strip(), Path(folder)
