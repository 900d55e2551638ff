"""``md-reconstruct run``: reconstruct many trials, resumable."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ..command import DONE, SOME_SKIPPED, add_command, tell
from ..engines.trust import trust_list
from ..sampling import SAMPLINGS
from ..split import NOT_HELD_OUT
from .choose import LEFT_OUT
from .options import add_options, refinement

_EXAMPLE = """
example (offline, on the tiny world that comes with the package):
  md-train simulate fmri --out data --seed 7
  md-train fit data --models tiny --out checkpoint
  md-reconstruct run checkpoint data --models tiny --out run

a run that was stopped goes on when the same command is given again.
exit codes: 0 done, 1 done but some trials were skipped or failed (the report names them), 2 an error that you can
fix, 130 interrupted, 141 the output pipe was closed.
"""


def add_run(commands: Any) -> None:
    """Add the command."""
    run = add_command(
        commands,
        "run",
        run_trials,
        help="reconstruct many trials, resumable",
        description="Reconstruct every trial of RESPONSES in two stages, measure the pictures, write a report.",
        epilog=_EXAMPLE,
    )
    add_options(run)


def run_trials(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from ..backends.base import Options
    from .ablation import without
    from .execute import run_job
    from .job import Job
    from .reconstruct import ReconstructSettings

    options = ("models", "clip", "device", "dtype", "checkpointing", "backend", "precision", "memory", "threads")
    job = Job(
        checkpoint=args.checkpoint,
        responses=args.responses,
        out=args.out,
        options=Options(
            **{name: getattr(args, name) for name in options},
            share_threads=True,
            gpu_memory_mib=args.gpu_memory,
            engine_cache=args.engine_cache,
            trust_plans=args.trust_plans,
            trust_list=trust_list(os.environ),
        ),
        stimuli=args.stimuli,
        stimuli_root=args.stimuli_root,
        trial_ids=args.trial_ids,
        train_data=args.train_data,
        skip_trials=tuple(args.skip_trials),
        settings=without(
            ReconstructSettings(
                stage=args.stage,
                controls=args.controls,
                refine=refinement(args),
                sampling=SAMPLINGS[args.stage1],
                percent=args.percent,
            ),
            args.without,
        ),
        batch_size=args.batch_size,
        metrics=(args.metrics,),
        weights=args.weights,
        download_weights=args.download_weights,
        notes=tuple(args.note),
    )
    outcome, report = run_job(job, sys.stderr)
    print(report)
    skipped = sum(reason not in (LEFT_OUT, NOT_HELD_OUT) for reason in outcome.skipped.values())
    failed = len(outcome.failures())
    if not skipped and not failed:
        return DONE
    counts = [f"{skipped} skipped"] if skipped else []
    counts += [f"{failed} failed"] if failed else []
    n_all = len(outcome.trials) + len(outcome.lost) + len(outcome.skipped)
    return tell("md-reconstruct", f"of {n_all} trials, {' and '.join(counts)}: see {report}", SOME_SKIPPED)
