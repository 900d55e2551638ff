"""How late epochs are: md-stream, mne-lsl's EpochsStream and a plain loop over pylsl, in turn on the same outlet.

Lateness is of an epoch in the hands of the program, beyond the push of the last sample that it holds: the sender's
chunks and the declared delays are not in it. Of md-stream it is the whole session that is measured, as `md-stream run`
has it: acquisition in a process of its own, and the epoch is there when the decoder is given it behind the pipe; the
lateness of the decoded features stands apart. All are on one liblsl. Needs mne-lsl beside the extra `stream`; without
it, its rows are left out.

    python benchmarks/stream.py --seconds 120 --json stream.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from stream_readers import FIRST, LAST, READERS
from stream_sender import MARKER_EVERY, SFREQ, marker_sample

from minddiffuser.streaming.lsl.private import VARIABLE, write_private

HERE = Path(__file__).parent
CHANNELS, CHUNKS = (64, 306), (1, 10)
OURS = [name for name in READERS if name.startswith("md-stream")]
GOALS = {"p50_ms": 2.0, "p99_ms": 5.0, "cpu_share": 0.05, "n_lost": 0, "error_samples": 0}
# Markers this close to a turn's end are not counted: their epochs may still be on their way.
_MARGIN_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant with one sender.

    Attributes
    ----------
    n_epochs, n_lost
        That came of the markers that count, and that did not.
    p50_ms, p95_ms, p99_ms, max_ms
        Of the lateness.
    error_samples
        The largest distance between the event's own sample and the one at the event's place in the epoch; None where
        a filter has changed the numbers that would show it.
    features_p50_ms, features_p99_ms
        Of the lateness of the decoded features; None where nothing is decoded.
    cpu_share, memory_mb
        Of one core, and resident, of the process that receives.
    beside_cpu_share, beside_memory_mb
        Of the process that decodes, where that is another one.
    """

    n_channels: int
    chunk: int
    reader: str
    n_epochs: int
    n_lost: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    error_samples: int | None
    features_p50_ms: float | None
    features_p99_ms: float | None
    cpu_share: float
    memory_mb: float
    beside_cpu_share: float | None
    beside_memory_mb: float | None


@contextlib.contextmanager
def sender(n_channels: int, chunk: int, folder: Path, env: Mapping[str, str]) -> Iterator[tuple[float, Any]]:
    """A running amplifier: the local time of its sample 0, and the push times, float64, growing."""
    log = folder / f"pushed-{n_channels}-{chunk}"
    command = [sys.executable, str(HERE / "stream_sender.py"), str(n_channels), str(chunk), str(log)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(env))
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        start = float(process.stdout.readline())
        yield start, np.memmap(log, np.float64, "r")
    finally:
        process.stdin.close()
        process.wait()


def turn(reader: str, seconds: float, env: Mapping[str, str]) -> dict[str, Any]:
    """One contestant, once, in a process of its own."""
    command = [sys.executable, str(HERE / "stream_readers.py"), reader, str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=dict(env), check=True)
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


def row_of(reader: str, n_channels: int, chunk: int, turns: Sequence[dict[str, Any]], start: float, pushed: Any) -> Row:
    """All turns of one contestant."""
    late: list[float] = []
    decoded: list[float] = []
    errors: list[int] = []
    n_lost = n_wanted = 0
    for report in turns:
        first = np.ceil((report["ready"] - start) * SFREQ) - FIRST
        last = (report["stopped"] - _MARGIN_S - start) * SFREQ - LAST
        numbers = range(
            int(np.ceil((first - marker_sample(0)) / MARKER_EVERY)),
            int(np.floor((last - marker_sample(0)) / MARKER_EVERY)) + 1,
        )
        found: dict[int, tuple[float, int | None, int, float | None]] = {}
        for at, zero, end, features in report["epochs"]:
            found.setdefault(round((end - LAST - marker_sample(0)) / MARKER_EVERY), (at, zero, end, features))
        n_wanted += len(numbers)
        for number in numbers:
            if number not in found:
                n_lost += 1
                continue
            at, zero, end, features = found[number]
            late.append(1e3 * (at - float(pushed[end])))
            if features is not None:
                decoded.append(1e3 * (features - float(pushed[end])))
            if zero is not None:
                errors.append(abs(zero - marker_sample(number)))
    p50, p95, p99 = _percentiles(late, 50, 95, 99) or [np.nan] * 3
    of_features = _percentiles(decoded, 50, 99) or [None, None]
    return Row(
        n_channels=n_channels,
        chunk=chunk,
        reader=reader,
        n_epochs=n_wanted - n_lost,
        n_lost=n_lost,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        max_ms=max(late, default=float("nan")),
        error_samples=max(errors, default=None),
        features_p50_ms=of_features[0],
        features_p99_ms=of_features[1],
        cpu_share=float(np.mean([report["cpu_share"] for report in turns])),
        memory_mb=max(report["memory_mb"] for report in turns),
        beside_cpu_share=_of_all(turns, "beside_cpu_share", np.mean),
        beside_memory_mb=_of_all(turns, "beside_memory_mb", max),
    )


def _percentiles(values: Sequence[float], *wanted: float) -> list[float]:
    """By nearest rank; none of nothing."""
    return [float(one) for one in np.percentile(values, wanted, method="inverted_cdf")] if values else []


def _of_all(turns: Sequence[dict[str, Any]], name: str, together: Callable[[list[float]], Any]) -> float | None:
    values = [report[name] for report in turns if report[name] is not None]
    return float(together(values)) if values else None


def measure(
    n_channels: int, chunk: int, readers: Sequence[str], seconds: float, rounds: int, folder: Path
) -> list[Row]:
    """All contestants, in turn, `rounds` times, on one sender."""
    env = environment(folder)
    turns: dict[str, list[dict[str, Any]]] = {reader: [] for reader in readers}
    with sender(n_channels, chunk, folder, env) as (start, pushed):
        for _ in range(rounds):
            for reader in readers:
                turns[reader].append(turn(reader, seconds / rounds, env))
        return [row_of(reader, n_channels, chunk, turns[reader], start, pushed) for reader in readers]


def environment(folder: Path) -> dict[str, str]:
    """An LSL of this run's own, and the same liblsl for all."""
    import pylsl

    settings = folder / "lsl_api.cfg"
    if not settings.exists():
        write_private(folder)
    library = pylsl.lib.lib._name
    return {**os.environ, VARIABLE: str(settings), "MNE_LSL_LIB": library, "OMP_NUM_THREADS": "1"}


def table(rows: Sequence[Row]) -> str:
    lines = [
        f"{'channels':>8} {'sender':<14} {'reader':<34}{'epochs':>7}{'lost':>6}{'p50':>8}{'p95':>8}{'p99':>8}"
        f"{'max':>8} ms{'features p50':>14}{'p99':>8} ms{'error':>7}{'CPU':>7}{'MB':>6}{'beside: CPU':>13}{'MB':>6}"
    ]
    for row in rows:
        sends = "single samples" if row.chunk == 1 else f"{row.chunk / SFREQ * 1e3:.0f} ms chunks"
        lines.append(
            f"{row.n_channels:>8} {sends:<14} {row.reader:<34}{row.n_epochs:>7}{row.n_lost:>6}{row.p50_ms:>8.2f}"
            f"{row.p95_ms:>8.2f}{row.p99_ms:>8.2f}{row.max_ms:>8.2f}   {_or_dash(row.features_p50_ms, '14.2f')}"
            f"{_or_dash(row.features_p99_ms, '8.2f')}   {_or_dash(row.error_samples, '7d')}{row.cpu_share:>7.1%}"
            f"{row.memory_mb:>6.0f}{_or_dash(row.beside_cpu_share, '13.1%')}{_or_dash(row.beside_memory_mb, '6.0f')}"
        )
    return "\n".join(lines)


def _or_dash(value: float | None, form: str) -> str:
    width = int(form.partition(".")[0].rstrip("d"))
    return f"{'-':>{width}}" if value is None else f"{value:>{form}}"


def verdicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each goal against each row of ours."""
    return [
        {
            "n_channels": row.n_channels,
            "chunk": row.chunk,
            "reader": row.reader,
            "goal": f"{name} at most {most:g}",
            "found": getattr(row, name),
            "met": bool(getattr(row, name) <= most),
        }
        for row in rows
        if row.reader in OURS
        for name, most in GOALS.items()
        if getattr(row, name) is not None
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each contestant with each sender")
    parser.add_argument("--rounds", type=int, default=2, help="turns in which these seconds are divided")
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    parser.add_argument("--chunks", type=int, nargs="+", default=CHUNKS, help="samples that the sender sends at once")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=tuple(READERS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    readers = [name for name in args.readers if find_spec("mne_lsl") or not name.startswith("EpochsStream")]
    rows: list[Row] = []
    for n_channels in args.channels:
        for chunk in args.chunks:
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(n_channels, chunk, readers, args.seconds, args.rounds, Path(folder))
            print(table(rows), file=sys.stderr)
    print(table(rows))
    found = verdicts(rows)
    for verdict in found:
        if not verdict["met"]:
            print(
                f"MISSED  {verdict['reader']}, {verdict['n_channels']} channels, {verdict['chunk']} at once: "
                f"{verdict['goal']}, {verdict['found']:.3g}"
            )
    if args.json:
        args.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "goals": found}, indent=1))
    return 0 if all(verdict["met"] for verdict in found) else 1


if __name__ == "__main__":
    sys.exit(main())
