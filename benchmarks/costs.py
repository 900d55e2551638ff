"""What both stages cost in UNet forward passes, for the tiny world and for Stable Diffusion 1.4 with CLIP ViT-B/32.

python benchmarks/costs.py [--json] [--time [--repeats 3] [--threads 2]]

Counted by shapes: nothing is run or downloaded. With --time one call of each kind is also run on the CPU for both
worlds, with random weights for the larger one, and a third way, "autograd, timed", is in seconds over
those of a UNet forward pass of the same run. Autograd is PyTorch; engines are a bundle's graphs, which compute a step
again on their way back, and the semantic term always: of a bundle that has it. Whole pictures are of one trial with the
published sampling: stage 1, and beside it the refiner `guided` with the presets `default` and `single`, each with its
semantic term and its steps before and after sampling; and the refiner `adam` with the paper's 60 updates, without that
term, through all 35 steps (activations kept, or a checkpoint per step) and on the final latent.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from call_times import timed_costs
from full_size import random_models

from minddiffuser.export.bundle.flops import all_flops
from minddiffuser.runtime.backends.flops import autograd_costs, without_data
from minddiffuser.runtime.command import count
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine.costs import Costs, adam_cost, engine_costs, guided_cost, stage1_cost
from minddiffuser.runtime.refine.settings import PRESETS
from minddiffuser.runtime.sampling import Sampling

TINY, FULL = "tiny world", "SD 1.4"
AUTOGRAD, ENGINES, TIMED = "autograd", "engines", "autograd, timed"
CALLS = ("predict", "back_only", "pull_back", "decode", "structural", "with_semantic", "structural_forward")


@dataclass(frozen=True)
class Row:
    """Costs of one world computed in one way: of each call, and of whole pictures, in UNet forward passes."""

    world: str
    way: str
    calls: Costs
    pictures: dict[str, float]


def rows() -> list[Row]:
    """Count everything, which takes some seconds."""
    found = []
    for world, models in ((TINY, load_models("tiny")), (FULL, random_models("meta"))):
        for way, costs in ways(models).items():
            found.append(Row(world, way, costs, pictures(costs)))
    return found


def timed_rows(repeats: int) -> list[Row]:
    """Time a call of each kind, of one world after the other."""
    found = []
    for world, load in ((TINY, lambda: load_models("tiny")), (FULL, lambda: random_models("cpu"))):
        models = load()
        for part in (models.unet, models.vae, models.clip):
            part.requires_grad_(False)
        costs = timed_costs(models, autograd_costs(models), repeats=repeats)
        found.append(Row(world, TIMED, costs, pictures(costs)))
    return found


def ways(models: Models) -> dict[str, Costs]:
    """Costs of these networks by autograd and on engines."""
    return {
        AUTOGRAD: autograd_costs(models),
        ENGINES: engine_costs(all_flops(without_data(models), semantic=True)),
    }


def pictures(costs: Costs) -> dict[str, float]:
    """Costs of a picture of stage 1, and of what refinement adds to it."""
    n_reverse, steps = Sampling().n_reverse, PRESETS["paper"].steps
    return {
        "stage 1": stage1_cost(costs, n_reverse),
        **{f"guided, {name}": guided_cost(costs, PRESETS[name], Sampling()) for name in ("default", "single")},
        "adam, activations kept": adam_cost(costs, steps=steps, n_reverse=n_reverse),
        "adam, checkpoints": adam_cost(costs, steps=steps, n_reverse=n_reverse, checkpointing=True),
        "adam, final latent": adam_cost(costs, steps=steps, n_reverse=n_reverse, backprop_steps=0),
    }


def table(found: Sequence[Row]) -> str:
    """Two tables as text: one of calls, one of pictures."""
    calls = [[row.world, row.way, *(f"{getattr(row.calls, name):.3f}" for name in CALLS), _unit(row)] for row in found]
    whole = [[row.world, row.way, *(f"{cost:,.1f}" for cost in row.pictures.values())] for row in found]
    heads = ["world", "way", *CALLS, "unit, GFLOP"], ["world", "way", *found[0].pictures]
    return "\n\n".join(_aligned([head, *lines]) for head, lines in zip(heads, (calls, whole), strict=True))


def _unit(row: Row) -> str:
    return f"{row.calls.reference_flops / 1e9:.3f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="numbers for programs")
    parser.add_argument("--time", action="store_true", help="time the calls too")
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="calls of each (default: %(default)s)")
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    found = rows()
    if args.time:
        before = torch.get_num_threads()
        torch.set_num_threads(args.threads)
        found += timed_rows(args.repeats)
        torch.set_num_threads(before)
    if args.json:
        json.dump([as_json(row) for row in found], sys.stdout, indent=2)
        print()
    else:
        print(table(found))
    return 0


def as_json(row: Row) -> dict[str, object]:
    calls = {name: getattr(row.calls, name) for name in CALLS}
    unit = {"reference_flops": row.calls.reference_flops}
    return {"world": row.world, "way": row.way, **unit, "calls": calls, "pictures": row.pictures}


if __name__ == "__main__":
    sys.exit(main())
