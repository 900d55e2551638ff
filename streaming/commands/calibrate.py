"""md-stream calibrate."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, add_command, count
from ...runtime.locks import beside, locked
from ...runtime.output import check_free, check_place, replacing_folder

_EXAMPLE = """
example (offline, with the trials of training pictures in a session of today):
  md-stream calibrate session-00 --checkpoint checkpoint --bundle bundle --events "train/*" \\
    --table shown.csv --out today
  md-stream run today/bundle --source lsl:name=EEG,markers=Markers
"""
_MARKER = "calibration.json"
_MOST_SHOWN = 8


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "calibrate",
        _calibrate,
        help="fit a decoder's normaliser again, on trials of today",
        description="Fit mean and deviation of the responses again, on trials of training pictures that a session "
        "recorded today, and write a new checkpoint and bundle. The decoders themselves stay as they are.",
        epilog=_EXAMPLE,
    )
    command.add_argument("session", type=Path, metavar="SESSION", help="the session's folder")
    command.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="that was fitted")
    command.add_argument("--bundle", type=Path, metavar="DIR", help="that was made of it")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder, in which checkpoint/ and bundle/ are made"
    )
    command.add_argument(
        "--events",
        nargs="+",
        metavar="PATTERN",
        help="markers of the trials to take (default: the session's events); they should be of pictures as varied as "
        "those of training",
    )
    checked = command.add_mutually_exclusive_group(required=True)
    checked.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="says which markers are of training pictures: the table of md-train prepare recording, or any CSV or TSV "
        "with the columns event and split; other markers are refused by name",
    )
    checked.add_argument(
        "--unchecked", action="store_true", help="take it on trust that all of them are of training pictures"
    )
    command.add_argument("--trials", type=count, metavar="N", help="take the first N (default: all)")
    command.add_argument(
        "--per",
        choices=("channel", "value"),
        default="channel",
        help="estimate an offset and a scale of each channel, or a mean and a deviation of each of its "
        "samples, which takes more trials (default: %(default)s)",
    )


def _calibrate(args: argparse.Namespace) -> int:
    from ...runtime.bundle.open import Bundle
    from ...runtime.decoders.checkpoint import open_checkpoint
    from ...runtime.errors import FileError
    from ...runtime.files import sha256_of, write_json
    from ..calibration.known import read_known
    from ..calibration.statistics import changes, refitted
    from ..calibration.trials import trials_of
    from ..calibration.write import require_bundle_of, write_bundle, write_checkpoint
    from ..recording.opened import open_session
    from ..rerun.recorded import intake_of

    check_free(args.out, "output folder")
    check_place(args.out, beside=True)
    session, checkpoint = open_session(args.session), open_checkpoint(args.checkpoint)
    bundle = None if args.bundle is None else Bundle.open(args.bundle)
    if bundle is not None:
        require_bundle_of(bundle, checkpoint)
    made_with = session.about["about"]
    if "intake" not in made_with:
        raise FileError(f"{session.path} does not say which markers were its events: it was not made by md-stream run")
    settings = intake_of(made_with)
    if args.events:
        settings = replace(settings, events=tuple(args.events))
    known = None if args.table is None else read_known(args.table, args.session.absolute().name)
    trials = trials_of(
        session.signal,
        checkpoint.training,
        checkpoint.folder,
        settings,
        known=known,
        accept_filter_mismatch=bool(made_with.get("accept_filter_mismatch")),
        most=args.trials,
    )
    for reason, n in sorted(trials.refused.items()):
        print(f"{n} not used: {reason}")
    statistics, n_trials = refitted(trials.moments, args.per), trials.moments.n
    changed = changes(checkpoint.training, statistics)
    about = {
        "session": session.id,
        "recorded": session.about["started"],
        "n_trials": n_trials,
        "events": list(settings.events),
        "table": None if args.table is None else sha256_of(args.table),
        "per": args.per,
        "source_checkpoint": checkpoint.hash,
    }
    with locked(beside(args.out), args.out), replacing_folder(args.out, _MARKER) as draft:
        calibrated = write_checkpoint(checkpoint, statistics, about, draft / "checkpoint")
        if bundle is not None:
            write_bundle(bundle, calibrated, draft / "bundle")
        write_json(draft / _MARKER, {**about, "changes": [asdict(change) for change in changed]})
    print(f"fitted on {n_trials} trials of {trials.n_events} events; what changed most:")
    for change in changed[:_MOST_SHOWN]:
        print(f"  {change.channel}: mean by {change.shift:+.2f} deviations of training, deviation x {change.scale:.2f}")
    if len(changed) > _MOST_SHOWN:
        print(f"  and {len(changed) - _MOST_SHOWN} more channels, which changed less")
    print(args.out)
    return DONE
