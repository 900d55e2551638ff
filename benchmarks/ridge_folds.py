"""One fold of a ridge from every value of a trial: predicted without weights, and by weights, in turn.

python benchmarks/ridge_folds.py [--shape 63 100] [--n-trials 1200] [--n-targets 9360] [--repeats 3] [--json]

A fifth of the trials is held out. CPU seconds of one thread, and the largest difference of a target's correlation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

from minddiffuser.training.decoders.ridge import Ridge
from minddiffuser.training.selection import HeldOut, Trials
from minddiffuser.training.solvers.workers import single_threaded_blas


class Weighing(Ridge):
    """The same decoder by its weights."""

    def predictor(self, responses: Any, others: Any, **_options: Any) -> None:
        return None


def measure(args: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(args.seed)
    responses = rng.standard_normal((args.n_trials, *args.shape)).astype(np.float32)
    features = rng.standard_normal((args.n_trials, args.n_targets)).astype(np.float32)
    trials, held_out = Trials(responses, np.arange(args.n_trials)), np.arange(args.n_trials) < args.n_trials // 5
    seconds: dict[str, list[float]] = {"without_weights": [], "by_weights": []}
    scores = {}
    with single_threaded_blas():
        for _ in range(args.repeats):
            for name, kind in (("without_weights", Ridge), ("by_weights", Weighing)):
                fold = HeldOut(0, trials, held_out)
                decoder = kind(n_selected=responses[0].size, alpha=args.alpha)
                started = time.process_time()
                scores[name] = fold.score(features, decoder, 1, lambda _done, _of: None)
                seconds[name].append(time.process_time() - started)
    ratios = [slow / fast for fast, slow in zip(*seconds.values(), strict=True)]
    return {
        "benchmark": "ridge_folds",
        **{name: getattr(args, name) for name in ("shape", "n_trials", "n_targets", "alpha", "repeats")},
        "seconds": {name: statistics.median(found) for name, found in seconds.items()},
        "ratio": statistics.median(ratios),
        "largest_difference": float(np.abs(scores["without_weights"] - scores["by_weights"]).max()),
    }


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", default=[63, 100], help="of a trial's responses")
    parser.add_argument("--n-trials", type=int, default=1200)
    parser.add_argument("--n-targets", type=int, default=9360)
    parser.add_argument("--alpha", type=float, default=1500.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of two lines")
    return parser


def main() -> None:
    args = parser().parse_args()
    found = measure(args)
    if args.json:
        print(json.dumps(found))
        return
    fast, slow = found["seconds"].values()
    print(f"without weights {fast:.2f} s, by weights {slow:.2f} s: {found['ratio']:.1f} times")
    print(f"largest difference of a correlation {found['largest_difference']:.1e}")


if __name__ == "__main__":
    main()
