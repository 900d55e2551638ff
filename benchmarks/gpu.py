"""Stable Diffusion 1.4 and ViT-B/32 at full size, random weights, on a CUDA GPU: milliseconds and share of the floor.

python benchmarks/gpu.py [--batch-size 1] [--only eager-fp16 ort-cuda …] [--graphs FOLDER | --bundle FOLDER]
                         [--compile-mode max-autotune] [--peak-tflops N] [--repeats 7] [--json]

The floor is the time that the products alone take at the GPU's peak rate for 16-bit products; what a contestant
reaches of it is printed as peak. Eager PyTorch needs diffusers and open_clip; engines need onnx and onnxscript to be
exported, which takes minutes (--graphs keeps them for the next run), or a bundle, and their own library. What is not
there is listed, and the rest runs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def make_importable() -> None:
    """Let a bare checkout be the package: its root folder is `minddiffuser`, whether or not it was installed."""
    if importlib.util.find_spec("minddiffuser") is not None:
        return
    spec = importlib.util.spec_from_file_location(
        "minddiffuser", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{ROOT} holds no package")
    module = importlib.util.module_from_spec(spec)
    sys.modules["minddiffuser"] = module
    spec.loader.exec_module(module)


STEP, LOOP, DECODE, ITERATION = "a guided step", "35 guided steps", "VAE decoding", "stage 2, last 4 steps"
N_STEPS, N_BACK = 35, 4
# Operations for one trial, as flops.count gives them for full_size.random_models("meta").
FLOPS = {
    STEP: 1_596_063_744_000,
    LOOP: N_STEPS * 1_596_063_744_000,
    DECODE: 2_514_518_933_504,
    ITERATION: N_BACK * 3_438_391_459_840 + 5_073_504_657_408,
}
# Milliseconds at batch 1, for the quickest contestant on a GPU of the H200's class.
GOALS_MS = {LOOP: 300.0, DECODE: 8.0, ITERATION: 250.0}
# Vendors' peak rates for dense 16-bit products, TFLOP/s; the longest name that fits counts.
NOMINAL_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100": 989.0,
    "H100 PCIe": 756.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 5090": 210.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
# name -> (module beside this one, function, arguments after the setting): one line here adds a contestant.
CONTESTANTS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "eager-fp16": ("gpu_torch", "eager", ("float16",)),
    "eager-fp32": ("gpu_torch", "eager", ("float32",)),
    "compile-fp16": ("gpu_torch", "with_compile", ("float16",)),
    "cuda-graph-fp16": ("gpu_torch", "with_cuda_graph", ("float16",)),
    "cuda-graph-timed-fp16": ("gpu_torch", "with_cuda_graph", ("float16", "timed")),
    "ort-cuda-fp32": ("gpu_engines", "with_engines", ("ort-cuda", "fp32")),
    "ort-cuda-fp16": ("gpu_engines", "with_engines", ("ort-cuda", "fp16")),
    "tensorrt-fp16": ("gpu_engines", "with_engines", ("tensorrt", "fp16")),
    "tensorrt-rtx-fp16": ("gpu_engines", "with_engines", ("tensorrt-rtx", "fp16")),
}
PEAK_SIZE = 8192

Works = Mapping[str, Callable[[], Any]]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def nominal_tflops(gpu: str) -> float | None:
    """The vendor's peak rate for a GPU's name, or None for one that is not in the table."""
    words = gpu.replace("-", " ")
    fitting = [name for name in NOMINAL_TFLOPS if name in words]
    return NOMINAL_TFLOPS[max(fitting, key=len)] if fitting else None


def floor_ms(job: str, batch: int, tflops: float) -> float:
    """Milliseconds that the products of a job take at least."""
    return FLOPS[job] * batch / (tflops * 1e12) * 1e3


def line_up(
    names: Sequence[str], build: Callable[[str], Works], is_memory: Callable[[BaseException], bool]
) -> tuple[dict[str, Works], dict[str, str]]:
    """Build contestants and run each of their jobs once; what cannot run here is reported, never fatal.

    Returns
    -------
    works
        Contestant -> job -> what to do.
    not_run
        Contestant, or contestant and job, -> why.
    """
    works: dict[str, Works] = {}
    not_run: dict[str, str] = {}
    for name in names:
        say(f"preparing {name}")
        try:
            built = build(name)
        except Exception as error:  # libraries of many makers, each with errors of its own
            not_run[name] = reason(error, is_memory)
            continue
        runs = {}
        for job, work in built.items():
            try:
                work()
                runs[job] = work
            except Exception as error:
                not_run[f"{name}, {job}"] = reason(error, is_memory)
        works[name] = runs
    return works, not_run


def reason(error: BaseException, is_memory: Callable[[BaseException], bool]) -> str:
    """Say in one line what is missing, or what went wrong."""
    if isinstance(error, ModuleNotFoundError):
        return f"needs {error.name}"
    if is_memory(error):
        return "needs more GPU memory"
    message = " ".join(str(error).split()) or "no reason given"
    return message[:300] if is_ours(error) else f"{type(error).__name__}: {message[:200]}"


def is_ours(error: BaseException) -> bool:
    from minddiffuser.runtime.errors import MindDiffuserError

    return isinstance(error, MindDiffuserError)


def goals(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The quickest contestant of each job that has a goal, at batch 1."""
    verdicts = []
    for job, most in GOALS_MS.items():
        timed = [row for row in rows if row.job == job and row.batch == 1]
        if timed:
            best = min(timed, key=lambda row: row.milliseconds)
            met = best.milliseconds <= most
            found = {"milliseconds": best.milliseconds, "contestant": best.contestant, "met": met}
            verdicts.append({"goal": f"{job} under {most:g} ms", **found})
    return verdicts


def measure(args: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """Time what runs here; give one JSON object."""
    import torch
    from flops import peak_flops
    from tables import Job, rows_of
    from timing import interleaved

    gpu, wait = torch.cuda.get_device_name(), torch.cuda.synchronize
    measured = peak_flops(PEAK_SIZE, torch.float16, "cuda", tries=20, wait=wait) / 1e12
    nominal = nominal_tflops(gpu)
    peak = args.peak_tflops or nominal or measured
    rows: list[Any] = []
    not_run: dict[str, str] = {}
    for batch in args.batch_size:
        works, refused = line_up(args.only, builder(args, batch, stack), is_out_of_memory)
        not_run |= {f"{name}, batch {batch}": why for name, why in refused.items()}
        for job in FLOPS:
            contestants = {name: runs[job] for name, runs in works.items() if job in runs}
            if not contestants:
                continue
            say(f"{job}, batch {batch}")
            together = Job(name=job, batch=batch, contestants=contestants, flops=FLOPS[job] * batch)
            rows += rows_of(together, interleaved(contestants, args.repeats, wait=wait))
    return {
        "benchmark": "gpu",
        "gpu": gpu,
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "repeats": args.repeats,
        "peak_tflops": {"used": peak, "nominal": nominal, "measured": measured},
        "floor_ms": {job: floor_ms(job, 1, peak) for job in FLOPS},
        "rows": [asdict(row) for row in rows],
        "goals": goals(rows),
        "not_run": not_run,
    }


def builder(args: argparse.Namespace, batch: int, stack: ExitStack) -> Callable[[str], Works]:
    """Give a function that makes a contestant by its name."""

    def build(name: str) -> Works:
        module, function, given = CONTESTANTS[name]
        made: Works = getattr(importlib.import_module(module), function)(args, batch, stack, *given)
        return made

    return build


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError)


def text(found: dict[str, Any]) -> str:
    """Print the results as a table."""
    from tables import Row, table

    peak = found["peak_tflops"]
    nominal = "unknown" if peak["nominal"] is None else f"{peak['nominal']:.0f}"
    floors = ", ".join(f"{job} {ms:.2f} ms" for job, ms in found["floor_ms"].items())
    lines = [
        f"{found['gpu']}, torch {found['versions']['torch']}, CUDA {found['versions']['cuda']}, "
        f"median of {found['repeats']}, contestants in turn",
        f"peak: share of the floor at {peak['used']:.0f} TFLOP/s (nominal {nominal}, measured with a float16 product "
        f"of {PEAK_SIZE} x {PEAK_SIZE}: {peak['measured']:.0f})",
        f"floor at batch 1: {floors}",
        "",
        table([Row(**row) for row in found["rows"]], peak["used"] * 1e3),
        "",
        *(f"not run: {name}: {why}" for name, why in found["not_run"].items()),
        "",
        *(
            f"{'met' if goal['met'] else 'MISSED':<8}{goal['milliseconds']:>8.1f} ms  {goal['goal']} "
            f"({goal['contestant']})"
            for goal in found["goals"]
        ),
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1], help="trials per run")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="CONTESTANT")
    parser.add_argument("--graphs", type=Path, help="folder of exported graphs and plans; filled if empty")
    parser.add_argument("--bundle", type=Path, help="a bundle of Stable Diffusion 1.4 to take engines from")
    parser.add_argument("--compile-mode", default="max-autotune", help="mode of torch.compile")
    parser.add_argument(
        "--peak-tflops", type=float, help="peak rate of 16-bit products (default: by the GPU's name, or measured)"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def no_gpu() -> str | None:
    """Say in one sentence why nothing can run here, or give None."""
    if importlib.util.find_spec("torch") is None:
        return "this benchmark needs PyTorch with CUDA, and torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "this benchmark needs a CUDA GPU, and PyTorch sees none here: run it on a machine that has one"
    return None


def main() -> int:
    args = parser().parse_args()
    reason_not_to = no_gpu()
    if reason_not_to is not None:
        say(f"gpu.py: {reason_not_to}")
        return 2
    make_importable()
    with ExitStack() as stack:
        found = measure(args, stack)
    print(json.dumps(found) if args.json else text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
