"""``md-reconstruct evaluate``: its options, and what they run."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..command import DONE, add_command
from ..errors import InputError
from ..locks import inside, locked
from ..metrics import Metric
from ..metrics.permutation import N_PERMUTATIONS
from ..metrics.select import select
from ..progress import Phases

_EXAMPLE = """
examples (offline):
  md-reconstruct demo --out demo
  md-reconstruct evaluate demo/run
  md-reconstruct evaluate demo/run/images/stage1 demo/run/images/stage2 --stimuli demo/run/stimuli --out scores

an evaluation with --out that was stopped goes on when the same command is given again.
"""


def add_evaluate(commands: Any) -> None:
    """Add the command."""
    evaluate = add_command(
        commands,
        "evaluate",
        _evaluate,
        help="score pictures, of a run or of any other tool, against stimuli",
        description="Score any pictures against any stimuli: each metric with its 95 %% bootstrap interval over "
        "pictures and a permutation p-value, and paired differences between several folders.",
        epilog=_EXAMPLE,
    )
    evaluate.add_argument(
        "pictures",
        type=Path,
        nargs="+",
        metavar="PICTURES",
        help="a run folder (each kind of picture in it is scored); a folder of pictures, named as the stimuli are, or "
        "with a folder per stimulus; or an array of pictures (.npy, .npz, .safetensors, .pt, .h5). Several: a row each",
    )
    evaluate.add_argument(
        "--stimuli", type=Path, metavar="DIR", help="the stimuli: a folder of pictures or an array (default: the run's)"
    )
    evaluate.add_argument(
        "--metrics",
        type=_metrics,
        default="default",
        metavar="NAME,...",
        help="metrics and groups of them, as of md-reconstruct run. default: needs no other weights; standard: the "
        "eight of most published tables; all (default: %(default)s)",
    )
    evaluate.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the tables: new, empty, or an evaluation's"
    )
    evaluate.add_argument(
        "--against",
        default="FIRST",
        metavar="ROW",
        help="the row that the others are compared with, by its name in the table; none: no comparison (default: the "
        "first)",
    )
    evaluate.add_argument("--by-order", action="store_true", help="match pictures with stimuli by order, not by name")
    evaluate.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave out what has no counterpart or cannot be read; it is listed",
    )
    evaluate.add_argument(
        "--permutations",
        type=_permutations,
        default=N_PERMUTATIONS,
        metavar="N",
        help="the most permutations of a test; 0: no tests (default: %(default)s)",
    )
    evaluate.add_argument(
        "--seed", type=int, metavar="S", help="seed of intervals and permutations (default: the run's, or 0)"
    )
    networks = evaluate.add_argument_group("networks")
    networks.add_argument("--weights", type=Path, metavar="DIR", help="folder with the weights of published networks")
    networks.add_argument(
        "--download-weights", action="store_true", help="download weights that are in no folder and in no cache"
    )
    networks.add_argument(
        "--models",
        help="tiny, a model folder or a hub id, whose own CLIP, classifier and locator some metrics need (default: the "
        "run's)",
    )
    networks.add_argument("--clip", help="as of md-reconstruct run")
    networks.add_argument(
        "--captions", type=Path, metavar="FILE", help="JSON of what the stimuli show: {name: caption or captions}"
    )
    networks.add_argument("--device", default="cpu", help="PyTorch's device: cpu, cuda or mps (default: %(default)s)")


def _evaluate(args: argparse.Namespace) -> int:
    from .evaluate import EvaluateSettings, evaluate
    from .given import Networks
    from .output import begin, check_folder, finish
    from .table import text

    settings = EvaluateSettings(
        metrics=args.metrics,
        by_order=args.by_order,
        allow_missing=args.allow_missing,
        against=args.against,
        seed=args.seed,
        n_permutations=args.permutations,
        networks=Networks(
            models=args.models,
            clip=args.clip,
            device=args.device,
            weights=args.weights,
            download=args.download_weights,
            captions=args.captions,
        ),
    )
    with ExitStack() as stack:
        if args.out is not None:
            check_folder(args.out, [*args.pictures, *([] if args.stimuli is None else [args.stimuli])])
            stack.enter_context(locked(inside(args.out), args.out))
            begin(args.out)
        with Phases() as progress:
            content = evaluate(args.pictures, args.stimuli, settings, kept=args.out, on_progress=progress)
        for note in content["notes"]:
            sys.stderr.write(f"md-reconstruct: {note}\n")
        if args.out is not None:
            finish(args.out, {**content, "command": _typed(args)})
        print(text(content), end="")
        if args.out is not None:
            print(args.out / "table.md")
    return DONE


def _typed(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked, as JSON."""
    asked = {name: value for name, value in vars(args).items() if name not in ("function", "command", "debug")}
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in asked.items()}
    return {
        **shown,
        "pictures": [str(path) for path in args.pictures],
        "metrics": [metric.name for metric in args.metrics],
    }


def _metrics(text: str) -> tuple[Metric, ...]:
    try:
        return select(text)
    except InputError as error:  # argparse would only say that the value is invalid
        raise argparse.ArgumentTypeError(str(error)) from None


def _permutations(text: str) -> int:
    if not text.isdecimal() or int(text) > 10_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 10,000,000")
    return int(text)
