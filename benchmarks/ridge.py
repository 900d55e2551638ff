"""The voxel-selected ridge against FastL2LiR 0.11, and where nothing is selected against himalaya, in the same run.

python benchmarks/ridge.py [--n-selected 350] [--threads 1] [--repeats 3] [--json]
python benchmarks/ridge.py --nsd [--n-selected 4000 --n-targets 512 --rival-targets 8] [--threads 1]
python benchmarks/ridge.py --n-selected 2000

Solvers take turns on the same responses, the slow one on a stated part of the same targets. What they prepare once for
the responses (their Gram matrix) is apart from what a target costs: a real fit has some 10,000 targets and more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.environment import usable_cores
from minddiffuser.training.solvers.ridge import SparseRidge, fit_ridge
from minddiffuser.training.solvers.workers import single_threaded_blas

Float64 = NDArray[np.float64]
# The Natural Scenes Dataset's subject 1: pictures, and voxels of nsdgeneral for the subject with the fewest.
NSD = {"n_trials": 8859, "n_voxels": 11694}


def world(rng: np.random.Generator, n_trials: int, n_voxels: int, n_targets: int) -> tuple[Float64, Float64]:
    """Z-scored responses and targets that share 40 causes, under noise: (n_trials, n_voxels), (n_trials, n_targets)."""
    causes = rng.standard_normal((n_trials, 40), np.float32)

    def seen_through_noise(n: int) -> Float64:
        values = np.empty((n_trials, n))
        for start in range(0, n, 1024):
            part = slice(start, min(start + 1024, n))
            mixing = rng.standard_normal((40, part.stop - start), np.float32) / np.sqrt(40)
            block = causes @ mixing + 1.5 * rng.standard_normal((n_trials, part.stop - start), np.float32)
            values[:, part] = (block - block.mean(axis=0)) / block.std(axis=0)
        return values

    return seen_through_noise(n_voxels), seen_through_noise(n_targets)


class Clock:
    """Wall and CPU seconds since it was made; CPU seconds know nothing of what else the machine does."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __call__(self) -> Float64:
        return np.array([time.perf_counter() - self._wall, time.process_time() - self._cpu])


class Timed:
    """What one fit took: seconds (wall, CPU) to prepare, and for each target."""

    def __init__(self, prepare: Float64, per_target: Float64) -> None:
        self.prepare, self.per_target = prepare, per_target


class NumpyOf2023:
    """numpy, but a system with one right-hand side has a flat solution, and products with targets are timed.

    FastL2LiR 0.11 stores ``W[i, j] = solution[k]`` with solution (n, 1), which numpy refuses since 2.4.
    """

    def __init__(self, n_targets: int) -> None:
        self._n_targets, self.spent = n_targets, np.zeros(2)

    class linalg:  # noqa: N801
        @staticmethod
        def solve(matrix: Float64, right: Float64) -> Float64:
            return np.linalg.solve(matrix, right[:, 0] if right.shape[1] == 1 else right)

    def _timed(self, product: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
        clock = Clock()
        found = product(a, b)
        if self._n_targets in found.shape:
            self.spent += clock()
        return found

    def matmul(self, a: Any, b: Any) -> Any:
        return self._timed(np.matmul, a, b)

    def dot(self, a: Any, b: Any) -> Any:
        return self._timed(np.dot, a, b)

    def tqdm(self, targets: Iterable[int]) -> Iterator[int]:
        clock = Clock()
        yield from targets
        self.spent += clock()

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def fastl2lir(x: Float64, y: Float64, n_selected: int, alpha: float) -> tuple[Timed, Float64, Float64]:
    """FastL2LiR's time, weights (n_voxels, n_targets) and biases."""
    from fastl2lir import FastL2LiR, fastl2lir

    model, numpy = FastL2LiR(), NumpyOf2023(y.shape[1])
    clock = Clock()
    with mock.patch.object(fastl2lir, "np", numpy), mock.patch.object(fastl2lir, "tqdm", numpy.tqdm):
        with contextlib.redirect_stderr(io.StringIO()):
            model.fit(x, y, alpha=alpha, n_feat=n_selected)
    total, spent = clock(), numpy.spent
    if n_selected >= x.shape[1]:  # one system for all targets
        spent = total
    return Timed(total - spent, spent / y.shape[1]), model.W, model.b[0]


def himalaya(x: Float64, y: Float64, alpha: float) -> tuple[Timed, Float64, Float64]:
    """Himalaya's time, with the penalised column of ones that makes it the same problem."""
    from himalaya.ridge import solve_ridge_svd

    clock = Clock()
    solution = solve_ridge_svd(np.hstack([x, np.ones((len(x), 1))]), y, alpha=alpha, warn=False)
    return Timed(np.zeros(2), clock() / y.shape[1]), solution[:-1], solution[-1]


def minddiffuser(x: Float64, y: Float64, args: argparse.Namespace) -> tuple[Timed, SparseRidge]:
    """Our time; where voxels are selected, what comes before the first targets' end is preparation."""
    clock, seen = Clock(), []
    fitted = fit_ridge(
        x,
        y,
        n_selected=args.n_selected,
        alpha=args.alpha,
        n_threads=args.threads,
        progress=lambda done, _: seen.append((done, clock())),
    )
    total = clock()
    if args.n_selected >= x.shape[1] or len(seen) < 2:
        return Timed(np.zeros(2), total / y.shape[1]), fitted
    (first, started), (last, ended) = seen[0], seen[-1]
    per_target = (ended - started) / (last - first)
    return Timed(total - per_target * y.shape[1], per_target), fitted


def differences(ours: SparseRidge, x: Float64, weight: Float64, bias: Float64) -> dict[str, float]:
    """Largest differences: of weights and biases, of predictions, and of a target's predictions root mean square."""
    n = weight.shape[1]
    dense = np.zeros((n, ours.n_voxels))
    np.put_along_axis(dense, ours.index[:n].astype(np.intp), ours.weight[:n], axis=1)
    off = ours.predict(x[:2000], 0, n) - (x[:2000] @ weight + bias)
    return {
        "weights": float(max(np.abs(dense.T - weight).max(), np.abs(ours.bias[:n] - bias).max())),
        "predictions": float(np.abs(off).max()),
        "predictions_rms": float(np.sqrt((off**2).mean(axis=0)).max()),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    x, y = world(np.random.default_rng(args.seed), args.n_trials, args.n_voxels, args.n_targets)
    part = y[:, : min(args.rival_targets, args.n_targets)]
    whole = args.n_selected >= args.n_voxels
    one_thread: Callable[[], AbstractContextManager[Any]] = single_threaded_blas if args.threads == 1 else nullcontext
    times: dict[str, list[Timed]] = {"minddiffuser": []}
    worst: dict[str, float] = {}
    for repeat in range(args.repeats):
        with one_thread():
            ours, fitted = minddiffuser(x, y, args)
            if repeat == 0:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rivals = {"fastl2lir": fastl2lir(x, y if whole else part, args.n_selected, args.alpha)}
            if whole:
                rivals["himalaya"] = himalaya(x, y, args.alpha)
        times["minddiffuser"].append(ours)
        for name, (timed, weight, bias) in rivals.items():
            times.setdefault(name, []).append(timed)
            found = differences(fitted, x, weight, bias)
            worst = {key: max(value, worst.get(key, 0.0)) for key, value in found.items()}
        print(f"repeat {repeat + 1} of {args.repeats}", file=sys.stderr)
    clocks = {"wall": 0, **({"cpu": 1} if args.threads == 1 else {})}
    return {
        "benchmark": "ridge",
        **{
            name: getattr(args, name)
            for name in ("n_trials", "n_voxels", "n_targets", "n_selected", "alpha", "threads")
        },
        "rival_targets": y.shape[1] if whole else part.shape[1],
        "repeats": args.repeats,
        "peak_mb": memory,
        **{
            clock: {
                name: {
                    "prepare_s": statistics.median(float(one.prepare[k]) for one in timed),
                    "ms_per_target": statistics.median(1e3 * float(one.per_target[k]) for one in timed),
                    "ratio": statistics.median(
                        float(one.per_target[k] / mine.per_target[k])
                        for one, mine in zip(timed, times["minddiffuser"], strict=True)
                    ),
                }
                for name, timed in times.items()
            }
            for clock, k in clocks.items()
        },
        "max_abs_difference": worst,
    }


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['n_trials']} trials, {found['n_voxels']} voxels, n = {found['n_selected']}, alpha = {found['alpha']}, "
        f"{found['threads']} threads, median of {found['repeats']}; "
        f"{found['n_targets']} targets, the rivals on {found['rival_targets']} of them"
    ]
    for clock in ("wall", "cpu"):
        if clock in found:
            lines.append(f"{clock + ' time':<14}{'prepare, s':>12}{'ms / target':>14}{'times ours':>12}")
            lines += [
                f"{name:<14}{row['prepare_s']:>12.2f}{row['ms_per_target']:>14.3f}{row['ratio']:>12.1f}"
                for name, row in found[clock].items()
            ]
    off = found["max_abs_difference"]
    lines += [
        f"largest difference: weights {off['weights']:.1e}, predictions {off['predictions']:.1e} "
        f"(root mean square of a target {off['predictions_rms']:.1e})",
        f"peak memory after our first fit {found['peak_mb']:.0f} MB, with responses and targets in float64",
    ]
    if found["threads"] > 1:
        lines.append("(FastL2LiR keeps BLAS to one thread in its loop over targets; its matrix products use all.)")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-trials", type=int, default=1200)
    parser.add_argument("--n-voxels", type=int, default=2000)
    parser.add_argument("--n-targets", type=int)
    parser.add_argument("--rival-targets", type=int, default=256, help="how many of these FastL2LiR fits")
    parser.add_argument("--nsd", action="store_true", help="8859 trials, 11694 voxels (and 4096 targets if not given)")
    parser.add_argument("--n-selected", type=int, default=350)
    parser.add_argument("--alpha", type=float, default=0.15)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of our solver (default: all usable)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def main() -> None:
    args = parser().parse_args()
    args.n_targets = args.n_targets or (4096 if args.nsd else 10_000)
    if args.nsd:
        vars(args).update(NSD)
    args.threads = args.threads or usable_cores()
    found = measure(args)
    print(json.dumps(found) if args.json else table(found))


if __name__ == "__main__":
    main()
