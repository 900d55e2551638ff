"""The voxel-selected ridge against FastL2LiR 0.11, on the same data in the same run.

python benchmarks/ridge.py [--n-targets 10000] [--n-selected 350] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.environment import usable_cores
from minddiffuser.training.solvers.ridge import SparseRidge, fit_ridge

Float64 = NDArray[np.float64]


def world(rng: np.random.Generator, n_trials: int, n_voxels: int, n_targets: int) -> tuple[Float64, Float64]:
    """Z-scored responses and targets that share 40 causes, under noise: (n_trials, n_voxels), (n_trials, n_targets)."""
    causes = rng.standard_normal((n_trials, 40))

    def seen_through_noise(n: int) -> Float64:
        signal = causes @ rng.standard_normal((40, n)) / np.sqrt(40)
        values = signal + 1.5 * rng.standard_normal((n_trials, n))
        scored: Float64 = (values - values.mean(axis=0)) / values.std(axis=0)
        return scored

    return seen_through_noise(n_voxels), seen_through_noise(n_targets)


class NumpyOf2023:
    """numpy, but a system with one right-hand side has a flat solution.

    FastL2LiR 0.11 stores ``W[i, j] = solution[k]`` with solution (n, 1), which numpy refuses since 2.4.
    """

    class linalg:  # noqa: N801
        @staticmethod
        def solve(matrix: Float64, right: Float64) -> Float64:
            return np.linalg.solve(matrix, right[:, 0] if right.shape[1] == 1 else right)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def rival(x: Float64, y: Float64, n_selected: int, alpha: float) -> tuple[Float64, Float64]:
    from fastl2lir import FastL2LiR, fastl2lir

    model = FastL2LiR()
    # Its progress bar goes to stderr.
    with contextlib.redirect_stderr(io.StringIO()), mock.patch.object(fastl2lir, "np", NumpyOf2023()):
        model.fit(x, y, alpha=alpha, n_feat=n_selected)
    return model.W, model.b[0]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def worst_difference(ours: SparseRidge, weight: Float64, bias: Float64) -> float:
    dense = np.zeros((len(ours.bias), ours.n_voxels))
    np.put_along_axis(dense, ours.index.astype(np.intp), ours.weight, axis=1)
    return float(max(np.abs(dense.T - weight).max(), np.abs(ours.bias - bias).max()))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    x, y = world(np.random.default_rng(args.seed), args.n_trials, args.n_voxels, args.n_targets)
    threads = args.threads or usable_cores()
    fit_ridge(x, y[:, :512], n_selected=args.n_selected, alpha=args.alpha, n_threads=threads)  # warm the libraries
    ours, theirs, worst, worst_prediction = [], [], 0.0, 0.0
    for repeat in range(args.repeats):
        time_ours, fitted = seconds(
            lambda: fit_ridge(x, y, n_selected=args.n_selected, alpha=args.alpha, n_threads=threads)
        )
        time_theirs, (weight, bias) = seconds(lambda: rival(x, y, args.n_selected, args.alpha))
        ours.append(time_ours)
        theirs.append(time_theirs)
        worst = max(worst, worst_difference(fitted, weight, bias))
        worst_prediction = max(worst_prediction, float(np.abs(fitted.predict(x) - (x @ weight + bias)).max()))
        print(f"repeat {repeat + 1}: {time_ours:.2f} s against {time_theirs:.2f} s", file=sys.stderr)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "benchmark": "ridge",
        "n_trials": args.n_trials,
        "n_voxels": args.n_voxels,
        "n_targets": args.n_targets,
        "n_selected": args.n_selected,
        "alpha": args.alpha,
        "threads": threads,
        "repeats": args.repeats,
        "seconds": {"minddiffuser": float(np.median(ours)), "fastl2lir": float(np.median(theirs))},
        "ratio": float(np.median(ratios)),
        "max_abs_difference": {"weights": worst, "predictions": worst_prediction},
    }


def table(found: dict[str, Any]) -> str:
    job = (
        f"{found['n_trials']} trials, {found['n_voxels']} voxels, {found['n_targets']} targets, "
        f"n = {found['n_selected']}, alpha = {found['alpha']}, {found['threads']} threads, "
        f"median of {found['repeats']}"
    )
    per_target = {name: value / found["n_targets"] * 1e3 for name, value in found["seconds"].items()}
    rows = [f"{name:<14}{found['seconds'][name]:>10.2f}{per_target[name]:>14.3f}" for name in found["seconds"]]
    differences = found["max_abs_difference"]
    return "\n".join(
        [
            job,
            f"{'solver':<14}{'seconds':>10}{'ms / target':>14}",
            *rows,
            f"ratio {found['ratio']:.1f}; largest difference: weights {differences['weights']:.1e}, "
            f"predictions {differences['predictions']:.1e}",
            "(FastL2LiR keeps BLAS to one thread in its loop over targets; its matrix products use all.)",
        ]
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-trials", type=int, default=1200)
    parser.add_argument("--n-voxels", type=int, default=2000)
    parser.add_argument("--n-targets", type=int, default=10_000)
    parser.add_argument("--n-selected", type=int, default=350)
    parser.add_argument("--alpha", type=float, default=0.15)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of our solver (default: all usable)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def main() -> None:
    args = parser().parse_args()
    found = measure(args)
    print(json.dumps(found) if args.json else table(found))


if __name__ == "__main__":
    main()
