"""Reconstruct pictures from brain responses: the demonstration, the batch command, and the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .command import DONE, SOME_SKIPPED, Parser, add_command, count, program, run_command
from .demo.signals import FMRI, SIGNALS
from .errors import InputError
from .evaluate.command import add_evaluate
from .evidence.command import add_card
from .judge.command import add_judge, add_judged
from .run.command import add_run

PROG = "md-reconstruct"


def parser() -> Parser:
    """The command line of ``md-reconstruct``."""
    top, commands = program(
        PROG, __doc__, "example (offline, a few minutes on a laptop):\n  md-reconstruct demo --out demo"
    )
    _add_demo(commands)
    add_run(commands)
    _add_report(commands)
    add_evaluate(commands)
    add_card(commands)
    add_judge(commands)
    add_judged(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run_command(
        PROG,
        parser,
        argv,
        interrupted="the same command resumes where it stopped",
        out_of_memory="give a smaller --batch-size, or with --refiner adam --backprop-steps with a small number",
    )


def _add_demo(commands: Any) -> None:
    demo = add_command(
        commands,
        "demo",
        _demo,
        help="pictures from a simulated subject, in a minute",
        description="Reconstruct pictures from the simulated subject that ships with the package, on ONNX Runtime: "
        "stage 1 first, then both stages, with a report. --full simulates, fits, reconstructs, exports and "
        "reconstructs again from the bundle, in a few minutes. What ships is fMRI; EEG and MEG are simulated, fitted "
        "and reconstructed.",
        epilog="example (offline):\n  md-reconstruct demo --out demo\n  md-reconstruct demo --modality eeg --out eeg",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="FOLDER", help="new or empty (default: %(default)s)"
    )
    demo.add_argument(
        "--stimuli", type=Path, metavar="DIR", help="your own pictures, shown to the subject (needs the extra train)"
    )
    demo.add_argument(
        "--modality",
        choices=tuple(SIGNALS),
        default=FMRI,
        help="kind of brain signal; eeg and meg need the extras train and data (default: %(default)s)",
    )
    demo.add_argument("--full", action="store_true", help="the whole path (needs the extra export)")
    full = demo.add_argument_group("with --full, or with --modality eeg or meg")
    full.add_argument("--trials", type=count, metavar="N", help="pictures to reconstruct")
    full.add_argument("--seed", type=int, metavar="S", help="seed of the simulated subject")
    full.add_argument(
        "--subject",
        type=Path,
        metavar="DIR",
        help="where the simulated subject and its decoders are kept for other demonstrations (default: in the user's "
        "cache folder)",
    )


def _add_report(commands: Any) -> None:
    report = add_command(
        commands,
        "report",
        _report,
        help="write the report of a run again",
        description="Write RUN/report.html from what is in the run folder, finished or not.",
        epilog="example (offline):\n  md-reconstruct report demo/run",
    )
    report.add_argument("run", type=Path, metavar="RUN", help="run folder")


def _demo(args: argparse.Namespace) -> int:
    code = _full_demo(args) if args.full or args.modality != FMRI else _quick_demo(args)
    if code in (DONE, SOME_SKIPPED):
        print(args.out / "run" / "report.html")
    return code


def _quick_demo(args: argparse.Namespace) -> int:
    from .demo.quick import run_quick

    given = [f"--{name}" for name in ("trials", "seed", "subject") if getattr(args, name) is not None]
    if given:
        raise InputError(
            f"{', '.join(given)} belong{'s' * (len(given) == 1)} to the whole path, which makes a subject of its own: "
            "give --full too (it needs pip install 'minddiffuser[export]'), or leave out"
        )
    return run_quick(args.out, stimuli=args.stimuli, stream=sys.stderr)


def _full_demo(args: argparse.Namespace) -> int:
    from .demo.full import run_demo, settings_of

    if args.trials is not None and args.stimuli is not None:
        raise InputError("--trials and --stimuli were both given: each picture is a trial, leave --trials out")
    given = {"n_trials": args.trials, "seed": args.seed}
    settings = replace(
        settings_of(args.modality), **{name: value for name, value in given.items() if value is not None}
    )
    return run_demo(
        args.out, settings, exports=args.full, stimuli=args.stimuli, subject=args.subject, stream=sys.stderr
    )


def _report(args: argparse.Namespace) -> int:
    from .report.page import write_report
    from .run.identity import require_run_folder

    require_run_folder(args.run)
    print(write_report(args.run))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
