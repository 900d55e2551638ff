"""md-stream chaos: a recorded session once more, with faults on purpose."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, SOME_SKIPPED, add_command
from ...runtime.errors import FileError, InputError, shown

_EXAMPLE = """
example (offline), of a session that md-stream run --record has written:
  md-stream chaos session-01 --seed 7

of any recording, with epochs of its own:
  md-stream chaos recording.vhdr --seed 7 --faults pause step doubled

exit codes: 0 it held, 1 it did not or nothing could be tested, 2 an error that you can fix.
"""
_MOST_SEED = 2**63


def add(commands: Any) -> None:
    """Add the command."""
    from ..chaos.faults import FAULTS

    chaos = add_command(
        commands,
        "chaos",
        _chaos,
        help="replay a recording with faults on purpose, and check what came out",
        description="Give a recording to the live path once as it is and once with faults that a seed chooses. Every "
        "epoch that is accepted under faults has to be, to the bit, what the undisturbed samples give; every marker "
        "and sample has to be accounted for; and where no fault is near, nothing may be refused. Then run a whole "
        "session on it, with faults of its own parts too: a decoder that is slow, raises or gives NaN, a disk that is "
        "full or hangs, a browser that never reads.",
        epilog=f"{_EXAMPLE}\nkinds of faults:\n"
        + "\n".join(f"  {name:<15} {kind.what}" for name, kind in FAULTS.items()),
    )
    chaos.add_argument(
        "recording", type=Path, metavar="SESSION|FILE", help="a session's folder, XDF, or what MNE reads"
    )
    chaos.add_argument("--seed", type=_seed, default=0, help="of the faults (default: %(default)s)")
    chaos.add_argument("--faults", nargs="+", choices=FAULTS, metavar="KIND", help="of these kinds only (see below)")
    chaos.add_argument("--json", action="store_true", help="print the report as JSON")
    signal = chaos.add_argument_group("signal, of a file")
    signal.add_argument("--bundle", type=Path, metavar="DIR", help="with the signal chain of this bundle or checkpoint")
    signal.add_argument("--modality", choices=("eeg", "meg"), default="eeg", help="(default: %(default)s)")
    signal.add_argument(
        "--events", nargs="+", default=(), metavar="PATTERN", help="markers that are events (default: all)"
    )
    signal.add_argument("--unit", help="of every channel, where the file does not say, such as uV")
    signal.add_argument(
        "--tmin", type=float, default=-0.2, metavar="S", help="where no bundle is given (default: -0.2)"
    )
    signal.add_argument("--tmax", type=float, default=0.8, metavar="S", help="where no bundle is given (default: 0.8)")


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= _MOST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give a whole number from 0")
    return int(text)


def _chaos(args: argparse.Namespace) -> int:
    from ..chaos.faults import FAULTS
    from ..chaos.plan import plan
    from ..chaos.report import lines
    from ..chaos.run import suffer
    from ..chaos.session import Given, endure

    steps, info, chain, settings, files = _of_session(args) if args.recording.is_dir() else _of_file(args)
    last = steps[-1].now - steps[0].now if steps else 0.0
    faults = plan(args.seed, last, tuple(args.faults or FAULTS))
    suffered = suffer(steps, info, chain, settings, faults.source)
    report = suffered.report
    if suffered.undisturbed:
        given = Given(steps=steps, info=info, chain=chain, settings=settings, files=files)
        report = replace(report, session=endure(given, faults, suffered))
    if args.json:
        print(json.dumps({"seed": args.seed, **report.as_json()}, indent=1))
    else:
        print(f"seed {args.seed}")
        print("\n".join(lines(report)))
    if report.n_undisturbed == 0:
        sys.stderr.write("no marker is accepted even without faults: nothing was tested\n")
        return SOME_SKIPPED
    return DONE if report.held else SOME_SKIPPED


def _of_session(args: argparse.Namespace) -> Any:
    """A session, by the bundle and the settings that it was recorded with."""
    from ..recording.items import read_info, read_steps
    from ..recording.opened import open_session
    from ..rerun.recorded import intake_of

    session = open_session(args.recording)
    about = session.about["about"]
    if not isinstance(about.get("intake"), Mapping) or not isinstance(about.get("bundle"), Mapping):
        raise FileError(f"{args.recording} does not say how it was recorded: it was not made by md-stream run")
    settings = intake_of(about)
    info = read_info(session.signal)
    bundle = args.bundle or Path(str(about["bundle"].get("folder")))
    chain = _chain_of_bundle(bundle, info, mismatch=bool(about.get("accept_filter_mismatch")))
    return list(read_steps(session.signal)), info, chain, settings, bundle


def _of_file(args: argparse.Namespace) -> Any:
    from ..intake.settings import IntakeSettings
    from ..sources import open_source
    from ..sources.base import Wanted

    source = open_source(f"replay:{args.recording},speed=max", Wanted(modality=args.modality))
    info = source.open()
    steps = list(_steps(source))
    if args.bundle is not None:
        chain = _chain_of_bundle(args.bundle, info, mismatch=False)
    else:
        chain = _epochs_alone(args, info)
    settings = IntakeSettings(events=tuple(args.events), unit=args.unit)
    return steps, info, chain, settings, args.bundle or args.recording.parent


def _steps(source: Any) -> Iterator[Any]:
    """What a replay gives, with its own times."""
    from ..sources.replay import Step

    poll: Callable[[float], Any] = source.poll
    while items := poll(0.0):
        yield Step(now=source.now, items=items)


def _chain_of_bundle(folder: Path, info: Any, *, mismatch: bool) -> Any:
    from ...runtime.bundle.manifest import MANIFEST
    from ...runtime.bundle.open import Bundle
    from ...runtime.decoders.checkpoint import open_checkpoint
    from ..intake.chain import live_chain

    if not folder.is_dir():
        raise FileError(f"the decoder {shown(str(folder))} is not there: give its folder with --bundle")
    layout = Bundle.open(folder).layout if (folder / MANIFEST).exists() else open_checkpoint(folder).training.layout
    if layout is None:
        raise InputError(f"{folder} does not describe its responses: give a bundle of EEG or MEG")
    return live_chain(layout, info, folder=folder, accept_filter_mismatch=mismatch).chain


def _epochs_alone(args: argparse.Namespace, info: Any) -> Any:
    """All channels of the modality, not filtered."""
    from ...runtime.signal.chain import open_chain

    types = ("eeg",) if args.modality == "eeg" else ("mag", "grad")
    channels = [channel for channel in info.channels if channel.type in types]
    if not channels:
        raise InputError(f"the recording has no {args.modality} channel: give another --modality")
    return open_chain({"steps": [{"name": "epoch", "tmin": args.tmin, "tmax": args.tmax}]}, channels, info.sfreq)
