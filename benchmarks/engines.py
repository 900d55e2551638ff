"""Both stages on engines against PyTorch: diffusers' pipeline, torch.compile and autograd, in one run.

python benchmarks/engines.py [--bundle FOLDER [--checkpoint FOLDER]] [--threads 2] [--batch-size 1 16] [--repeats 7]
                             [--only stage1 stage2 decoders] [--no-compile] [--json]
python benchmarks/engines.py --full-size [--threads 2] [--repeats 3]    one UNet step of Stable Diffusion 1.4

The tiny world's networks. Contestants take turns, with as many threads each, and the ratio is the median over the
turns. Without --bundle the graphs are exported first (some minutes). PyTorch's networks are in channels-last format,
which is their faster one. The full-size step takes 20 GB of memory and 5 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from decoders import DECODE, decoder_job
from flops import Counts, count, peak_flops
from full_size_step import EAGER, FULL_STEP, full_size_rows
from jobs import ALL_STEPS, AUTOGRAD, CHECKPOINTING, DIFFUSERS, ENGINES, PICTURE, Sources, stage1_jobs, stage2_jobs
from rivals import compiled
from tables import Goal, Job, Row, goal_lines, rows_of, table, unequal
from timing import interleaved
from trials import Trials, draw

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.onnx.convert import export_network, prepare
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.engines.base import Engine
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.engines.ort.engine import OrtSettings, open_ort
from minddiffuser.runtime.errors import InputError, MindDiffuserError
from minddiffuser.runtime.models.open import load_models

KINDS = ("stage1", "stage2", "decoders")
GRAPHS = ("denoise", "vae_decode", "structure_gradient", "denoise_gradient")
GOALS = (
    Goal(job=PICTURE, contestant=ENGINES, against=DIFFUSERS, at_least=2.0),
    Goal(job=ALL_STEPS, contestant=ENGINES, against=AUTOGRAD, at_least=1.5),
    Goal(job=ALL_STEPS, contestant=ENGINES, against=CHECKPOINTING, at_least=1.5),
    Goal(job=FULL_STEP, contestant=ENGINES, against=EAGER, at_least=1.2),
)
# Half of one of 256 levels; a latent's unit is its deviation; the others relative to their length.
TOLERANCE = {"picture": 2e-3, "latent": 1e-2, "loss": 1e-3, "gradient": 1e-2, "decoded": 1e-3}
PEAK_SIZE = 2048


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def open_sources(args: argparse.Namespace, stack: ExitStack) -> Sources:
    models = load_models("tiny")
    fast = None if args.no_compile else compiled(load_models("tiny"))
    if args.bundle is None:
        return Sources(models, fast, exported(args.threads, stack))
    bundle = Bundle.open(args.bundle)
    if bundle.models_hash != models.hash:
        raise InputError(f"the bundle {args.bundle} holds other networks than the tiny world's: export it again")
    settings = EngineSettings(backend="ort", precision="fp32", threads=args.threads)
    return Sources(models, fast, stack.enter_context(EngineSet(bundle, settings)))


def exported(threads: int, stack: ExitStack) -> dict[str, Engine]:
    """Export the tiny world's graphs to a temporary folder and open them."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="engines-")))
    models = load_models("tiny")
    prepare(models)
    engines: dict[str, Engine] = {}
    for name in GRAPHS:
        say(f"exporting {name}")
        graph = network_graph(name, models, semantic=False)
        path = folder / f"{name}.onnx"
        path.write_bytes(export_network(graph, models).SerializeToString())
        settings = OrtSettings(threads=threads)
        engines[name] = stack.enter_context(open_ort(name, path, graph.inputs, graph.outputs, settings))
    return engines


def jobs_of(args: argparse.Namespace, sources: Sources, trials: Trials, counts: Counts) -> list[Job]:
    jobs: list[Job] = []
    if "stage1" in args.only:
        jobs += stage1_jobs(sources, trials, counts)
    if "stage2" in args.only:
        jobs += stage2_jobs(sources, trials, counts)
    if "decoders" in args.only and args.bundle is not None and args.checkpoint is not None:
        jobs.append(decoder_job(args.checkpoint, sources.engines, len(trials)))
    return jobs


def compile_seconds(job: Job) -> dict[str, float]:
    """Time the first call of contestants that compile then. A warm compiler's cache makes it shorter."""
    found = {}
    for name, work in job.contestants.items():
        if "compile" in name:
            started = time.perf_counter()
            work()
            found[f"{name}: {job.name}, batch {job.batch}"] = time.perf_counter() - started
    return found


def measure(args: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """Run everything that was asked for; give one JSON object."""
    torch.set_num_threads(args.threads)
    # Measured again and again, and the best counts: other work on the machine can only lower it.
    peak = peak_flops(PEAK_SIZE)
    rows: list[Row] = []
    compiling: dict[str, float] = {}
    if args.full_size:
        rows = full_size_rows(args.threads, args.repeats, with_compile=not args.no_compile, say=say)
        return report(args, rows, max(peak, peak_flops(PEAK_SIZE)), compiling)
    sources = open_sources(args, stack)
    counts = count(sources.models)
    for batch in args.batch_size:
        for job in jobs_of(args, sources, draw(sources.models, batch), counts):
            say(f"{job.name}, batch {batch}")
            compiling |= compile_seconds(job)
            rows += rows_of(job, interleaved(job.contestants, args.repeats))
            peak = max(peak, peak_flops(PEAK_SIZE))
    return report(args, rows, peak, compiling)


def report(args: argparse.Namespace, rows: list[Row], peak: float, compiling: dict[str, float]) -> dict[str, Any]:
    import diffusers
    import onnxruntime

    libraries = {"torch": torch, "onnxruntime": onnxruntime, "diffusers": diffusers}
    return {
        "benchmark": "engines",
        "threads": args.threads,
        "repeats": args.repeats,
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": {name: str(library.__version__) for name, library in libraries.items()},
        "peak_gflops": peak / 1e9,
        "rows": [asdict(row) for row in rows],
        "compile_s": compiling,
        "goals": [verdict for goal in GOALS for verdict in goal.verdicts(rows)],
        "unequal": unequal(rows, TOLERANCE),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def text(found: dict[str, Any]) -> str:
    """Print the results as a table."""
    lines = [
        f"{found['machine']}, {found['threads']} threads, median of {found['repeats']}, contestants in turn, "
        f"{', '.join(f'{name} {version}' for name, version in found['versions'].items())}",
        f"ratio: times faster than the first of its job; peak: share of {found['peak_gflops']:.0f} GFLOP/s, "
        f"measured with a float32 product of {PEAK_SIZE} x {PEAK_SIZE}",
        "",
        table([Row(**row) for row in found["rows"]], found["peak_gflops"]),
        "",
        *(f"compiling, not counted: {seconds:.0f} s, {name}" for name, seconds in found["compile_s"].items()),
        "",
        goal_lines(found["goals"]),
        *(f"NOT EQUAL: {sentence}" for sentence in found["unequal"]),
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="bundle of the tiny world (default: export its graphs first)")
    parser.add_argument("--checkpoint", type=Path, help=f"checkpoint that the bundle was made from, for '{DECODE}'")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of each contestant")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16], help="trials per run")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out (it needs a C++ compiler)")
    parser.add_argument("--full-size", action="store_true", help="the UNet step of Stable Diffusion 1.4, alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def main() -> int:
    args = parser().parse_args()
    try:
        with ExitStack() as stack:
            found = measure(args, stack)
    except MindDiffuserError as error:
        say(f"engines.py: {error}")
        return 2
    print(json.dumps(found) if args.json else text(found))
    return 1 if found["unequal"] else 0


if __name__ == "__main__":
    sys.exit(main())
