"""Every decoder on every kind of brain signal: what it decodes, and what both stages make of it.

python benchmarks/modalities.py --out DIR --seed S [S ...] [--cells fmri:ridge,eeg:nice] [--n-train 1200] [--n-test 48]
                                [--epochs 40] [--preset single] [--threads 1] [--values DIR] [--table-only]
                                [--json FILE]

Each seed is one simulated person, whose fMRI, EEG and MEG come from the same brain that looks at the same pictures.
Made by md-train simulate, md-train fit and md-reconstruct run, which go on where they were stopped. Values are means
over the test pictures of all seeds; intervals are 95 % of a bootstrap over these pictures, paired where two are
compared. "averaged": test trials are means of 3 (fMRI), 80 (EEG), 12 (MEG) showings; "single": of one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from modality_cells import (
    KINDS,
    Cell,
    Sizes,
    Values,
    cells,
    is_made,
    keep_values,
    kept_values,
    make,
    measure,
    tiny_models,
)

from minddiffuser.runtime.command import Parser, count, guarded
from minddiffuser.runtime.files import write_json
from minddiffuser.runtime.metrics.compare import differences

PROG = "modalities.py"
METRICS = ("pixcorr", "ssim", "place", "overlap", "concept_top1")


def parser() -> Parser:
    top = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    top.add_argument("--out", type=Path, required=True, metavar="DIR", help="subjects, checkpoints and runs, kept")
    top.add_argument("--seed", type=int, nargs="+", required=True, metavar="S", help="simulated people")
    top.add_argument(
        "--cells", type=lambda text: text.split(","), metavar="A,B", help="modality:decoder (default: all)"
    )
    top.add_argument("--n-train", type=count, default=1200, metavar="N", help="training pictures")
    top.add_argument("--n-test", type=count, default=48, metavar="N", help="test pictures")
    top.add_argument("--epochs", type=count, default=40, metavar="N", help="of networks, at most")
    top.add_argument("--preset", default="single", help="of stage 2")
    top.add_argument("--threads", type=count, default=1, metavar="N", help="CPU threads")
    top.add_argument("--values", type=Path, metavar="DIR", help="what was measured of cells, kept and taken from here")
    top.add_argument("--table-only", action="store_true", help="make nothing, measure what is there")
    top.add_argument("--json", type=Path, metavar="FILE", help="write the numbers for programs")
    return top


def table(measured: Mapping[tuple[str, str, str], Sequence[Values]]) -> list[dict[str, Any]]:
    """Rows of (modality, decoder, kind of trials): means, differences with intervals, chance where there is one."""
    rows: list[dict[str, Any]] = []
    for (modality, decoder, kind), values in measured.items():
        found = _joined([value.found for value in values])
        chance = _joined([value.chance for value in values])
        row: dict[str, Any] = {"modality": modality, "decoder": decoder, "trials": kind, "n_pictures": 0}
        row["n_pictures"] = len(next(iter(found.values())))
        row["means"] = {name: float(array.mean()) for name, array in found.items()}
        row["chance"] = {name: float(array.mean()) for name, array in chance.items()}
        row["minus_chance"] = _minus(chance, {name: found[name] for name in chance})
        ends = {"stage2_minus_stage1": ("stage1", "stage2"), "stage2_minus_shuffled": ("shuffled", "stage2")}
        for name, (first, second) in ends.items():
            names = [metric for metric in METRICS if f"{metric}.{first}" in found]
            if not names:  # a run without controls
                continue
            row[name] = _minus(
                {metric: found[f"{metric}.{first}"] for metric in names},
                {metric: found[f"{metric}.{second}"] for metric in names},
            )
        rows.append(row)
    for row in rows:
        base = measured.get((row["modality"], "ridge", row["trials"]))
        own = measured[row["modality"], row["decoder"], row["trials"]]
        if row["decoder"] != "ridge" and base is not None and len(base) == len(own):
            a, b = (_joined([value.found for value in values]) for values in (base, own))
            row["minus_ridge"] = _minus(a, b)
    return rows


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _minus(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return dict(differences(first, second, np.random.default_rng(0)))


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people."""
    lines = [
        f"{'signal':<6}{'decoder':<14}{'trials':<10}{'structure':>26}{'latent':>26}{'concept':>26}{'chance':>8}"
        + "".join(f"{name:>30}" for name in ("PixCorr 1 / 2 / shuf / orac", "SSIM", "classified concept"))
    ]
    for row in rows:
        parts = [f"{row['modality']:<6}{row['decoder']:<14}{row['trials']:<10}"]
        for name in ("structure", "latent", "concept"):
            parts.append(f"{row['means'][name]:>8.3f} {_interval(row['minus_chance'][name]):>17}")
        parts.append(f"{row['chance']['concept']:>8.3f}")
        for metric in ("pixcorr", "ssim", "concept_top1"):
            means = [row["means"].get(f"{metric}.{end}") for end in ("stage1", "stage2", "shuffled", "oracle")]
            parts.append(f"{' / '.join('-' if mean is None else f'{mean:.3f}' for mean in means):>30}")
        lines.append("".join(parts))
    compared = [row for row in rows if "minus_ridge" in row]
    if compared:
        lines += [
            "",
            f"{'minus the ridge':<30}" + "".join(f"{name:>26}" for name in ("structure", "latent", "concept")),
        ]
    for row in compared:
        found = row["minus_ridge"]
        lines.append(
            f"{row['modality']:<6}{row['decoder']:<14}{row['trials']:<10}"
            + "".join(f"{_interval(found[name], signed=True):>26}" for name in ("structure", "latent", "concept"))
        )
    return "\n".join([*lines, "", "after a value: its difference from chance, 95 % interval"])


def _interval(found: Mapping[str, Any], *, signed: bool = False) -> str:
    start = f"{found['difference']:+.3f} " if signed else ""
    ends = found["ci95"]
    return start if ends is None else f"{start}[{ends[0]:+.3f}, {ends[1]:+.3f}]"


def run(args: argparse.Namespace) -> int:
    sizes = Sizes(
        out=args.out,
        n_train=args.n_train,
        n_test=args.n_test,
        epochs=args.epochs,
        preset=args.preset,
        threads=args.threads,
    )
    measured: dict[tuple[str, str, str], list[Values]] = {}
    wanted: list[Cell] = cells(args.seed, args.cells)
    for number, cell in enumerate(wanted, 1):
        values = {kind: kept_values(args.values, cell, sizes, kind) for kind in KINDS} if args.values else {}
        if any(values.get(kind) is None for kind in KINDS):
            print(f"{PROG}: cell {number}/{len(wanted)}: {cell}", file=sys.stderr, flush=True)
            if not args.table_only:
                make(cell, sizes)
            elif not is_made(cell, sizes):
                print(f"{PROG}: left out, it has not been made", file=sys.stderr)
                continue
            values = {kind: measure(cell, sizes, kind, tiny_models()) for kind in KINDS}
            if args.values is not None:
                for kind, found in values.items():
                    keep_values(args.values, cell, sizes, kind, found)
        for kind, found in values.items():
            assert found is not None  # measured above
            measured.setdefault((cell.modality, cell.decoder, kind), []).append(found)
    rows = table(measured)
    print(text(rows))
    if args.json is not None:
        write_json(args.json, {"benchmark": "modalities", "seeds": args.seed, "rows": rows})
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(
        PROG,
        lambda: run(parser().parse_args(argv)),
        interrupted="the same command goes on from here",
        out_of_memory="close other programs, and run the same command again",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
