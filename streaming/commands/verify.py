"""md-stream verify: the live path against an offline analysis of the same recording."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.command import DONE, SOME_SKIPPED, add_command, count
from ...runtime.errors import InputError

_EXAMPLE = """
examples (offline):
  md-stream verify --ramp
  md-stream verify my_session
  md-stream verify recording.vhdr --tmax 0.6 --events 'Stimulus/*'
"""
_MOST_SHOWN = 10


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "verify",
        _verify,
        help="compare the live path with mne.Epochs over the same recording, or with a signal of known numbers",
        description="Run a recording through the live path, cut into chunks in several ways, and compare every epoch "
        "and every refusal with an offline analysis by MNE and SciPy. Exit 1 where they differ.",
        epilog=_EXAMPLE,
    )
    command.add_argument(
        "recording", nargs="?", type=Path, metavar="SESSION|FILE", help="a session's folder, XDF, or what MNE reads"
    )
    command.add_argument("--ramp", action="store_true", help="verify the times of epochs on a signal of known numbers")
    command.add_argument("--bundle", type=Path, metavar="DIR", help="with the signal chain of this bundle")
    command.add_argument("--modality", choices=("eeg", "meg"), default="eeg", help="of the signal (default: eeg)")
    command.add_argument(
        "--events", nargs="+", default=(), metavar="PATTERN", help="markers that are events, such as 'stim/*'"
    )
    command.add_argument("--stream", metavar="NAME", help="the signal of an XDF file")
    command.add_argument("--markers", metavar="NAME", help="the markers of an XDF file")
    command.add_argument("--trigger", metavar="CHANNEL", help="the stimulus channel of a file that MNE reads")
    command.add_argument("--unit", metavar="UNIT", help="of all channels, where the file does not say, such as uV")
    command.add_argument(
        "--every", type=float, metavar="S", help="put an event every S seconds, instead of the recording's markers"
    )
    chain = command.add_argument_group("signal chain, where no bundle is given")
    chain.add_argument("--l-freq", type=float, default=1.0, metavar="HZ", help="high-pass, 0 for none (default: 1)")
    chain.add_argument("--h-freq", type=float, default=40.0, metavar="HZ", help="low-pass, 0 for none (default: 40)")
    chain.add_argument("--tmin", type=float, default=-0.2, metavar="S", help="first sample (default: -0.2)")
    chain.add_argument("--tmax", type=float, default=0.8, metavar="S", help="last sample (default: 0.8)")
    command.add_argument("--seed", type=int, default=0, help="of the chunks that are drawn (default: 0)")
    command.add_argument("--partitions", type=count, default=3, metavar="N", help="ways to cut it (default: 3)")
    command.add_argument("--json", action="store_true", help="print the figures as JSON")


def _verify(args: argparse.Namespace) -> int:
    if args.ramp == (args.recording is not None):
        raise InputError("give a recording to verify, or --ramp (see md-stream verify --help)")
    return _verify_ramp(args) if args.ramp else _verify_file(args)


def _verify_ramp(args: argparse.Namespace) -> int:
    import numpy as np

    from ..intake.settings import IntakeSettings
    from ..verify.ramp import N_MARKERS, SFREQ, ramp, shifts

    cases = {
        "no interruption": ramp(),
        "a pause of 1 s between epochs": ramp(pause=(6120, 1.0)),
        "a pause of 1 s in an epoch": ramp(pause=(6300, 1.0)),
        "stamps that jitter by 2 ms": ramp(jitter=0.002, seed=args.seed),
    }
    good, figures = True, list[dict[str, Any]]()
    for name, recorded in cases.items():
        for cut in ("sample by sample", "chunks of 10 ms", "drawn chunks"):
            rng = np.random.default_rng(args.seed) if cut == "drawn chunks" else None
            found = shifts(recorded, IntakeSettings(), rng, chunk=0.0 if cut == "sample by sample" else 0.01)
            exact = sum(shift.exact for shift in found)
            off = [abs(shift.samples) for shift in found if shift.samples is not None]
            refused = [shift.reason for shift in found if shift.reason is not None]
            n_most = 0 if "jitter" not in name else 1
            good &= max(off, default=0) <= n_most and len(off) + len(refused) == N_MARKERS
            good &= len(refused) == ("in an epoch" in name)
            most = 1000 * max(off, default=0) / SFREQ
            row: dict[str, Any] = {
                "signal": name,
                "cut": cut,
                "exact": exact,
                "markers": len(found),
                "largest_error_ms": most,
            }
            figures.append({**row, "refused": refused})
    if args.json:
        print(json.dumps({"ramp": figures, "equal": good}, indent=1))
    else:
        for row in figures:
            reasons = "".join(f"; refused: {reason}" for reason in row["refused"])
            print(
                f"{row['signal']}, {row['cut']}: {row['exact']} of {row['markers']} epochs exact, none off by more "
                f"than {row['largest_error_ms']:g} ms{reasons}"
            )
    return DONE if good else SOME_SKIPPED


def _verify_file(args: argparse.Namespace) -> int:
    from ..files import open_file
    from ..files.recorded import Choice
    from ..intake.settings import IntakeSettings
    from ..verify.compare import TOLERANCE, Case, verify

    choice = Choice(modality=args.modality, stream=args.stream, markers=args.markers, trigger=args.trigger)
    recorded = open_file(args.recording, choice)
    if args.every is not None:
        recorded = _with_events(recorded, args.every)
    settings = IntakeSettings(events=tuple(args.events), unit=args.unit)
    if args.bundle is None:
        signal, names = _own_chain(recorded, args)
        case = Case(recorded=recorded, signal=signal, names=names, settings=settings)
    else:
        from ...runtime.bundle.open import Bundle
        from ..intake.chain import live_chain

        bundle = Bundle.open(args.bundle)
        chain = live_chain(bundle.layout, recorded.info, folder=bundle.folder).chain
        names = tuple(channel.name for channel in chain.plan.input.channels)
        case = Case(recorded=recorded, signal=chain.signal, names=names, settings=settings, folder=bundle.signal_folder)
    report = verify(case, n_partitions=args.partitions, seed=args.seed)
    if args.json:
        print(json.dumps({**report.as_json(), "notes": list(recorded.notes)}, indent=1))
    else:
        _print(report, len(case.names), recorded, TOLERANCE)
    return DONE if report.equal and report.n_accepted else SOME_SKIPPED


def _with_events(recorded: Any, every: float) -> Any:
    """Events at a fixed distance, from half of it on, on the clock of the signal."""
    if not every > 0:
        raise InputError(f"an event every {every:g} s: give seconds above 0")
    from ..records import MARKERS, SIGNAL

    stamps = recorded.stamps
    n = int((stamps[-1] - stamps[0]) / every + 0.5) if len(stamps) else 0
    markers = tuple((float(stamps[0]) + (number + 0.5) * every, b"event") for number in range(n))
    offsets = [item for item in recorded.offsets if item.stream == SIGNAL]
    return replace(recorded, markers=markers, offsets=(*offsets, *(replace(item, stream=MARKERS) for item in offsets)))


def _own_chain(recorded: Any, args: argparse.Namespace) -> tuple[dict[str, Any], tuple[str, ...]]:
    """All EEG or MEG channels, a causal band-pass, epochs, their baseline; limits that single out the worst epochs."""
    from ...runtime.signal.filters import design_filter

    types = ("eeg",) if args.modality == "eeg" else ("mag", "grad")
    names = [channel.name for channel in recorded.info.channels if channel.type in types]
    if not names:
        kinds = ", ".join(sorted({channel.type for channel in recorded.info.channels}))
        raise InputError(f"the recording has no {args.modality} channel (it has {kinds}): give another --modality")
    nyquist = recorded.info.sfreq / 2
    h_freq = None if not args.h_freq or args.h_freq >= nyquist else args.h_freq
    steps: list[dict[str, Any]] = [
        {"name": "pick", "channels": names},
        *design_filter(recorded.info.sfreq, args.l_freq or None, h_freq, causal=True),
        {"name": "epoch", "tmin": args.tmin, "tmax": args.tmax},
    ]
    if args.tmin < 0:
        steps.append({"name": "baseline", "tmin": None, "tmax": 0.0})
    return {"steps": steps}, tuple(names)


def _print(report: Any, n_channels: int, recorded: Any, tolerance: float) -> None:
    refused: Sequence[str] = [f"{n} {kind}" for kind, n in sorted(report.refused.items())]
    sfreq = recorded.info.sfreq
    print(f"{report.n_markers} markers, {report.n_events} of them events; {n_channels} channels at {sfreq:g} Hz")
    for note in recorded.notes:
        print(f"note: {note}")
    print(f"cut into chunks in {len(report.partitions)} ways: {', '.join(report.partitions)}")
    print(f"epochs: {report.n_accepted}, of which {report.n_identical} are identical to the bit")
    print(f"largest difference: {report.largest_error:.2g} of the largest value (at most {tolerance:g})")
    print(f"refused: {', '.join(refused) or 'none'}")
    if report.n_apart:
        print(f"placed one sample apart, where stamps jitter: {report.n_apart}")
    for difference in report.differences[:_MOST_SHOWN]:
        print(f"different: {difference}")
    if len(report.differences) > _MOST_SHOWN:
        print(f"different: {len(report.differences) - _MOST_SHOWN} more")
    if not report.n_accepted:
        print("no epoch came, so that no value was compared: choose --events, --every or a shorter --tmax")
    print(
        "live and offline agree" if report.equal and report.n_accepted else "live and offline were not shown to agree"
    )
