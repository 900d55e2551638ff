"""The options of ``md-reconstruct run``, group by group."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..command import count
from ..engines.here import BACKENDS
from ..errors import InputError
from ..refine import REFINERS
from ..refine.choose import DEFAULT, chosen, option, owners
from ..refine.settings import PRESETS
from ..sampling import SAMPLINGS
from .without import WITHOUT

_PARAMS = {"latent": ("latent",), "context": ("context",), "both": ("latent", "context")}


def _steps(text: str) -> int | None:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'all' nor a whole number")
    return None if text == "all" else int(text)


def _strength(text: str) -> float | None:
    try:
        return None if text == "stage1" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'stage1' nor a number") from None


def _params(text: str) -> tuple[str, ...]:
    if text not in _PARAMS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_PARAMS)}")
    return _PARAMS[text]


# What argparse needs for each setting of stage 2 that has an option; whose setting it is decides the option's group.
_REFINEMENT: dict[str, Mapping[str, Any]] = {
    "semantic_weight": {"type": float, "metavar": "X", "help": "weight of the semantic loss (lambda of eq. 6)"},
    "seed": {"type": int, "metavar": "S", "help": "seed of the start noise and the controls"},
    "candidates": {
        "type": count,
        "metavar": "N",
        "help": "start noises per trial; the picture with the lowest loss is kept",
    },
    "budget": {
        "type": float,
        "metavar": "N",
        "help": "as many candidates as so many UNet forward passes per trial allow, of stage 2 alone: decoding, stage "
        "1 and the controls, each of which costs as much again, are not counted",
    },
    "deadline": {
        "type": float,
        "metavar": "SECONDS",
        "help": "as many candidates as so many seconds per trial allow, for what --budget counts: measured once, then "
        "kept in the run folder",
    },
    "start_steps": {
        "type": int,
        "metavar": "N",
        "help": "steps of the decoded latent itself down the loss before it is noised",
    },
    "start_step_size": {
        "type": float,
        "metavar": "X",
        "help": "how far the first of them goes, in units of the latent",
    },
    "step_size": {
        "type": float,
        "metavar": "X",
        "help": "how far each guided step goes, in units of the noise that is left",
    },
    "guided_share": {
        "type": float,
        "metavar": "X",
        "help": "share of the denoising steps that is guided, from the first one on",
    },
    "finish_steps": {
        "type": int,
        "metavar": "N",
        "help": "steps of the kept picture's latent down the loss after sampling",
    },
    "finish_step_size": {
        "type": float,
        "metavar": "X",
        "help": "how far the first of them goes, in units of the latent",
    },
    "finish_smoothing": {
        "type": float,
        "metavar": "PIXELS",
        "help": "blur of their gradient, in pixels of the latent",
    },
    "finish_semantic_share": {
        "type": float,
        "metavar": "X",
        "help": "share of the semantic loss's weight that acts in them",
    },
    "n_steps": {"type": int, "metavar": "N", "help": "steps of the sampler's grid, of which --strength is taken"},
    "strength": {
        "type": _strength,
        "metavar": "X",
        "help": "share of the grid's steps that the decoded latent goes through, after as much noise; 'stage1' samples "
        "as stage 1 does",
    },
    "jacobian": {
        "action": "store_const",
        "const": False,
        "help": "leave out the way back through the UNet: cheaper, and much less effect from stage 1's noise",
    },
    "steps": {"type": int, "metavar": "N", "help": "iterations"},
    "learning_rate": {"type": float, "metavar": "X", "help": "learning rate"},
    "backprop_steps": {
        "type": _steps,
        "metavar": "K",
        "help": "gradients through the last K denoising steps, or 'all'",
    },
    "params": {"type": _params, "metavar": f"{{{','.join(_PARAMS)}}}", "help": "parameters to optimise"},
}


def add_options(run: Any) -> None:
    """Add all of them to the command's parser."""
    _add_inputs(run)
    _add_stages(run)
    _add_comparisons(run)
    _add_refinement(run)
    _add_engines(run)
    _add_computing(run)
    run.add_argument("--note", action="append", default=[], metavar="TEXT", help="a line for the report; repeatable")


def _add_inputs(run: Any) -> None:
    run.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="folder of md-train fit, or a bundle of md-export bundle"
    )
    run.add_argument(
        "responses",
        type=Path,
        metavar="RESPONSES",
        help="data folder (its test split), or .safetensors, .npz or .npy with one entry per trial",
    )
    run.add_argument("--models", help="tiny, a model folder, or a hub id (default: tiny; a bundle has its own)")
    run.add_argument("--clip", help="open_clip folder, ARCHITECTURE:PRETRAINED or hf-hub:ID (default: the models' own)")
    run.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder: new, empty, or to be resumed")
    run.add_argument(
        "--stimuli", type=Path, metavar="DIR", help="the stimuli: one picture per trial, named by its id or in order"
    )
    run.add_argument(
        "--stimuli-root",
        type=Path,
        metavar="DIR",
        help="folder of the pictures that a data folder refers to (default: the root that it states)",
    )
    run.add_argument(
        "--trial-ids",
        type=Path,
        metavar="FILE",
        help="the trials' ids, one per line or a JSON list; a trial's noise depends on its id (default: those of the "
        "data folder, the names of a file's arrays, or the rows)",
    )
    run.add_argument(
        "--skip-trials",
        type=_names,
        action="extend",
        default=[],
        metavar="TRIAL,...",
        help="leave these out, by id, or by row from 0 where no id is a number; repeatable. What is left out is "
        "part of the run's settings",
    )


def _add_stages(run: Any) -> None:
    run.add_argument("--stage", type=int, choices=(1, 2), default=2, help="where to stop (default: %(default)s)")
    run.add_argument(
        "--stage1",
        choices=tuple(SAMPLINGS),
        default="published",
        help="how stage 1 samples. published: as the paper's code, from a latent noised to step 37 of 50; near: from "
        "step 8 of 25, which keeps more of the decoded latent (default: %(default)s)",
    )
    run.add_argument(
        "--without",
        action="append",
        choices=WITHOUT,
        default=[],
        help="an ablation, repeatable: no decoded context (the empty caption's), no decoded latent (from noise alone), "
        "or no decoded structure (stage 1 alone)",
    )


def _add_comparisons(run: Any) -> None:
    run.add_argument(
        "--controls",
        metavar="NAME,...",
        default="none",
        help="what to compare with: stage 2 with the features of other trials (shuffled) or of the stimuli (oracle) as "
        "target, the generator without the brain (generator), the training picture nearest to what was decoded "
        "(nearest); both is the first two, all is all four (default: %(default)s)",
    )
    run.add_argument(
        "--train-data",
        type=Path,
        metavar="DATA",
        help="data folder of the training pictures, for the control nearest (default: RESPONSES)",
    )
    run.add_argument(
        "--metrics",
        default="default",
        metavar="NAME,...",
        help="what pictures are compared by: names and groups. default: what needs no other weights; standard: the "
        "eight columns of published tables; mindeye1, mindeye2, brain_diffuser: as those computed them; decoded: "
        "retrieval and dimension of the decoded features; all (default: %(default)s)",
    )
    run.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder with the weights of the networks that metrics need; PyTorch's cache is looked through too",
    )
    run.add_argument(
        "--download-weights", action="store_true", help="download weights that are in neither (default: do without)"
    )


def _add_refinement(run: Any) -> None:
    stage2 = run.add_argument_group("stage 2 (options that are left out come from the preset)")
    stage2.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default=DEFAULT,
        help="settings to start from: this package's, one start noise and fewer steps (for live use), the paper's, or "
        "the published code's; the layers come from the checkpoint (md-train fit --layers) (default: %(default)s)",
    )
    stage2.add_argument(
        "--refiner",
        choices=tuple(REFINERS),
        help="guided: the structural gradient inside the sampler; adam: the paper's, on the latent and the context "
        "that sampling begins with (default: the preset's)",
    )
    stage2.add_argument(
        "--percent",
        type=float,
        metavar="K",
        help="trust only the best K %% of each structural layer, at most what the checkpoint keeps (default: that)",
    )
    groups = {refiner: run.add_argument_group(f"refiner {refiner}") for refiner in REFINERS}
    belongs = owners()
    for name, choices in _REFINEMENT.items():
        group = stage2 if len(belongs[name]) == len(REFINERS) else groups[belongs[name][0]]
        # What is left out is no attribute at all: None is a value of some.
        group.add_argument(option(name), dest=name, default=argparse.SUPPRESS, **choices)
    groups["adam"].add_argument(
        "--checkpointing",
        choices=("auto", "on", "off"),
        default="auto",
        help="recompute each step's activations for the gradient: slower by a third, the same pictures. off keeps "
        "them, and memory grows with K and the batch (3.4 GB measured for 16 pictures of 64 px, all 35 steps); auto "
        "is off for pictures up to 128 px (default: %(default)s)",
    )


def _add_engines(run: Any) -> None:
    engines = run.add_argument_group("a bundle's engines")
    engines.add_argument(
        "--backend", choices=("auto", *BACKENDS, "pytorch"), help="engine to use, or pytorch (default: auto)"
    )
    engines.add_argument(
        "--precision", choices=("auto", "fp32", "fp16", "bf16", "int8"), help="precision of the engines (default: auto)"
    )
    engines.add_argument("--gpu-memory", type=count, metavar="MIB", help="limit of GPU memory per graph (ort-cuda)")
    engines.add_argument(
        "--engine-cache", type=Path, metavar="DIR", help="folder where tensorrt-rtx keeps compiled kernels"
    )
    engines.add_argument(
        "--trust-plans",
        action="store_true",
        help="run a bundle's TensorRT plans even if they were neither built here nor trusted (md-export trust): plans "
        "are native code; needs an explicit --backend",
    )
    engines.add_argument(
        "--memory",
        choices=("fast", "low"),
        help="on the CPU: low keeps a single copy of the weights and frees everything else after each run (default: "
        "fast)",
    )


def _add_computing(run: Any) -> None:
    run.add_argument("--batch-size", type=count, metavar="N", help="trials per batch (default: by picture size)")
    run.add_argument(
        "--device", default="auto", help="PyTorch's device: auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    )
    run.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of PyTorch's networks (default: %(default)s)",
    )
    run.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all usable cores)")


def refinement(args: argparse.Namespace) -> Any:
    """The settings of stage 2 that were asked for.

    Raises
    ------
    InputError
        They do not go together.
    """
    changes = {name: getattr(args, name) for name in _REFINEMENT if hasattr(args, name)}
    if changes.get("strength", 1) is None:  # stage 1's, which has a grid of its own
        if "n_steps" in changes:
            raise InputError("--strength stage1 takes stage 1's own grid: leave --n-steps out, or give a number")
        changes["n_steps"] = None
    return chosen(args.preset, args.refiner, changes, command=True)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of trials: give such as 3,7")
    return names
