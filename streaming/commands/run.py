"""md-stream run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.command import DONE, SOME_SKIPPED, add_command, count
from ...runtime.engines.here import BACKENDS
from ...runtime.engines.trust import trust_list
from ...runtime.errors import InputError
from ...runtime.sampling import SAMPLINGS
from .options import seconds

if TYPE_CHECKING:
    from ..session.live import Ended

_EXAMPLE = """
example (offline, with the session that the package ships):
  md-stream demo

with an amplifier on the network:
  md-stream list
  md-stream run bundle --source lsl:name=EEG,markers=Markers --events "stim/*" --deadline 2s --record session-01

exit codes: 0 the source has ended, 1 acquisition had a fault of its own, 2 an error that you can fix, 130 interrupted.
"""
# Threads that decode and draw yield to acquisition by this much.
_NICENESS = 5


def add(commands: Any) -> None:
    """Add the command."""
    run = add_command(
        commands,
        "run",
        _run,
        help="decode a live signal and draw what was seen",
        description="Receive EEG or MEG and markers, decode every event's epoch with BUNDLE, and draw pictures. These "
        "are generated: they show what the decoder and the generator make of the signal.",
        epilog=_EXAMPLE,
    )
    run.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="bundle of md-export bundle, or a checkpoint of md-train fit"
    )
    run.add_argument(
        "--source",
        required=True,
        metavar="KIND:…",
        help="lsl:name=EEG,markers=Markers (see md-stream list), or replay:FILE (a session, XDF, or what MNE reads)",
    )
    run.add_argument(
        "--events",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help='markers that are events, with * and ? as in file names, such as "stim/*" (default: all)',
    )
    run.add_argument(
        "--concepts",
        type=Path,
        metavar="FILE",
        help="says which concept each marker is of, for the control beside the pictures, where markers do not name it "
        "(numbers): CSV or TSV with the columns event and concept, as md-train prepare recording takes it",
    )
    run.add_argument("--record", type=Path, metavar="DIR", help="write the session into this new folder")
    run.add_argument(
        "--dashboard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the session on a page of this machine (default: %(default)s)",
    )
    run.add_argument("--port", type=int, default=0, help="of the dashboard (default: a free one)")
    run.add_argument("--outlet", metavar="NAME", help="send the results as an LSL stream of this name")
    _add_pictures(run)
    _add_signal(run)
    _add_computing(run)


def _add_pictures(run: Any) -> None:
    pictures = run.add_argument_group("pictures")
    pictures.add_argument(
        "--deadline",
        type=seconds,
        metavar="TIME",
        help="such as 2s or 800ms: from an epoch's end to its picture; steps and candidates are chosen by what they "
        "cost on this machine, and the picture goes on growing while nothing newer waits",
    )
    pictures.add_argument(
        "--average-by",
        choices=("event",),
        help="decode the growing mean over the epochs of an event, not each epoch",
    )
    pictures.add_argument(
        "--stage",
        type=int,
        choices=(0, 1, 2),
        default=2,
        help="0: decode only; 1: the first picture; 2: refine it (default: %(default)s)",
    )
    pictures.add_argument(
        "--preset",
        choices=("default", "single"),
        default="default",
        help="of stage 2: several start noises, or one and fewer steps (default: %(default)s)",
    )
    pictures.add_argument(
        "--stage1",
        choices=tuple(SAMPLINGS),
        default="published",
        help="how stage 1 samples, where the deadline leaves the time (default: %(default)s)",
    )
    pictures.add_argument("--seed", type=int, default=42, help="of the start noise (default: %(default)s)")
    pictures.add_argument(
        "--session",
        metavar="ID",
        help="the session's name, on which the noise depends too (default: the folder's, or the time)",
    )


def _add_signal(run: Any) -> None:
    signal = run.add_argument_group("signal")
    signal.add_argument("--unit", help="of every channel, where the source declares none or a wrong one, such as uV")
    signal.add_argument(
        "--accept-filter-mismatch",
        action="store_true",
        help="run although the filters cannot be those of training: zero-phase ones run forward only, another rate is "
        "resampled",
    )
    signal.add_argument(
        "--timeout", type=seconds, default=10.0, metavar="TIME", help="to look for the source (default: 10s)"
    )
    signal.add_argument(
        "--late", type=seconds, default=10.0, metavar="TIME", help="how late a marker may come (default: 10s)"
    )
    signal.add_argument(
        "--gap",
        type=seconds,
        metavar="TIME",
        help="by how much a sample's stamp may be off before the signal counts as interrupted (default: by its jitter)",
    )
    signal.add_argument(
        "--max-uncertainty",
        type=seconds,
        default=0.005,
        metavar="TIME",
        help="of the clocks: events whose time is less certain are refused (default: 5ms)",
    )


def _add_computing(run: Any) -> None:
    computing = run.add_argument_group("what computes")
    computing.add_argument("--backend", choices=("auto", *BACKENDS, "pytorch"), help="of a bundle (default: auto)")
    computing.add_argument("--precision", choices=("auto", "fp32", "fp16", "bf16", "int8"), help="of its engines")
    computing.add_argument("--memory", choices=("fast", "low"), help="on the CPU: low keeps one copy of the weights")
    computing.add_argument(
        "--trust-plans", action="store_true", help="run a bundle's TensorRT plans; see md-export trust"
    )
    computing.add_argument("--models", help="of a checkpoint: tiny, a model folder, or a hub id (default: tiny)")
    computing.add_argument(
        "--device",
        nargs="+",
        default=["auto"],
        metavar="NAME",
        help="of PyTorch; of several, such as cuda:0 cuda:1, the first decodes and each draws (default: auto)",
    )
    computing.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all usable cores)")


def _run(args: argparse.Namespace) -> int:
    from ..session.run import run_session

    return closed(run_session(_request(args), out=out, say=say))


def closed(ended: Ended) -> int:
    """Say how a session ended, and give the exit code.

    Raises
    ------
    InputError, KeyboardInterrupt
        Acquisition had a fault that the user can fix; it was interrupted.
    """
    out(f"{ended.totals}")
    for name, spent in ended.summary["seconds"].items():
        figures = ", ".join(f"{key} {1000 * spent[key]:.1f}" for key in ("p50", "p95", "p99", "max"))
        say(f"{name}: {figures} ms (n = {spent['n']:.0f})")
    if ended.interrupted:
        raise KeyboardInterrupt
    if ended.fault and ended.users:
        raise InputError(ended.fault)
    return SOME_SKIPPED if ended.fault else DONE


def _request(args: argparse.Namespace) -> Any:
    from ...runtime.backends.base import Options
    from ..intake.settings import IntakeSettings
    from ..session.run import Request

    names = ("models", "backend", "precision", "memory", "threads", "trust_plans")
    return Request(
        bundle=args.bundle,
        source=args.source,
        intake=IntakeSettings(
            events=tuple(args.events),
            gap=args.gap,
            late=args.late,
            max_uncertainty=args.max_uncertainty,
            unit=args.unit,
        ),
        accept_filter_mismatch=args.accept_filter_mismatch,
        timeout=args.timeout,
        options=Options(
            **{name: getattr(args, name) for name in names},
            device=args.device[0],
            share_threads=True,
            trust_list=trust_list(os.environ),
        ),
        devices=tuple(args.device),
        stage=args.stage,
        preset=args.preset,
        sampling=SAMPLINGS[args.stage1],
        deadline=args.deadline,
        average=args.average_by is not None,
        seed=args.seed,
        concepts=args.concepts,
        record=args.record,
        session=args.session,
        dashboard=args.dashboard,
        port=args.port,
        outlet=args.outlet,
        niceness=_NICENESS,
    )


def out(line: str) -> None:
    """A line of results."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """A line about what happens."""
    sys.stderr.write(f"md-stream: {line}\n")
    sys.stderr.flush()
