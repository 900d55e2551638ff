"""``md-stream certify``: whether this machine is fast and steady enough, on its own network, with an outlet of ours."""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from ...runtime.command import DONE, SOME_SKIPPED, add_command, count
from .options import positive, seconds

if TYPE_CHECKING:
    from ..lsl.certify import Load, Measured

# How long samples are waited for after the last was due.
_PATIENCE = 5.0


def add(commands: Any) -> None:
    """See `COMMANDS`."""
    command = add_command(
        commands,
        "certify",
        _certify,
        help="latency and jitter of this machine, against a bound",
        description="Send a signal from one process of this machine to another through the Lab Streaming Layer, first "
        "sample by sample, then in chunks of 10 ms, and measure how late each sample is. What is measured holds for "
        "this machine as it is now: keep everything running that runs during a session. An amplifier's own delay is "
        "not part of it.",
        epilog="exit code: 0 if it passes, 1 if it does not\n\nexample (offline):\n  md-stream certify --seconds 5",
    )
    command.add_argument("--channels", type=count, default=64, metavar="N", help="number of channels (default: 64)")
    command.add_argument(
        "--rate", type=positive, default=1000.0, metavar="HZ", help="samples per second (default: 1000)"
    )
    command.add_argument(
        "--seconds",
        type=seconds,
        default=10.0,
        metavar="S",
        help="duration of each of the two measurements (default: 10)",
    )
    command.add_argument(
        "--bound",
        type=positive,
        default=10.0,
        metavar="MS",
        help="at least 99 %% of samples must arrive within this many milliseconds (default: 10)",
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def _certify(args: argparse.Namespace) -> int:
    from ..lsl.certify import Load

    ten_ms = max(2, round(args.rate / 100))
    loads = [
        Load(n_channels=args.channels, sfreq=args.rate, chunk=chunk, seconds=args.seconds) for chunk in (1, ten_ms)
    ]
    measured = []
    for load in loads:
        print(f"{load}: {load.seconds:g} s", file=sys.stderr, flush=True)
        measured.append(_run(load))
    bound = args.bound / 1e3
    failures = [f"{one.load}: {why}" for one in measured for why in one.failures(bound)]
    if args.json:
        figures = {"bound": bound, "passed": not failures, "failures": failures}
        print(json.dumps({**figures, "runs": [one.as_json() for one in measured]}, indent=1))
    else:
        for one in measured:
            _print(one)
        for why in failures:
            print(f"FAILED: {why}")
        if not failures:
            print(f"passed: 99 of 100 samples are at most {bound * 1e3:g} ms late, and nothing is lost")
    return SOME_SKIPPED if failures else DONE


def _run(load: Load) -> Measured:
    from ..lsl.certify import Meter
    from ..lsl.play import PlayingProcess
    from ..lsl.ramp import ramp
    from ..sources import open_source
    from ..sources.base import Wanted

    name = f"md-certify-{uuid.uuid4().hex}"  # found by nobody else, and another run beside it not by us
    recipe = partial(
        ramp,
        n_channels=load.n_channels,
        sfreq=load.sfreq,
        seconds=load.seconds,
        chunk=load.chunk,
        name=name,
        source_id=name,
        first_marker=load.marked.start,
        marker_every=load.marked.step,
    )
    meter = Meter(load)
    with PlayingProcess(recipe):
        source = open_source(f"lsl:id={name},markers={name}-markers", Wanted(modality="eeg"))
        try:
            source.open()
            cpu, wall = time.process_time(), time.monotonic()
            end = wall + load.seconds + _PATIENCE
            while time.monotonic() < end and (meter.n_received < load.n_samples or meter.n_markers < len(load.marked)):
                meter.add(source.poll(0.5))
            used = (time.process_time() - cpu) / (time.monotonic() - wall)
        finally:
            source.close()
    return meter.measured(used)


def _print(one: Measured) -> None:
    print(f"{one.load}:")
    print(
        f"  latency p50 {one.p50 * 1e3:.2f}  p95 {one.p95 * 1e3:.2f}  p99 {one.p99 * 1e3:.2f}  max {one.most * 1e3:.2f}"
        f"  jitter {one.jitter * 1e3:.2f} ms; latest marker {one.marker_most * 1e3:.2f} ms"
    )
    print(
        f"  {one.n_lost} samples and {one.n_markers_lost} markers lost; "
        f"clock {one.offset * 1e3:+.3f} ± {one.uncertainty * 1e3:.3f} ms; {one.cpu:.1%} of a core"
    )
