"""Make what reconstruction needs: simulated subjects, fitted decoders, the tiny world's models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ..runtime.command import DONE, SOME_SKIPPED, Parser, add_command, count, program, run_command, tell
from ..runtime.errors import InputError
from ..runtime.features import TARGETS
from .concept_options import add_concept_options, with_concepts
from .datasets.command import add_prepare
from .decoders import DECODERS
from .decoders.base import check_options, make_decoder, options_of
from .decoders.choice import chosen_decoders, chosen_options
from .decoders.ridge import BY_CROSS_VALIDATION
from .experiments.command import add_experiment
from .leaks import LEAKS
from .model_options import add_models, open_models
from .simulate.command import add_simulate
from .split_options import add_split_options, cluster_settings

PROG = "md-train"
_EXTRAS = (
    dict.fromkeys(("torch", "torchvision", "diffusers", "transformers", "open_clip", "scipy", "tokenizers"), "train")
    | dict.fromkeys(("mne", "h5py", "nibabel", "pyxdf"), "data")
    | {"matplotlib": "figures"}
)
_FIT_EXAMPLE = """
example (offline):
  md-train simulate fmri --out data --seed 7
  md-train fit data --models tiny --out checkpoint
  md-train fit data --models tiny --out strict --decoder-option alpha=100 --decoder-option latent.n_selected=500
  md-train fit data --models tiny --out network --decoder mlp --decoder-option hidden=256 --decoder-option epochs=100

At the end it prints a table of how well each feature is decoded and saves it in CHECKPOINT (scores.json, scores.svg).
To resume a fit that was stopped, run the same command again.
"""
_WORLD_EXAMPLE = """
example (offline; hours on two CPU cores, an hour on a GPU):
  md-train world --out world
  md-train world --out poor_world --effort 0.01

To resume a training that was stopped, run the same command again.
"""


def parser() -> Parser:
    """The command line of ``md-train``."""
    top, commands = program(PROG, __doc__, _FIT_EXAMPLE)
    add_simulate(commands)
    add_prepare(commands)
    _add_fit(commands)
    _add_world(commands)
    add_experiment(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run_command(
        PROG,
        parser,
        argv,
        interrupted="run the same command again",
        out_of_memory="give a smaller --batch-size (md-train prepare: a smaller --memory)",
        extras=_EXTRAS,
    )


def _add_fit(commands: Any) -> None:
    fit = add_command(
        commands,
        "fit",
        _fit,
        help="fit decoders to a subject",
        description="Fit normalisers, decoders and the mask of trusted structure, and write a checkpoint.",
        epilog=_FIT_EXAMPLE,
    )
    fit.add_argument("data", type=Path, metavar="DATA", help="data folder")
    fit.add_argument("--out", type=Path, required=True, metavar="CHECKPOINT", help="checkpoint folder to write")
    fit.add_argument("--dataset", default="folder", metavar="KIND", help="kind of data set (default: %(default)s)")
    fit.add_argument(
        "--stimuli-root",
        type=Path,
        metavar="DIR",
        help="folder of the pictures, for a data folder that only names them (default: the one it states)",
    )
    fit.add_argument(
        "--layers",
        choices=("reference", "paper"),
        default="reference",
        help="CLIP blocks whose outputs are the structure: 1 to 6, or 2, 4, ... 12 (default: %(default)s)",
    )
    fit.add_argument("--preset", action=_Renamed, help=argparse.SUPPRESS)
    fit.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for computed features (default: beside CHECKPOINT)"
    )
    fit.add_argument(
        "--rois",
        type=_names,
        metavar="A,B",
        help="fMRI: fit to the voxels of these rois or groups alone, such as LVC; a run takes them from the whole "
        "responses by itself (default: all voxels)",
    )
    fit.add_argument("--without-rois", type=_names, metavar="A,B", help="fMRI: leave the voxels of these rois out")
    fit.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all)")
    fit.add_argument(
        "--allow-leak",
        choices=tuple(LEAKS),
        metavar="NAME",
        help="let something of the test trials into the fit on purpose, label the checkpoint and all that is made of "
        "it, fit a clean one into CHECKPOINT-clean, and print what the leak adds: %(choices)s",
    )
    add_models(fit)
    add_split_options(fit)
    _add_decoders(fit)
    add_concept_options(fit)
    _add_selection(fit)


def _add_decoders(fit: Any) -> None:
    decoders = fit.add_argument_group("decoders (the ridge's defaults are the paper's)")
    kinds = "; ".join(f"{name} (options: {', '.join(options_of(name)) or 'none'})" for name in sorted(DECODERS))
    decoders.add_argument(
        "--decoder",
        action="append",
        default=[],
        metavar="[FEATURE=]KIND[:reference]",
        help=f"kind of decoder, for all features or for one; repeatable: {kinds}. KIND:reference is the published form "
        "where that has parts without effect (default: ridge)",
    )
    decoders.add_argument(
        "--decoder-option",
        action="append",
        default=[],
        type=_option,
        metavar="[FEATURE.]NAME=VALUE",
        help="an option of the decoder, for all features whose decoder has it or for one; repeatable",
    )
    decoders.add_argument(
        "--shared-trunk",
        action="store_true",
        help="one network for all features whose decoders are networks with the same options, with a head for each",
    )
    decoders.add_argument(
        "--average-repetitions",
        action="store_true",
        help="fit to the mean over each training picture's trials (default: to single trials)",
    )
    decoders.add_argument(
        "--save-every",
        type=count,
        default=10,
        metavar="N",
        help="epochs after which a network's training can be resumed (default: %(default)s)",
    )
    for feature in TARGETS:
        decoders.add_argument(
            f"--n-{feature}",
            type=count,
            metavar="N",
            help=f"the same as {feature}.n_selected=N of the ridge: voxels (values of a trial) per dimension",
        )
        decoders.add_argument(
            f"--alpha-{feature}",
            type=_penalty,
            metavar="A",
            help=f"the same as {feature}.alpha=A of the ridge: the penalty, or cv",
        )


def _add_selection(fit: Any) -> None:
    selection = fit.add_argument_group("selection of trusted structure (Algorithm 1)")
    selection.add_argument("--percent", type=float, metavar="K", help="percentage of each layer to keep (default: 25)")
    selection.add_argument(
        "--absolute", action="store_true", help="rank by absolute correlation, as the reference code"
    )
    selection.add_argument("--n-folds", type=int, metavar="N", help="folds of the cross-validation (default: 5)")
    selection.add_argument(
        "--n-selection", type=count, metavar="N", help="voxels (values of a trial) per dimension in each fold"
    )
    selection.add_argument(
        "--alpha-selection",
        type=_penalty,
        metavar="A",
        help="penalty of the ridge in each fold, or cv (default: the structure's own; with a network, the paper's)",
    )


def _add_world(commands: Any) -> None:
    world = add_command(
        commands,
        "world",
        _world,
        help="train the tiny world's models",
        description="Draw the tiny world's pictures and train its models into a model folder.",
        epilog=_WORLD_EXAMPLE,
    )
    world.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="model folder to write")
    world.add_argument(
        "--work", type=Path, metavar="DIR", help="folder for pictures and training states (default: FOLDER.work)"
    )
    world.add_argument("--part", action="append", metavar="PART", help="train this part only; repeatable")
    world.add_argument(
        "--effort", type=float, default=1.0, metavar="X", help="share of the full training, above 0 to 1 (default: 1)"
    )
    world.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")


def _fit(args: argparse.Namespace) -> int:
    from ..runtime.progress import Phases
    from .datasets.base import open_dataset
    from .fit import check, check_out, fit
    from .leaks.run import check_leak, fit_leak, report_text
    from .split import by_clusters

    settings = fit_settings(args)
    check_out(args.out, settings)
    data = open_dataset(args.dataset, args.data, stimuli_root=args.stimuli_root)
    settings = with_concepts(settings, args, data)
    clusters = cluster_settings(args, data)
    if clusters is None and args.allow_leak is None:
        check(data, args.out, settings)  # before models are opened or downloaded
    elif args.allow_leak is not None:
        check_leak(args.allow_leak, data, args.out, settings)
    models = open_models(args, args.layers, lambda note: tell(PROG, note, DONE))
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    with Phases() as progress:

        def say(line: str) -> None:
            progress.close()  # a line of its own, on a terminal too
            tell(PROG, line, DONE)

        if clusters is not None:
            data, split = by_clusters(data, models, args.out, settings, clusters, progress=progress, say=say)
            settings = replace(settings, split=split)
            check(data, args.out, settings)
        if args.allow_leak is None:
            out, compared = fit(data, models, args.out, settings, progress=progress, say=say), None
        else:
            compared = fit_leak(args.allow_leak, data, models, args.out, settings, progress=progress, say=say)
            out = args.out
    if compared is None:
        _show_scores(out, data.provenance)
    else:
        print(report_text(compared), end="\n\n")
    print(out)
    return _tell_stopped(out)


def _tell_stopped(checkpoint: Path) -> int:
    """Name the networks whose loss became no number; the exit code."""
    from .curves import read_curves

    code = DONE
    for curve in read_curves(checkpoint):
        if curve.stopped is not None:
            line = f"{', '.join(curve.features)}: {curve.stopped}, so that training ended there"
            advice = f"the weights of epoch {curve.epoch} are kept; give a smaller learning_rate"
            code = tell(PROG, f"{line}; {advice}", SOME_SKIPPED)
    return code


def _show_scores(checkpoint: Path, provenance: Any) -> None:
    from .score_table import remark, table, warnings
    from .scores import read_scores

    scores = read_scores(checkpoint)
    if scores is None:
        tell(PROG, f"{checkpoint} was fitted by an earlier release, which did not measure how well it decodes", DONE)
        return
    print(table(scores, remark(provenance)), end="\n\n")
    for line in warnings(scores):
        tell(PROG, line, DONE)


def fit_settings(args: argparse.Namespace) -> Any:
    """The settings of ``md-train fit``: the defaults, with what the user gave."""
    from .selection import SelectionSettings
    from .settings import FitSettings

    names = chosen_decoders(args.decoder)
    chosen = chosen_options(names, args.decoder_option)
    decoders: dict[str, Any] = {}
    for feature, name in names.items():
        kind = name.partition(":")[0]
        decoders[feature] = make_decoder(kind, feature, **{**chosen[feature], **_short_options(args, feature, kind)})
    options = {
        "percent": args.percent,
        "n_folds": args.n_folds,
        "n_selected": args.n_selection,
        "alpha": args.alpha_selection,
    }
    selection = SelectionSettings(absolute=args.absolute, **_without_none(options))
    return FitSettings(
        **decoders,
        selection=selection,
        cache_dir=args.cache,
        batch_size=args.batch_size,
        n_threads=args.threads,
        shared_trunk=args.shared_trunk,
        average_repetitions=args.average_repetitions,
        device=args.device,
        save_every=args.save_every,
        regions=_regions(args),
    )


def _regions(args: argparse.Namespace) -> Any:
    """Whose voxels are used; None for all."""
    from .regions import Regions

    rois, without = args.rois or (), args.without_rois or ()
    if not rois and not without:
        return None
    if args.allow_leak is not None:
        raise InputError("--rois and --without-rois do not go with --allow-leak: leave one of them out")
    return Regions(rois=rois, without=without)


def _short_options(args: argparse.Namespace, feature: str, kind: str) -> dict[str, Any]:
    """The decoder options of one feature that have flags of their own."""
    given = {}
    for flag, name in ((f"n_{feature}", "n_selected"), (f"alpha_{feature}", "alpha")):
        value = getattr(args, flag)
        if value is not None:
            try:
                check_options(kind, {name: value})
            except InputError as error:
                raise InputError(f"--{flag.replace('_', '-')} cannot be used: {error}") from None
            given[name] = value
    return given


def _world(args: argparse.Namespace) -> int:
    from ..runtime.progress import Phases
    from .tinyworld.world import make_world

    with Phases() as progress:
        world = make_world(
            args.out, work=args.work, device=args.device, parts=args.part, effort=args.effort, progress=progress
        )
    print(world)
    return DONE


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class _Renamed(argparse.Action):
    """``--preset`` of earlier releases, a word that means something else in md-reconstruct."""

    def __call__(self, *_given: Any, **_more: Any) -> NoReturn:
        raise InputError("--preset of md-train fit is now called --layers: give --layers reference or --layers paper")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of rois: give names such as V1,V2")
    return names


def _penalty(text: str) -> float | str:
    """A number, or the name of how it is chosen."""
    if text == BY_CROSS_VALIDATION:
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no penalty: give a number, or {BY_CROSS_VALIDATION}") from None


def _option(text: str) -> tuple[str, str, Any]:
    """Read ``[FEATURE.]NAME=VALUE``; a value that is not JSON is taken as text."""
    name, equals, value = text.partition("=")
    feature, dot, option = name.rpartition(".")
    if not equals or not option or (dot and feature not in TARGETS):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an option: give NAME=VALUE, or FEATURE.NAME=VALUE for one of {', '.join(TARGETS)}"
        )
    try:
        return feature, option, json.loads(value)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return feature, option, value


if __name__ == "__main__":
    sys.exit(main())
