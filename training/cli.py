"""Make what reconstruction needs: simulated subjects, fitted decoders, the tiny world's models."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from ..runtime.command import DONE, SOME_SKIPPED, Parser, add_command, count, program, run_command, tell
from ..runtime.errors import InputError
from ..runtime.features import TARGETS
from .concept_options import add_concept_options, with_concepts
from .decoders import DECODERS
from .decoders.base import check_options, make_decoder, options_of
from .decoders.choice import chosen_decoders, chosen_options
from .simulate.brains import BRAINS, DEFAULT_BRAIN
from .simulate.brains.base import MODEL_OPTIONS, Sources, brain_class

PROG = "md-train"
_MODELS: dict[str, str | None] = {"models": "tiny", "clip": None, "device": "auto"}  # unless the user gives others
_EXTRAS = dict.fromkeys(
    ("torch", "torchvision", "diffusers", "transformers", "open_clip", "scipy", "tokenizers"), "train"
)
_SIMULATE_EXAMPLE = """
example (offline, on the tiny world that comes with the package):
  md-train simulate fmri --out data --seed 7
  md-train simulate fmri --out mine --seed 7 --stimuli my_drawings
  md-train simulate fmri --out other --seed 7 --brain clip
"""
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
    simulate = commands.add_parser(
        "simulate",
        help="simulate a subject",
        epilog=_SIMULATE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_fmri(simulate.add_subparsers(dest="modality", required=True, metavar="MODALITY", parser_class=Parser))
    _add_fit(commands)
    _add_world(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run_command(
        PROG,
        parser,
        argv,
        interrupted="run the same command again",
        out_of_memory="give a smaller --batch-size",
        extras=_EXTRAS,
    )


def _add_fmri(modalities: Any) -> None:
    fmri = add_command(
        modalities,
        "fmri",
        _simulate_fmri,
        help="two thousand voxels in eleven visual areas",
        description="Simulate the fMRI responses of one subject to pictures and write a data folder.",
        epilog=_SIMULATE_EXAMPLE,
    )
    fmri.add_argument("--out", type=Path, required=True, metavar="DATA", help="data folder to write")
    fmri.add_argument(
        "--seed", type=int, default=0, metavar="S", help="random seed of pictures, brain and noise (default: 0)"
    )
    kinds = "; ".join(f"{name}: {brain_class(name).made_of}" for name in BRAINS)
    fmri.add_argument(
        "--brain",
        choices=tuple(BRAINS),
        default=DEFAULT_BRAIN,
        help=f"what drives the voxels. {kinds}. --models, --clip and --device are for clip; gabor reads --models "
        "alone, for the labels of --stimuli (default: %(default)s)",
    )
    fmri.add_argument("--n-train", type=int, metavar="N", help="training pictures (default: 1200)")
    fmri.add_argument("--n-test", type=int, metavar="N", help="test pictures (default: 128)")
    fmri.add_argument(
        "--stimuli", type=Path, metavar="DIR", help="your own pictures (PNG, JPEG, WebP, TIFF, BMP) as the test split"
    )
    fmri.add_argument(
        "--snr", type=float, metavar="X", help="signal-to-noise ratio of a single presentation (default: 1)"
    )
    fmri.add_argument(
        "--repetitions", type=int, metavar="R", help="presentations averaged in a test trial, 1 to 3 (default: 3)"
    )
    fmri.add_argument(
        "--train-repetitions",
        type=int,
        metavar="R",
        help="presentations of a training picture, each its own trial (default: 1)",
    )
    fmri.add_argument("--force", action="store_true", help="replace an existing data folder")
    _add_models(fmri)


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
    fit.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all)")
    _add_models(fit)
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
            type=float,
            metavar="A",
            help=f"the same as {feature}.alpha=A of the ridge: the penalty",
        )
    add_concept_options(fit)
    selection = fit.add_argument_group("selection of trusted structure (Algorithm 1)")
    selection.add_argument("--percent", type=float, metavar="K", help="percentage of each layer to keep (default: 25)")
    selection.add_argument(
        "--absolute", action="store_true", help="rank by absolute correlation, as the reference code"
    )
    selection.add_argument("--n-folds", type=int, metavar="N", help="folds of the cross-validation (default: 5)")
    selection.add_argument(
        "--n-selection", type=count, metavar="N", help="voxels (values of a trial) per dimension in each fold"
    )


def _add_models(command: Any) -> None:
    command.add_argument(
        "--models", default=_MODELS["models"], help="tiny, a model folder, or a hub id (default: %(default)s)"
    )
    command.add_argument(
        "--clip", help="open_clip folder, ARCHITECTURE:PRETRAINED or hf-hub:ID (default: the models' own)"
    )
    command.add_argument(
        "--device", default=_MODELS["device"], help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    )
    command.add_argument("--batch-size", type=count, default=32, metavar="N", help="pictures at a time (default: 32)")


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


def _simulate_fmri(args: argparse.Namespace) -> int:
    from ..runtime.progress import Phases
    from .simulate.fmri import FmriSettings
    from .simulate.subject import Showing, check_subject, simulate_subject

    _check_models_are_read(args)
    given = {"snr": args.snr, "test_repetitions": args.repetitions, "train_repetitions": args.train_repetitions}
    settings = FmriSettings(**_without_none(given))
    showing = Showing(**_without_none({"n_train": args.n_train, "n_test": args.n_test, "stimuli": args.stimuli}))
    # Before the models, which take seconds to load or an hour to download.
    check_subject(args.out, showing, seed=args.seed, replace=args.force)
    sources = Sources(
        open_models=lambda: _open_models(args, "reference"),
        model_folder=_model_folder(args.models),
        batch_size=args.batch_size,
    )
    brain = brain_class(args.brain).open(sources, own_pictures=args.stimuli is not None)
    with Phases() as progress:
        data = simulate_subject(
            args.out,
            brain,
            settings,
            showing,
            seed=args.seed,
            replace=args.force,
            progress=progress,
        )
    note = data.provenance["stimuli"]["note"]
    if note is not None:
        tell(PROG, note, DONE)
    _tell_ceilings(data)
    print(data.folder)
    return DONE


def _check_models_are_read(args: argparse.Namespace) -> None:
    """Refuse options about models that would change nothing."""
    reads = brain_class(args.brain).reads(own_pictures=args.stimuli is not None)
    given = [name for name in MODEL_OPTIONS if getattr(args, name) != _MODELS[name]]
    unread = " and ".join(f"--{name}" for name in given if name not in reads)
    if unread:
        raise InputError(f"the {args.brain} brain does not read {unread} here: leave it out, or give --brain clip")


def _tell_ceilings(data: Any) -> None:
    ceilings = ", ".join(f"{float(median(data.noise_ceiling(split))):.2f} in {split}" for split in ("train", "test"))
    tell(PROG, f"median noise ceiling (share of a trial's variance that the stimulus explains): {ceilings}", DONE)


def _fit(args: argparse.Namespace) -> int:
    from ..runtime.progress import Phases
    from .datasets.base import open_dataset
    from .fit import check, check_out, fit

    settings = fit_settings(args)
    check_out(args.out, settings)
    data = open_dataset(args.dataset, args.data, stimuli_root=args.stimuli_root)
    settings = with_concepts(settings, args, data)
    check(data, args.out, settings)  # before models are opened or downloaded
    models = _open_models(args, args.layers)
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    with Phases() as progress:

        def say(line: str) -> None:
            progress.close()  # a line of its own, on a terminal too
            tell(PROG, line, DONE)

        out = fit(data, models, args.out, settings, progress=progress, say=say)
    _show_scores(out, data.provenance)
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
    options = {"percent": args.percent, "n_folds": args.n_folds, "n_selected": args.n_selection}
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
    )


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


def _open_models(args: argparse.Namespace, preset: str) -> Any:
    from ..runtime.models.device import choose_device
    from ..runtime.models.open import load_models

    models = load_models(args.models, clip=args.clip, preset=preset, device=choose_device(args.device))
    for note in models.notes:
        tell(PROG, note, DONE)
    return models


def _model_folder(models: str) -> Path | None:
    """Where models lie that are not a hub id."""
    from ..runtime.models.locate import TINY, locate

    # os.path, not Path: a name that is too long, or may not be looked at, is no folder here; opening models says why.
    return locate(models) if models == TINY or os.path.isdir(models) else None


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class _Renamed(argparse.Action):
    """``--preset`` of earlier releases, a word that means something else in md-reconstruct."""

    def __call__(self, *_given: Any, **_more: Any) -> NoReturn:
        raise InputError("--preset of md-train fit is now called --layers: give --layers reference or --layers paper")


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
