"""``md-train experiment``: its options, and what they run."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, add_command, count
from ...runtime.errors import InputError
from ..model_options import DEFAULTS
from . import EXPERIMENTS

_EXAMPLE = """
example (offline, on the tiny world that comes with the package):
  md-train simulate fmri --out subject-7 --seed 7
  md-train experiment semantic --data subject-7 --out semantic
  md-train experiment rois --data subject-7 --out rois --n-trials 16
  md-train experiment interpretation --data subject-7 --out interpretation

OUT/report.html is the result: the paper's table with ours beside it, the figure, and what agrees. table.csv, table.md,
table.json and figure.svg hold the same. An experiment that was stopped goes on when the same command is given again;
subjects may be added to it.
"""


def add_experiment(commands: Any) -> None:
    """Add the command."""
    experiment = add_command(
        commands,
        "experiment",
        _experiment,
        help="run one of the paper's experiments",
        description="Fit, reconstruct and measure all that an experiment of the paper compares, and put it together on "
        "one page beside the paper's numbers. Real data work as simulated ones do.",
        epilog=_EXAMPLE,
    )
    experiment.add_argument("name", choices=tuple(EXPERIMENTS), metavar="NAME", help=f"one of {', '.join(EXPERIMENTS)}")
    experiment.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="DATA",
        help="data folders, one per subject; their results are pooled",
    )
    experiment.add_argument(
        "--out", type=Path, required=True, metavar="OUT", help="folder for everything: new, empty, or to be resumed"
    )
    experiment.add_argument(
        "--models", default=DEFAULTS["models"], help="tiny, a model folder, or a hub id (default: %(default)s)"
    )
    experiment.add_argument(
        "--clip", help="open_clip folder, ARCHITECTURE:PRETRAINED or hf-hub:ID (default: the models' own)"
    )
    experiment.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    experiment.add_argument(
        "--stimuli-root",
        type=Path,
        metavar="DIR",
        help="folder of the pictures, for data folders that only name them (default: the one they state)",
    )
    experiment.add_argument(
        "--seed",
        type=_seed,
        nargs="+",
        default=[42],
        metavar="S",
        help="of the start noise; with several, every run is made once for each (default: 42)",
    )
    experiment.add_argument(
        "--n-trials",
        type=count,
        metavar="N",
        help="test pictures of each subject, one trial of each (default: 32; with --full, and of interpretation, all "
        "trials)",
    )
    experiment.add_argument(
        "--full",
        action="store_true",
        help="all trials; stage 2 as by default, with both controls; the paper's decoders of EEG and MEG; of "
        "interpretation all dimensions of the features",
    )
    experiment.add_argument(
        "--surface",
        metavar="fsaverage5|LH,RH",
        help="of interpretation: draw maps of fMRI on this surface too; two files, such as lh.pial,rh.pial, for "
        "volumes that are not in MNI space (default: none)",
    )
    experiment.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for computed features, selections and checkpoints, which several experiments may share, also at "
        "the same time: what one has fitted, another links to (default: OUT/features, and checkpoints of their own)",
    )
    experiment.add_argument(
        "--metrics",
        default="default",
        metavar="NAME,...",
        help="what pictures are compared by: names and groups, as of md-reconstruct run, such as default,standard for "
        "the paper's eight too (default: %(default)s)",
    )
    experiment.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder with the weights of the networks that metrics need; PyTorch's cache is looked through too",
    )
    experiment.add_argument(
        "--download-weights", action="store_true", help="download weights that are in neither (default: do without)"
    )
    experiment.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all)")
    experiment.add_argument(
        "--table-only", action="store_true", help="make nothing, and write the result of the cells that are there"
    )


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give 0 or a positive whole number")
    return int(text)


def _experiment(args: argparse.Namespace) -> int:
    from .figure import require_matplotlib
    from .runner import run_experiment
    from .subject import Plan

    require_matplotlib()
    module, name = EXPERIMENTS[args.name]
    experiment = getattr(import_module(module, __package__), name)
    if args.surface is not None and not experiment.surfaces:
        raise InputError(f"the experiment {args.name} draws nothing on a surface: leave --surface out")
    plan = Plan(
        seeds=tuple(dict.fromkeys(args.seed)),
        n_trials=args.n_trials if args.n_trials is not None or args.full else experiment.n_trials,
        full=args.full,
        models=args.models,
        clip=args.clip,
        device=args.device,
        threads=args.threads,
        stimuli_root=args.stimuli_root,
        cache=args.cache,
        surface=args.surface,
        metrics=args.metrics,
        weights=args.weights,
        download_weights=args.download_weights,
    )
    print(run_experiment(experiment, args.data, args.out, plan, sys.stderr, table_only=args.table_only))
    return DONE
