"""Every refiner of stage 2 and its rivals in one table: structure, meaning, cost and time, against stage 1.

python benchmarks/refiners.py --out DIR --seed S [S ...] [--brain clip|gabor] [--trials 128] [--heavy-trials 32]
                              [--refiners a,b] [--variant single@step_size=0.1] [--conditions decoded,shuffled,oracle]
                              [--table-only] [--json FILE] [--figure FILE.svg] [--threads 1]
python benchmarks/refiners.py --out DIR --subject DATA CHECKPOINT …     a subject that is there already
python benchmarks/refiners.py --out DIR --seed S --time                 seconds and costs against the paper's setting

Each seed is a subject of the tiny world: simulated, fitted with the defaults, and kept in DIR. Pictures are kept too,
batch by batch: the same command goes on where it was stopped, and refuses pictures of other settings. Differences are
paired over trials, with 95 % intervals from a bootstrap over the pictures of all subjects. Refiners that go through all
denoising steps at each update get the first --heavy-trials, on which a second table gives everything.

Costs are floating-point operations over those of one UNet forward pass, of a refiner beside stage 1.

Rivals have the settings that did best on the first 32 test trials of two tuning subjects, seed 1 (--brain clip) and
seed 5 (gabor): most PixCorr among those that lose at most a sixteenth of the trials' concepts against stage 1 (0.528,
0.891). mpgd has the step size of no-jacobian. PixCorr / concept there, means of both subjects:
raw-scale, scale (share of guided steps 1)     30: 0.561 / 0.89    100: 0.583 / 0.86, taken    200: 0.577 / 0.89
                                               400: 0.560 / 0.83    100 with share 0.5: 0.578 / 0.86
start-noise, learning rate                     5 (ReNO's own): 0.632 / 0.78    15: 0.624 / 0.83    50: 0.625 / 0.81
                                               100: 0.641 / 0.86, taken    200: 0.639 / 0.81
no-jacobian, step size                         0.06: 0.653 / 0.84, taken    0.1: 0.652 / 0.88    0.15: 0.651 / 0.83
                                               0.25: 0.648 / 0.83    0.4: 0.649 / 0.83    0.6: 0.640 / 0.81
mpgd, step size                                0.06: 0.559 / 0.88    0.1: 0.551 / 0.86    0.15: 0.542 / 0.83
                                               0.25: 0.539 / 0.67    0.4: 0.551 / 0.42    0.6: 0.544 / 0.36
final-latent, learning rate                    0.003: 0.541 / 0.86    0.01 (the paper's): 0.558 / 0.86, taken
                                               0.03: 0.571 / 0.62    0.1: 0.577 / 0.31
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from refiner_contestants import STAGE1, at_equal_cost, chosen, contestants
from refiner_front import Mark, front
from refiner_measure import Measure, pooled_ids, results
from refiner_runs import (
    CONDITIONS,
    DECODED,
    NONE,
    SHUFFLED,
    Place,
    Plan,
    Subject,
    check,
    given,
    make,
    open_subject,
    simulated,
)
from refiner_table import Row, as_json, rows_of, text
from refiner_times import time_refiners

from minddiffuser.runtime.command import Parser, count, guarded
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.files import write_bytes, write_json
from minddiffuser.training.simulate.brains import BRAINS, DEFAULT_BRAIN

# Of the figure: structure across, meaning upwards.
AXES = ("pixcorr", "concept_top1")
PROG = "refiners.py"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parser() -> Parser:
    top = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    top.add_argument("--out", type=Path, required=True, metavar="DIR", help="subjects and pictures, kept and resumed")
    top.add_argument("--seed", type=int, nargs="+", default=[], metavar="S", help="subjects to simulate")
    top.add_argument("--brain", choices=tuple(BRAINS), default=DEFAULT_BRAIN, help="what drives their voxels")
    top.add_argument("--subject", type=Path, nargs=2, action="append", default=[], metavar=("DATA", "CHECKPOINT"))
    top.add_argument("--models", default="tiny", help="model folder of given subjects (default: %(default)s)")
    top.add_argument("--trials", type=int, default=128, metavar="N", help="test trials (default: %(default)s)")
    top.add_argument("--heavy-trials", type=int, default=32, metavar="N", help="of the slowest (default: %(default)s)")
    top.add_argument("--refiners", type=_names, metavar="A,B", help="which of them; stage 1 is always there")
    top.add_argument("--variant", action="append", default=[], metavar="REFINER@SETTING=VALUE")
    top.add_argument("--conditions", type=_names, default=list(CONDITIONS), metavar="A,B", help="kinds of target")
    top.add_argument("--threads", type=count, default=1, metavar="N", help="CPU threads (default: %(default)s)")
    top.add_argument("--table-only", action="store_true", help="make no pictures, measure those that are there")
    top.add_argument("--json", type=Path, metavar="FILE", help="write the numbers for programs")
    top.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw structure against meaning")
    top.add_argument("--time", action="store_true", help="time paper, default and single in turn on one batch")
    top.add_argument("--repeats", type=count, default=3, metavar="N", help="turns of --time (default: %(default)s)")
    return top


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def places(args: argparse.Namespace) -> Iterator[Place]:
    """The subjects' folders, each once, made where they are not there."""
    for seed in dict.fromkeys(args.seed):
        yield simulated(args.out, args.brain, seed, threads=args.threads, say=say)
    for folders in dict.fromkeys(map(tuple, args.subject)):
        yield given(args.out, *folders)


def check_names(args: argparse.Namespace) -> None:
    """Refuse what cannot be used before a subject is made, which takes minutes.

    Raises
    ------
    InputError
    """
    if not args.seed and not args.subject:
        raise InputError("no subject was given: give --seed, or --subject with a data folder and a checkpoint")
    unknown = [name for name in args.conditions if name not in CONDITIONS]
    if unknown or not args.conditions:
        raise InputError(f"--conditions is {','.join(args.conditions)!r}: choose among {', '.join(CONDITIONS)}")
    if args.heavy_trials < 2:
        raise InputError(f"--heavy-trials is {args.heavy_trials}: give 2 or more")
    chosen(contestants(), args.refiners, args.variant)


def plan_of(args: argparse.Namespace, subject: Subject) -> Plan:
    known = at_equal_cost(contestants(), subject.backend.costs, subject.sampling)
    return Plan(
        contestants=chosen(known, args.refiners, args.variant),
        conditions=args.conditions,
        n_trials=args.trials,
        n_heavy=args.heavy_trials,
    )


def tables(subjects: Sequence[Subject], measures: Sequence[Measure], plan: Plan) -> dict[int, list[Row]]:
    """Rows by the number of trials: all of them, and as many as the heavy refiners have."""
    sizes = [plan.n_trials]
    if any(contestant.heavy for contestant in plan.contestants) and plan.n_heavy < plan.n_trials:
        sizes.append(plan.n_heavy)
    found = {}
    for n, each in results(subjects, measures, plan, sizes, say).items():
        ids = pooled_ids(subjects, n)
        found[n] = rows_of(each, ids, reference=STAGE1, decoded=DECODED, shuffled=SHUFFLED)
    return found


def figure(found: Mapping[int, Sequence[Row]], plan: Plan) -> str:
    """Structure against meaning for decoded targets, each refiner on as many trials as it has.

    Parameters
    ----------
    found
        Rows by the number of trials, the largest first.
    """
    settings = {each.name: each.settings.as_dict() for each in plan.contestants if each.settings is not None}
    shown: dict[str, tuple[str, Row]] = {}
    for n, rows in found.items():
        for row in rows:
            if row.condition in (DECODED, NONE) and row.name != STAGE1:
                label = row.label if n == plan.n_trials else f"{row.label}, {n} trials"
                shown.setdefault(row.name, (label, row))
    if not shown or any(metric not in row.means for _, row in shown.values() for metric in AXES):
        raise InputError(
            f"the figure needs {' and '.join(AXES)} of decoded targets, and these pictures have not both: leave "
            "--figure out, or give --conditions decoded and models with a classifier"
        )
    marks = [
        Mark(
            label=label,
            x=_with_interval(row, AXES[0]),
            y=_with_interval(row, AXES[1]),
            settings=settings[name],
        )
        for name, (label, row) in shown.items()
    ]
    return front(marks, x="PixCorr, minus stage 1", y="concept, minus stage 1")


def _with_interval(row: Row, metric: str) -> tuple[float, float, float]:
    change = row.against_stage1[metric]
    low, high = change["ci95"] or (change["difference"], change["difference"])
    return change["difference"], low, high


def report(args: argparse.Namespace, subjects: Sequence[Subject], plan: Plan) -> dict[str, Any]:
    """Print the tables, write the figure, and give everything as JSON."""
    measures = [Measure(subject) for subject in subjects]
    found = tables(subjects, measures, plan)
    names = ", ".join(subject.place.name for subject in subjects)
    for n, rows in found.items():
        each = f"the first {n} trials" if n < plan.n_trials else f"{n} trials"
        print(text(rows, f"{names}: {each} each", reference=STAGE1), end="\n\n")
    for note in dict.fromkeys(note for measure in measures for note in measure.notes):
        print(note)
    if args.figure is not None:
        write_bytes(args.figure, figure(found, plan).encode())
    return {
        "subjects": [subject.place.name for subject in subjects],
        "tables": [{"n_trials": n, "rows": [as_json(row) for row in rows]} for n, rows in found.items()],
        "settings": {
            contestant.name: None if contestant.settings is None else contestant.settings.as_dict()
            for contestant in plan.contestants
        },
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    check_names(args)
    torch.set_num_threads(args.threads)
    opened = (open_subject(place, args.trials, models=args.models, threads=args.threads) for place in places(args))
    if args.time:
        if len(args.seed) + len(args.subject) > 1:
            say("--time takes one subject: the others are left out")
        return time_refiners(next(opened), repeats=args.repeats, say=say)
    subjects = list(opened)
    plan = plan_of(args, subjects[0])
    for subject in subjects:
        check(subject, plan)
    if not args.table_only:
        for subject in subjects:
            make(subject, plan, say)
    return report(args, subjects, plan)


def main(argv: Sequence[str] | None = None) -> int:
    def command() -> int:
        args = parser().parse_args(argv)
        found = run(args)
        if args.json is not None:
            write_json(args.json, found)
        return 0

    return guarded(
        PROG,
        command,
        interrupted="the same command goes on from here",
        out_of_memory="close other programs, and run the same command again",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
